"""Cases of flow matching: samplers and training losses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import DataFormatError
from ...models.conditioning import single_views, with_unconditional
from ...models.sparse_structure_flow import SparseStructureFlow
from ...objectives import (
    RECONSTRUCTION,
    interpolate,
    kl_divergence,
    logit_normal,
    remove_noise,
    sparse_structure_vae_loss,
    velocity_loss,
    velocity_target,
)
from ...sampling import (
    NO_GUIDANCE,
    BatchedDenoiser,
    CyclingViews,
    Denoiser,
    FlowSchedule,
    Guidance,
    SampleStep,
    network_time,
    sample,
)
from ..golden import CaseResults, GoldenCase
from ..published import load_published


def losses(case: GoldenCase) -> CaseResults:
    """Noised data, velocity target and loss of the toy network, logit-normal times, losses of the VAE."""
    given, sigma = case.inputs, float(case.description["sigma_min"])
    x0, noise, t = given["x_0"], given["noise"], given["t"]
    x_t, target = interpolate(x0, noise, t, sigma), velocity_target(x0, noise, sigma)
    found = {
        "out.x_t": x_t,
        "out.v_target": target,
        "out.mse_toy": velocity_loss(toy_velocity(x_t, 1000.0 * t, given["cond"]), target),
        "out.reverse": remove_noise(x_t, noise, t, sigma),
        "out.vae_kl": kl_divergence(given["vae_mean"], given["vae_logvar"]),
    }
    for name in case.expected:
        if stated := re.fullmatch(r"out\.t_logit_normal_mean([\d.e-]+)_std([\d.e-]+)", name):
            found[name] = logit_normal(given["normal_for_t"], *map(float, stated.groups()))
    for kind, weight in _vae_losses(case).items():
        found[f"out.vae_{kind}_loss"] = sparse_structure_vae_loss(
            given["vae_logits"], given["vae_ss"], given["vae_mean"], given["vae_logvar"], kind=kind, kl_weight=weight
        )
    return CaseResults(found)


def _vae_losses(case: GoldenCase) -> dict[str, float]:
    """Kind of reconstruction -> weight of the divergence, from texts such as 'lambda_kl 1e-3'."""
    found = {}
    for kind, text in case.description["vae"].items():
        if kind not in RECONSTRUCTION or not str(text).startswith("lambda_kl "):
            raise DataFormatError(f"{case.name}: no VAE loss '{kind}: {text}' is known")
        found[kind] = float(str(text).split()[1])
    return found


def toy_velocity(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """v = x/2 - tanh(x)/4 + t/1000 · m; m = mean of the condition (B, L, C) over its tokens, t as networks get it."""
    m = condition.mean(dim=1).reshape(*condition.shape[::2], *[1] * (x.ndim - 2))
    return 0.5 * x - 0.25 * torch.tanh(x) + (t / 1000.0).reshape(-1, *[1] * (x.ndim - 1)) * m


@dataclass(frozen=True)
class CaseNetwork:
    """A case's network: velocity(x, t, contexts), and what its conditions become.

    contexts(condition)            of conditional rows
    guided(condition, negative)    of conditional rows, then rows with the negative condition
    """

    velocity: Callable[[Tensor, Tensor, Any], Tensor]
    contexts: Callable[[Tensor], Any]
    guided: Callable[[Tensor, Tensor], Any]


def sampler(case: GoldenCase) -> CaseResults:
    """Every run of `sampling_runs`, with x, its x0 estimate and the times the network was asked for."""
    options, given = case.description["sampler"], case.inputs
    schedule = FlowSchedule(int(options["steps"]), float(options["rescale_t"]))
    network, found = case_network(case), {"out.t_seq_float64": schedule.times}
    batch, views = len(given["noise"]), given["multi_cond"]
    condition, negative = repeat_rows(given["cond"], batch), repeat_rows(given["neg_cond"], batch)
    single = condition_denoiser(network, condition, negative)
    cycling = CyclingViews([condition_denoiser(network, view[None], negative[:1]) for view in views])
    fused = condition_denoiser(network, views, negative[:1], torch.zeros(len(views), dtype=torch.int64))
    by_name: dict[str, tuple[Denoiser, Tensor]] = {
        "euler": (single, given["noise"]),
        "cfg": (single, given["noise"]),
        "interval": (single, given["noise"]),
        "stochastic": (cycling, given["noise"][:1]),
        "multidiffusion": (fused, given["noise"][:1]),
    }
    for name, guidance in case_guidance(options).items():
        denoiser, noise = by_name[name]
        asked = RecordedTimes(denoiser)
        steps: list[SampleStep] = []
        result = sample(asked, noise, schedule, guidance, sigma_min=float(options["sigma_min"]), on_step=steps.append)
        found |= {
            f"out.{name}.samples": result.x,
            f"out.{name}.x_t": torch.stack([step.x for step in steps]),
            f"out.{name}.x_0": torch.stack([step.x0 for step in steps]),
            f"out.{name}.t_network": torch.cat(asked.times),
        }
    return CaseResults(found)


def case_guidance(options: Mapping[str, Any]) -> dict[str, Guidance]:
    """Run of a sampler case -> its guidance; runs over several views are guided inside the interval."""
    strength = float(options["cfg_strength"])
    low, high = (float(end) for end in options["cfg_interval"])
    inside = Guidance(strength, (low, high))
    return {
        "euler": NO_GUIDANCE,
        "cfg": Guidance(strength),
        "interval": inside,
        "stochastic": inside,
        "multidiffusion": inside,
    }


def case_network(case: GoldenCase) -> CaseNetwork:
    """The toy network, or the published class that the case names with its constructor."""
    network = case.description["network"]
    if isinstance(network, str):
        if not network.startswith("toy"):
            raise DataFormatError(f"{case.name}: no network '{network}' is known")
        return CaseNetwork(toy_velocity, lambda c: c, lambda c, n: torch.cat([c, n]))
    (name, constructor), *others = network.items()
    if others:
        raise DataFormatError(f"{case.name}: one network is expected, found {', '.join(network)}")
    model = cast(SparseStructureFlow, load_published(name, constructor, case.weights, case.name))

    def guided(condition: Tensor, negative: Tensor) -> Any:
        if negative.any():
            return model.contexts(single_views(torch.cat([condition, negative])))
        return with_unconditional(model.contexts(single_views(condition)), model.blocks)

    return CaseNetwork(model, lambda c: model.contexts(single_views(c)), guided)


def condition_denoiser(
    network: CaseNetwork, condition: Tensor, negative: Tensor, owner: Tensor | None = None
) -> Denoiser:
    """The network under condition (P, L, C) and negative condition (B, L, C); owner as in `BatchedDenoiser`."""
    with torch.no_grad():
        return BatchedDenoiser(
            network.velocity, network.contexts(condition), network.guided(condition, negative), owner
        )


def repeat_rows(condition: Tensor, batch: int) -> Tensor:
    """A condition of batch 1 serves every sample."""
    return condition.expand(batch, *condition.shape[1:]) if len(condition) == 1 else condition


@dataclass
class RecordedTimes:
    """A denoiser that keeps the time of every evaluation; a guided one counts as two, the conditional one first."""

    denoiser: Denoiser

    def __post_init__(self) -> None:
        self.times: list[Tensor] = []

    def conditional(self, x: Tensor, t: float, step: int) -> Any:
        self.times.append(network_time(t, 1))
        return self.denoiser.conditional(x, t, step)

    def guided(self, x: Tensor, t: float, step: int) -> Any:
        self.times.append(network_time(t, 2))
        return self.denoiser.guided(x, t, step)
