"""Cases of stage 2: the structured-latent flow model, encoder and decoders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...meshing.feature_mesh import features_to_mesh
from ...models.conditioning import single_views
from ...models.structured_latent_decoders import (
    StructuredLatentGaussianDecoder,
    StructuredLatentMeshDecoder,
    StructuredLatentRadianceFieldDecoder,
)
from ...models.structured_latent_flow import StructuredLatentFlow
from ...models.structured_latent_vae import StructuredLatentEncoder, VoxelTransformer
from ...nn.sparse import SparseTensor, from_padded
from ..golden import CaseResults, GoldenCase, Tolerance
from ..published import load_published
from .mesh_comparison import mesh_comparisons
from .recording import recorded

VERTEX_TOLERANCE = Tolerance(1e-3, 0.0)
"""Of meshes: a dual vertex may be ill-conditioned, so that the features' tolerance does not bound its place."""


def flow(case: GoldenCase) -> CaseResults:
    """out.v = model(x, t, cond), rows as in the input."""
    model = cast(StructuredLatentFlow, load_published("SLatFlowModel", case.constructor, case.weights, case.name))
    x = sparse_input(case)
    points = {"t_emb": model.t_embedder, "input_layer": model.input_layer}
    with torch.no_grad():
        contexts = model.contexts(single_views(case.inputs["cond"]))
        with recorded({**points, **flow_points(model)}) as mid:
            out = model(x, case.inputs["t"], contexts)
    return CaseResults({"out.v": out.feats, **flow_activations(mid, x, len(model.input_blocks))})


def encoder(case: GoldenCase) -> CaseResults:
    """Posterior of the latents, and the sample that the case's noise gives."""
    model = cast(StructuredLatentEncoder, load_published("SLatEncoder", case.constructor, case.weights, case.name))
    with torch.no_grad(), recorded(_network_points(model.network)) as mid:
        found = model(sparse_input(case))
        tensors = {"out.mean": found.mean.feats, "out.logvar": found.logvar.feats}
        if "posterior_eps" in case.inputs:
            tensors["out.z"] = found.sample(case.inputs["posterior_eps"]).feats
    return CaseResults({**tensors, **_features(mid, found.mean)})


def gaussian_decoder(case: GoldenCase) -> CaseResults:
    """Gaussians of each sample, raw and activated."""
    model = cast(
        StructuredLatentGaussianDecoder,
        load_published("SLatGaussianDecoder", case.constructor, case.weights, case.name),
    )
    x = sparse_input(case)
    tensors: dict[str, Tensor] = {}
    with torch.no_grad(), recorded(_network_points(model.network)) as mid:
        for i, found in enumerate(model(x)):
            values = {
                "_xyz": found.unit_xyz,
                "_features_dc": found.features_dc,
                "_scaling": found.raw_scaling,
                "_rotation": found.raw_rotation,
                "_opacity": found.raw_opacity,
                "get_xyz": found.xyz,
                "get_scaling": found.scaling,
                "get_rotation": found.quat_wxyz,
                "get_opacity": found.opacity,
                "covariance6": found.covariance6,
            }
            tensors |= {f"out.gs{i}.{name}": value for name, value in values.items()}
    return CaseResults({**tensors, **_features(mid, x)})


def radiance_field_decoder(case: GoldenCase) -> CaseResults:
    """Radiance field of each sample."""
    model = cast(
        StructuredLatentRadianceFieldDecoder,
        load_published("SLatRadianceFieldDecoder", case.constructor, case.weights, case.name),
    )
    x = sparse_input(case)
    tensors: dict[str, Tensor] = {}
    with torch.no_grad(), recorded(_network_points(model.network)) as mid:
        for i, found in enumerate(model(x)):
            tensors |= {f"out.rf{i}.{name}": value for name, value in vars(found).items()}
    return CaseResults({**tensors, **_features(mid, x)})


def mesh_decoder(case: GoldenCase) -> CaseResults:
    """Features of the fine grid, and the mesh of each sample."""
    model = cast(
        StructuredLatentMeshDecoder, load_published("SLatMeshDecoder", case.constructor, case.weights, case.name)
    )
    x = sparse_input(case)
    points = {**_network_points(model.network), **_numbered({"upsample": model.upsample})}
    with torch.no_grad(), recorded(points) as mid:
        fine = model(x)
        tensors = {"out.features": fine.feats, "out.coords": fine.coords}
        samples = zip(fine.samples(), fine.coords.split(fine.geometry.sizes), strict=True)
        for i, (feats, coords) in enumerate(samples):
            mesh = features_to_mesh(feats, coords, model.fine_resolution, use_color=model.use_color)
            tensors |= {f"out.mesh{i}.vertices": mesh.vertices, f"out.mesh{i}.faces": mesh.faces}
            if mesh.attributes is not None:
                tensors[f"out.mesh{i}.vertex_attrs"] = mesh.attributes
    return CaseResults({**tensors, **_features(mid, x)}, mesh_comparisons(case.expected, tensors, VERTEX_TOLERANCE))


def sparse_input(case: GoldenCase) -> SparseTensor:
    """in.feats at in.coords."""
    return SparseTensor.create(case.inputs["coords"], case.inputs["feats"])


def flow_points(model: StructuredLatentFlow) -> dict[str, nn.Module]:
    """The blocks of the flow model under the names that cases give them."""
    groups = {"input_block": model.input_blocks, "block": model.blocks, "out_block": model.out_blocks}
    return _numbered(groups)


def flow_activations(mid: Mapping[str, Any], x: SparseTensor, input_blocks: int) -> dict[str, Tensor]:
    """What `flow_points` recorded, as rows of voxels; x is the input of the model."""
    coarse = mid[f"mid.input_block{input_blocks - 1}"] if input_blocks else x
    unpadded = {
        name: from_padded(value, coarse).feats if name.startswith("mid.block") else value for name, value in mid.items()
    }
    return _unpacked(unpadded)


def _network_points(network: VoxelTransformer) -> dict[str, nn.Module]:
    points = {"input_layer": network.input_layer, **_numbered({"block": network.blocks})}
    return points if network.out_layer is None else {**points, "features": network.out_layer}


def _numbered(groups: Mapping[str, Iterable[nn.Module]]) -> dict[str, nn.Module]:
    return {f"{name}{i}": module for name, modules in groups.items() for i, module in enumerate(modules)}


def _features(mid: Mapping[str, Any], x: SparseTensor) -> dict[str, Tensor]:
    """Recorded points of a `VoxelTransformer`; what its output layer gave is out.features, at the voxels of x."""
    rows = {name: value[0] if name.startswith("mid.block") else value for name, value in mid.items()}
    features = rows.pop("mid.features", None)
    out = {} if features is None else {"out.features": features, "out.coords": x.coords}
    return {**_unpacked(rows), **out}


def _unpacked(mid: Mapping[str, Any]) -> dict[str, Tensor]:
    """Sparse tensors as their features and coordinates."""
    tensors: dict[str, Tensor] = {}
    for name, value in mid.items():
        if isinstance(value, SparseTensor):
            tensors |= {name: value.feats, f"{name}.feats": value.feats, f"{name}.coords": value.coords}
        else:
            tensors[name] = value
    return tensors
