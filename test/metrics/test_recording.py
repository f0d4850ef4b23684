"""Scores of one set of frames: what they show of a reference, and what they do not."""

import numpy as np
import pytest

from gena3d_core.metrics.recording import RecordingConfig, SparseSet, format_table, rows_to_json, score_set

CENTER, RADIUS = np.array([0.0, 0.0, 0.06]), 0.06


def ball(count, radius=RADIUS, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return CENTER + radius * points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.fixture
def view(solids):
    return solids.observe([solids.Sphere(tuple(CENTER), RADIUS)], solids.ring(1)).views[0]


def row_of(view, observed, whole, reference=None):
    reference = ball(6000) if reference is None else reference
    config = RecordingConfig(visible_tolerance_m=0.01, unseen_tolerance_m=0.01, f_threshold_m=0.005)
    return score_set(SparseSet("ball", (0,)), [observed], {"ball": reference}, [view], config, whole=[whole])


def near_side(points, view):
    return points[(points - CENTER) @ (view.T_world_camera[:3, 3] - CENTER) > 0.2 * RADIUS * 0.6]


def test_a_whole_ball_recovers_what_was_not_seen(view):
    points = ball(10_000, seed=1)
    row = row_of(view, near_side(points, view), points)
    assert row.found
    assert row.unseen_completeness > 0.98
    assert row.mesh_precision == 1.0
    assert 0.4 < row.unseen_share < 0.7
    assert row.precision > 0.95


def test_the_seen_side_alone_recovers_little(view):
    points = near_side(ball(10_000, seed=1), view)
    row = row_of(view, points, points)
    assert row.unseen_completeness < 0.25
    assert row.mesh_precision == 1.0


def test_wrong_imagination_costs_precision(view):
    seen = near_side(ball(10_000, seed=1), view)
    fan = ball(len(seen), 2 * RADIUS, seed=2)
    row = row_of(view, seen, np.concatenate([seen, fan]))
    assert row.mesh_precision == pytest.approx(0.5, abs=0.02)
    assert row.unseen_completeness < 0.25


def test_without_unseen_surface_there_is_nothing_to_recover(view):
    seen = near_side(ball(10_000, seed=1), view)
    eye = view.T_world_camera[:3, 3] - CENTER
    facing = ball(6000)
    facing = facing[(facing - CENTER) @ eye > 0.5 * RADIUS * np.linalg.norm(eye)]
    row = row_of(view, seen, seen, facing)
    assert row.unseen_share < 0.02
    assert rows_to_json([row])[0]["mesh_precision"] <= 1.0
    assert "unseen" in format_table([row])


def test_an_object_that_is_not_found_has_no_figures(view):
    far = ball(1000) + np.array([0.5, 0.0, 0.0])
    row = row_of(view, far, far)
    assert not row.found
    assert np.isnan(row.unseen_completeness)
    assert rows_to_json([row])[0]["unseen_completeness"] is None
