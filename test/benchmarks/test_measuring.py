"""Medians, memory, rates, and tables of the benchmarks."""

import itertools
import time
from functools import partial

import numpy as np
import pytest
import torch

from gena3d_core.benchmarks.detail import RESOLUTION, SIZES, sphere_voxels
from gena3d_core.benchmarks.measuring import interleaved, matrix_rate, parameter_bytes, timed, with_peak_memory
from gena3d_core.benchmarks.report import bytes_text, markdown, seconds_text
from gena3d_core.benchmarks.scene import ASSETS, SCENES, scene_operations

MB = 2**20


def test_the_warm_up_is_left_out():
    calls = itertools.count()
    timing, last = timed(lambda: next(calls), "cpu", repeat=3, patience_s=5.0)
    assert (timing.runs, timing.warmed_up, last) == (3, True, 3)


def test_a_long_warm_up_is_the_measurement():
    calls = itertools.count()
    timing, last = timed(lambda: (time.sleep(0.02), next(calls))[1], "cpu", repeat=3, patience_s=0.01)
    assert (timing.runs, timing.warmed_up, last) == (1, False, 0)


def test_runs_are_cut_down_to_the_patience():
    calls = itertools.count()
    timing, last = timed(lambda: next(calls), "cpu", repeat=5, patience_s=1.0, warm_up_s=0.4)
    assert (timing.runs, timing.warmed_up, last) == (2, True, 1)


def test_interleaved_runs_take_turns_and_drop_what_does_not_fit():
    calls: list[str] = []

    def run(name: str) -> str:
        calls.append(name)
        if name == "large":
            raise RuntimeError("device says: out of memory")
        return name.upper()

    found = interleaved({name: partial(run, name) for name in ("a", "large", "b")}, "cpu", rounds=2)
    assert calls == ["a", "large", "b", "a", "b", "a", "b"]
    assert {name: one.result for name, one in found.items()} == {"a": "A", "b": "B"}
    assert all(one.timing.runs == 2 for one in found.values())

    def broken() -> str:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        interleaved({"broken": broken}, "cpu", rounds=1)


def test_peak_memory_sees_what_is_gone_again():
    def run() -> int:
        return int(np.ones(200 * MB, dtype=np.uint8).sum())

    total, peak = with_peak_memory(run, "cpu")
    assert total == 200 * MB
    assert peak is not None
    assert peak > 150 * MB


def test_matrix_rate_and_weights():
    assert matrix_rate("cpu", torch.float32) > 1e8
    layer = torch.nn.BatchNorm1d(10)
    assert parameter_bytes(layer, layer) == 2 * (4 * 10 * 4 + 8)


def test_texts():
    assert [seconds_text(s) for s in (None, 0.01234, 12.34)] == ["–", "12.3 ms", "12.3 s"]
    assert [bytes_text(b) for b in (None, 3 * MB, 3 * 2**30)] == ["not measured", "3.0 MB", "3.00 GB"]
    assert markdown(["a", "bc"], [["123", "4"]]) == ["| a   | bc |", "| --- | -- |", "| 123 | 4  |"]


def test_sphere_is_closed_and_of_the_size_of_an_object():
    coords = sphere_voxels(SIZES["full"].radius, "cpu")
    assert 8_000 < len(coords) < 12_000
    assert coords.dtype == torch.int32
    assert int(coords[:, 1:].min()) >= 0
    assert int(coords[:, 1:].max()) < RESOLUTION
    flat = coords.long() @ torch.tensor([0, RESOLUTION**2, RESOLUTION, 1])
    assert bool((flat[1:] > flat[:-1]).all())


@pytest.mark.parametrize("size", SCENES)
def test_operations_of_scene_attention_grow_with_the_square_of_the_assets(size):
    """What the attention over the whole scene takes in one guided step is a lower bound of all."""
    config = SCENES[size].config
    tokens = ASSETS * (config.resolution**3 + config.special_tokens)
    attention = 2 * 2 * 2 * tokens**2 * config.model_channels * config.num_blocks
    step = scene_operations(size, 2) - scene_operations(size, 1)
    assert attention < step < 8 * attention + 2e9
