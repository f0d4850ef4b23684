"""Stage 1 with one saving switched off: the same result the slow way, to see what the saving is worth.

None of these is used outside the benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..generative.rows import take_objects
from ..generative.structure import batched, structure_denoiser
from ..models.conditioning import Contexts, FlowCondition, unconditional
from ..nn.attention import attention, set_attention_backend
from ..nn.layers import Context, CrossAttention
from ..sampling import Denoiser, FlowSchedule, Prediction, network_time, sample
from .settings import GUIDANCE


@dataclass(frozen=True)
class StructureProblem:
    """Everything that determines the logits of stage 1; noise (B, C, R, R, R)."""

    flow: Any
    decoder: Any
    condition: FlowCondition
    noise: Tensor
    schedule: FlowSchedule

    @torch.no_grad()
    def solve(self, denoiser: Denoiser) -> Tensor:
        """Logits (B, R, R, R) float32 on the CPU."""
        found = sample(denoiser, self.noise, self.schedule, GUIDANCE)
        return self.decoder(found.x)[:, 0].float().cpu()

    def objects(self) -> Iterator[StructureProblem]:
        """The problems of its objects."""
        for index in range(self.condition.batch):
            own = take_objects(self.condition, torch.tensor([index]))
            yield replace(self, condition=own, noise=self.noise[index : index + 1])


@torch.no_grad()
def solve_fast(problem: StructureProblem) -> Tensor:
    """With all savings, as in production."""
    return problem.solve(structure_denoiser(problem.flow, problem.condition, 1, "view_wise"))


@dataclass(frozen=True)
class ProjectingDenoiser:
    """Keys and values are projected in every step."""

    flow: Any
    condition: FlowCondition

    def conditional(self, x: Tensor, t: float, step: int) -> Prediction:
        return batched(self.flow, self.flow.contexts(self.condition)).conditional(x, t, step)

    def guided(self, x: Tensor, t: float, step: int) -> tuple[Prediction, Prediction]:
        return batched(self.flow, self.flow.contexts(self.condition)).guided(x, t, step)


@dataclass(frozen=True)
class TwoPassDenoiser:
    """The two branches of guidance go through the network one after the other."""

    flow: Any
    seen: Callable[[], Contexts]
    unseen: Callable[[], Contexts]

    def conditional(self, x: Tensor, t: float, step: int) -> Prediction:
        return Prediction(self.flow(x, network_time(t, len(x), x.device), self.seen()))

    def guided(self, x: Tensor, t: float, step: int) -> tuple[Prediction, Prediction]:
        blind = Prediction(self.flow(x, network_time(t, len(x), x.device), self.unseen()))
        return self.conditional(x, t, step), blind


@dataclass(frozen=True)
class ZeroContextDenoiser:
    """The unconditional branch attends to an all-zero context instead of knowing what that gives."""

    flow: Any
    both: Contexts

    def conditional(self, x: Tensor, t: float, step: int) -> Prediction:
        return self.guided(x, t, step)[0]

    def guided(self, x: Tensor, t: float, step: int) -> tuple[Prediction, Prediction]:
        velocity = self.flow(torch.cat([x, x]), network_time(t, 2 * len(x), x.device), self.both)
        return Prediction(velocity[: len(x)]), Prediction(velocity[len(x) :])


def zero_condition(condition: FlowCondition) -> FlowCondition:
    """The same condition with all tokens zero; objects keep a cloud, which is all zero too."""
    views = replace(condition.views, tokens=torch.zeros_like(condition.views.tokens))
    return FlowCondition(views, condition.batch, condition.geometry, _nobody(condition))


def with_zero_condition(condition: FlowCondition) -> FlowCondition:
    """The objects twice: first as they are, then seeing nothing."""
    views = condition.views
    twice = replace(
        views,
        tokens=torch.cat([views.tokens, torch.zeros_like(views.tokens)]),
        owner=torch.cat([views.owner, views.owner + condition.batch]),
        weight=torch.cat([views.weight, views.weight]),
    )
    geometry = None if condition.geometry is None else torch.cat([condition.geometry, condition.geometry])
    nobody = _nobody(condition)
    return FlowCondition(twice, 2 * condition.batch, geometry, torch.cat([~nobody, nobody]))


def _nobody(condition: FlowCondition) -> Tensor:
    return torch.zeros(condition.batch, dtype=torch.bool, device=condition.views.tokens.device)


def attend_separately(op: CrossAttention, x: Tensor, context: Context | Tensor) -> Tensor:
    """Cross-attention that asks one view after the other: queries and output projection anew for each.

    For objects with equally many views, in order.
    """
    if isinstance(context, Tensor) or context.packing is None:
        return CrossAttention.forward(op, x, context)
    own, bias = x[: context.rows], context.key_bias
    found: Tensor = op.to_out.bias
    for view in range(context.packing.most):
        entries = slice(view, None, context.packing.most)
        q = op.to_q(own).unflatten(-1, (op.heads, -1))
        q = q if op.q_norm is None else op.q_norm(q)
        part = attention(
            q,
            context.keys[entries],
            context.values[entries],
            key_bias=None if bias is None else bias[entries],
            backend=op.attention_backend,
        )
        # The values carry the weight of their view, the bias comes once.
        found = found + F.linear(part.flatten(-2), op.to_out.weight)
    found = found if op.fusion_norm is None else op.fusion_norm(found)
    if context.constant is None:
        return found
    return torch.cat([found, context.constant.expand(len(x) - len(own), *x.shape[1:])])


@contextmanager
def separate_views(flow: Any) -> Iterator[None]:
    """Inside, the attention to the images asks one view after the other."""
    operations = [block.operations["cross_attn"] for block in flow.blocks]
    for operation in operations:
        operation.forward = partial(attend_separately, operation)
    try:
        yield
    finally:
        for operation in operations:
            del operation.forward


@contextmanager
def written_out_attention(flow: Any) -> Iterator[None]:
    """Inside, attention is the formula in float32, logits and all, instead of a fused kernel."""
    kept = {module: module.attention_backend for module in flow.modules() if hasattr(module, "attention_backend")}
    set_attention_backend(flow, "reference")
    try:
        yield
    finally:
        for module, backend in kept.items():
            module.attention_backend = backend


def solve_projecting(problem: StructureProblem) -> Tensor:
    """Keys and values in every step."""
    return problem.solve(ProjectingDenoiser(problem.flow, problem.condition))


@torch.no_grad()
def solve_in_two_passes(problem: StructureProblem) -> Tensor:
    """The branches of guidance one after the other."""
    flow = problem.flow
    seen, unseen = flow.contexts(problem.condition), unconditional(flow.blocks)
    return problem.solve(TwoPassDenoiser(flow, lambda: seen, lambda: unseen))


@torch.no_grad()
def solve_with_zero_context(problem: StructureProblem) -> Tensor:
    """Real attention to an all-zero context."""
    contexts = problem.flow.contexts(with_zero_condition(problem.condition))
    return problem.solve(ZeroContextDenoiser(problem.flow, contexts))


def solve_one_by_one(problem: StructureProblem) -> Tensor:
    """Objects one after the other."""
    return torch.cat([solve_fast(own) for own in problem.objects()])


def solve_views_apart(problem: StructureProblem) -> Tensor:
    """Views one after the other."""
    with separate_views(problem.flow):
        return solve_fast(problem)


def solve_written_out(problem: StructureProblem) -> Tensor:
    """No fused attention."""
    with written_out_attention(problem.flow):
        return solve_fast(problem)


def solve_naively(problem: StructureProblem) -> Tensor:
    """Everything off but fused attention."""

    def naive(own: StructureProblem) -> Tensor:
        nothing = zero_condition(own.condition)
        flow = own.flow
        return own.solve(TwoPassDenoiser(flow, lambda: flow.contexts(own.condition), lambda: flow.contexts(nothing)))

    with separate_views(problem.flow):
        return torch.cat([naive(own) for own in problem.objects()])


@dataclass(frozen=True)
class Saving:
    """What is switched off, how stage 1 is then solved, and for how many views and objects it makes a difference."""

    name: str
    solve: Callable[[StructureProblem], Tensor]
    least_views: int = 1
    least_objects: int = 1


SAVINGS = (
    Saving("keys and values once", solve_projecting),
    Saving("guidance in one pass", solve_in_two_passes),
    Saving("constant for the empty context", solve_with_zero_context),
    Saving("objects in one batch", solve_one_by_one, least_objects=2),
    Saving("views in one attention", solve_views_apart, least_views=2),
    Saving("fused attention", solve_written_out),
    Saving("all but fused attention", solve_naively),
)
