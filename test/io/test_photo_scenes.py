"""Pictures with masks beside them."""

import cv2
import numpy as np
import pytest

from gena3d_core.errors import DataFormatError
from gena3d_core.io import is_photo_scene, load_photo_scene


@pytest.fixture
def folder(tmp_path):
    """A picture with two masks."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    write_mask(tmp_path / "mask_00.png", (slice(2, 10), slice(3, 20)))
    write_mask(tmp_path / "mask_07.png", (slice(15, 25), slice(20, 30)))
    return tmp_path


def write_mask(path, where, size=(30, 40)):
    mask = np.zeros(size, dtype=np.uint8)
    mask[where] = 255
    cv2.imwrite(str(path), mask)


def test_a_folder_with_a_picture_and_masks(folder):
    assert is_photo_scene([folder])
    found = load_photo_scene([folder])
    assert found.ids == (0, 7)
    assert found.labels == ("", "")
    assert found.images[0].shape == (30, 40, 3)
    assert found.masks[0].sum(axis=(1, 2)).tolist() == [8 * 17, 100]
    assert found.masks[0][0, 2:10, 3:20].all()
    assert load_photo_scene([folder / "image.png"]).ids == (0, 7)


def test_masks_may_bear_the_picture_s_name_and_the_object_s(folder):
    cv2.imwrite(str(folder / "desk.png"), np.zeros((30, 40, 3), dtype=np.uint8))
    write_mask(folder / "desk_mask_mug.png", (slice(0, 5), slice(0, 5)))
    found = load_photo_scene([folder / "desk.png"])
    assert found.labels == ("mug",)
    assert found.ids == (0,)
    assert load_photo_scene([folder / "image.png"]).ids == (0, 7)
    assert not is_photo_scene([folder])  # two pictures: which one?


def test_several_pictures_share_names(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    cv2.imwrite(str(other / "image.jpg"), np.zeros((20, 30, 3), dtype=np.uint8))
    write_mask(other / "mask_07.png", (slice(0, 4), slice(0, 4)), (20, 30))
    found = load_photo_scene([folder, other])
    assert found.ids == (0, 7)
    assert found.masks[1].sum(axis=(1, 2)).tolist() == [0, 16]


def test_transparency_and_label_images_are_masks_too(folder):
    rgba = np.full((30, 40, 4), 255, dtype=np.uint8)
    rgba[:, 5:, 3] = 0
    cv2.imwrite(str(folder / "mask_00.png"), rgba)
    cv2.imwrite(str(folder / "mask_07.png"), np.eye(30, 40, dtype=np.uint8))
    assert load_photo_scene([folder]).masks[0].sum(axis=(1, 2)).tolist() == [150, 30]


def test_bad_files_are_named(folder, tmp_path_factory):
    write_mask(folder / "mask_07.png", (slice(0, 4), slice(0, 4)), (20, 30))
    with pytest.raises(DataFormatError, match=r"mask_07.png: this mask is 30x20 pixels, but image.png has 40x30"):
        load_photo_scene([folder])
    (folder / "mask_07.png").write_bytes(b"nothing")
    with pytest.raises(DataFormatError, match=r"mask_07\.png"):
        load_photo_scene([folder])
    bare = tmp_path_factory.mktemp("bare")
    cv2.imwrite(str(bare / "image.png"), np.zeros((20, 30, 3), dtype=np.uint8))
    with pytest.raises(DataFormatError, match="needs a picture and masks"):
        load_photo_scene([bare])
    with pytest.raises(DataFormatError, match="needs a picture and masks"):
        load_photo_scene([bare / "nothing.png"])
