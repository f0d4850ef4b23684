"""Runners of the numerical cases: which module a case is about, told by what the case holds, not by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ..golden import CaseResults, GoldenCase

Runner = Callable[[GoldenCase], CaseResults]


@dataclass(frozen=True)
class CaseKind:
    """A kind of case: `reference` is a piece of the description's `reference` that tells it apart, `needs` the names
    that inputs, expected tensors or description must hold, `without` those that they must not; `runner` is
    'module:function' in this package, None where the module does not exist yet."""

    task: str
    needs: tuple[str, ...]
    without: tuple[str, ...]
    runner: str | None


KINDS: tuple[CaseKind, ...] = (
    CaseKind("a", ("in.x", "out.v"), (), "sparse_structure:flow"),
    CaseKind("b", ("in.ss", "out.logits"), (), "sparse_structure:vae"),
    CaseKind("c", ("network", "vae"), (), "flow_matching:losses"),
    CaseKind("c", ("network", "sampler"), (), "flow_matching:sampler"),
    CaseKind("d", ("in.mask", "in.image"), (), "images:amodal_masks"),
    CaseKind("d", ("in.mask_weight",), (), "amodal:weighted_attention"),
    CaseKind("d", ("in.image_tokens", "in.feats"), (), "amodal:structured_latent_flow"),
    CaseKind("d", ("in.image_tokens", "in.x"), (), "amodal:sparse_structure_flow"),
    CaseKind("e", ("out.conv3",), (), "sparse_operations:run"),
    CaseKind("e", ("in.cond", "out.v"), (), "structured_latent:flow"),
    CaseKind("e", ("constructor.latent_channels", "constructor.in_channels"), (), "structured_latent:encoder"),
    CaseKind("e", ("constructor.representation_config.num_gaussians",), (), "structured_latent:gaussian_decoder"),
    CaseKind("e", ("constructor.representation_config.rank",), (), "structured_latent:radiance_field_decoder"),
    CaseKind("e", ("constructor.representation_config",), (), "structured_latent:mesh_decoder"),
    CaseKind("f", ("in.sdf",), (), "surfaces:flexicubes"),
    CaseKind("f", ("in.feats",), (), "surfaces:features_to_mesh"),
    CaseKind("g", ("in.token",), (), "scene:position_head"),
    CaseKind("g", ("sampler", "in.multi_cond"), (), "scene:sampler"),
    CaseKind("g", ("in.cond", "out.positions"), (), "scene:flow"),
    CaseKind("g", ("in.positions_gt", "in.v_pred"), (), "scene_layout:losses"),
    CaseKind("g", ("in.euler_xyz_deg", "out.P_quat"), (), "scene_layout:poses"),
    CaseKind("g", ("in.images", "constructor.patch_embed"), (), "geometry:vggt_aggregator"),
    CaseKind("h", ("out.cond_tokens0",), (), "images:dinov2"),
    CaseKind("h", ("in.images", "constructor.encoder"), (), "geometry:pi3"),
    CaseKind("h", ("in.image", "pixel_limit"), (), "geometry:view_images"),
    CaseKind("j", ("in.vertices_raw",), (), "data_preparation:voxels"),
    CaseKind("j", ("out.blender_c2w",), (), "data_preparation:cameras"),
    CaseKind("j", ("in.rgba",), (), "images:crops"),
)
"""In the order in which they are tried."""


def runner_for(case: GoldenCase) -> Runner | None:
    """The runner of the case; None if its module is not supported yet."""
    for kind in KINDS:
        if kind.task == case.description.get("task") and all(_holds(case, name) for name in kind.needs):
            if any(_holds(case, name) for name in kind.without) or kind.runner is None:
                continue
            module, function = kind.runner.split(":")
            return getattr(import_module(f"{__name__}.{module}"), function)
    return None


def _holds(case: GoldenCase, name: str) -> bool:
    if name.startswith("in."):
        return name.removeprefix("in.") in case.inputs
    if name.startswith(("out.", "mid.")):
        return name in case.expected
    value: object = case.description
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True
