"""Comparison of meshes whose vertices and faces may come in another order."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..golden import Comparison, Difference, Tolerance, compare_values

PER_VERTEX = ("vertices", "vertex_attrs", "colors")
PER_FACE = ("face_normal",)


def mesh_comparisons(
    expected: Mapping[str, Tensor], ours: Mapping[str, Tensor], vertex_tolerance: Tolerance | None = None
) -> dict[str, Comparison]:
    """Comparisons of every mesh in a case: tensors with a common prefix of which one is called '<prefix>.faces'.

    Where the faces are equal as they stand, everything is compared as it stands; otherwise vertices are matched by
    nearest neighbour, faces as cyclic triples, and what belongs to vertices or faces follows. `vertex_tolerance`
    replaces the case's tolerance for vertices (dual vertices may be ill-conditioned).
    """
    found: dict[str, Comparison] = {}
    for name in expected:
        prefix, _, kind = name.rpartition(".")
        if kind == "faces" and f"{prefix}.vertices" in expected and {name, f"{prefix}.vertices"} <= set(ours):
            theirs = {k: v for k, v in expected.items() if k.rpartition(".")[0] == prefix}
            found |= _comparisons_of_mesh(prefix, theirs, ours, vertex_tolerance)
    return found


def _comparisons_of_mesh(
    prefix: str, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], vertex_tolerance: Tolerance | None
) -> dict[str, Comparison]:
    our_faces, their_faces = ours[f"{prefix}.faces"].cpu(), theirs[f"{prefix}.faces"].cpu()
    vertex_rows = face_rows = None
    remark = ""
    if not torch.equal(our_faces, their_faces):
        vertex_rows = matched_vertices(ours[f"{prefix}.vertices"], theirs[f"{prefix}.vertices"])
        if vertex_rows is not None:
            face_rows = matched_faces(our_faces, their_faces, vertex_rows)
        remark = "up to order"

    def reordered(rows: Tensor | None, what: str, tolerance: Tolerance | None = None) -> Comparison:
        def compare(a: Tensor, b: Tensor, stated: Tolerance) -> Difference:
            if remark and (rows is None or a.shape != b.shape):
                return _differs(f"{what} of the two meshes do not correspond: {tuple(a.shape)} and {tuple(b.shape)}")
            plain = compare_values(a if rows is None else a[rows], b, tolerance or stated)
            return Difference(plain.max_abs, plain.max_rel, plain.ok, plain.remark or remark)

        return compare

    def compare_faces(a: Tensor, b: Tensor, stated: Tolerance) -> Difference:
        if remark and face_rows is None:
            return _differs(f"faces do not correspond: {tuple(a.shape)} and {tuple(b.shape)}")
        return Difference(0.0, 0.0, True, remark)

    found: dict[str, Comparison] = {}
    for name in theirs:
        kind = name.rpartition(".")[2]
        if kind == "faces":
            found[name] = compare_faces
        elif kind in PER_VERTEX:
            found[name] = reordered(vertex_rows, "vertices", vertex_tolerance if kind == "vertices" else None)
        elif kind in PER_FACE:
            found[name] = reordered(face_rows, "faces")
    return found


def matched_vertices(ours: Tensor, theirs: Tensor) -> Tensor | None:
    """Row of ours (V,) nearest to each of theirs; None unless that is one to one."""
    if ours.shape != theirs.shape or not len(ours):
        return None
    _, nearest = cKDTree(ours.detach().cpu().double().numpy()).query(theirs.detach().cpu().double().numpy())
    rows = torch.from_numpy(nearest)
    return rows if len(rows.unique()) == len(rows) else None


def matched_faces(ours: Tensor, theirs: Tensor, vertex_rows: Tensor) -> Tensor | None:
    """Row of ours (F,) equal to each of theirs up to rotation of its corners, given the row of ours of each of their
    vertices; None unless that is one to one."""
    if ours.shape != theirs.shape:
        return None
    order_ours, keys_ours = _sorted_cyclic(ours)
    order_theirs, keys_theirs = _sorted_cyclic(vertex_rows[theirs])
    if not torch.equal(keys_ours, keys_theirs):
        return None
    rows = torch.empty_like(order_ours)
    rows[order_theirs] = order_ours
    return rows


def _sorted_cyclic(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Order (F,) that sorts the faces, and the sorted faces, each turned so that its smallest index comes first."""
    turns = torch.stack([faces, faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]], 1)
    turned = turns[torch.arange(len(faces)), faces.argmin(1)]
    order = torch.arange(len(faces))
    for column in (2, 1, 0):
        order = order[torch.argsort(turned[order, column], stable=True)]
    return order, turned[order]


def _differs(remark: str) -> Difference:
    return Difference(float("inf"), float("inf"), False, remark)
