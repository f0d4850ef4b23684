"""`load_views` finds out what it was given, and says what it wanted."""

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.io import is_photos, load_photos, load_views, refuse_plain_images


def test_nothing_there(tmp_path):
    with pytest.raises(DataFormatError, match="no such file or folder"):
        load_views(tmp_path / "absent")


def test_an_unknown_folder_or_file_says_what_is_wanted(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataFormatError, match=r"RGB-D folder .* transforms\.json.* rosbag2"):
            load_views(path)


def test_pictures_without_poses_tell_how_to_get_poses(tmp_path):
    paths = [tmp_path / f"{i}.jpg" for i in range(2)]
    for path in paths:
        cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    for given in (paths[0], tmp_path):
        with pytest.raises(DataFormatError, match="ns-process-data images"):
            load_views(given)
    with pytest.raises(DataFormatError, match="--stereo sfm"):
        refuse_plain_images(paths)


def test_pictures_become_views_without_poses(tmp_path):
    color = np.zeros((30, 40, 3), np.uint8)
    color[..., 2] = 200
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 36
    for i in range(5):
        Image.fromarray(color).save(tmp_path / f"{i}.png", **({"exif": exif} if i == 4 else {}))
    assert is_photos([tmp_path])
    first, middle, turned = load_photos([tmp_path], max_views=3)
    assert [view.name for view in (first, middle, turned)] == ["0", "2", "4"]
    assert not first.pose_known
    assert not first.intrinsics_known
    assert first.color.shape == (30, 40, 3)
    assert (first.color[0, 0] == (0, 0, 200)).all()
    assert (first.intrinsics.fx, first.intrinsics.cx, first.intrinsics.cy) == (48.0, 19.5, 14.5)
    assert turned.color.shape == (40, 30, 3)
    assert turned.intrinsics.fx == 40.0
    assert turned.camera != first.camera
    (tmp_path / "camera.json").write_text("{}")
    assert not is_photos([tmp_path])
    assert is_photos(sorted(tmp_path.glob("*.png")))
    assert not is_photos([tmp_path / "0.png", tmp_path / "absent.png"])


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataFormatError, match=r"broken\.jpg"):
        load_photos([tmp_path])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"frames": []}, "frames is empty"), ({"frames": [1, 1]}, "repeat"), ({"max_views": 0}, "max_views")],
)
def test_impossible_choices(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        load_views(tmp_path, **arguments)
