"""Latents of objects and partial clouds, encoded ahead: `latents_KEY/shard_NNNNN/` beside the shards.

KEY is a hash of the encoder's weights. A folder holds `targets.npy` and `clouds.npy`, (n, V, C, r, r, r) float16 of n
examples in V upright symmetries (`symmetries.ORDER`), and `source.json`; it appears whole or not at all, so that an
interrupted run goes on with the next shard. Scenes have no clouds.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from gena3d_core.errors import CancelledError, DataFormatError
from gena3d_core.io.atomic import write_folder
from gena3d_core.types import Float32Array

from .array_folders import INDEX
from .datasets import ExampleRef, structure_batch

TARGETS, CLOUDS, SOURCE = "targets.npy", "clouds.npy", "source.json"
ENCODED_AT_ONCE = 16
log = logging.getLogger("gena3d")


@dataclass
class LatentStore:
    """Reader of the latents of shards."""

    folder: Path
    _open: dict[tuple[str, str], Any] = field(default_factory=dict)

    def take(self, examples: Sequence[ExampleRef], variants: Sequence[int]) -> tuple[Float32Array, Float32Array]:
        """Latents (B, C, r, r, r) of the objects and of the clouds."""
        targets, clouds = [], []
        for e, variant in zip(examples, variants, strict=True):
            targets.append(self._array(e.shard.folder.name, TARGETS)[e.row, variant])
            clouds.append(self._array(e.shard.folder.name, CLOUDS)[e.row, variant])
        return np.stack(targets).astype(np.float32), np.stack(clouds).astype(np.float32)

    def targets(self, shard: str, rows: Sequence[int], variant: int = 0) -> Float32Array:
        """Latents (B, C, r, r, r) of the objects `rows` of the shard of that name in one of their symmetries."""
        return np.asarray(self._array(shard, TARGETS)[list(rows), variant], dtype=np.float32)

    def _array(self, shard: str, name: str) -> Any:
        if (shard, name) not in self._open:
            path = self.folder / shard / name
            try:
                self._open[shard, name] = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise DataFormatError(f"{path.parent}: no readable latents ({error}); delete the folder") from error
        return self._open[shard, name]


class Encodable(Protocol):
    """A shard as far as latents are concerned: `Shard`, or another set of objects in grids."""

    @property
    def folder(self) -> Path: ...

    @property
    def occupancy(self) -> Any:
        """(n, R, R, R) uint8."""
        ...

    def __len__(self) -> int: ...


def ensure_latents(
    encoder: Any,
    shards: Sequence[Encodable],
    variants: int,
    device: torch.device,
    *,
    clouds: bool = True,
    rank: int = 0,
    world: int = 1,
    precision: torch.dtype = torch.bfloat16,
    cancelled: Callable[[], bool] | None = None,
) -> LatentStore:
    """Encode what is not encoded yet of `shards`, whose folders lie side by side; process `rank` does its share.

    clouds: whether the shards hold partial clouds, which are encoded too. Raises `CancelledError` between shards.
    """
    root = shards[0].folder.parent / f"latents_{encoder_key(encoder)}"
    waiting = [shard for shard in shards if not _is_current(root / shard.folder.name, shard, variants)]
    for number, shard in enumerate(waiting[rank::world]):
        if cancelled is not None and cancelled():
            raise CancelledError(f"stopped after {number} of {len(waiting)} shards of latents; start again to go on")
        _encode_shard(encoder, shard, root / shard.folder.name, variants, device, precision, clouds)
        if number % 10 == 0:
            log.info("latents: %d of %d shards", number + 1, len(waiting[rank::world]))
    return LatentStore(root)


def encoder_key(encoder: Any) -> str:
    """Twelve hexadecimal digits of the weights' hash."""
    digest = hashlib.sha256(repr(encoder.config).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:12]


@torch.no_grad()
def _encode_shard(
    encoder: Any,
    shard: Any,
    folder: Path,
    variants: int,
    device: torch.device,
    precision: torch.dtype,
    with_clouds: bool,
) -> None:
    examples = [ExampleRef(shard, row, "", "") for row in range(len(shard))]
    source = _source(shard, variants)

    def latents(clouds: bool) -> np.ndarray:
        pairs = [(e, variant) for e in examples for variant in range(variants)]
        found = []
        for start in range(0, len(pairs), ENCODED_AT_ONCE):
            part = pairs[start : start + ENCODED_AT_ONCE]
            whole = structure_batch([e for e, _ in part], np.full(len(part), clouds), [v for _, v in part])
            with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
                mean = encoder(whole.occupancy.to(device)).mean
            found.append(mean.float().cpu().numpy().astype(np.float16))
        flat = np.concatenate(found)
        return flat.reshape(len(examples), variants, *flat.shape[1:])

    def write(target: Path) -> None:
        np.save(target / TARGETS, latents(False))
        if with_clouds:
            np.save(target / CLOUDS, latents(True))
        (target / SOURCE).write_text(json.dumps(source), encoding="utf-8")

    write_folder(folder, write, owned=[TARGETS, CLOUDS, SOURCE], last=SOURCE)


def _source(shard: Encodable, variants: int) -> dict[str, Any]:
    content = (shard.folder / INDEX).read_bytes()
    return {"examples": len(shard), "sha256": hashlib.sha256(content).hexdigest(), "variants": variants}


def _is_current(folder: Path, shard: Encodable, variants: int) -> bool:
    """Whether the latents there were made from this very shard, in at least so many variants."""
    try:
        stored = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    wanted = _source(shard, variants)
    return stored["sha256"] == wanted["sha256"] and stored["variants"] >= variants
