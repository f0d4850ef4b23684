"""Random sparse tensors and their dense twins."""

from collections.abc import Callable

import pytest
import torch

from gena3d_core.nn.sparse import SparseTensor

Maker = Callable[..., SparseTensor]


def make_sparse(
    channels: int,
    *,
    grid: tuple[int, int, int] = (6, 7, 5),
    batch: int = 2,
    fill: float = 0.3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> SparseTensor:
    """Cells drawn with probability `fill` (at least one per sample), in random order inside each sample."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for b in range(batch):
        occupied = torch.rand(grid, generator=rng) < fill
        occupied[tuple(int(torch.randint(n, (), generator=rng)) for n in grid)] = True
        cells = occupied.nonzero()
        cells = cells[torch.randperm(len(cells), generator=rng)]
        rows.append(torch.nn.functional.pad(cells, (1, 0), value=b))
    coords = torch.cat(rows).int()
    return SparseTensor.create(coords, torch.randn(len(coords), channels, generator=rng).to(dtype))


@pytest.fixture(scope="session")
def make() -> Maker:
    return make_sparse


@pytest.fixture(scope="session")
def dense() -> Callable[[SparseTensor, tuple[int, int, int]], torch.Tensor]:
    """(B, C, D1, D2, D3) grid with zeros in empty cells."""

    def to_dense(x: SparseTensor, grid: tuple[int, int, int]) -> torch.Tensor:
        found = x.feats.new_zeros(x.batch, *grid, x.feats.shape[1])
        return found.index_put(tuple(x.coords.long().unbind(1)), x.feats).movedim(-1, 1)

    return to_dense
