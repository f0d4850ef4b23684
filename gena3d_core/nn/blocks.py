"""One transformer block for every network here: a list of residual sub-layers.

TRELLIS, Amodal3R, GENA3D, SceneGen and the image encoders differ in that list only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .norms import BLOCK_EPS, LayerNorm32


@dataclass(frozen=True)
class SubLayer:
    """x + gain · gate · operation(norm(x) · (1 + scale) + shift); gain, gate, scale and shift only where asked for.

    name         names the parameters and the sub-layer's entry in the contexts
    build        makes the operation: a module called as operation(x, context)
    affine_norm  whether the norm has parameters
    modulation   name of the adaLN projection (Peebles & Xie 2023) that gives shift, scale and gate; sub-layers that
                 name the same one share its chunks in their order; None: no modulation
    gain         whether the result is multiplied by a learned vector (LayerScale)
    skip_tokens  leading tokens of the stream that the sub-layer neither reads nor writes
    """

    name: str
    build: Callable[[], nn.Module]
    affine_norm: bool = False
    modulation: str | None = None
    gain: bool = False
    skip_tokens: int = 0
    norm_eps: float = BLOCK_EPS


class TransformerBlock(nn.Module):
    """Residual sub-layers in their order.

    own_modulation=False: the block has no adaLN projection; the model projects once for all of its blocks
    (`share_mod`) and hands the result over instead of the embedding.
    """

    def __init__(self, width: int, sublayers: Sequence[SubLayer], *, own_modulation: bool = True) -> None:
        super().__init__()
        self.sublayers = tuple(sublayers)
        self.norms = nn.ModuleDict(
            {s.name: LayerNorm32(width, eps=s.norm_eps, elementwise_affine=s.affine_norm) for s in self.sublayers}
        )
        self.operations = nn.ModuleDict({s.name: s.build() for s in self.sublayers})
        self.gains = nn.ParameterDict({s.name: nn.Parameter(torch.ones(width)) for s in self.sublayers if s.gain})
        self.modulated: dict[str, list[str]] = {}
        for s in self.sublayers:
            if s.modulation is not None:
                self.modulated.setdefault(s.modulation, []).append(s.name)
        self.modulations = nn.ModuleDict(
            {name: modulation_projection(width, len(users)) for name, users in self.modulated.items()}
            if own_modulation
            else {}
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None, contexts: Mapping[str, Any] | None = None) -> Tensor:
        """x (B, N, C) -> same shape.

        embedding (B, C) is what the modulation is made from; contexts maps names of sub-layers to what their
        operations read besides the stream.
        """
        contexts = contexts or {}
        modulations = {} if embedding is None else self._modulations(embedding)
        for s in self.sublayers:
            tokens = x[:, s.skip_tokens :]
            h = self.norms[s.name](tokens)
            gate = None
            if s.name in modulations:
                shift, scale, gate = modulations[s.name]
                h = torch.addcmul(shift[:, None], h, 1 + scale[:, None])
            h = self.operations[s.name](h, contexts.get(s.name))
            if s.gain:
                h = h * self.gains[s.name].to(h.dtype)
            tokens = tokens + h if gate is None else torch.addcmul(tokens, gate[:, None], h)
            x = tokens if s.skip_tokens == 0 else torch.cat([x[:, : s.skip_tokens], tokens], dim=1)
        return x

    def _modulations(self, embedding: Tensor) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Sub-layer -> its shift, scale and gate (B, C)."""
        found = {}
        for name, users in self.modulated.items():
            vector = self.modulations[name](embedding) if name in self.modulations else embedding
            chunks = vector.chunk(3 * len(users), dim=-1)
            for i, user in enumerate(users):
                found[user] = (chunks[3 * i], chunks[3 * i + 1], chunks[3 * i + 2])
        return found


def modulation_projection(width: int, users: int) -> nn.Sequential:
    """Embedding (B, C) -> shift, scale and gate of `users` sub-layers (B, 3 · users · C)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * users * width))
