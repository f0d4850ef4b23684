"""FlexiCubes: differentiable dual marching cubes with per-cube weights (Shen et al. 2023), in plain torch.

Each cube that the surface passes gets one vertex per sheet: a weighted mean of the crossings of its edges. Each crossed
grid edge whose four cubes are all there gives a quad. Positions, attributes and the deviation are differentiable in
vertices, distances, weights and attributes; which vertices and faces exist is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .flexicubes_tables import DualTables, dual_tables, edge_corners

QUAD_OUTWARDS = (0, 1, 3, 2)
"""Order of the four cubes around an edge, taken by flat index, where the first end of the edge is outside."""
QUAD_INWARDS = (2, 3, 1, 0)
LEAST_DISTANCE = 1e-30


@dataclass(frozen=True, eq=False)
class FlexiMesh:
    """Result of `flexicubes`.

    vertices       (V, 3) in the frame of the grid's vertices; sorted by the number of vertices of their cube, then
                   cube, then sheet. In training the centres of the quads follow
    faces          (F, 3) int64, counter-clockwise seen from the positive side; in training four per quad
    attributes     (V, C), interpolated like the vertices, or None
    deviation      (D,) how far the distances from a vertex to its crossings are from equal, per vertex and crossing
    surface_cubes  (C,) bool, cubes that the surface passes
    case_ids       (S,) int64, case of each surface cube after the repair of ambiguous faces
    """

    vertices: Tensor
    faces: Tensor
    attributes: Tensor | None
    deviation: Tensor
    surface_cubes: Tensor
    case_ids: Tensor


@dataclass(frozen=True, eq=False)
class _Weights:
    """Per surface cube: beta (S, 12) of edges, alpha (S, 8) of corners, gamma (S,) of splitting."""

    beta: Tensor
    alpha: Tensor
    gamma: Tensor


@dataclass(frozen=True, eq=False)
class _DualVertices:
    """values (V, 3 + C): position and attributes; cube (V,) row of the surface cube; first (S,) first vertex of each
    surface cube."""

    values: Tensor
    cube: Tensor
    first: Tensor
    deviation: Tensor


def flexicubes(
    vertices: Tensor,
    sdf: Tensor,
    cube_corners: Tensor,
    resolution: int,
    *,
    beta: Tensor | None = None,
    alpha: Tensor | None = None,
    gamma: Tensor | None = None,
    attributes: Tensor | None = None,
    training: bool = False,
    cube_ids: Tensor | None = None,
) -> FlexiMesh:
    """Surface where `sdf` changes sign; inside is negative. No sign change gives a mesh of no vertices and no faces.

    vertices      (N, 3) positions of the grid's (possibly deformed) vertices
    sdf           (N,) finite, float32 or float64
    cube_corners  (C, 8) int64 vertex at each corner, first axis fastest; the cubes in ascending order of their ids
    resolution    cubes per axis R; at the border of the grid the surface stays open
    beta, alpha, gamma  (C, 12) edges, (C, 8) corners, (C,) splitting: raw, squashed here; None = all ones
    attributes    (N, A)
    training      quads get a centre vertex and four triangles, so that gradients reach all of gamma
    cube_ids      (C,) int64, ascending: i·R² + j·R + k of each cube where only some are given (those left out must not
                  touch the surface); None = all R³ cubes

    Raises `InputError` for shapes that do not fit and for sdf values that are not finite.
    """
    _check(vertices, sdf, cube_corners, resolution, cube_ids)
    tables = dual_tables(sdf.device)
    bits = 2 ** torch.arange(8, device=sdf.device)
    # Products of denormal distances would vanish and leave crossings undefined.
    sdf = torch.where(sdf < 0, sdf.clamp_max(-LEAST_DISTANCE), sdf)
    case = ((sdf < 0)[cube_corners] * bits).sum(1)
    surface = (case > 0) & (case < 255)
    rows = surface.nonzero().squeeze(1)
    ids = rows if cube_ids is None else cube_ids[rows]
    case = _repaired(case[rows], ids, resolution, tables)
    weights = _squashed(beta, alpha, gamma, rows, sdf)
    corners = cube_corners[rows]
    values = vertices if attributes is None else torch.cat([vertices, attributes], 1)

    dual = _dual_vertices(values, sdf, corners, case, weights, tables)
    quads, quad_cubes = _quads(sdf, corners, case, dual, tables)
    product = weights.gamma[quad_cubes]
    even, odd = product[:, 0] * product[:, 2], product[:, 1] * product[:, 3]
    if training:
        values, faces = _with_centres(dual.values, quads, even, odd)
    else:
        values, faces = dual.values, _split(quads, even > odd)
    return FlexiMesh(values[:, :3], faces, None if attributes is None else values[:, 3:], dual.deviation, surface, case)


def _check(vertices: Tensor, sdf: Tensor, cube_corners: Tensor, resolution: int, cube_ids: Tensor | None) -> None:
    if vertices.shape != (len(sdf), 3) or sdf.dim() != 1:
        raise InputError(f"flexicubes: vertices {tuple(vertices.shape)} and sdf {tuple(sdf.shape)}, want (N, 3), (N,)")
    if cube_corners.dim() != 2 or cube_corners.shape[1] != 8:
        raise InputError(f"flexicubes: cube corners {tuple(cube_corners.shape)}, want (C, 8)")
    expected = resolution**3 if cube_ids is None else len(cube_ids)
    if len(cube_corners) != expected:
        raise InputError(
            f"flexicubes: {len(cube_corners)} cubes where the resolution {resolution} or ids say {expected}"
        )
    if not torch.isfinite(sdf).all():
        raise InputError("flexicubes: signed distances hold values that are not finite")


def _repaired(case: Tensor, ids: Tensor, resolution: int, tables: DualTables) -> Tensor:
    """Cases (S,) with both cubes inverted where two problem cases share their ambiguous face."""
    step = tables.repair_offset[case]
    problem = step.any(1).nonzero().squeeze(1)
    own, step = ids[problem], step[problem]
    place = torch.stack([own // resolution**2, own // resolution % resolution, own % resolution], 1) + step
    within = ((place >= 0) & (place < resolution)).all(1)
    neighbour = (place[:, 0] * resolution + place[:, 1]) * resolution + place[:, 2]
    # Two problem cubes side by side have the same ambiguous face, their only one, so each finds the other.
    partnered = problem[within & torch.isin(neighbour, own)]
    return case.index_put((partnered,), 255 - case[partnered])


def _squashed(beta: Tensor | None, alpha: Tensor | None, gamma: Tensor | None, rows: Tensor, like: Tensor) -> _Weights:
    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=like.dtype, device=like.device)

    count = len(rows)
    # Gamma is squashed before the choice of rows: the last bit of torch's sigmoid depends on the memory layout, and the
    # published meshes were made from whole columns.
    return _Weights(
        ones(count, 12) if beta is None else torch.tanh(beta[rows]) * 0.99 + 1,
        ones(count, 8) if alpha is None else torch.tanh(alpha[rows]) * 0.99 + 1,
        ones(count) if gamma is None else torch.sigmoid(gamma)[rows] * 0.99 + 0.005,
    )


def _dual_vertices(
    values: Tensor, sdf: Tensor, corners: Tensor, case: Tensor, weights: _Weights, tables: DualTables
) -> _DualVertices:
    """One vertex per sheet: mean of its crossings, weighted by beta; crossings linear between distances times alpha."""
    count = tables.component_count[case]
    order = torch.argsort(count, stable=True)
    cube = torch.repeat_interleave(order, count[order])
    first = torch.zeros_like(count)
    first[order] = torch.cumsum(count[order], 0) - count[order]
    component = torch.arange(len(cube), device=cube.device) - first[cube]
    edges = tables.component_edges[case[cube], component]
    size = tables.component_size[case[cube], component]

    total = values.new_zeros(len(cube), values.shape[1])
    weight = values.new_zeros(len(cube), 1)
    crossings = []
    for slot in range(edges.shape[1]):
        # A loop over the at most seven edges of a sheet sums in a fixed order on every device.
        ends = edge_corners(sdf.device)[edges[:, slot]]
        used = (slot < size).unsqueeze(1)
        end = corners[cube.unsqueeze(1), ends]
        distance = sdf[end]
        scaled = distance * weights.alpha[cube.unsqueeze(1), ends]
        here = _crossing(values[end[:, 0]], values[end[:, 1]], scaled)
        share = weights.beta[cube, edges[:, slot]].unsqueeze(1) * used
        total = total + share * here
        weight = weight + share
        crossings.append(_crossing(values[end[:, 0], :3], values[end[:, 1], :3], distance))
    dual = total / weight
    used = torch.arange(edges.shape[1], device=size.device) < size.unsqueeze(1)
    return _DualVertices(dual, cube, first, _deviation(dual[:, :3], torch.stack(crossings, 1), used))


def _crossing(a: Tensor, b: Tensor, distance: Tensor) -> Tensor:
    """Where the line from a to b (V, C) has distance zero, given `distance` (V, 2) of opposite signs at its ends."""
    at_a, at_b = distance[:, :1], distance[:, 1:]
    return (a * at_b - b * at_a) / (at_b - at_a)


def _deviation(positions: Tensor, crossings: Tensor, used: Tensor) -> Tensor:
    """(D,) | distance to a crossing - mean distance to the crossings of the vertex |, crossings (V, E, 3)."""
    squared = (crossings - positions.unsqueeze(1)).square().sum(2)
    # The root's slope at zero is infinite: a vertex on its crossing must not make NaN gradients.
    apart = torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0) * used
    mean = apart.sum(1, keepdim=True) / used.sum(1, keepdim=True)
    return (apart - mean).abs()[used]


def _quads(
    sdf: Tensor, corners: Tensor, case: Tensor, dual: _DualVertices, tables: DualTables
) -> tuple[Tensor, Tensor]:
    """Vertices and surface cubes (Q, 4) around each crossed grid edge that has all of its four cubes."""
    component = tables.edge_component[case]
    cube, edge = (component >= 0).nonzero(as_tuple=True)
    ends = corners[cube.unsqueeze(1), edge_corners(sdf.device)[edge]]
    key, by_edge = torch.sort(ends[:, 0] * len(sdf) + ends[:, 1], stable=True)
    _, group, size = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    whole = by_edge[(size == 4)[group]].view(-1, 4)
    outwards = sdf[ends[whole[:, 0], 0]] >= 0
    quads = (dual.first[cube] + component[cube, edge])[whole]
    cubes = cube[whole]

    def oriented(table: Tensor) -> Tensor:
        return torch.cat([table[outwards][:, QUAD_OUTWARDS], table[~outwards][:, QUAD_INWARDS]])

    return oriented(quads), oriented(cubes)


def _split(quads: Tensor, even: Tensor) -> Tensor:
    """Two triangles per quad, along the diagonal 0-2 where `even`, else 1-3."""
    along_even = quads[:, [0, 1, 2, 0, 2, 3]]
    along_odd = quads[:, [0, 1, 3, 3, 1, 2]]
    return torch.where(even.unsqueeze(1), along_even, along_odd).view(-1, 3)


def _with_centres(values: Tensor, quads: Tensor, even: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
    """Values with the centres of the quads appended, four triangles per quad around each."""
    a, b, c, d = (values[quads[:, i]] for i in range(4))
    even, odd = even.unsqueeze(1), odd.unsqueeze(1)
    centres = ((a + c) / 2 * even + (b + d) / 2 * odd) / (even + odd + 1e-8)
    index = (torch.arange(len(quads), device=quads.device) + len(values)).unsqueeze(1)
    faces = torch.cat(
        [quads[:, [0, 1]], index, quads[:, [1, 2]], index, quads[:, [2, 3]], index, quads[:, [3, 0]], index], 1
    )
    return torch.cat([values, centres]), faces.view(-1, 3)
