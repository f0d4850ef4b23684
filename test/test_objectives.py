"""Training objectives: inverses, known values, gradients."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gena3d_core.errors import InputError
from gena3d_core.objectives import (
    RECONSTRUCTION,
    cross_entropy_loss,
    dice_loss,
    estimated_x0,
    interpolate,
    kl_divergence,
    l1_loss,
    logit_normal,
    remove_noise,
    sampled_times,
    sparse_structure_vae_loss,
    velocity_loss,
    velocity_target,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def draws(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Data, noise and times."""
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return x0, noise, torch.rand(shape[0], generator=generator, dtype=torch.float64) * 0.98


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([(3, 2, 4, 4, 4), (7, 8), (1, 5)]), st.sampled_from([0.0, 1e-5, 1e-2]))
def test_known_noise_and_exact_velocity_give_the_data_back(seed: int, shape: tuple[int, ...], sigma: float) -> None:
    x0, noise, t = draws(shape, seed)
    x_t = interpolate(x0, noise, t, sigma)
    torch.testing.assert_close(remove_noise(x_t, noise, t, sigma), x0, atol=1e-11, rtol=1e-9)
    torch.testing.assert_close(
        estimated_x0(x_t, velocity_target(x0, noise, sigma), t, sigma), x0, atol=1e-11, rtol=1e-9
    )


def test_path_runs_from_data_to_noise_at_the_target_velocity() -> None:
    x0, noise, t = draws((4, 6), 0)
    sigma = 1e-3
    torch.testing.assert_close(interpolate(x0, noise, torch.zeros(4), sigma), x0 + sigma * noise)
    torch.testing.assert_close(interpolate(x0, noise, torch.ones(4), sigma), noise)
    t.requires_grad_()
    slope = torch.autograd.functional.jvp(lambda t: interpolate(x0, noise, t, sigma), t, torch.ones_like(t))[1]
    torch.testing.assert_close(slope, velocity_target(x0, noise, sigma))


def test_times_are_logit_normal() -> None:
    t = sampled_times(40000, mean=1.0, std=2.0, generator=torch.Generator().manual_seed(0))
    normal = torch.logit(t)
    assert float(normal.mean()) == pytest.approx(1, abs=0.05)
    assert float(normal.std()) == pytest.approx(2, abs=0.05)
    assert torch.equal(t, sampled_times(40000, mean=1.0, std=2.0, generator=torch.Generator().manual_seed(0)))
    assert float(logit_normal(torch.zeros(1), 0.0)) == 0.5


def test_times_must_fit_the_samples() -> None:
    with pytest.raises(InputError, match="3 samples"):
        interpolate(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2))


def test_rows_of_sparse_features_weigh_the_same() -> None:
    v, target = torch.zeros(10, 8), torch.zeros(10, 8)
    v[:1] = 1  # one row of a sample of one row
    large = velocity_loss(v, target)
    assert float(large) == pytest.approx(0.1)
    assert velocity_loss(v.half(), target.half()).dtype == torch.float32


def test_dice_loss_values() -> None:
    o = torch.zeros(2, 1, 4, 4, 4)
    o[0, :, :2] = 1
    assert float(dice_loss(200 * o - 100, o)) == pytest.approx(0, abs=1e-6)
    wrong = dice_loss(100 - 200 * o, o)
    assert float(wrong) == pytest.approx(1 - 1 / (96 + 32 + 1), abs=1e-6)
    # Sums run over the batch: an empty sample alone would count as perfectly rebuilt.
    assert float(dice_loss(torch.full_like(o, -100), o)) == pytest.approx(1 - 1 / 33, abs=1e-6)


def test_other_reconstruction_losses() -> None:
    logits, o = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, 1.0, 0.0])
    p = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
    wanted = -(math.log(p[0]) + math.log(p[1]) + math.log(1 - p[2])) / 3
    assert float(cross_entropy_loss(logits, o)) == pytest.approx(wanted, rel=1e-6)
    assert float(l1_loss(logits, o)) == pytest.approx(((1 - p[0]) + (1 - p[1]) + p[2]) / 3, rel=1e-6)


def test_divergence_is_that_of_gaussians() -> None:
    mean, logvar = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    ours = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    wanted = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_divergence(mean, logvar).double(), wanted, atol=1e-5, rtol=1e-5)
    assert float(kl_divergence(torch.zeros(4), torch.zeros(4))) == 0


@pytest.mark.parametrize("kind", RECONSTRUCTION)
def test_vae_loss_sums_both_parts_and_reaches_all_inputs(kind: str) -> None:
    torch.manual_seed(0)
    logits, mean, logvar = (torch.randn(2, 1, 4, 4, 4, requires_grad=True) for _ in range(3))
    occupancy = (torch.rand(2, 1, 4, 4, 4) > 0.7).float()
    function, weight = RECONSTRUCTION[kind]
    loss = sparse_structure_vae_loss(logits, occupancy, mean, logvar, kind=kind)
    torch.testing.assert_close(loss, function(logits, occupancy) + weight * kl_divergence(mean, logvar))
    heavier = sparse_structure_vae_loss(logits, occupancy, mean, logvar, kind=kind, kl_weight=1.0)
    assert float(heavier.detach()) > float(loss.detach())
    heavier.backward()
    for tensor in (logits, mean, logvar):
        assert tensor.grad is not None
        assert bool((tensor.grad != 0).all())
        assert bool(tensor.grad.isfinite().all())
    # More occupancy where there should be some lowers the loss, and the other way round.
    assert logits.grad is not None
    assert bool((logits.grad[occupancy == 1] < 0).all())
    assert bool((logits.grad[occupancy == 0] > 0).all())


@pytest.mark.parametrize(
    "loss", [dice_loss, cross_entropy_loss, l1_loss, kl_divergence, velocity_loss], ids=lambda f: f.__name__
)
def test_gradients_against_finite_differences(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(1)
    a, b = torch.randn(12), torch.rand(12)
    x = a.clone().requires_grad_()
    loss(x, b).backward()
    assert x.grad is not None
    step = 1e-2
    for i in range(0, 12, 5):
        offset = torch.zeros(12)
        offset[i] = step
        slope = (loss(a + offset, b) - loss(a - offset, b)) / (2 * step)
        assert float(slope) == pytest.approx(float(x.grad[i]), abs=2e-4)


def test_half_precision_logits_do_not_overflow() -> None:
    logits = torch.full((1, 1, 64, 64, 64), 3.0, dtype=torch.float16)
    occupancy = torch.ones(1, 1, 64, 64, 64)
    for function, _ in RECONSTRUCTION.values():
        assert math.isfinite(float(function(logits, occupancy)))


def test_bad_arguments_are_named() -> None:
    logits = torch.zeros(1, 1, 4, 4, 4)
    with pytest.raises(InputError, match="dice, bce, l1"):
        sparse_structure_vae_loss(logits, logits, logits, logits, kind="focal")
    with pytest.raises(InputError, match="shape"):
        sparse_structure_vae_loss(logits, logits[:, :, :2], logits, logits)


def test_published_numbers(golden_dir: Path) -> None:
    from gena3d_core.checkpoints.cases import runner_for
    from gena3d_core.checkpoints.golden import compare_case, read_case

    folders = sorted(f for f in golden_dir.glob("c_*") if f.is_dir())
    assert folders
    for folder in folders:
        case = read_case(folder)
        runner = runner_for(case)
        assert runner is not None
        found = compare_case(case, runner(case))
        assert {name for name, difference in found.items() if not difference.ok} == set(), folder.name
