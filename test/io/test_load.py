"""`load_views` finds out what it was given, and says what it wanted."""

import cv2
import numpy as np
import pytest

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.io import load_views, refuse_unless_one_input


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
    with pytest.raises(DataFormatError, match="ns-process-data images"):
        refuse_unless_one_input(paths)
    assert refuse_unless_one_input([tmp_path]) == tmp_path
    assert refuse_unless_one_input([tmp_path, tmp_path / "x"]) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"frames": []}, "frames is empty"), ({"frames": [1, 1]}, "repeat"), ({"max_views": 0}, "max_views")],
)
def test_impossible_choices(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        load_views(tmp_path, **arguments)
