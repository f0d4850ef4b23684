"""Cases of mesh extraction: FlexiCubes on a full grid, and the mesh of per-voxel features."""

from __future__ import annotations

import torch
from torch import Tensor

from ...meshing.feature_mesh import features_to_mesh as extract
from ...meshing.flexicubes import FlexiMesh
from ...meshing.flexicubes import flexicubes as extract_dual
from ..golden import CaseResults, GoldenCase
from .mesh_comparison import mesh_comparisons

MODES = {"eval": False, "train": True}


def flexicubes(case: GoldenCase) -> CaseResults:
    """out.eval, out.train and, with all weights one, out.noweights; attributes are sigmoids of in.colors."""
    given = case.inputs
    resolution = int(case.description["resolution"])
    colors = given["colors"].sigmoid() if "colors" in given else None
    grid = (given["vertices"], given["sdf"], given["cube_idx"], resolution)
    beta, alpha, gamma = (given.get(name) for name in ("beta", "alpha", "gamma"))
    found: dict[str, Tensor] = {}
    for name, training in MODES.items():
        mesh = extract_dual(*grid, beta=beta, alpha=alpha, gamma=gamma, attributes=colors, training=training)
        found |= _dual_tensors(f"out.{name}", mesh)
    found |= _dual_tensors("out.noweights", extract_dual(*grid))
    found |= {"out.surf_cubes": mesh.surface_cubes, "out.case_ids": mesh.case_ids}
    return CaseResults(found, mesh_comparisons(case.expected, found))


def features_to_mesh(case: GoldenCase) -> CaseResults:
    """Mesh of the features in.feats at in.coords, in both modes."""
    resolution = int(case.constructor["res"])
    use_color = bool(case.constructor.get("use_color", False))
    found: dict[str, Tensor] = {}
    for name, training in MODES.items():
        with torch.no_grad():
            mesh = extract(
                case.inputs["feats"], case.inputs["coords"], resolution, use_color=use_color, training=training
            )
        prefix = f"out.{name}"
        found |= {f"{prefix}.vertices": mesh.vertices, f"{prefix}.faces": mesh.faces}
        found[f"{prefix}.face_normal"] = mesh.face_normals
        if mesh.attributes is not None:
            found[f"{prefix}.vertex_attrs"] = mesh.attributes
        if mesh.training is not None:
            found[f"{prefix}.reg_loss"] = mesh.training.regularisation
            found[f"{prefix}.tsdf_v"] = mesh.training.corner_positions
            found[f"{prefix}.tsdf_s"] = mesh.training.corner_sdf
    return CaseResults(found, mesh_comparisons(case.expected, found))


def _dual_tensors(prefix: str, mesh: FlexiMesh) -> dict[str, Tensor]:
    tensors = {"vertices": mesh.vertices, "faces": mesh.faces, "L_dev": mesh.deviation, "colors": mesh.attributes}
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items() if tensor is not None}
