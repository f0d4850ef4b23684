"""VGGT as a network of scene geometry, run by its authors' package `vggt` with weights of this machine."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DataFormatError, MissingDependencyError
from ..models.geometry.pi3 import ViewGeometry
from .front_end_table import VGGT_PACKAGE, FrontEndModel
from .front_ends import check_files, front_end, log_licence, present_folder, required_folder
from .weight_files import check_sha256, known_sha256, read_headers, read_weights

WEIGHTS = ("vggt-commercial", "vggt")
"""Models of the table that fit, the ones that allow more first."""
NEEDED = ("aggregator.", "camera_head.", "depth_head.")
"""Parts that must be in the weights; the others (points, tracks) are left out."""
NEEDED_FOR = "the stereo matcher 'vggt'"


def checked_vggt(
    checkpoint: str | Path | None = None, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> Callable[[], VggtGeometry]:
    """Check package and files now; what is returned reads the weights and gives the network on `device`.

    checkpoint: the file, None: the first of `WEIGHTS` that is here. dtype: of the matrix products; None: bfloat16 on an
    accelerator, float32 on a CPU. Raises `MissingDependencyError` without the package, `DataFormatError` for files that
    are absent, damaged or of another network.
    """
    _package()
    model, file = _file(checkpoint)
    if file.suffix == ".safetensors":
        lacking = [part for part in NEEDED if not any(key.startswith(part) for key in read_headers([file]))]
        if lacking:
            raise DataFormatError(f"{file}: no weights of VGGT: it has no {lacking[0].rstrip('.')}")

    def open_network() -> VggtGeometry:
        if model is not None:
            log_licence(model)
        stated = next((f.sha256 for f in model.files if f.name == file.name), None) if model is not None else None
        check_sha256(file, stated or known_sha256(file))
        network = _network(read_weights([file]), str(file))
        return VggtGeometry(network.to(device).eval().requires_grad_(False), device, dtype)

    return open_network


class VggtGeometry:
    """Images (B, S, 3, H, W), colour in [0, 1] and sides multiples of 14, to their `ViewGeometry`.

    The first view's camera is the world; lengths are in a unit of the network's own.
    """

    def __init__(self, network: Any, device: str = "cpu", dtype: torch.dtype | None = None) -> None:
        """network: a `vggt.models.vggt.VGGT`."""
        self.network, self.device = network, torch.device(device)
        on_cpu = self.device.type == "cpu"
        self.dtype = dtype or (torch.float32 if on_cpu else torch.bfloat16)

    def __call__(self, images: Tensor) -> ViewGeometry:
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=half):
            found = self.network(images)
        decode = importlib.import_module("vggt.utils.pose_enc").pose_encoding_to_extri_intri
        camera_world, intrinsics = decode(found["pose_enc"].float(), tuple(images.shape[-2:]))
        return view_geometry(found["depth"].float().squeeze(-1), found["depth_conf"].float(), camera_world, intrinsics)


def view_geometry(depth: Tensor, certainty: Tensor, camera_world: Tensor, intrinsics: Tensor) -> ViewGeometry:
    """What VGGT says in our terms.

    depth, certainty (B, S, H, W), certainty = 1 + exp(logit); camera_world (B, S, 3, 4) world to camera (OpenCV axes);
    intrinsics (B, S, 3, 3) in pixels, the principal point in the middle of the image.
    """
    height, width = depth.shape[-2:]
    rows, columns = (
        torch.arange(side, dtype=depth.dtype, device=depth.device) + 0.5 - side / 2 for side in (height, width)
    )
    x = columns / intrinsics[..., 0, 0, None, None]
    y = rows[:, None] / intrinsics[..., 1, 1, None, None]
    rays = torch.stack([x.expand(depth.shape), y.expand(depth.shape), torch.ones_like(depth)], dim=-1)
    rotation = camera_world[..., :3].mT
    pose = torch.eye(4, dtype=depth.dtype, device=depth.device).repeat(*depth.shape[:2], 1, 1)
    pose[..., :3, :3] = rotation
    pose[..., :3, 3] = -(rotation @ camera_world[..., 3, None])[..., 0]
    logit = (certainty - 1.0).clamp(min=1e-6).log()
    return ViewGeometry(rays * depth[..., None], logit, pose)


def _package() -> Any:
    if importlib.util.find_spec("vggt") is None:
        raise MissingDependencyError("vggt", NEEDED_FOR, VGGT_PACKAGE.removeprefix("pip install "))
    return importlib.import_module("vggt.models.vggt")


def _file(checkpoint: str | Path | None) -> tuple[FrontEndModel | None, Path]:
    """The file, and the model of the table that it is, if it was found by its place."""
    if checkpoint is not None:
        file = Path(checkpoint)
        if not file.is_file():
            raise DataFormatError(f"{file}: no such file; {NEEDED_FOR} needs the file of its weights")
        return None, file
    present = [name for name in WEIGHTS if present_folder(front_end(name)) is not None]
    model = front_end(present[0] if present else WEIGHTS[-1])
    folder = required_folder(model)
    # The hash of gigabytes is taken when they are read anyway.
    check_files(model, folder, hashes=False)
    return model, folder / model.files[0].name


def _network(weights: Mapping[str, Tensor], source: str) -> Any:
    network = _package().VGGT()
    for part in ("point_head", "track_head"):
        setattr(network, part, None)
    chosen = {name: tensor for name, tensor in weights.items() if name.startswith(NEEDED)}
    try:
        network.load_state_dict(chosen, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataFormatError(f"{source}: no weights of VGGT: {reason[:300]}") from error
    if broken := [name for name, tensor in chosen.items() if not torch.isfinite(tensor).all()]:
        raise DataFormatError(f"{source}: holds NaN or infinity in {broken[0]}: fetch it again")
    return network
