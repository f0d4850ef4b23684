"""Tables of dual marching cubes, derived from the geometry of the cube.

Corner q of a cube lies at offset (q & 1, q >> 1 & 1, q >> 2 & 1). A case is the sum of 2^q over its inside corners. A
crossed edge joins an inside and an outside corner. On each face crossed edges belong together: both, if there are two;
the two that meet at an inside corner, if all four are crossed (an ambiguous face). Each connected component of crossed
edges is one sheet of the surface and gets one dual vertex.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor

CORNER_OFFSETS: tuple[tuple[int, int, int], ...] = tuple((q & 1, q >> 1 & 1, q >> 2 & 1) for q in range(8))
EDGES: tuple[tuple[int, int], ...] = (
    *((0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7)),
    *((6, 7), (2, 6), (2, 0), (3, 1), (7, 5), (6, 4)),
)
"""Corners of each edge; those along the second axis run downwards."""
MAX_COMPONENTS = 4
MAX_COMPONENT_EDGES = 7
NONE = -1

Component = tuple[int, ...]


@dataclass(frozen=True)
class DualTables:
    """Tables by case, all int64.

    component_count    (256,)
    edge_component     (256, 12) component of each crossed edge, -1 for edges that are not crossed
    component_edges    (256, 4, 7) crossed edges of each component, ascending, filled up with the last
    component_size     (256, 4) number of edges of each component
    repair_offset      (256, 3) step to the cube across the ambiguous face of a problem case, 0 otherwise
    """

    component_count: Tensor
    edge_component: Tensor
    component_edges: Tensor
    component_size: Tensor
    repair_offset: Tensor


@lru_cache(maxsize=8)
def dual_tables(device: torch.device) -> DualTables:
    """The tables on a device, made once."""
    count = torch.zeros(256, dtype=torch.int64)
    edge_component = torch.full((256, 12), NONE)
    edges = torch.zeros((256, MAX_COMPONENTS, MAX_COMPONENT_EDGES), dtype=torch.int64)
    size = torch.zeros((256, MAX_COMPONENTS), dtype=torch.int64)
    repair = torch.zeros((256, 3), dtype=torch.int64)
    for case in range(256):
        components = case_components(case)
        count[case] = len(components)
        repair[case] = torch.tensor(_repair_step(case, components))
        for i, component in enumerate(components):
            edge_component[case, list(component)] = i
            size[case, i] = len(component)
            padded = component + component[-1:] * (MAX_COMPONENT_EDGES - len(component))
            edges[case, i] = torch.tensor(padded)
    return DualTables(*(t.to(device) for t in (count, edge_component, edges, size, repair)))


@lru_cache(maxsize=8)
def edge_corners(device: torch.device) -> Tensor:
    """(12, 2) int64 corners of the edges."""
    return torch.tensor(EDGES, device=device)


@lru_cache(maxsize=8)
def corner_offsets(device: torch.device) -> Tensor:
    """(8, 3) int64 offsets of the corners."""
    return torch.tensor(CORNER_OFFSETS, device=device)


def case_components(case: int) -> list[Component]:
    """Sets of crossed edges (ascending) that share a dual vertex, in the order in which vertices are numbered."""
    inside = _inside(case)
    crossed = [e for e, (a, b) in enumerate(EDGES) if (a in inside) != (b in inside)]
    parent = {e: e for e in crossed}

    def root(e: int) -> int:
        while parent[e] != e:
            e = parent[e]
        return e

    for face in _faces():
        on_face = [e for e in crossed if set(EDGES[e]) <= face]
        for first, second in combinations(on_face, 2):
            shared = set(EDGES[first]) & set(EDGES[second])
            if len(on_face) == 2 or shared & inside:
                parent[root(first)] = root(second)
    groups: dict[int, list[int]] = {}
    for e in crossed:
        groups.setdefault(root(e), []).append(e)
    components = [tuple(group) for group in groups.values()]
    components.sort(key=lambda group: min(q for e in group for q in EDGES[e] if q in inside))
    # The published numbering follows the smallest inside corner but for this one case.
    return components[::-1] if case == 231 else components


def ambiguous_faces(case: int) -> list[tuple[int, int]]:
    """(axis, side) of the faces whose two inside corners lie across a diagonal."""
    inside = _inside(case)
    found = []
    for index, face in enumerate(_faces()):
        crossed = [pair for pair in EDGES if set(pair) <= face and len(inside & set(pair)) == 1]
        if len(crossed) == 4:
            found.append(divmod(index, 2))
    return found


def _repair_step(case: int, components: list[Component]) -> list[int]:
    """Where the neighbour lies with which a problem case may make an edge of four faces: such a case joins everything
    in one vertex across its only ambiguous face."""
    faces = ambiguous_faces(case)
    step = [0, 0, 0]
    if len(faces) == 1 and len(components) == 1:
        axis, side = faces[0]
        step[axis] = 2 * side - 1
    return step


def _inside(case: int) -> set[int]:
    return {q for q in range(8) if case >> q & 1}


def _faces() -> list[set[int]]:
    """Corners of the six faces: (axis 0, low), (axis 0, high), (axis 1, low), ..."""
    return [{q for q in range(8) if CORNER_OFFSETS[q][axis] == side} for axis in range(3) for side in (0, 1)]
