"""Operations of residual sub-layers: self-attention, cross-attention, feed-forward.

An operation is called as operation(x, context): x (B, N, C) is the normed stream, context what `contexts` holds under
the name of its sub-layer (see `nn.blocks`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .attention import attention
from .norms import BLOCK_EPS, LayerNorm32
from .packing import Packing, pack
from .rotary import PlanarRotation

HeadNorm = Callable[[int, int], nn.Module]
"""Makes the norm of queries or keys from (heads, head width)."""


@dataclass(frozen=True)
class Context:
    """Keys and values of a context, projected once and valid along a whole sampling path.

    keys, values  (P, L, H, D); values already carry `weight`
    rows          number of rows of the stream that are served, not counting copies
    key_bias      (P, L) added to the logits, or None
    owner         (P,) int64: the row that each of the P entries serves; None: entry p serves row p
    weight        (P,) share of each entry in its row's average, summing to 1 in each row; None with owner None
    copies        each row stands for that many consecutive rows of the stream (hypotheses of one object)
    constant      (C,) what the operation gives in all rows after these (the unconditional branch), or None
    """

    keys: Tensor
    values: Tensor
    rows: int
    key_bias: Tensor | None = None
    owner: Tensor | None = None
    weight: Tensor | None = None
    copies: int = 1
    constant: Tensor | None = None

    @cached_property
    def packing(self) -> Packing | None:
        """How entries and rows go together; None where entry p serves row p."""
        return None if self.owner is None else pack(self.owner, self.rows)

    def changed(self, **changes: Any) -> Context:
        """A context with other fields; for the same entries and rows the packing is not made anew."""
        new = replace(self, **changes)
        if new.owner is self.owner and new.rows == self.rows:
            new.__dict__["packing"] = self.packing
        return new


class SelfAttention(nn.Module):
    """Self-attention inside each row of (B, N, C).

    A context, if any, is the (B, N) bias of the keys (padding), or the rotation that gives the N tokens positions.
    """

    def __init__(self, width: int, heads: int, *, qk_norm: HeadNorm | None = None) -> None:
        super().__init__()
        self.heads, self.attention_backend = heads, "sdpa"
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.q_norm = qk_norm(heads, width // heads) if qk_norm else None
        self.k_norm = qk_norm(heads, width // heads) if qk_norm else None

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values (B, N, H, D)."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(dim=-3)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v

    def forward(self, x: Tensor, context: Tensor | PlanarRotation | None = None) -> Tensor:
        q, k, v = self.project(x)
        if isinstance(context, PlanarRotation):
            q, k, context = context(q), context(k), None
        return self.to_out(attention(q, k, v, key_bias=context, backend=self.attention_backend).flatten(-2))


class CrossAttention(nn.Module):
    """Attention of the stream to a context (P, L, C_context) whose keys and values are projected apart.

    Several entries of the context (views) may serve one row of the stream: their results are averaged with the
    shares of the packing, which sum to 1, before the output projection, which is linear (GENA3D eq. 2-3);
    `fusion_norm` adds the layer norm after that. Eq. 3's further factor 1/K is left out: the layer norm would undo
    it up to its epsilon, and without it one view is the base model.
    """

    def __init__(
        self,
        width: int,
        context_width: int,
        heads: int,
        *,
        qk_norm: HeadNorm | None = None,
        fusion_norm: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.attention_backend = heads, "sdpa"
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(context_width, 2 * width)
        self.to_out = nn.Linear(width, width)
        self.q_norm = qk_norm(heads, width // heads) if qk_norm else None
        self.k_norm = qk_norm(heads, width // heads) if qk_norm else None
        self.fusion_norm = LayerNorm32(width, eps=BLOCK_EPS) if fusion_norm else None

    def project(
        self,
        context: Tensor,
        *,
        key_bias: Tensor | None = None,
        packing: Packing | None = None,
        weight: Tensor | None = None,
    ) -> Context:
        """Keys and values of `context` (P, L, C_context); the rest as in `Context`, weight given with packing."""
        width = self.to_kv.in_features
        if context.ndim != 3 or context.shape[-1] != width:
            raise InputError(f"a context must be (P, L, {width}), got {tuple(context.shape)}")
        keys, values = self.to_kv(context.to(self.to_kv.weight.dtype)).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        if self.k_norm is not None:
            keys = self.k_norm(keys)
        if packing is None or weight is None:
            return Context(keys, values, len(keys), key_bias)
        if packing.owner.shape != weight.shape or len(weight) != len(context):
            raise InputError(
                f"{len(context)} entries, but {len(packing.owner)} owners and weights {tuple(weight.shape)}"
            )
        # Attention is linear in its values: weighted here, once, the views need only be summed in every step.
        values = (values * weight[:, None, None, None]).to(values.dtype)
        found = Context(keys, values, packing.rows, key_bias, packing.owner, weight)
        found.__dict__["packing"] = packing
        return found

    def constant_output(self) -> Tensor:
        """(C,) what any query gets from an all-zero context: every value is the bias, so the weights do not matter."""
        return self._output(self.to_kv.bias.chunk(2)[1])

    def forward(self, x: Tensor, context: Context | Tensor) -> Tensor:
        """x (B, N, C); a tensor (C,) as context stands for an all-zero one (see `constant_output`)."""
        if isinstance(context, Tensor):
            return context.expand_as(x)
        if not isinstance(context, Context):
            raise InputError(f"cross-attention needs a projected context, got {type(context).__name__}")
        served = context.rows * context.copies
        if len(x) < served or (context.constant is None and len(x) != served):
            raise InputError(f"the context serves {served} rows of the stream, which has {len(x)}")
        found = self._attend(x[:served], context)
        if context.constant is None:
            return found
        return torch.cat([found, context.constant.expand(len(x) - served, *x.shape[1:])])

    def _attend(self, x: Tensor, context: Context) -> Tensor:
        q = self.to_q(x).unflatten(-1, (self.heads, -1))
        if self.q_norm is not None:
            q = self.q_norm(q)
        # Queries do not see each other: those of all copies of a row go through one attention to its keys.
        q = q.reshape(context.rows, -1, *q.shape[2:])
        if context.packing is not None:
            q = context.packing.spread(q)
        found = attention(q, context.keys, context.values, key_bias=context.key_bias, backend=self.attention_backend)
        if context.packing is not None:
            found = context.packing.sum(found)
        return self._output(found.reshape(x.shape))

    def _output(self, found: Tensor) -> Tensor:
        out = self.to_out(found)
        return out if self.fusion_norm is None else self.fusion_norm(out)


class GatedCrossAttention(CrossAttention):
    """Cross-attention whose keys carry a learned gate: logits + log(g + ε), g = σ(MLP(context)) (GENA3D eq. 6).

    The gate depends on the token only, so it is a bias of the keys, the same for all heads. The MLP halves the
    width, then ReLU, then one number; its sigmoid is applied once.
    """

    GATE_EPS = 1e-6

    def __init__(self, width: int, context_width: int, heads: int, *, qk_norm: HeadNorm | None = None) -> None:
        super().__init__(width, context_width, heads, qk_norm=qk_norm)
        self.gate = nn.Sequential(
            nn.Linear(context_width, context_width // 2), nn.ReLU(), nn.Linear(context_width // 2, 1)
        )

    def project(self, context: Tensor, *, key_bias: Tensor | None = None, **packing: Any) -> Context:
        """As `CrossAttention.project`, with the bias of the gate added to `key_bias`."""
        logit = self.gate(context.to(self.to_kv.weight.dtype)).squeeze(-1)
        gate = torch.sigmoid(logit.to(torch.promote_types(logit.dtype, torch.float32)))
        bias = torch.log(gate + self.GATE_EPS)
        return super().project(context, key_bias=bias if key_bias is None else bias + key_bias, **packing)


class AlignedContext(nn.Module):
    """A linear map of the context token at each token's own place: for a context on the grid of the stream.

    Projected once like a cross-attention, but there is nothing to look for, so there are no queries.
    """

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.to_out = nn.Linear(context_width, width)

    def project(self, context: Tensor) -> Context:
        """What every token gets: context (P, N, C_context), one entry for each row of the stream."""
        values = self.to_out(context.to(self.to_out.weight.dtype))[:, :, None]
        return Context(values, values, len(values))

    def constant_output(self) -> Tensor:
        """(C,) what an all-zero context gives."""
        return self.to_out.bias

    def forward(self, x: Tensor, context: Context | Tensor) -> Tensor:
        """x (B, N, C) -> same shape; see `CrossAttention.forward`."""
        if isinstance(context, Tensor):
            return context.expand_as(x)
        if not isinstance(context, Context):
            raise InputError(f"an aligned context must be projected, got {type(context).__name__}")
        values = context.values[:, :, 0]
        served = context.rows * context.copies
        if len(x) < served or (context.constant is None and len(x) != served) or values.shape[1:] != x.shape[1:]:
            raise InputError(f"the context serves {served} rows of {tuple(values.shape[1:])}, not {tuple(x.shape)}")
        found = values[:, None].expand(-1, context.copies, -1, -1).reshape(served, *x.shape[1:])
        if context.constant is None:
            return found
        return torch.cat([found, context.constant.expand(len(x) - served, *x.shape[1:])])


class FeedForward(nn.Module):
    """Two linear layers around a GELU (tanh approximation unless `exact_gelu`)."""

    def __init__(self, width: int, ratio: float = 4.0, *, exact_gelu: bool = False) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU("none" if exact_gelu else "tanh"), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return self.mlp(x)
