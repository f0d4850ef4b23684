"""Surfaces from depth and volumes: fusion, extraction, colouring, cleaning, closing, simplification."""

from __future__ import annotations

from ..errors import InputError
from ..types import Mesh
from .cleaning import drop_bad_faces
from .simplification import simplify
from .watertight import make_watertight

__all__ = ["finish_mesh", "make_watertight", "simplify"]


def finish_mesh(mesh: Mesh, *, max_faces: int, watertight: bool = False) -> Mesh:
    """The mesh as it is published: no degenerate faces, closed if `watertight`, at most `max_faces` faces.

    Raises `InputError` for a mesh without faces or a budget under 4 faces.
    """
    mesh = drop_bad_faces(mesh)
    if not len(mesh.faces):
        raise InputError("the mesh has no faces left; the generator saw too little of the object")
    if watertight:
        mesh = make_watertight(mesh)
    return simplify(mesh, max_faces)
