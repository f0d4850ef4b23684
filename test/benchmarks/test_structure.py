"""Stage 1 in the benchmark: every saving switched off gives the same logits; operations are those of the formulas."""

import math

import pytest
import torch

from gena3d_core.benchmarks.savings import SAVINGS, StructureProblem, separate_views, solve_fast, written_out_attention
from gena3d_core.benchmarks.settings import Settings
from gena3d_core.benchmarks.structure import measure_structure
from gena3d_core.benchmarks.workload import latent_shape, structure_operations, synthetic_condition, token_shape
from gena3d_core.checkpoints.presets import PRESETS, random_bundle
from gena3d_core.sampling import FlowSchedule, draw_noise

PATIENT = Settings("cpu", "float32", None, 2, 1, 60.0, 1e9)


def problem_of(views: int, objects: int) -> StructureProblem:
    bundle = random_bundle("tiny", seed=3)
    condition = synthetic_condition(token_shape("tiny"), latent_shape(bundle), views, objects, "cpu")
    flow, decoder = bundle.modules["sparse_structure_flow"], bundle.modules["sparse_structure_decoder"]
    noise = draw_noise(range(objects), latent_shape(bundle))
    return StructureProblem(flow, decoder, condition, noise, FlowSchedule(3, 3.0))


@pytest.mark.parametrize("saving", SAVINGS, ids=lambda saving: saving.name)
@pytest.mark.parametrize(("views", "objects"), [(1, 1), (3, 2)])
def test_a_saving_changes_no_result(saving, views, objects):
    problem = problem_of(views, objects)
    torch.testing.assert_close(saving.solve(problem), solve_fast(problem), rtol=1e-4, atol=1e-5)


def test_objects_and_views_matter_to_the_result():
    """Without this, equal results could come from networks that ignore what they are given."""
    logits = solve_fast(problem_of(1, 2))
    assert (logits[0] - logits[1]).abs().max() > 1e-2
    assert (solve_fast(problem_of(3, 2)) - logits).abs().max() > 1e-3


def test_switched_off_savings_are_on_again():
    flow = problem_of(1, 1).flow
    with separate_views(flow), written_out_attention(flow):
        assert all("forward" in vars(block.operations["cross_attn"]) for block in flow.blocks)
        assert {m.attention_backend for m in flow.modules() if hasattr(m, "attention_backend")} == {"reference"}
    assert not any("forward" in vars(block.operations["cross_attn"]) for block in flow.blocks)
    assert {m.attention_backend for m in flow.modules() if hasattr(m, "attention_backend")} == {"sdpa"}


@pytest.mark.parametrize("size", ["tiny", "edge", "full"])
@pytest.mark.parametrize(("views", "objects"), [(1, 1), (4, 1), (2, 3)])
def test_counted_operations_of_a_guided_step(size, views, objects):
    config = PRESETS[size].flow
    C, D = config.model_channels, config.num_blocks
    N = (config.resolution // config.patch_size) ** 3
    cells = config.patch_size**3
    L, _ = token_shape(size)
    rows = 2 * objects
    linear = 3 + 1 + 8  # qkv, output, feed-forward of ratio 4, in units of C²
    block = rows * N * (linear * C * C + 2 * N * C)
    images = objects * (2 * N * C * C + views * 2 * N * L * C)
    geometry = objects * (2 * N * C * C + 2 * N * N * C)
    around = rows * N * C * cells * (config.in_channels + config.out_channels) + rows * (256 * C + C * C)
    modulation = rows * 6 * C * C * (1 if config.share_mod else D)
    wanted = 2 * (D * (block + images + geometry) + around + modulation)
    assert structure_operations(size, views, objects).step == wanted


def test_operations_of_contexts_and_encoders():
    one, many = structure_operations("tiny", 1, 1), structure_operations("tiny", 4, 8)
    config, (L, width) = PRESETS["tiny"].flow, token_shape("tiny")
    C, D = config.model_channels, config.num_blocks
    N = (config.resolution // config.patch_size) ** 3
    views = D * 2 * L * width * 2 * C
    assert many.contexts - 8 * one.contexts == 8 * 3 * views
    assert many.decoder == 8 * one.decoder
    assert one.sampling(5) == one.contexts + 5 * one.step + one.decoder
    assert one.image > 2 * L * width * width
    assert one.cloud > N


def test_row_of_a_whole_run():
    row = measure_structure(PATIENT, "tiny", 4, 2)
    assert row["measured"] == "whole"
    assert (row["views"], row["objects"], row["steps"]) == (4, 2, 2)
    assert [entry["saving"] for entry in row["without"]] == [saving.name for saving in SAVINGS]
    assert all(entry["max_difference"] < 1e-4 < entry["largest_logit"] for entry in row["without"])
    assert math.isclose(row["times_floor"] * row["floor_s_per_object"], row["seconds_per_object"])
    assert math.isclose(row["floor_s_per_object"], row["operations_per_object"] / PATIENT.matrix_rate)
    assert all(seconds > 0 for seconds in row["parts_s"].values())
    assert row["weights_bytes"] < row["weights_bytes_with_encoders"]


def test_long_runs_are_extrapolated_and_longer_ones_left_out():
    slow = Settings("cpu", "float32", None, 100, 1, 1.0, 2e9)
    row = measure_structure(slow, "tiny", 1, 1)
    parts = row["parts_s"]
    assert row["measured"] == "extrapolated from 1 step"
    assert math.isclose(row["seconds_per_object"], parts["contexts"] + 100 * parts["step"] + parts["decoder"])
    assert all(entry["reason"] for entry in row["without"])
    slower = Settings("cpu", "float32", None, 100, 1, 1.0, 1e6)
    assert measure_structure(slower, "tiny", 1, 1)["measured"] == "extrapolated from 1 step"
    row = measure_structure(slower, "tiny", 1, 8)
    assert row["measured"] == "no"
    assert "one step would take about" in row["reason"]


def test_half_precision():
    row = measure_structure(Settings("cpu", "bfloat16", None, 2, 1, 60.0, 1e9), "tiny", 1, 1)
    assert row["weights_bytes"] < measure_structure(PATIENT, "tiny", 1, 1)["weights_bytes"]
    assert all(entry["max_difference"] < 0.1 for entry in row["without"])
