"""Every numerical case of the published networks, through the command."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gena3d_core.checkpoints.cases import runner_for
from gena3d_core.checkpoints.golden import compare_case, read_case

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
CASES = sorted(path for path in GOLDEN.glob("*") if path.is_dir()) or [GOLDEN / "absent"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_our_networks_equal_the_published_ones(golden_dir, gena3d, case):
    done = gena3d("verify", case)
    assert (done.code, done.out[-1]) == (0, "1 passed, 0 failed"), "\n".join(done.out)
    assert "not compared" not in done.out[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_value_anywhere_is_noticed(golden_dir, case):
    """Each expected tensor is read: with one value of it changed, the case fails. So it does with other weights."""
    read = read_case(case)
    runner = runner_for(read)
    assert runner is not None
    results = runner(read)
    for name, tensor in read.expected.items():
        if name in results.comparisons:
            # Its comparison may look at the other tensors of the mesh: below, by the weights.
            continue
        wrong = tensor.clone().double()
        wrong.view(-1)[len(wrong.view(-1)) // 2] += 3
        changed = replace(read, expected={**read.expected, name: wrong})
        assert not all(d.ok for d in compare_case(changed, results).values()), name
    weights = {key: 1.05 * w if w.is_floating_point() else w for key, w in read.weights.items()}
    if weights:
        other = replace(read, weights=weights)
        assert not all(d.ok for d in compare_case(other, runner(other)).values())


def test_changed_meshes_are_noticed(golden_dir):
    read = read_case(golden_dir / "f_flexicubes")
    runner = runner_for(read)
    assert runner is not None
    for name in [name for name in read.expected if name.endswith("faces")]:
        faces = read.expected[name]
        swapped = torch.cat([faces[:1].flip(-1), faces[1:]])
        for wrong in (swapped, faces[:-1]):
            other = replace(read, expected={**read.expected, name: wrong})
            assert not all(d.ok for d in compare_case(other, runner(other)).values()), name


def test_poses_pass_with_either_sign_of_a_quaternion_and_no_other_change(golden_dir):
    read = read_case(golden_dir / "g_scenegen_pose")
    runner = runner_for(read)
    assert runner is not None
    poses = read.expected["out.P_quat"]
    flipped = poses * torch.tensor([1.0, 1, 1, -1, -1, -1, -1, 1])
    for changed, right in ((flipped, True), (poses + 1e-4 * torch.eye(8)[[0, 4, 7]], False), (poses[:2], False)):
        other = replace(read, expected={**read.expected, "out.P_quat": changed})
        assert all(d.ok for d in compare_case(other, runner(other)).values()) == right
