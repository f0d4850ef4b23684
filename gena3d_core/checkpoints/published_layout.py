"""Checkpoints as TRELLIS, Amodal3R and SceneGen publish them: pipeline.json, and name.json + name.safetensors each.

Also a single network of theirs, and the DINOv2 files of the torch hub and of the package `transformers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataFormatError
from .bundle import SamplerDefaults
from .description import CheckpointDescription, ModuleFiles, entry, floats, read_json, sampler_defaults
from .published import is_supported
from .published.inference import inferred_constructor, recognised_class
from .registry import FAMILIES
from .weight_files import PICKLES, known_sha256, read_headers

PIPELINE = "pipeline.json"

ROLES: Mapping[str, str] = {
    "sparse_structure_flow_model": "sparse_structure_flow",
    "sparse_structure_decoder": "sparse_structure_decoder",
    "sparse_structure_encoder": "sparse_structure_encoder",
    "slat_flow_model": "structured_latent_flow",
    "slat_encoder": "structured_latent_encoder",
    "slat_decoder_mesh": "mesh_decoder",
    "slat_decoder_gs": "gaussian_decoder",
    "slat_decoder_rf": "radiance_field_decoder",
}
"""Names in pipeline.json -> roles of a bundle."""

CLASS_ROLES: Mapping[str, str] = {
    "SparseStructureFlowModel": "sparse_structure_flow",
    "SparseStructureFlowModelMaskAsCondWeighted": "sparse_structure_flow",
    "SparseStructureEncoder": "sparse_structure_encoder",
    "SparseStructureDecoder": "sparse_structure_decoder",
    "SLatFlowModel": "structured_latent_flow",
    "SLatFlowModelMaskAsCondWeighted": "structured_latent_flow",
    "SLatEncoder": "structured_latent_encoder",
    "SLatMeshDecoder": "mesh_decoder",
    "SLatGaussianDecoder": "gaussian_decoder",
    "SLatRadianceFieldDecoder": "radiance_field_decoder",
    "DinoVisionTransformer": "image_encoder",
    "Pi3": "scene_geometry",
    "Pi3X": "scene_geometry",
    "Aggregator": "scene_geometry",
}
"""Class -> what a network of it is for, where no pipeline.json says so."""

ALONE: Mapping[str, str] = {"image_encoder": "image encoder", "scene_geometry": "scene geometry"}
"""Roles of networks that belong to no family -> what stands in its place."""

ENCODERS = ("sparse_structure_encoder", "structured_latent_encoder")
"""Roles that pipelines leave out because they generate without them, while the files lie beside the others."""

SAMPLERS: Mapping[str, str] = {"sparse_structure_sampler": "sparse_structure", "slat_sampler": "structured_latent"}
SAMPLER_NAMES: Mapping[str, str] = {
    "steps": "steps",
    "cfg_strength": "guidance_strength",
    "cfg_interval": "guidance_interval",
    "rescale_t": "rescale_t",
    "sigma_min": "sigma_min",
}

Elsewhere = Callable[[str], Path | None]
"""'owner/repository/path of a network without suffix' -> the same path on this machine, or None."""


def read_pipeline(folder: Path, elsewhere: Elsewhere = lambda reference: None) -> CheckpointDescription:
    """The folder of a published pipeline; `elsewhere` finds networks that it borrows from other repositories."""
    file = folder / PIPELINE
    args = entry(read_json(file), "args", dict, file)
    modules: dict[str, ModuleFiles] = {}
    for name, reference in entry(args, "models", dict, file).items():
        if name not in ROLES and name not in ROLES.values():
            raise DataFormatError(f"{file}: '{name}' is no role of a network, known: {', '.join(ROLES)}")
        role = ROLES.get(name, name)
        if role in modules:
            raise DataFormatError(f"{file}: two networks for the role '{role}', one of them '{name}'")
        if not isinstance(reference, str):
            raise DataFormatError(f"{file}: '{name}' must be the path of a network, got {reference!r}")
        modules[role] = _network(folder / reference, role, reference, elsewhere)
    if not modules:
        raise DataFormatError(f"{file}: names no network")
    modules |= _encoders_beside(folder, modules)
    normalization = args.get("slat_normalization") or {}
    family = _family(modules)
    return CheckpointDescription(
        family=family,
        source=str(folder),
        modules=modules,
        frame=FAMILIES[family].frame,
        fusion=FAMILIES[family].fusion,
        image_encoder=args.get("image_cond_model"),
        samplers={ours: _sampler(args[name], file) for name, ours in SAMPLERS.items() if name in args},
        slat_mean=floats(normalization.get("mean"), "mean", file) if normalization else None,
        slat_std=floats(normalization.get("std"), "std", file) if normalization else None,
        metadata={"licence": FAMILIES[family].licence, **_conventions(family)},
    )


def read_networks(folder: Path) -> CheckpointDescription | None:
    """A folder with networks but no pipeline.json; None if it holds none."""
    modules: dict[str, ModuleFiles] = {}
    for file in sorted((*folder.glob("*.json"), *folder.glob("*/*.json"))):
        if not (file.with_suffix(".safetensors").is_file() and "args" in read_json(file)):
            continue
        module = _network(file.with_suffix(""), None)
        if module.role in modules:
            raise DataFormatError(
                f"{folder}: two networks for the role '{module.role}': {modules[module.role].source} and "
                f"{module.source}; name them in a {PIPELINE} or move one away"
            )
        modules[module.role] = module
    return _single(str(folder), modules) if modules else None


def read_network_file(file: Path) -> CheckpointDescription:
    """One file of weights, with the .json of its class beside it, unless its names alone tell the class."""
    if file.with_suffix(".json").is_file():
        module = _network(file.with_suffix(""), None, suffix=file.suffix)
        return _single(str(file), {module.role: module})
    headers = read_headers([file])
    class_name = recognised_class(headers)
    if class_name is None:
        raise DataFormatError(
            f"{file}: which network is this? Put {file.with_suffix('.json').name} beside it, with "
            '{"name": class, "args": {...}} as it was published'
        )
    constructor = inferred_constructor(class_name, {k: h.shape for k, h in headers.items()})
    hashes, role = (known_sha256(file),), CLASS_ROLES[class_name]
    module = ModuleFiles(role, class_name, constructor, (file,), hashes, "published")
    return _single(str(file), {module.role: module})


def read_transformers(folder: Path) -> CheckpointDescription | None:
    """A folder of the package `transformers` with a DINOv2 with registers; None if it is none."""
    config = read_json(folder / "config.json")
    if "dinov2" not in str(config.get("model_type", "")):
        return None
    shards = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not shards:
        raise DataFormatError(f"{folder}: has a config.json but no model.safetensors; fetch it again")
    hashes = tuple(known_sha256(file) for file in shards)
    module = ModuleFiles("image_encoder", str(config["model_type"]), config, tuple(shards), hashes, "transformers")
    return _single(str(folder), {module.role: module})


def _network(
    path: Path,
    role: str | None,
    reference: str | None = None,
    elsewhere: Elsewhere = lambda reference: None,
    suffix: str | None = None,
) -> ModuleFiles:
    """The network `path`.json with its weights; role None: that of its class."""
    if reference is not None and not path.with_name(path.name + ".json").is_file():
        path = elsewhere(reference) or path
    description = path.with_name(path.name + ".json")
    content = read_json(description)
    class_name = entry(content, "name", str, description)
    constructor = entry(content, "args", dict, description)
    if not class_name.strip() or not is_supported(class_name):
        raise DataFormatError(f"{description}: the class '{class_name}' is not supported; update gena3d?")
    own_role = CLASS_ROLES.get(class_name.split()[0].removeprefix("Elastic"))
    if role is not None and own_role not in (None, role):
        raise DataFormatError(f"{description}: a {class_name} cannot be the {role}")
    role = role or own_role
    if role is None:
        raise DataFormatError(f"{description}: a {class_name} is part of another network and cannot be opened alone")
    candidates = [path.with_name(path.name + s) for s in ([suffix] if suffix else [".safetensors", *PICKLES])]
    weights = next((file for file in candidates if file.is_file()), None)
    if weights is None:
        raise DataFormatError(f"{candidates[0]}: no such file, though {description.name} is there; fetch it again")
    return ModuleFiles(role, class_name, constructor, (weights,), (known_sha256(weights),), "published")


def _encoders_beside(folder: Path, modules: Mapping[str, ModuleFiles]) -> dict[str, ModuleFiles]:
    found: dict[str, ModuleFiles] = {}
    for parent in sorted({file.parent for module in modules.values() for file in module.files}):
        if not parent.resolve().is_relative_to(folder.resolve()):
            continue
        for file in sorted(parent.glob("*.json")):
            role = CLASS_ROLES.get(str(read_json(file).get("name")))
            if role not in ENCODERS or role in modules or not file.with_suffix(".safetensors").is_file():
                continue
            if role in found:
                raise DataFormatError(f"{parent}: two networks for the role '{role}', name one in {PIPELINE}")
            found[role] = _network(file.with_suffix(""), role)
    return found


def _family(modules: Mapping[str, ModuleFiles]) -> str:
    if any(module.class_name.endswith("MaskAsCondWeighted") for module in modules.values()):
        return "amodal3r"
    if any(module.constructor.get("use_global") for module in modules.values()):
        return "scenegen"
    return "trellis-image-large"


def _single(source: str, modules: Mapping[str, ModuleFiles]) -> CheckpointDescription:
    family = _family(modules)
    return CheckpointDescription(
        family=next((name for role, name in ALONE.items() if modules.keys() == {role}), family),
        source=source,
        modules=modules,
        frame=FAMILIES[family].frame,
        fusion=FAMILIES[family].fusion,
        metadata=_conventions(family),
    )


def _conventions(family: str) -> dict[str, str]:
    """What the published files do not say of themselves: SceneGen's poses are those of models with y up."""
    return {"model_axes": "y_up"} if family == "scenegen" else {}


def _sampler(content: Any, file: Path) -> SamplerDefaults:
    if not isinstance(content, dict):
        raise DataFormatError(f"{file}: a sampler must be an object with 'args' and 'params', got {content!r}")
    given = {**(content.get("args") or {}), **(content.get("params") or {})}
    params = {SAMPLER_NAMES[name]: value for name, value in given.items() if name in SAMPLER_NAMES}
    if not re.search("guidance", str(content.get("name", "")), re.IGNORECASE) and "guidance_interval" not in params:
        # The samplers without an interval guide every step, and the plain one none.
        params["guidance_interval"] = (0.0, 1.0)
        params.setdefault("guidance_strength", 0.0)
    return sampler_defaults(params, file)
