"""rosbag2 recordings, written here with the rosbags library, read without ROS."""

import logging
import struct

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry.transforms import inverse, quat_xyzw_from_matrix, rigid
from gena3d_core.io import BagOptions, load_recording, load_views
from gena3d_core.io.bag_topics import find_topics

STORE = get_typestore(Stores.ROS2_HUMBLE)
T_LINK_OPTICAL = rigid(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0.05, 0.01, 0.02]))
COLOR, DEPTH = "/camera/color/image_raw", "/camera/aligned_depth_to_color/image_raw"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


def message(kind: str, **fields):
    return STORE.types[kind](**fields)


def header(stamp_ns: int, frame: str):
    stamp = message("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return message("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def image(stamp_ns: int, pixels: np.ndarray, encoding: str, padding: int = 0, big: bool = False):
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).view(np.uint8).reshape(len(pixels), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return message(
        IMAGE,
        header=header(stamp_ns, "camera_optical"),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=padded.shape[1],
        data=padded.reshape(-1),
    )


def compressed(stamp_ns: int, data: bytes, form: str):
    return message(
        COMPRESSED, header=header(stamp_ns, "camera_optical"), format=form, data=np.frombuffer(data, np.uint8)
    )


def camera_info(intrinsics, d=(), model="plumb_bob", frame="camera_optical"):
    k = intrinsics.matrix
    return message(
        "sensor_msgs/msg/CameraInfo",
        header=header(0, frame),
        height=intrinsics.height,
        width=intrinsics.width,
        distortion_model=model,
        d=np.array(d, dtype=np.float64),
        k=k.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([k, np.zeros((3, 1))]).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=message("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )


def tf(stamp_ns: int, parent: str, child: str, T: np.ndarray):
    x, y, z, w = quat_xyzw_from_matrix(T[:3, :3])
    point = dict(zip("xyz", map(float, T[:3, 3]), strict=True))
    transform = message(
        "geometry_msgs/msg/Transform",
        translation=message("geometry_msgs/msg/Vector3", **point),
        rotation=message("geometry_msgs/msg/Quaternion", x=float(x), y=float(y), z=float(z), w=float(w)),
    )
    stamped = message(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=transform,
    )
    return message("tf2_msgs/msg/TFMessage", transforms=[stamped])


class Recorder:
    """Writes views as a robot would record them; the hooks replace one kind of message each."""

    def __init__(self, views, millimetres):
        self.views, self.millimetres = views, millimetres
        self.color = lambda v: image(v.stamp_ns, v.color, "rgb8")
        self.depth = lambda v: image(v.stamp_ns + 5_000_000, millimetres(v.depth_m), "16UC1")
        self.info = lambda: camera_info(views[0].intrinsics)
        self.depth_info = self.info
        self.tf_offsets_ns = (-20_000_000, 20_000_000)
        self.topics = {"color": COLOR, "depth": DEPTH}

    def entries(self):
        """(time, topic, message) in order."""
        color_info = self.topics["color"].replace("/compressed", "").rpartition("/")[0] + "/camera_info"
        yield 0, "/tf_static", tf(0, "camera_link", "camera_optical", T_LINK_OPTICAL)
        if self.info:
            yield 1, color_info, self.info()
        if self.depth and self.depth_info:
            yield 2, self.topics["depth"].rpartition("/")[0] + "/camera_info", self.depth_info()
        for view in self.views:
            T = view.T_world_camera @ inverse(T_LINK_OPTICAL)
            for offset in self.tf_offsets_ns:
                yield view.stamp_ns + offset, "/tf", tf(view.stamp_ns + offset, "map", "camera_link", T)
            if self.color:
                yield view.stamp_ns + 1, self.topics["color"], self.color(view)
            if self.depth:
                yield view.stamp_ns + 2, self.topics["depth"], self.depth(view)

    def write(self, path, plugin=StoragePlugin.SQLITE3):
        with Writer(path, version=9, storage_plugin=plugin) as writer:
            connections = {}
            for stamp_ns, topic, content in sorted(self.entries(), key=lambda entry: entry[0]):
                kind = content.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
                writer.write(connections[topic], stamp_ns, STORE.serialize_cdr(content, kind))
        return path


@pytest.fixture
def recorder(views, millimetres):
    return Recorder(views, millimetres)


def assert_same(before, after, color_atol=0):
    assert [view.name for view in after] == [view.name for view in before]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(b.color.astype(int), a.color, atol=color_atol)
        np.testing.assert_allclose(b.depth_m, a.depth_m, atol=1e-6)
        np.testing.assert_allclose(b.T_world_camera, a.T_world_camera, atol=1e-9)
        assert b.intrinsics == a.intrinsics
        assert b.stamp_ns == a.stamp_ns


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_folder_and_single_file(recorder, views, tmp_path, plugin):
    path = recorder.write(tmp_path / "bag", plugin)
    assert_same(views, load_views(path))
    (file,) = [p for p in path.iterdir() if p.suffix in (".mcap", ".db3")]
    assert_same(views, load_views(file))


def test_a_recorder_that_was_killed_left_no_metadata(recorder, views, tmp_path):
    path = recorder.write(tmp_path / "bag")
    (path / "metadata.yaml").unlink()
    assert_same(views, load_views(path))


def test_world_frame_is_the_root_of_tf_or_the_one_asked_for(recorder, views, tmp_path):
    path = recorder.write(tmp_path / "bag")
    assert load_recording(path).frame_id == "map"
    recording = load_recording(path, bag_options=BagOptions(world_frame="camera_link"))
    assert recording.frame_id == "camera_link"
    np.testing.assert_allclose(recording.views[0].T_world_camera, T_LINK_OPTICAL, atol=1e-9)


@pytest.mark.parametrize(
    ("encoding", "convert"),
    [
        ("bgr8", lambda c: c[..., ::-1]),
        ("rgba8", lambda c: np.dstack([c, np.full(c.shape[:2], 255, np.uint8)])),
        ("8UC3", lambda c: c[..., ::-1]),
    ],
)
def test_colour_encodings(recorder, views, tmp_path, encoding, convert):
    recorder.color = lambda v: image(v.stamp_ns, np.ascontiguousarray(convert(v.color)), encoding)
    assert_same(views, load_views(recorder.write(tmp_path / "bag")))


def test_mono_colour(recorder, views, tmp_path):
    recorder.color = lambda v: image(v.stamp_ns, np.ascontiguousarray(v.color[..., 0]), "mono8")
    loaded = load_views(recorder.write(tmp_path / "bag"))[0].color
    np.testing.assert_array_equal(loaded, np.repeat(views[0].color[..., :1], 3, axis=2))


def test_rows_with_padding(recorder, views, tmp_path):
    recorder.color = lambda v: image(v.stamp_ns, v.color, "rgb8", padding=13)
    recorder.depth = lambda v: image(v.stamp_ns, recorder.millimetres(v.depth_m), "16UC1", padding=6)
    assert_same(views, load_views(recorder.write(tmp_path / "bag")))


def test_big_endian_and_float_depth(recorder, views, tmp_path):
    recorder.depth = lambda v: image(v.stamp_ns, recorder.millimetres(v.depth_m), "16UC1", big=True)
    assert_same(views, load_views(recorder.write(tmp_path / "a")))
    recorder.depth = lambda v: image(v.stamp_ns, np.where(np.isnan(v.depth_m), -1, v.depth_m), "32FC1")
    assert_same(views, load_views(recorder.write(tmp_path / "b")))


def test_compressed_images(recorder, views, tmp_path):
    recorder.topics = {"color": COLOR + "/compressed", "depth": DEPTH + "/compressedDepth"}
    recorder.color = lambda v: compressed(
        v.stamp_ns, cv2.imencode(".jpg", v.color[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes(), "jpeg"
    )
    recorder.depth = lambda v: compressed(
        v.stamp_ns,
        bytes(12) + cv2.imencode(".png", recorder.millimetres(v.depth_m))[1].tobytes(),
        "16UC1; compressedDepth png",
    )
    recorder.depth_info = None
    assert_same(views, load_views(recorder.write(tmp_path / "bag")), color_atol=8)


def test_compressed_float_depth_is_inverse_depth(recorder, views, tmp_path):
    scale, offset = 5000.0, 10.0

    def depth(view):
        with np.errstate(invalid="ignore"):
            code = np.nan_to_num(scale / view.depth_m + offset, nan=0).astype(np.uint16)
        data = struct.pack("<iff", 0, scale, offset) + cv2.imencode(".png", code)[1].tobytes()
        return compressed(view.stamp_ns, data, "32FC1; compressedDepth png")

    recorder.topics["depth"] = DEPTH + "/compressedDepth"
    recorder.depth, recorder.depth_info = depth, None
    loaded = load_views(recorder.write(tmp_path / "bag"))
    np.testing.assert_allclose(loaded[0].depth_m, views[0].depth_m, atol=1e-3)


def test_depth_camera_beside_the_colour_camera(recorder, views, tmp_path):
    """Depth in its own frame, 2 cm to the left: registered to the colour camera."""
    T_color_depth = rigid(t=np.array([-0.02, 0.0, 0.0]))
    wall_m = 1.0
    recorder.topics["depth"] = "/camera/depth/image_rect_raw"
    recorder.depth_info = lambda: camera_info(views[0].intrinsics, frame="depth_optical")

    def depth(view):
        content = image(view.stamp_ns, np.full((48, 64), round(1000 * wall_m), np.uint16), "16UC1")
        content.header.frame_id = "depth_optical"
        return content

    recorder.depth = depth
    original = recorder.entries

    def entries():
        yield 0, "/tf_static", tf(0, "camera_optical", "depth_optical", T_color_depth)
        yield from original()

    recorder.entries = entries
    loaded = load_views(recorder.write(tmp_path / "bag"))[0].depth_m
    shift = round(0.02 * views[0].intrinsics.fx / wall_m)
    assert shift == 1
    np.testing.assert_allclose(loaded[:, :-shift], wall_m, atol=1e-6)
    assert np.isnan(loaded[:, -shift:]).all()


def test_no_depth_camera(recorder, tmp_path):
    recorder.depth = None
    assert all(view.depth_m is None for view in load_views(recorder.write(tmp_path / "bag")))


def test_distortion_is_removed(recorder, views, tmp_path):
    recorder.info = lambda: camera_info(views[0].intrinsics, d=(-0.3, 0.05, 0, 0, 0))
    loaded = load_views(recorder.write(tmp_path / "bag"))[0]
    assert np.abs(loaded.color[2, 2].astype(int) - views[0].color[2, 2]).max() > 5
    np.testing.assert_allclose(loaded.color[24, 31].astype(int), views[0].color[24, 31], atol=3)


def test_chosen_frames(recorder, tmp_path):
    path = recorder.write(tmp_path / "bag")
    assert [view.name for view in load_views(path, frames=[3, 0])] == ["000000", "000003"]
    with pytest.raises(InputError, match=r"no view for frames \[17\] among its 4 colour images"):
        load_views(path, frames=[1, 17])
    assert len(load_views(path, max_views=2)) == 2


def test_views_without_a_pose_are_skipped_with_a_warning(recorder, views, tmp_path, caplog, monkeypatch):
    recorder.tf_offsets_ns = (0,)
    original = recorder.entries
    recorder.entries = lambda: (e for e in original() if not (e[1] == "/tf" and e[0] > views[2].stamp_ns))
    monkeypatch.setattr(logging.getLogger("gena3d"), "propagate", True)
    with caplog.at_level(logging.WARNING, "gena3d.io"):
        loaded = load_recording(recorder.write(tmp_path / "bag"), bag_options=BagOptions(max_extrapolation_s=0.01))
    assert [view.name for view in loaded.views] == ["000000", "000001", "000002"]
    assert "skipped" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: setattr(r, "color", None), "no colour image topic"),
        (lambda r: setattr(r, "info", None) or setattr(r, "depth_info", None), "no camera info"),
        (lambda r: setattr(r, "entries", _without("/tf", "/tf_static", r.entries)), "no transforms"),
        (lambda r: setattr(r, "entries", _without("/tf_static", "", r.entries)), "'camera_optical' is unknown to TF"),
        (lambda r: setattr(r, "depth", lambda v: image(v.stamp_ns + 60_000_000, r.millimetres(v.depth_m), "16UC1")),
         "no depth on .* within 0.02 s"),
        (lambda r: setattr(r, "color", lambda v: image(v.stamp_ns, v.color, "hsv8")), "encoding 'hsv8'"),
        (lambda r: setattr(r, "depth", lambda v: image(v.stamp_ns, v.color, "rgb8")), "encoding 'rgb8' is not depth"),
        (lambda r: setattr(r, "color", lambda v: image(v.stamp_ns, v.color[:20], "rgb8")), "images are 64x20, but"),
        (lambda r: setattr(r, "info", lambda: camera_info(r.views[0].intrinsics, (1, 2), "plumb_bob")), "coefficients"),
        (lambda r: setattr(r, "info", lambda: camera_info(r.views[0].intrinsics, (1,), "bent")), "'bent'"),
    ],
)  # fmt: skip
def test_each_fault_is_named(recorder, tmp_path, change, message):
    change(recorder)
    with pytest.raises(DataFormatError, match=message) as caught:
        load_views(recorder.write(tmp_path / "bag"))
    assert "\n" not in str(caught.value)


def _without(first, second, entries):
    return lambda: (entry for entry in entries() if entry[1] not in (first, second))


def test_truncated_recordings(recorder, tmp_path):
    for plugin in StoragePlugin:
        path = recorder.write(tmp_path / plugin.name, plugin)
        (file,) = [p for p in path.iterdir() if p.suffix in (".mcap", ".db3")]
        data = file.read_bytes()
        for size in (0, 100, len(data) // 2):
            file.write_bytes(data[:size])
            with pytest.raises(DataFormatError, match=rf"{plugin.name}.*(cut off|cannot be opened|damaged)"):
                load_views(path)


def test_a_recording_that_breaks_in_the_middle_gives_its_first_part(recorder, views, tmp_path, caplog, monkeypatch):
    path = recorder.write(tmp_path / "bag")
    whole = Reader.messages

    def breaks(self, connections):
        for connection, stamp_ns, raw in whole(self, connections):
            if stamp_ns > views[2].stamp_ns:
                raise OSError("database disk image is malformed")
            yield connection, stamp_ns, raw

    monkeypatch.setattr(Reader, "messages", breaks)
    monkeypatch.setattr(logging.getLogger("gena3d"), "propagate", True)
    with caplog.at_level(logging.WARNING, "gena3d.io"):
        loaded = load_recording(path, bag_options=BagOptions(max_extrapolation_s=1.0)).views
    assert_same(views[:2], loaded)
    assert "damaged after some messages (database disk image is malformed)" in caplog.text

    monkeypatch.setattr(Reader, "messages", lambda self, connections: iter(()))
    with pytest.raises(DataFormatError, match="holds no message"):
        load_views(path)


def test_spoiled_pages_of_a_database(recorder, tmp_path):
    path = recorder.write(tmp_path / "bag")
    (file,) = path.glob("*.db3")
    data = bytearray(file.read_bytes())
    data[len(data) // 3 :] = bytes(len(data) - len(data) // 3)
    file.write_bytes(data)
    with pytest.raises(DataFormatError, match=r"damaged|cannot be opened"):
        load_views(path)


def test_named_topics_and_ambiguity():
    topics = {
        "/left/color/image_raw": IMAGE,
        "/left/color/camera_info": "sensor_msgs/msg/CameraInfo",
        "/right/color/image_raw": IMAGE,
        "/right/color/camera_info": "sensor_msgs/msg/CameraInfo",
        "/right/depth/image_rect": IMAGE,
        "/right/depth/camera_info": "sensor_msgs/msg/CameraInfo",
        "/right/infra1/image": IMAGE,
        "/tf": "tf2_msgs/msg/TFMessage",
    }
    found = find_topics(topics)
    assert found.color == "/left/color/image_raw"
    assert found.other_colors == ("/right/color/image_raw",)
    named = find_topics(topics, color="/right/color/image_raw")
    assert (named.color_info, named.depth) == ("/right/color/camera_info", "/right/depth/image_rect")
    assert named.depth_info == "/right/depth/camera_info"
    with pytest.raises(InputError, match="no topic '/up/color'"):
        find_topics(topics, color="/up/color")
