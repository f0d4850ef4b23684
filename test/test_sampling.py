"""Sampling: integrators on known equations, guidance, several views, noise by seed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gena3d_core.errors import CancelledError, Gena3DError, InputError
from gena3d_core.models.conditioning import FlowCondition, ViewTokens, single_views, with_unconditional
from gena3d_core.models.sparse_structure_flow import SparseStructureFlow, SparseStructureFlowConfig
from gena3d_core.sampling import (
    NO_GUIDANCE,
    BatchedDenoiser,
    CyclingViews,
    FlowSchedule,
    Guidance,
    MeanOfViews,
    Prediction,
    SampleStep,
    draw_noise,
    draw_sparse_noise,
    network_time,
    object_seed,
    sample,
    steps_for_views,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@dataclass
class Field:
    """A denoiser from two formulas that writes down what it was asked."""

    with_condition: Callable[[Tensor, float], Tensor]
    without: Callable[[Tensor, float], Tensor] = lambda x, t: torch.zeros_like(x)
    asked: list[tuple[str, float, int]] = field(default_factory=list)

    def conditional(self, x: Tensor, t: float, step: int) -> Prediction:
        self.asked.append(("conditional", t, step))
        return Prediction(self.with_condition(x, t), x.new_tensor([t]))

    def guided(self, x: Tensor, t: float, step: int) -> tuple[Prediction, Prediction]:
        self.asked.append(("guided", t, step))
        return Prediction(self.with_condition(x, t), x.new_tensor([t])), Prediction(self.without(x, t))


def decay(rate: float = 1.5) -> Field:
    return Field(lambda x, t: rate * x)


NOISE = torch.linspace(-2, 2, 9, dtype=torch.float64)


@settings(deadline=None)
@given(steps=st.integers(1, 60), rescale=st.floats(0.5, 8))
def test_schedule_falls_from_one_to_zero(steps: int, rescale: float) -> None:
    times = FlowSchedule(steps, rescale).times
    assert times.dtype == torch.float64
    assert times[0] == 1
    assert times[-1] == 0
    assert bool((times[1:] < times[:-1]).all())
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    torch.testing.assert_close(times, rescale * u / (1 + (rescale - 1) * u), atol=1e-15, rtol=0)


def test_rescaling_spends_steps_near_the_noise() -> None:
    assert int((FlowSchedule(12, 3.0).times[:-1] >= 0.5).sum()) == 10
    assert int((FlowSchedule(12).times[:-1] >= 0.5).sum()) == 7


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 20))
def test_steps_for_views_is_the_smallest_fitting_number(steps: int, views: int) -> None:
    raised = steps_for_views(steps, views)
    assert raised >= steps
    assert raised % views == 0
    assert raised - views < steps


def test_divisors_of_the_default_keep_it() -> None:
    assert [steps_for_views(12, k) for k in (1, 2, 3, 4, 5, 6, 7, 8, 20)] == [12, 12, 12, 12, 15, 12, 14, 16, 20]


def test_euler_on_a_linear_equation_is_its_closed_form() -> None:
    schedule = FlowSchedule(7, 2.0)
    factors = 1 - 1.5 * -schedule.times.diff()
    torch.testing.assert_close(sample(decay(), NOISE, schedule).x, NOISE * factors.prod(), rtol=1e-13, atol=0)


def test_heun_on_a_linear_equation_is_its_closed_form() -> None:
    schedule = FlowSchedule(7, 2.0)
    h = -1.5 * -schedule.times.diff()
    factors = torch.cat([1 + h[:-1] + h[:-1] ** 2 / 2, 1 + h[-1:]])
    result = sample(decay(), NOISE, schedule, method="heun").x
    torch.testing.assert_close(result, NOISE * factors.prod(), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(method: str, order: int) -> None:
    # dx/dt = cos(3 t) x has the solution x(0) = x(1) exp(-sin(3) / 3).
    exact = NOISE * math.exp(-math.sin(3.0) / 3)
    errors = []
    for steps in (32, 64, 128):
        wave = Field(lambda x, t: math.cos(3 * t) * x)
        found = sample(wave, NOISE, FlowSchedule(steps), method=method).x  # type: ignore[arg-type]
        errors.append(float((found - exact).abs().max()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("method", "evaluations"), [("euler", 6), ("heun", 11)])
def test_number_of_evaluations(method: str, evaluations: int) -> None:
    network = decay()
    sample(network, NOISE, FlowSchedule(6), method=method)  # type: ignore[arg-type]
    assert len(network.asked) == evaluations
    assert all(t > 0 for _, t, _ in network.asked)


def test_guidance_interval_includes_both_ends() -> None:
    schedule = FlowSchedule(12, 3.0)
    times = schedule.times.tolist()
    network = decay()
    sample(network, NOISE, schedule, Guidance(2.0, (times[9], times[2])))
    kinds = [kind for kind, _, _ in network.asked]
    assert kinds == ["conditional"] * 2 + ["guided"] * 8 + ["conditional"] * 2
    # One unit in the last place of a float64 further in, and the ends are out.
    network = decay()
    inner = (math.nextafter(times[9], 1), math.nextafter(times[2], 0))
    sample(network, NOISE, schedule, Guidance(2.0, inner))
    assert [kind for kind, _, _ in network.asked] == ["conditional"] * 3 + ["guided"] * 6 + ["conditional"] * 3


def test_no_strength_no_guidance() -> None:
    network = decay()
    sample(network, NOISE, FlowSchedule(5), Guidance(0.0))
    assert {kind for kind, _, _ in network.asked} == {"conditional"}


def test_guidance_follows_the_one_plus_w_convention() -> None:
    network = Field(lambda x, t: 2 * torch.ones_like(x), lambda x, t: 0.5 * torch.ones_like(x))
    found = sample(network, NOISE, FlowSchedule(4), Guidance(3.0)).x
    torch.testing.assert_close(found, NOISE - (4 * 2 - 3 * 0.5))


def test_heun_guides_a_step_wholly_or_not_at_all() -> None:
    network = decay()
    sample(network, NOISE, FlowSchedule(4), Guidance(1.0, (0.5, 1.0)), method="heun")
    by_step: dict[int, set[str]] = {}
    for kind, _, step in network.asked:
        by_step.setdefault(step, set()).add(kind)
    assert by_step == {0: {"guided"}, 1: {"guided"}, 2: {"guided"}, 3: {"conditional"}}


def test_extra_is_that_of_the_last_conditional_prediction() -> None:
    result = sample(decay(), NOISE, FlowSchedule(4), Guidance(1.0))
    assert result.extra.tolist() == [0.25]


def test_steps_are_reported_with_the_data_they_see() -> None:
    data, noise = torch.randn(2, 3), torch.randn(2, 3)
    sigma = 1e-5
    straight = Field(lambda x, t: (1 - sigma) * noise - data)
    seen: list[SampleStep] = []
    sample(straight, noise, FlowSchedule(5, 3.0), sigma_min=sigma, on_step=seen.append)
    assert [(s.index, s.count) for s in seen] == [(i, 5) for i in range(5)]
    assert seen[-1].t_next == 0
    for step in seen:
        torch.testing.assert_close(step.x0, data, atol=1e-4, rtol=0)
        torch.testing.assert_close(step.x, step.x_before - (step.t - step.t_next) * step.velocity)


def test_cancellation_stops_before_the_next_step() -> None:
    network = decay()
    seen: list[SampleStep] = []
    with pytest.raises(CancelledError, match="after 3 of 9"):
        sample(network, NOISE, FlowSchedule(9), on_step=seen.append, cancelled=lambda: len(seen) == 3)
    assert len(network.asked) == 3


def test_bad_arguments_are_named() -> None:
    for make in (
        lambda: FlowSchedule(0),
        lambda: FlowSchedule(3, 0.0),
        lambda: Guidance(-1.0),
        lambda: Guidance(math.nan),
        lambda: Guidance(1.0, (0.8, 0.2)),
        lambda: steps_for_views(12, 0),
        lambda: sample(decay(), NOISE, FlowSchedule(2), method="rk4"),  # type: ignore[arg-type]
        lambda: draw_sparse_noise([1, 2], [3], 8),
    ):
        with pytest.raises(InputError):
            make()


def test_a_result_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(Gena3DError, match="not finite"):
        sample(Field(lambda x, t: x / 0.0), NOISE, FlowSchedule(2))


def test_sampling_keeps_no_graph() -> None:
    weight = torch.ones((), requires_grad=True)
    assert not sample(Field(lambda x, t: weight * x), torch.ones(2), FlowSchedule(2)).x.requires_grad


# With a network


CONFIG = SparseStructureFlowConfig(
    resolution=4, in_channels=3, model_channels=24, cond_channels=12, out_channels=3, num_blocks=2, num_heads=2,
    qk_rms_norm=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> SparseStructureFlow:
    torch.manual_seed(0)
    model = SparseStructureFlow(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)


def denoiser_of(model: SparseStructureFlow, condition: FlowCondition, owner: Tensor | None = None) -> BatchedDenoiser:
    contexts = model.contexts(condition)
    return BatchedDenoiser(model, contexts, with_unconditional(contexts, model.blocks), owner)


GUIDANCE = Guidance(2.5, (0.4, 1.0))
SCHEDULE = FlowSchedule(5, 3.0)


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_one_pass_of_guidance_equals_two_calls(model: SparseStructureFlow, method: str) -> None:
    tokens, noise = torch.randn(3, 5, 12), torch.randn(3, 3, 4, 4, 4)

    class TwoCalls:
        def conditional(self, x: Tensor, t: float, step: int) -> Prediction:
            return Prediction(model(x, network_time(t, 3), model.contexts(single_views(tokens))))

        def guided(self, x: Tensor, t: float, step: int) -> tuple[Prediction, Prediction]:
            zeros = model.contexts(single_views(torch.zeros_like(tokens)))
            return self.conditional(x, t, step), Prediction(model(x, network_time(t, 3), zeros))

    one = sample(denoiser_of(model, single_views(tokens)), noise, SCHEDULE, GUIDANCE, method=method).x  # type: ignore[arg-type]
    two = sample(TwoCalls(), noise, SCHEDULE, GUIDANCE, method=method).x  # type: ignore[arg-type]
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_a_batch_equals_its_objects_one_by_one(model: SparseStructureFlow) -> None:
    tokens, noise = torch.randn(4, 5, 12), draw_noise([7, 8, 9, 10], (3, 4, 4, 4))
    together = sample(denoiser_of(model, single_views(tokens)), noise, SCHEDULE, GUIDANCE).x
    for i in range(4):
        alone = sample(denoiser_of(model, single_views(tokens[i : i + 1])), noise[i : i + 1], SCHEDULE, GUIDANCE).x
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


def views_of(tokens: Tensor, owner: Tensor, batch: int) -> FlowCondition:
    """Every pair of an object and a view as a row of its own."""
    rows = torch.arange(len(owner))
    return FlowCondition(ViewTokens(tokens, rows, torch.ones(len(owner))), len(owner))


@pytest.mark.parametrize("owner", [[0, 0, 0, 1, 1], [1, 0, 1, 0, 0]])
def test_multidiffusion_in_one_pass_is_the_mean_of_the_views(model: SparseStructureFlow, owner: list[int]) -> None:
    rows = torch.tensor(owner)
    tokens, noise = torch.randn(5, 5, 12), torch.randn(2, 3, 4, 4, 4)
    one_pass = sample(denoiser_of(model, views_of(tokens, rows, 2), rows), noise, SCHEDULE, GUIDANCE).x
    for b in range(2):
        views = [denoiser_of(model, single_views(tokens[p : p + 1])) for p in range(5) if owner[p] == b]
        apart = sample(MeanOfViews(views), noise[b : b + 1], SCHEDULE, GUIDANCE).x
        torch.testing.assert_close(one_pass[b : b + 1], apart, atol=1e-5, rtol=0)


def test_owners_must_cover_the_batch(model: SparseStructureFlow) -> None:
    tokens, noise = torch.randn(3, 5, 12), torch.randn(3, 3, 4, 4, 4)
    for owner in ([0, 0, 2], [0, 1, 1]):
        rows = torch.tensor(owner)
        with pytest.raises(InputError, match="owner"):
            sample(denoiser_of(model, views_of(tokens, rows, 3), rows), noise, SCHEDULE)


def test_extras_are_averaged_over_the_views_of_a_sample() -> None:
    def network(x: Tensor, t: Tensor, context: Tensor) -> Prediction:
        return Prediction(x * 0, context)

    owner = torch.tensor([0, 1, 0])
    context = torch.tensor([[1.0], [5.0], [3.0]])
    denoiser = BatchedDenoiser(network, context, torch.cat([context, torch.full((2, 1), 9.0)]), owner)
    noise = torch.randn(2, 4)
    assert sample(denoiser, noise, FlowSchedule(1)).extra.tolist() == [[2.0], [5.0]]
    assert sample(denoiser, noise, FlowSchedule(1), Guidance(1.0)).extra.tolist() == [[2.0], [5.0]]


def test_cycling_shows_view_s_modulo_k_and_may_end_on_the_mean() -> None:
    views = [Field(lambda x, t, k=k: torch.full_like(x, float(k))) for k in range(3)]  # type: ignore[misc]
    seen: list[SampleStep] = []
    sample(CyclingViews(views), torch.zeros(1), FlowSchedule(7), on_step=seen.append)
    assert [float(s.velocity) for s in seen] == [0, 1, 2, 0, 1, 2, 0]
    seen.clear()
    ending = CyclingViews(views, MeanOfViews(views[1:]), 6)
    sample(ending, torch.zeros(1), FlowSchedule(7), Guidance(1.0), on_step=seen.append)
    assert [float(s.velocity) for s in seen] == [0, 2, 4, 0, 2, 4, 3]


def test_heun_shows_one_view_per_step() -> None:
    views = [decay(), decay()]
    sample(CyclingViews(views), NOISE, FlowSchedule(4), method="heun")
    assert [step for _, _, step in views[0].asked] == [0, 0, 2, 2]
    assert [step for _, _, step in views[1].asked] == [1, 1, 3]


def test_guided_mean_of_views_asks_once_without_condition() -> None:
    views = [decay() for _ in range(3)]
    sample(MeanOfViews(views), NOISE, FlowSchedule(2), Guidance(1.0))
    assert [kind for view in views for kind, _, _ in view.asked] == ["guided"] * 2 + ["conditional"] * 4


# Noise


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5), st.integers(0, 4))
def test_noise_does_not_depend_on_the_batch(seeds: list[int], pick: int) -> None:
    i = pick % len(seeds)
    together = draw_noise(seeds, (2, 3, 3, 3))
    assert torch.equal(together[i], draw_noise([seeds[i]], (2, 3, 3, 3))[0])
    counts = [4 + k for k in range(len(seeds))]
    rows = draw_sparse_noise(seeds, counts, 8).split(counts)
    assert torch.equal(rows[i], draw_sparse_noise([seeds[i]], [counts[i]], 8))


def test_noise_is_standard_normal_and_of_the_asked_type() -> None:
    noise = draw_noise([3, 4], (8, 16, 16, 16))
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert not torch.equal(noise[0], noise[1])
    half = draw_noise([3], (8, 16, 16, 16), dtype=torch.bfloat16)
    assert torch.equal(half, noise[:1].bfloat16())


def test_seeds_are_stable_and_tell_objects_apart() -> None:
    assert object_seed(0, "cup") == 9035651025090542761
    seeds = {
        object_seed(seed, name, hypothesis, purpose)
        for seed in range(3)
        for name in ("a", "b", 7)
        for hypothesis in range(3)
        for purpose in ("", "structure", "latent")
    }
    assert len(seeds) == 81
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert object_seed(1, 7) == object_seed(1, "7")


def test_no_guidance_is_the_default() -> None:
    assert Guidance() == NO_GUIDANCE
    assert not NO_GUIDANCE.active(0.7)
