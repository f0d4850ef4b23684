"""Meshes compare equal in any order of vertices and faces, and unequal where anything else differs."""

import pytest
import torch
from torch import Tensor

from gena3d_core.checkpoints.cases.mesh_comparison import mesh_comparisons
from gena3d_core.checkpoints.golden import CaseResults, GoldenCase, Tolerance, compare_case

CASE_TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture
def expected() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    faces = torch.stack([torch.randperm(40, generator=generator)[:3] for _ in range(60)])
    return {
        "out.mesh0.vertices": torch.randn(40, 3, generator=generator),
        "out.mesh0.faces": faces,
        "out.mesh0.vertex_attrs": torch.rand(40, 6, generator=generator),
        "out.mesh0.face_normal": torch.randn(60, 3, generator=generator),
        "out.other": torch.ones(3),
    }


def compare(
    expected: dict[str, Tensor], ours: dict[str, Tensor], tolerance: Tolerance | None = None
) -> dict[str, bool]:
    case = GoldenCase("case", {"tolerance": CASE_TOLERANCE}, {}, expected, {})
    results = CaseResults(ours, mesh_comparisons(expected, ours, tolerance))
    return {name: found.ok for name, found in compare_case(case, results).items()}


def shuffled(mesh: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    order, face_order = torch.randperm(40, generator=generator), torch.randperm(60, generator=generator)
    place = torch.empty_like(order)
    place[order] = torch.arange(40)
    faces = place[mesh["out.mesh0.faces"]][face_order]
    turn = torch.arange(60) % 3
    faces = faces[torch.arange(60).unsqueeze(1), (torch.arange(3) + turn.unsqueeze(1)) % 3]
    return {
        "out.mesh0.vertices": mesh["out.mesh0.vertices"][order] + 1e-7,
        "out.mesh0.faces": faces,
        "out.mesh0.vertex_attrs": mesh["out.mesh0.vertex_attrs"][order],
        "out.mesh0.face_normal": mesh["out.mesh0.face_normal"][face_order],
        "out.other": mesh["out.other"],
    }


def test_same_order(expected):
    assert all(compare(expected, dict(expected)).values())


def test_any_order(expected):
    assert all(compare(expected, shuffled(expected)).values())


@pytest.mark.parametrize("name", ["vertex_attrs", "face_normal", "vertices"])
def test_a_changed_value_fails(expected, name):
    for ours in (dict(expected), shuffled(expected)):
        ours[f"out.mesh0.{name}"] = ours[f"out.mesh0.{name}"].clone()
        ours[f"out.mesh0.{name}"][7, 1] += 0.01
        found = compare(expected, ours)
        assert not found.pop(f"out.mesh0.{name}")
        assert all(found.values())


def test_vertices_may_have_their_own_tolerance(expected):
    ours = shuffled(expected)
    ours["out.mesh0.vertices"] = ours["out.mesh0.vertices"] + 5e-4
    assert not compare(expected, ours)["out.mesh0.vertices"]
    assert compare(expected, ours, Tolerance(1e-3, 0.0))["out.mesh0.vertices"]


def test_a_face_turned_over_fails(expected):
    ours = shuffled(expected)
    ours["out.mesh0.faces"] = ours["out.mesh0.faces"].clone()
    ours["out.mesh0.faces"][5] = ours["out.mesh0.faces"][5].flip(0)
    assert not compare(expected, ours)["out.mesh0.faces"]


def test_missing_parts_fail(expected):
    ours = dict(expected)
    ours["out.mesh0.faces"] = ours["out.mesh0.faces"][:-1]
    assert not compare(expected, ours)["out.mesh0.faces"]
    ours = dict(expected)
    ours["out.mesh0.vertices"] = ours["out.mesh0.vertices"][:-1]
    assert not compare(expected, ours)["out.mesh0.vertices"]
    ours = dict(expected)
    del ours["out.mesh0.faces"]
    assert not compare(expected, ours)["out.mesh0.faces"]
