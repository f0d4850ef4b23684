"""Round trips core -> message -> bytes -> message -> core, and malformed messages."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rclpy.serialization import deserialize_message, serialize_message

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry.transforms import matrix_from_quat_xyzw, rigid
from gena3d_core.types import BoxPrompt, Intrinsics, Mesh, ReconstructedObject, Scene, SupportPlane, View
from gena3d_ros import conversions, image_codec, msg

ARRAY_FIELDS = ("vertices", "faces", "vertex_colors", "vertex_confidence", "vertex_observed")

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
stamps_ns = st.integers(0, 2**31 * 10**9 - 1)
fractions = st.floats(0, 1, width=32)
figures = st.dictionaries(text, st.floats(allow_nan=False), max_size=4)


def transforms():
    quats = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1)
    return st.builds(
        lambda quat, t: rigid(matrix_from_quat_xyzw(quat), t),
        quats,
        arrays(np.float64, 3, elements=st.floats(-100, 100)),
    )


def optional(strategy):
    return st.none() | strategy


@st.composite
def meshes(draw):
    count = draw(st.integers(1, 30))
    return Mesh(
        vertices=draw(arrays(np.float32, (count, 3), elements=st.floats(-10, 10, width=32))),
        faces=draw(arrays(np.int32, (draw(st.integers(0, 20)), 3), elements=st.integers(0, count - 1))),
        vertex_colors=draw(optional(arrays(np.uint8, (count, 3)))),
        vertex_confidence=draw(optional(arrays(np.float32, count, elements=fractions))),
        vertex_observed=draw(optional(arrays(np.bool_, count))),
    )


objects = st.builds(
    ReconstructedObject,
    id=st.integers(-(2**31), 2**31 - 1),
    label=text,
    score=fractions,
    mesh=meshes(),
    T_world_object=transforms(),
    size_m=arrays(np.float64, 3, elements=st.floats(0, 5)),
    observed_fraction=fractions,
    residuals=figures,
)
supports = transforms().map(lambda T: SupportPlane(normal=T[:3, 2], offset_m=float(T[0, 3])))
scenes = st.builds(
    Scene,
    objects=st.lists(objects, max_size=3).map(tuple),
    frame_id=text,
    stamp_ns=stamps_ns,
    support=optional(supports),
    view_names=st.lists(text, max_size=3).map(tuple),
    timings_s=figures,
    residuals=figures,
    warnings=st.lists(text, max_size=3).map(tuple),
)


@st.composite
def views(draw):
    width, height = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    focal = st.floats(1, 2000)
    millimetres = arrays(np.uint16, (height, width)).map(image_codec.depth_from_millimetres)
    metres = arrays(np.float32, (height, width), elements=st.floats(width=32))
    return View(
        color=draw(arrays(np.uint8, (height, width, 3))),
        intrinsics=Intrinsics(width, height, draw(focal), draw(focal), draw(focal), draw(focal)),
        T_world_camera=draw(transforms()),
        depth_m=draw(st.none() | millimetres | metres),
        stamp_ns=draw(stamps_ns),
        camera=draw(text),
        name=draw(text),
    )


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def assert_same_array(actual, expected):
    if expected is None:
        assert actual is None
        return
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


def assert_same_object(actual, expected):
    for name in ("id", "label", "score", "observed_fraction", "residuals"):
        assert getattr(actual, name) == getattr(expected, name), name
    assert_same_array(actual.size_m, expected.size_m)
    np.testing.assert_allclose(actual.T_world_object, expected.T_world_object, rtol=0, atol=1e-12)
    for name in ARRAY_FIELDS:
        assert_same_array(getattr(actual.mesh, name), getattr(expected.mesh, name))


@given(scenes)
@settings(deadline=None)
def test_scene_round_trip(scene):
    back = conversions.scene_from_msg(over_the_wire(conversions.scene_to_msg(scene)))
    for name in ("frame_id", "stamp_ns", "view_names", "warnings"):
        assert getattr(back, name) == getattr(scene, name), name
    for name in ("timings_s", "residuals"):
        assert list(getattr(back, name).items()) == list(getattr(scene, name).items()), name
    if scene.support is None:
        assert back.support is None
    else:
        assert_same_array(back.support.normal, scene.support.normal)
        assert back.support.offset_m == scene.support.offset_m
    assert len(back.objects) == len(scene.objects)
    for actual, expected in zip(back.objects, scene.objects, strict=True):
        assert_same_object(actual, expected)


@given(views())
@settings(deadline=None)
def test_view_round_trip(view):
    message = over_the_wire(conversions.view_to_msg(view, "map"))
    assert message.header.frame_id == message.camera_info.header.frame_id == "map"
    back = conversions.view_from_msg(message)
    for name in ("intrinsics", "stamp_ns", "camera", "name"):
        assert getattr(back, name) == getattr(view, name), name
    assert_same_array(back.color, view.color)
    assert_same_array(back.depth_m, view.depth_m)
    np.testing.assert_allclose(back.T_world_camera, view.T_world_camera, rtol=0, atol=1e-12)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4), text, text)
def test_box_round_trip(corners, view, label):
    low, high = sorted(corners[::2]), sorted(corners[1::2])
    box = BoxPrompt(view=view, box_xyxy=(low[0], high[0], low[1], high[1]), label=label)
    assert conversions.box_from_msg(over_the_wire(conversions.box_to_msg(box))) == box


def random_view(rng, name="a", depth=True, width=64, height=48):
    depth_m = image_codec.depth_from_millimetres(rng.integers(0, 3000, (height, width)).astype(np.uint16))
    return View(
        color=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        intrinsics=Intrinsics(width, height, 60.0, 60.0, 31.5, 23.5),
        T_world_camera=np.eye(4),
        depth_m=depth_m if depth else None,
        stamp_ns=7,
        camera="front",
        name=name,
    )


def test_depth_travels_as_png_when_it_is_whole_millimetres_and_as_float_otherwise(rng):
    view = random_view(rng)
    assert conversions.view_to_msg(view, "map").depth.format == image_codec.PNG_DEPTH
    assert image_codec.encode_depth(view.depth_m + np.float32(1e-4))[0] == image_codec.TIFF_DEPTH
    assert not conversions.view_to_msg(random_view(rng, depth=False), "map").depth.data


def test_jpeg_of_the_camera_is_passed_on_untouched(rng):
    view = random_view(rng)
    jpeg = cv2.imencode(".jpg", cv2.GaussianBlur(view.color, (9, 9), 4))[1].tobytes()
    message = conversions.view_to_msg(view, "map", color_jpeg=jpeg)
    assert message.color.format == image_codec.JPEG_COLOR
    assert bytes(message.color.data) == jpeg
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(conversions.view_from_msg(message).color, expected)


def test_given_millimetres_are_the_depth_that_arrives(rng):
    millimetres = rng.integers(0, 65536, (48, 64)).astype(np.uint16)
    message = conversions.view_to_msg(random_view(rng), "map", depth_millimetres=millimetres)
    np.testing.assert_array_equal(
        conversions.view_from_msg(message).depth_m, image_codec.depth_from_millimetres(millimetres)
    )


def test_view_set_keeps_order_and_decodes_only_the_chosen(rng):
    messages = [conversions.view_to_msg(random_view(rng, name), "map") for name in "abc"]
    messages[1].color.data = messages[1].color.data[:50]
    view_set = conversions.view_set_to_msg(messages, "map", 3)
    assert [v.name for v in conversions.view_set_from_msg(view_set, ["c", "a"])] == ["a", "c"]
    assert view_set.header.stamp.nanosec == 7
    with pytest.raises(DataFormatError, match=r"views\[1\].*color.*truncated"):
        conversions.view_set_from_msg(view_set)
    with pytest.raises(InputError, match="'z'"):
        conversions.view_set_from_msg(view_set, ["z"])


def test_empty_view_set(rng):
    assert conversions.view_set_from_msg(conversions.view_set_to_msg([], "map", 0)) == []


def broken_views():
    def change(path, value):
        def apply(message):
            *parents, last = path.split(".")
            target = message
            for parent in parents:
                target = getattr(target, parent)
            setattr(target, last, value(getattr(target, last)) if callable(value) else value)

        return apply

    return {
        "cut png": (change("color.data", lambda d: d[: len(d) // 2]), r"view\.color.*truncated"),
        "flipped byte": (lambda m: m.color.data.__setitem__(200, m.color.data[200] ^ 255), r"view\.color.*damaged"),
        "no colour": (change("color.data", []), r"view\.color.*truncated"),
        "cut jpeg": (change("color.format", "rgb8; jpeg"), r"view\.color.*jpeg.*damaged"),
        "unknown format": (change("color.format", "webp"), r"view\.color.*unknown format 'webp'"),
        "cut depth": (change("depth.data", lambda d: d[:-40]), r"view\.depth.*truncated"),
        "depth of another codec": (change("depth.format", "32FC1; tiff"), r"view\.depth.*float32"),
        "another size": (change("camera_info.width", 63), r"view\.color is 64x48.*63x48"),
        "zero size": (change("camera_info.height", 0), r"view\.camera_info.*size"),
        "no focal length": (change("camera_info.k", [0.0] * 8 + [1.0]), r"view\.camera_info.*focal"),
        "skew": (change("camera_info.k", [1.0] * 9), r"view\.camera_info\.k.*pinhole"),
        "distortion": (change("camera_info.d", [0.1, 0.0, 0.0, 0.0, 0.0]), r"view\.camera_info\.d.*distortion"),
        "zero quaternion": (change("pose.orientation.w", 0.0), r"view\.pose\.orientation.*unit"),
        "nan quaternion": (change("pose.orientation.x", float("nan")), r"view\.pose\.orientation.*unit"),
        "infinite position": (change("pose.position.x", float("inf")), r"view\.pose\.position.*finite"),
    }


@pytest.mark.parametrize("case", broken_views())
def test_malformed_view_is_refused_by_field(rng, case):
    damage, pattern = broken_views()[case]
    message = over_the_wire(conversions.view_to_msg(random_view(rng), "map"))
    damage(message)
    with pytest.raises(DataFormatError, match=pattern):
        conversions.view_from_msg(message)


def test_view_set_of_mixed_frames_or_doubled_names_is_refused(rng):
    a, b = (conversions.view_to_msg(random_view(rng, name), "map") for name in "ab")
    with pytest.raises(DataFormatError, match=r"unique.*'a'"):
        conversions.view_set_from_msg(conversions.view_set_to_msg([a, a], "map", 1))
    b.header.frame_id = "odom"
    with pytest.raises(DataFormatError, match=r"views\[1\].*'odom'"):
        conversions.view_set_from_msg(conversions.view_set_to_msg([a, b], "map", 1))


def tetrahedron(**changes):
    mesh = Mesh(
        vertices=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),
        faces=np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32),
        vertex_colors=np.full((4, 3), 9, np.uint8),
        vertex_confidence=np.ones(4, np.float32),
        vertex_observed=np.array([True, False, True, True]),
    )
    item = ReconstructedObject(id=1, label="", score=1.0, mesh=mesh, T_world_object=np.eye(4), size_m=np.ones(3))
    return replace(item, **changes)


@pytest.mark.parametrize(
    ("field", "value", "pattern"),
    [
        ("triangles", [0, 1, 4], r"objects\[0\]\.triangles index vertex 4 of 4"),
        ("triangles", [0, 1, 2**32 - 1], "triangles index vertex 4294967295"),
        ("triangles", [0, 1], "triangles holds 2 values, expected a multiple of 3"),
        ("vertices", [0.0] * 10, "vertices holds 10 values"),
        ("vertices", [float("nan")] * 12, "vertices holds NaN"),
        ("vertex_colors", [0] * 11, "vertex_colors holds 11 values, expected 12"),
        ("vertex_confidence", [0.0] * 5, "vertex_confidence holds 5 values, expected 4"),
        ("vertex_observed", [1], "vertex_observed holds 1 values, expected 4"),
        ("residual_names", ["rmse"], "residual names and values disagree"),
    ],
)
def test_malformed_object_is_refused_by_field(field, value, pattern):
    message = conversions.scene_to_msg(Scene(objects=(tetrahedron(),)))
    setattr(message.objects[0], field, value)
    with pytest.raises(DataFormatError, match=pattern):
        conversions.scene_from_msg(over_the_wire(message))


@pytest.mark.parametrize(
    ("field", "value", "pattern"),
    [
        ("support_plane", [0.0, 0.0, 1.0], "support_plane"),
        ("support_plane", [0.0, 0.0, 0.0, 1.0], "support_plane"),
        ("stage_names", ["stereo"], "stage names and values disagree"),
    ],
)
def test_malformed_scene_is_refused_by_field(field, value, pattern):
    message = conversions.scene_to_msg(Scene(objects=()))
    setattr(message, field, value)
    with pytest.raises(DataFormatError, match=pattern):
        conversions.scene_from_msg(message)


def test_scene_message_of_chosen_objects_without_meshes():
    scene = Scene(objects=tuple(tetrahedron(id=i) for i in (3, 5, 9)))
    message = conversions.scene_to_msg(scene, ids=[9, 3], include_meshes=False)
    assert [o.id for o in message.objects] == [3, 9]
    assert not any(len(o.vertices) or len(o.triangles) or len(o.vertex_colors) for o in message.objects)
    with pytest.raises(InputError, match=r"no objects \[4\]"):
        conversions.scene_to_msg(scene, ids=[4])


@pytest.mark.parametrize("box", [(0, 0, -1, 5), (0, float("nan"), 1, 1)])
def test_box_that_is_none_is_refused(box):
    message = msg.BoxPrompt(**dict(zip(("x_min", "y_min", "x_max", "y_max"), map(float, box), strict=True)))
    with pytest.raises(DataFormatError, match="is not a box"):
        conversions.box_from_msg(message)


def test_stamp_beyond_ros_time_is_refused():
    with pytest.raises(InputError, match="does not fit a ROS time"):
        conversions.scene_to_msg(Scene(objects=(), stamp_ns=2**31 * 10**9))
