"""Pictures of scenes: the truth against itself, shifts, missing objects, photos with masks."""

from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.metrics.scene_objects import PlacedMesh
from gena3d_core.metrics.scene_pictures import masked_photo, picture_scores, rendered_truth
from gena3d_core.simulation.primitives import box, sphere
from gena3d_core.types import Intrinsics, Mesh

CAMERA = Intrinsics(96, 72, 90.0, 90.0, 47.5, 35.5)
POSE = transforms.look_at((0.0, -1.0, 0.6), (0.0, 0.0, 0.05))


def painted(mesh: Mesh, color: tuple[int, int, int]) -> Mesh:
    return replace(mesh, vertex_colors=np.tile(np.array(color, dtype=np.uint8), (len(mesh.vertices), 1)))


def scene(shift: float = 0.0) -> list[PlacedMesh]:
    return [
        PlacedMesh(0, painted(box((0.2, 0.2, 0.2)), (220, 30, 30)), transforms.rigid(t=np.array([-0.15, 0.0, 0.1]))),
        PlacedMesh(1, painted(sphere(0.1), (30, 220, 30)), transforms.rigid(t=np.array([0.2 + shift, 0.0, 0.1]))),
    ]


def test_the_truth_looks_like_itself():
    truth = rendered_truth(scene(), POSE, CAMERA)
    assert 0.05 < truth.mask.mean() < 0.5
    scores = picture_scores(scene(), np.eye(4), [truth])
    assert scores.picture.psnr == scores.objects.psnr == 100.0
    assert scores.picture.ssim == pytest.approx(1.0)
    assert scores.silhouette == 1.0


def test_the_alignment_is_applied():
    S = transforms.rigid(2.0 * np.eye(3), np.array([0.4, 0.1, -0.2]))
    elsewhere = [PlacedMesh(item.id, item.mesh, transforms.inverse(S) @ item.S_world_object) for item in scene()]
    truth = rendered_truth(scene(), POSE, CAMERA)
    assert picture_scores(elsewhere, S, [truth]).silhouette > 0.98
    assert picture_scores(elsewhere, np.eye(4), [truth]).silhouette < 0.7


def test_a_shift_and_a_missing_object_cost():
    truth = rendered_truth(scene(), POSE, CAMERA)
    scores = [picture_scores(found, np.eye(4), [truth]) for found in (scene(), scene(0.05), scene()[:1], [])]
    for name in ("psnr", "ssim"):
        values = [getattr(item.objects, name) for item in scores]
        assert values[0] > values[1] > values[3], name
    assert scores[0].silhouette > scores[1].silhouette > scores[3].silhouette == 0.0
    assert 0.3 < scores[2].silhouette < 0.8
    # Black around the objects is right for all of them.
    assert scores[3].picture.psnr > scores[3].objects.psnr


def test_photos_are_black_around_the_masks():
    truth = rendered_truth(scene(), POSE, CAMERA)
    photo = np.where(truth.mask[..., None], truth.color, 77).astype(np.uint8)
    left = truth.mask & (np.arange(CAMERA.width) < 48)
    picture = masked_photo(photo, [left, truth.mask & ~left], POSE, CAMERA)
    np.testing.assert_array_equal(picture.color, truth.color)
    np.testing.assert_array_equal(picture.mask, truth.mask)


def test_objects_without_colours_are_grey_beside_coloured_ones():
    items = scene()
    plain = [items[0], PlacedMesh(1, sphere(0.1), items[1].S_world_object)]
    seen = rendered_truth(plain, POSE, CAMERA)
    colors = {tuple(color) for color in seen.color[seen.mask].tolist()}
    assert (128, 128, 128) in colors
    assert (220, 30, 30) in colors


def test_means_over_pictures_leave_out_those_without_objects():
    truth = rendered_truth(scene(), POSE, CAMERA)
    away = rendered_truth(scene(), transforms.look_at((0.0, -1.0, 0.6), (0.0, -2.0, 0.6)), CAMERA)
    assert not away.mask.any()
    both = picture_scores(scene(0.05), np.eye(4), [truth, away])
    assert both.objects == picture_scores(scene(0.05), np.eye(4), [truth]).objects
    assert np.isnan(picture_scores(scene(), np.eye(4), [away]).silhouette)


def test_what_is_no_picture_is_refused():
    with pytest.raises(InputError, match="picture"):
        picture_scores(scene(), np.eye(4), [])
    with pytest.raises(InputError, match="mask"):
        masked_photo(np.zeros((72, 96, 3), np.uint8), [], POSE, CAMERA)
    with pytest.raises(InputError, match="shape"):
        masked_photo(np.zeros((10, 10, 3), np.uint8), [np.zeros((10, 10), bool)], POSE, CAMERA)
