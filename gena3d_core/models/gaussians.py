"""3-D Gaussians as a decoder gives them: raw numbers, what they mean, and their file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..nn.rotations import quaternion_matrices

SH_C0 = 0.28209479177387814
"""Spherical harmonic of degree 0: colour = SH_C0 · dc + 0.5."""

PlyAxes = Literal["z_up", "y_up"]
"""z_up: the world of the voxel grid; y_up: (x, y, z) written as (x, -z, y), as TRELLIS writes its files (the opposite
sense of a GLB's y-up, so an importer that turns GLBs upright puts these files upside down)."""

PLY_PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


class _Activation(NamedTuple):
    apply: Callable[[Tensor], Tensor]
    inverse: Callable[[float], float]


SCALING_ACTIVATIONS: dict[str, _Activation] = {
    "softplus": _Activation(F.softplus, lambda y: y + math.log(-math.expm1(-y))),
    "exp": _Activation(torch.exp, math.log),
}
"""Raw scale -> standard deviation, and back."""


@dataclass(frozen=True)
class GaussianActivation:
    """What turns raw numbers into Gaussians.

    scaling_bias, opacity_bias   scale (world units) and opacity that a raw 0 stands for
    kernel_3d                    world units; added to every scale in quadrature: none is smaller (Mip-Splatting)
    kernel_2d                    pixels²; what a renderer should add to the projected covariance
    """

    scaling_activation: str = "softplus"
    scaling_bias: float = 0.004
    opacity_bias: float = 0.1
    kernel_3d: float = 0.0009
    kernel_2d: float = 0.1

    def __post_init__(self) -> None:
        if self.scaling_activation not in SCALING_ACTIVATIONS:
            known = ", ".join(SCALING_ACTIVATIONS)
            raise InputError(f"unknown scaling_activation '{self.scaling_activation}', one of {known}")
        if self.scaling_bias <= 0 or not 0 < self.opacity_bias < 1:
            raise InputError(
                f"scaling_bias must be > 0 and opacity_bias between 0 and 1, "
                f"got {self.scaling_bias} and {self.opacity_bias}"
            )


@dataclass(frozen=True)
class Gaussians:
    """G Gaussians of one object in the cube [-0.5, 0.5]³ (z up); raw tensors, activated properties.

    unit_xyz       (G, 3) centres in the unit cube [0, 1]³
    features_dc    (G, 1, 3) colour, spherical harmonic of degree 0
    raw_scaling    (G, 3)
    raw_rotation   (G, 4) added to the identity quaternion
    raw_opacity    (G, 1)
    """

    unit_xyz: Tensor
    features_dc: Tensor
    raw_scaling: Tensor
    raw_rotation: Tensor
    raw_opacity: Tensor
    activation: GaussianActivation = GaussianActivation()

    def __len__(self) -> int:
        return len(self.unit_xyz)

    @property
    def xyz(self) -> Tensor:
        """(G, 3) centres in the cube [-0.5, 0.5]³."""
        return self.unit_xyz - 0.5

    @property
    def colors(self) -> Tensor:
        """(G, 3) RGB, nominally in [0, 1], not clamped."""
        return SH_C0 * self.features_dc[:, 0] + 0.5

    @property
    def scaling(self) -> Tensor:
        """(G, 3) standard deviations along the Gaussian's own axes, world units."""
        activation = SCALING_ACTIVATIONS[self.activation.scaling_activation]
        scale = activation.apply(self.raw_scaling + activation.inverse(self.activation.scaling_bias))
        return torch.sqrt(scale.square() + self.activation.kernel_3d**2)

    @property
    def quat_wxyz(self) -> Tensor:
        """(G, 4) unit quaternions: own axes -> world."""
        identity = self.raw_rotation.new_tensor([1.0, 0.0, 0.0, 0.0])
        return F.normalize(self.raw_rotation + identity, dim=-1)

    @property
    def opacity(self) -> Tensor:
        """(G, 1) in (0, 1)."""
        bias = self.activation.opacity_bias
        return torch.sigmoid(self.raw_opacity + math.log(bias / (1 - bias)))

    @property
    def covariance6(self) -> Tensor:
        """(G, 6) xx, xy, xz, yy, yz, zz of R diag(scaling²) Rᵀ."""
        axes = quaternion_matrices(self.quat_wxyz) * self.scaling[:, None, :]
        covariance = axes @ axes.transpose(-1, -2)
        row, column = torch.triu_indices(3, 3, device=covariance.device)
        return covariance[:, row, column]

    def ply_bytes(self, axes: PlyAxes = "z_up") -> bytes:
        """The Gaussians as a binary PLY in the layout of 3-D Gaussian splatting: logit of the opacity, log of the
        scales, quaternions with w first; `axes` as in `PlyAxes`."""
        if axes not in ("z_up", "y_up"):
            raise InputError(f"axes must be 'z_up' or 'y_up', got '{axes}'")
        xyz, quat = self.xyz.float(), self.quat_wxyz.float()
        if axes == "y_up":
            xyz, quat = torch.stack([xyz[:, 0], -xyz[:, 2], xyz[:, 1]], dim=-1), _quarter_turn_about_x(quat)
        # float32 cannot tell a saturated opacity from 1, whose logit is infinite; raw + bias is that logit exactly.
        bias = self.activation.opacity_bias
        logit = self.raw_opacity.float() + math.log(bias / (1 - bias))
        columns = [xyz, torch.zeros_like(xyz), self.features_dc[:, 0].float(), logit, self.scaling.float().log(), quat]
        table = torch.cat(columns, dim=-1).detach().cpu().numpy().astype(np.dtype("<f4"), copy=False)
        header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(self)}"]
        header += [f"property float {name}" for name in PLY_PROPERTIES]
        return ("\n".join([*header, "end_header"]) + "\n").encode("ascii") + table.tobytes()


def _quarter_turn_about_x(quat_wxyz: Tensor) -> Tensor:
    """Rx(+90°) · q, which takes (x, y, z) to (x, -z, y)."""
    w, x, y, z = quat_wxyz.unbind(dim=-1)
    return torch.stack([w - x, w + x, y - z, y + z], dim=-1) * math.sqrt(0.5)
