"""RGB-D folders: what is written is read; each broken file gives one message that names it."""

import json

import cv2
import numpy as np
import pytest

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.io import RgbdFolder, load_views


@pytest.fixture
def folder(tmp_path, views, millimetres):
    for part in ("color", "depth", "pose"):
        (tmp_path / part).mkdir()
    k = views[0].intrinsics
    camera = {"width": k.width, "height": k.height, "fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy}
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    stamps = ["frame,stamp_s,note"]
    for i, view in enumerate(views):
        cv2.imwrite(str(tmp_path / f"color/{10 * i:06d}.png"), view.color[..., ::-1])
        cv2.imwrite(str(tmp_path / f"depth/{10 * i:06d}.png"), millimetres(view.depth_m))
        np.savetxt(tmp_path / f"pose/{10 * i:06d}.txt", view.T_world_camera)
        stamps.append(f"{10 * i},{view.stamp_ns / 1e9},x")
    (tmp_path / "frames.csv").write_text("\n".join(stamps))
    return tmp_path


def test_everything_comes_back(folder, views):
    loaded = load_views(folder)
    assert [view.name for view in loaded] == ["000000", "000010", "000020", "000030"]
    for before, after in zip(views, loaded, strict=True):
        np.testing.assert_array_equal(after.color, before.color)
        np.testing.assert_allclose(after.depth_m, before.depth_m, atol=1e-6)
        np.testing.assert_allclose(after.T_world_camera, before.T_world_camera, atol=1e-12)
        assert after.intrinsics == before.intrinsics
        assert after.stamp_ns == before.stamp_ns


def test_frames_in_any_order_come_oldest_first(folder):
    assert [view.name for view in load_views(folder, frames=[30, 10])] == ["000010", "000030"]


def test_max_views_are_the_informative_ones(folder, views):
    np.savetxt(folder / "pose/000010.txt", views[0].T_world_camera)
    names = [view.name for view in load_views(folder, max_views=3)]
    assert len(names) == 3
    assert {"000020", "000030"} <= set(names)


def test_without_depth_and_stamps(folder):
    (folder / "frames.csv").unlink()
    for file in (folder / "depth").iterdir():
        file.unlink()
    (folder / "depth").rmdir()
    view = load_views(folder, frames=[30])[0]
    assert view.depth_m is None
    assert view.stamp_ns == 1_000_000_000


def test_depth_unit(folder):
    camera = json.loads((folder / "camera.json").read_text())
    (folder / "camera.json").write_text(json.dumps({**camera, "depth_unit_m": 0.0002}))
    fifth = load_views(folder, frames=[0])[0].depth_m
    (folder / "camera.json").write_text(json.dumps(camera))
    np.testing.assert_allclose(5 * fifth, load_views(folder, frames=[0])[0].depth_m, rtol=1e-6)


def test_slightly_rounded_rotations_are_made_proper(folder, views):
    np.savetxt(folder / "pose/000000.txt", views[0].T_world_camera, fmt="%.3f")
    T = load_views(folder, frames=[0])[0].T_world_camera
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)


def test_unknown_frame_lists_the_nearest(folder):
    with pytest.raises(InputError, match=r"no frame 12; the nearest .* 0, 10, 20"):
        load_views(folder, frames=[12])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("camera.json", None, r"camera\.json: cannot be read"),
        ("camera.json", b"{", r"camera\.json: not valid JSON"),
        ("camera.json", b"[]", r"camera\.json: must hold a JSON object"),
        ("camera.json", b'{"width": 64}', r"camera\.json: has no 'height'"),
        ("camera.json", b'{"width":64,"height":48,"fx":-1,"fy":1,"cx":1,"cy":1}', r"camera\.json: focal lengths"),
        ("camera.json", b'{"distortion_model": "plumb_bob"}', r"camera\.json: distortion_model is 'plumb_bob'"),
        ("camera.json", b'{"width": "wide"}', r"'width' must be a number"),
        ("color/000000.png", b"", r"color/000000\.png: the image is empty"),
        ("color/000000.png", b"no picture", r"color/000000\.png: not an image"),
        ("depth/000000.png", None, r"depth/000000\.png: cannot be read"),
        ("depth/000000.png", b"", r"depth/000000\.png: the image is empty"),
        ("pose/000000.txt", b"1 0 0 nan\n0 1 0 0\n0 0 1 0\n0 0 0 1", r"pose/000000\.txt: the pose holds NaN"),
        ("pose/000000.txt", b"1 0 0 0\n0 2 0 0\n0 0 1 0\n0 0 0 1", r"pose/000000\.txt: the pose is not a rigid"),
        ("pose/000000.txt", b"1 0\n0 1", r"pose/000000\.txt: the pose must be a 4x4"),
        ("pose/000000.txt", b"one two", r"pose/000000\.txt: not a matrix"),
        ("frames.csv", b"number\n1", r"frames\.csv: needs the columns"),
        ("frames.csv", b"frame,stamp_s\n0,now", r"frames\.csv: needs the columns"),
    ],
)
def test_each_broken_file_is_named(folder, name, content, message):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(DataFormatError, match=message) as caught:
        load_views(folder)
    assert "\n" not in str(caught.value)


def test_cut_off_images_are_not_taken_for_grey_ones(folder):
    for name, suffix in (("color", ".png"), ("depth", ".png")):
        path = folder / name / f"000000{suffix}"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataFormatError, match=rf"{name}/000000\.png: the image is cut off"):
            load_views(folder, frames=[0])
        path.write_bytes(whole)


def test_cut_off_jpeg(folder, views):
    (folder / "color/000000.png").unlink()
    data = cv2.imencode(".jpg", views[0].color[..., ::-1])[1].tobytes()
    path = folder / "color/000000.jpg"
    path.write_bytes(data)
    np.testing.assert_allclose(load_views(folder, frames=[0])[0].color.astype(int), views[0].color, atol=16)
    path.write_bytes(data[:-40])
    with pytest.raises(DataFormatError, match=r"000000\.jpg: the image is cut off"):
        load_views(folder, frames=[0])


@pytest.mark.parametrize("name", ["color", "depth"])
def test_images_of_another_size(folder, name):
    cv2.imwrite(str(folder / f"{name}/000000.png"), np.ones((10, 20), np.uint16))
    with pytest.raises(DataFormatError, match=rf"{name}/000000\.png: is 20x10 pixels, but .* 64x48"):
        load_views(folder, frames=[0])


def test_depth_as_a_grey_picture(folder):
    cv2.imwrite(str(folder / "depth/000000.png"), np.ones((48, 64), np.uint8))
    with pytest.raises(DataFormatError, match="lost its metres"):
        load_views(folder, frames=[0])


def test_folder_without_its_parts(folder):
    for file in (folder / "pose").iterdir():
        file.unlink()
    with pytest.raises(DataFormatError, match="no frame has both a picture and a pose"):
        load_views(folder)
    (folder / "pose").rmdir()
    with pytest.raises(DataFormatError, match="has no folder pose/"):
        load_views(folder)


def test_kitchen_recording(kitchen_dir):
    folder = RgbdFolder.open(kitchen_dir)
    assert len(folder.frames) == 46
    view = folder.read(478)
    assert view.color.shape == (480, 640, 3)
    assert view.stamp_ns == pytest.approx(478 / 30 * 1e9, abs=1e5)
    assert 0.4 < np.isfinite(view.depth_m).mean() < 1
    assert 0.3 < np.nanmedian(view.depth_m) < 4
