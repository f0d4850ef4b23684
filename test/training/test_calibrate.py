"""Temperature: found where it is known, and better than none."""

from __future__ import annotations

import pytest
import torch

from gena3d_core.errors import InputError
from training.calibrate import HIGHEST, fit_temperature


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_finds_the_temperature_that_outcomes_were_drawn_with(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = temperature * torch.randn(40000, 1, generator=generator)
    truth = (torch.rand(40000, generator=generator) < torch.sigmoid(logits[:, 0] / temperature)).float()
    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.05)


def test_samples_that_disagree_are_averaged_as_chances():
    """Two samples that say full and empty with all force give 1/2 at any temperature; the third kind decides."""
    logits = torch.tensor([[40.0, -40.0]] * 100 + [[2.0, 2.0]] * 1000)
    truth = torch.cat([torch.tensor([0.0, 1.0]).repeat(50), (torch.arange(1000) % 4 > 0).float()])
    assert fit_temperature(logits, truth) == pytest.approx(2.0 / torch.tensor(3.0).log().item(), rel=0.05)


def test_noise_gets_the_highest_and_nothing_an_error():
    logits = torch.randn(5000, 2, generator=torch.Generator().manual_seed(1)) * 10
    truth = (torch.arange(5000) % 2).float()
    assert fit_temperature(logits, truth) == pytest.approx(HIGHEST, rel=0.01)
    with pytest.raises(InputError, match="nothing to calibrate"):
        fit_temperature(torch.zeros(0, 4), torch.zeros(0))
