"""One mesh in one binary glTF file, coordinates as they are: no turn to glTF's y-up, because poses apply directly."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from ..errors import DataFormatError
from ..types import Mesh

CONFIDENCE, OBSERVED = "_CONFIDENCE", "_OBSERVED"
"""Custom vertex attributes, float32: trust in [0, 1]; 1 where a camera saw the surface, else 0."""


def mesh_to_glb(mesh: Mesh) -> bytes:
    """A .glb file with vertex colours and the custom attributes that `mesh` has."""
    data = trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        vertex_colors=mesh.vertex_colors,
        vertex_attributes={
            name: values.astype(np.float32)
            for name, values in ((CONFIDENCE, mesh.vertex_confidence), (OBSERVED, mesh.vertex_observed))
            if values is not None
        },
        process=False,
    ).export(file_type="glb")
    assert isinstance(data, bytes)
    return data


def mesh_from_glb(path: Path) -> Mesh:
    """The mesh of a file that `mesh_to_glb` wrote; raises `DataFormatError` for a missing or damaged one."""
    try:
        loaded = trimesh.load(BytesIO(path.read_bytes()), file_type="glb", force="mesh", process=False)
    except FileNotFoundError as error:
        raise DataFormatError(f"{path}: no such file, but scene.json names it") from error
    except Exception as error:
        raise DataFormatError(f"{path}: not a readable .glb mesh ({type(error).__name__}: {error})") from error
    if not isinstance(loaded, trimesh.Trimesh) or len(loaded.vertices) == 0:
        raise DataFormatError(f"{path}: holds no mesh")
    attributes: dict[str, Any] = loaded.vertex_attributes
    visual: Any = loaded.visual
    colors = np.asarray(visual.vertex_colors)[:, :3] if visual.kind == "vertex" else None
    observed = attributes.get(OBSERVED)
    confidence = attributes.get(CONFIDENCE)
    return Mesh(
        vertices=np.asarray(loaded.vertices, dtype=np.float32),
        faces=np.asarray(loaded.faces, dtype=np.int32),
        vertex_colors=None if colors is None else np.ascontiguousarray(colors, dtype=np.uint8),
        vertex_confidence=None if confidence is None else np.asarray(confidence, dtype=np.float32).reshape(-1),
        vertex_observed=None if observed is None else np.asarray(observed).reshape(-1) > 0.5,
    )
