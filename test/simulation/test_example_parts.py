"""Settings of examples, wrong masks, completions, things in front and sides to lie on."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from gena3d_core.errors import InputError
from gena3d_core.geometry.mesh import make_mesh
from gena3d_core.simulation.completions import distorted_completion
from gena3d_core.simulation.example_cameras import jittered_pose
from gena3d_core.simulation.example_settings import ExampleSettings, with_text_settings
from gena3d_core.simulation.mask_noise import with_holes, wrong_mask
from gena3d_core.simulation.occluders import place_occluders
from gena3d_core.simulation.resting import random_turn, stable_side


def disc(radius: float = 30.0, shape: tuple[int, int] = (100, 120)) -> np.ndarray:
    rows, cols = np.indices(shape)
    return np.hypot(rows - 50, cols - 60) < radius


def test_settings_from_text():
    read = with_text_settings(
        ExampleSettings(),
        ["occlusion=surface", "coverage=0.3", "elevation_deg=-10,40", "views=4", "noise.baseline_m=0.05"],
    )
    assert (read.occlusion, read.coverage, read.elevation_deg, read.views) == ("surface", (0.3, 0.3), (-10.0, 40.0), 4)
    assert read.noise is not None
    assert read.noise.baseline_m == 0.05
    assert with_text_settings(read, ["noise=none"]).noise is None


@pytest.mark.parametrize(
    "text", ["views", "view=2", "views=two", "coverage=0.2,0.4,0.6", "coverage=1.4", "occlusion=fog", "noise.dropout=2"]
)
def test_wrong_settings_are_refused(text):
    with pytest.raises(InputError):
        with_text_settings(ExampleSettings(), [text])


@settings(max_examples=20, deadline=None)
@given(offset=st.floats(-8.0, 8.0), seed=st.integers(0, 1000))
def test_masks_grow_and_shrink_by_pixels(offset, seed):
    wrong = wrong_mask(disc(), offset, 0.0, 0.0, np.random.default_rng(seed))
    assert np.sqrt(wrong.sum() / np.pi) == pytest.approx(30.0 + offset, abs=1.0)


def test_exact_masks_stay_and_none_vanishes(rng):
    np.testing.assert_array_equal(wrong_mask(disc(), 0.0, 0.0, 0.0, rng), disc())
    np.testing.assert_array_equal(wrong_mask(disc(3.0), -9.0, 0.0, 0.0, rng), disc(3.0))
    assert not wrong_mask(np.zeros((20, 20), bool), 3.0, 1.0, 0.2, rng).any()


def test_rough_and_bleeding_masks_stay_in_one_piece_near_the_outline(rng):
    rough = wrong_mask(disc(), 0.0, 1.0, 0.0, rng)
    assert (rough != disc()).any()
    assert not (rough & ~disc(35.0)).any()
    leaking = wrong_mask(disc(), 0.0, 0.0, 0.3, rng)
    assert (leaking & ~disc()).sum() > 30
    assert label(leaking)[1] == 1


def test_holes_take_the_share_of_the_mask(rng):
    depth = with_holes(np.ones((100, 120), np.float32), disc(), 0.3, rng)
    assert np.isnan(depth[disc()]).mean() == pytest.approx(0.3, abs=0.01)
    assert np.isfinite(depth[~disc()]).all()


def test_completions_resemble_the_object_and_err(rng):
    whole = disc()
    truth = np.zeros((100, 120, 3), np.uint8)
    truth[whole] = np.stack(np.broadcast_arrays(np.indices(whole.shape)[0] * 2, 80, 40), axis=-1)[whole]
    occluded = np.zeros_like(whole)
    occluded[20:85, 60:100] = True
    scene = np.full_like(truth, 220)
    shown, missed = [], []
    for distortion in (0.02, 0.12):
        for seed in range(6):
            painted, filled = distorted_completion(
                scene, truth, whole, occluded, distortion, np.random.default_rng(seed)
            )
            np.testing.assert_array_equal(painted[~filled], scene[~filled])
            assert not (filled & ~occluded).any()
            both = filled & whole
            assert both.sum() > 0.5 * (occluded & whole).sum()
            shown.append(np.abs(painted[both].astype(float) - truth[both]).mean())
            missed.append((filled ^ (occluded & whole)).sum())
    assert 0 < np.mean(shown) < 40
    assert 0 < np.mean(missed[:6]) < np.mean(missed[6:])


def test_things_in_front_stand_on_the_table_apart_from_the_object():
    target = trimesh.creation.box((0.2, 0.1, 0.15)).apply_translation((0.0, 0.0, 0.075))
    mesh = make_mesh(target.vertices, target.faces)
    own = trimesh.creation.icosphere(subdivisions=1, radius=0.5)
    counts = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        placed = place_occluders(mesh, 0.2, 3, 1.0, rng, (make_mesh(own.vertices, own.faces),))
        counts.append(len(placed))
        for shape in placed:
            assert shape.vertices[:, 2].min() == pytest.approx(0.0, abs=1e-6)
            assert not target.contains(shape.vertices).any()
            hull = shape.vertices
            directions = np.stack([np.cos(np.arange(0, 6.29, 0.01)), np.sin(np.arange(0, 6.29, 0.01))], axis=1)
            # Some vertical plane lies between the two.
            assert ((hull[:, :2] @ directions.T).min(axis=0) > (mesh.vertices[:, :2] @ directions.T).max(axis=0)).any()
    assert max(counts) == 3
    assert min(counts) >= 1


def test_a_plate_lies_on_its_face_and_a_rod_on_its_side():
    plate = trimesh.creation.box((0.9, 0.9, 0.05))
    rod = trimesh.creation.cylinder(radius=0.03, height=1.0, sections=24)
    rng = np.random.default_rng(0)
    down = np.array([stable_side(make_mesh(plate.vertices, plate.faces), rng) for _ in range(20)])
    assert (np.abs(down[:, 2]) > 0.999).mean() > 0.6
    down = np.array([stable_side(make_mesh(rod.vertices, rod.faces), rng) for _ in range(20)])
    assert (np.abs(down[:, 2]) < 0.05).mean() > 0.8


def test_turns_are_rotations_and_upright_ones_keep_the_vertical(rng):
    ball = trimesh.creation.icosphere(subdivisions=1)
    mesh = make_mesh(ball.vertices, ball.faces)
    for upright, on_table in ((True, True), (False, True), (False, False)):
        R = random_turn(mesh, upright, on_table, rng)
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(R) == pytest.approx(1.0)
        if upright:
            np.testing.assert_allclose(R[2], (0, 0, 1), atol=1e-12)


def test_pose_jitter_has_the_size_asked_for():
    rng = np.random.default_rng(0)
    moved = np.array([jittered_pose(np.eye(4), 0.02, 1.5, rng) for _ in range(2000)])
    assert np.sqrt((moved[:, :3, 3] ** 2).sum(axis=1).mean()) == pytest.approx(0.02, rel=0.05)
    angle = np.rad2deg(np.arccos(np.clip((np.trace(moved[:, :3, :3], axis1=1, axis2=2) - 1.0) / 2.0, -1.0, 1.0)))
    assert np.sqrt((angle**2).mean()) == pytest.approx(1.5, rel=0.05)
