"""Image and CameraInfo messages to arrays: encodings, padding, byte order, compressed forms, calibration."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from gena3d_core.errors import DataFormatError
from gena3d_ros.image_codec import encode_depth
from gena3d_ros.images import camera_model_from_msg, color_from_msg, depth_from_msg
from gena3d_ros.message_fields import to_array


def image(encoding: str, pixels: np.ndarray, padding: int = 0, bigendian: bool = False) -> Image:
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">")) if bigendian else pixels)
    rows = np.pad(rows.view(np.uint8).reshape(pixels.shape[0], -1), ((0, 0), (0, padding)), constant_values=200)
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1], is_bigendian=int(bigendian))
    message.data = to_array(rows, np.uint8)
    return message


def compressed(image_format: str, data: bytes) -> CompressedImage:
    message = CompressedImage(format=image_format)
    message.data = to_array(np.frombuffer(data, np.uint8), np.uint8)
    return message


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


colors = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


@settings(max_examples=60, deadline=None)
@given(rgb=colors, padding=st.integers(0, 7), encoding=st.sampled_from(["rgb8", "bgr8", "rgba8", "bgra8"]))
def test_colour_is_exact_whatever_the_order_and_padding(rgb, padding, encoding):
    pixels = rgb if encoding.startswith("rgb") else rgb[..., ::-1]
    if encoding.endswith("a8"):
        pixels = np.concatenate([pixels, np.full((*rgb.shape[:2], 1), 3, np.uint8)], axis=2)
    np.testing.assert_array_equal(color_from_msg("/image", image(encoding, pixels, padding)), rgb)


@settings(max_examples=40, deadline=None)
@given(grey=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))), padding=st.integers(0, 7))
def test_grey_becomes_rgb(grey, padding):
    color = color_from_msg("/image", image("mono8", grey, padding))
    np.testing.assert_array_equal(color, np.repeat(grey[..., None], 3, axis=2))


def test_bayer_and_yuv_are_read():
    raw = np.zeros((8, 8), np.uint8)
    raw[0::2, 0::2] = 200  # the red pixels of RGGB
    color = color_from_msg("/image", image("bayer_rggb8", raw, padding=3))
    assert color[2:-2, 2:-2, 0].mean() > 150
    assert color[2:-2, 2:-2, 2].mean() < 20
    yuyv = np.full((4, 4, 2), 128, np.uint8)
    yuyv[..., 0] = 180
    assert abs(int(color_from_msg("/image", image("yuv422_yuy2", yuyv)).mean()) - 190) < 15


@settings(max_examples=60, deadline=None)
@given(
    millimetres=hnp.arrays(np.uint16, st.tuples(st.integers(1, 8), st.integers(1, 8))),
    padding=st.integers(0, 5),
    bigendian=st.booleans(),
    encoding=st.sampled_from(["16UC1", "mono16"]),
)
def test_millimetres(millimetres, padding, bigendian, encoding):
    depth_m = depth_from_msg("/depth", image(encoding, millimetres, padding, bigendian), 0.1, 10.0)
    valid = (millimetres >= 100) & (millimetres <= 10_000)
    np.testing.assert_array_equal(np.isfinite(depth_m), valid)
    np.testing.assert_array_equal(np.rint(depth_m[valid] * 1000), millimetres[valid])
    assert depth_m.dtype == np.float32
    assert encode_depth(depth_m)[0] == "16UC1; png", "whole millimetres must be told to be such"


@settings(max_examples=60, deadline=None)
@given(
    metres=hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.floats(width=32)),
    padding=st.sampled_from([0, 4]),
    bigendian=st.booleans(),
)
def test_metres(metres, padding, bigendian):
    depth_m = depth_from_msg("/depth", image("32FC1", metres, padding, bigendian), 0.0, 10.0)
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(metres) & (metres > 0) & (metres <= 10)
    np.testing.assert_array_equal(depth_m, np.where(valid, metres, np.float32(np.nan)))


def test_compressed_colour():
    rgb = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(color_from_msg("/image", compressed("png", png(rgb[..., ::-1]))), rgb)


def test_compressed_depth_of_integers_and_floats():
    millimetres = np.array([[0, 1000, 2500], [800, 0, 9999]], np.uint16)
    expected = np.where(millimetres == 0, np.float32(np.nan), millimetres.astype(np.float32) / 1000)
    header = struct.pack("<iff", 0, 0.0, 0.0)
    for message in (
        compressed("16UC1; compressedDepth png", header + png(millimetres)),
        compressed("16UC1; compressedDepth", header + png(millimetres)),
        compressed("16UC1; png compressed", png(millimetres)),
    ):
        np.testing.assert_array_equal(depth_from_msg("/depth", message, 0.05, 10.0), expected)
    a, b = 1000.0, 50.0
    metres = np.array([[0.8, 1.5], [3.0, np.nan]], np.float32)
    inverse = np.where(np.isnan(metres), 0, np.rint(a / metres + b)).astype(np.uint16)
    message = compressed("32FC1; compressedDepth png", struct.pack("<iff", 0, a, b) + png(inverse))
    np.testing.assert_allclose(depth_from_msg("/depth", message, 0.05, 10.0), metres, rtol=2e-3)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (image("hologram", np.zeros((2, 2, 3), np.uint8)), "hologram"),
        (image("16UC1", np.zeros((2, 2), np.uint16)), "16UC1"),
        (Image(height=2, width=2, encoding="rgb8", step=6), "0 bytes"),
        (Image(encoding="rgb8"), "0x0"),
        (compressed("jpeg", b""), "0 bytes"),
        (compressed("jpeg", b"\xff\xd8 nothing else"), "truncated"),
        (compressed("png", png(np.zeros((9, 9, 3), np.uint8))[:-20]), "truncated"),
        (compressed("webp", b"hello"), "not an image"),
    ],
)
def test_broken_colour_names_the_topic(message, said):
    with pytest.raises(DataFormatError, match=said) as caught:
        color_from_msg("/front/image", message)
    assert "/front/image" in str(caught.value)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (image("rgb8", np.zeros((2, 2, 3), np.uint8)), "rgb8"),
        (Image(height=2, width=2, encoding="16UC1", step=4), "0 bytes"),
        (compressed("16UC1; compressedDepth rvl", b"x" * 40), "RVL"),
        (compressed("16UC1; compressedDepth png", b"x" * 4), "0 bytes"),
        (compressed("png", png(np.zeros((4, 4, 3), np.uint8))), "depth"),
    ],
)
def test_broken_depth_names_the_topic(message, said):
    with pytest.raises(DataFormatError, match=said) as caught:
        depth_from_msg("/front/depth", message, 0.1, 10.0)
    assert "/front/depth" in str(caught.value)


def info(**changes) -> CameraInfo:
    message = CameraInfo(width=64, height=48, distortion_model="plumb_bob")
    message.k = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
    message.p = [50.0, 0.0, 30.0, 0.0, 0.0, 50.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_model_without_distortion_is_the_identity():
    model = camera_model_from_msg("/camera_info", info(d=[0.0] * 5))
    color, depth_m = np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), np.float32)
    assert model.color(color) is color
    assert model.depth(depth_m) is depth_m
    model.check_size("/image", color)
    with pytest.raises(DataFormatError, match=r"64x10.*64x48"):
        model.check_size("/image", color[:10])


def test_rectified_images_take_p_and_ignore_d():
    model = camera_model_from_msg("/camera_info", info(d=[0.3, 0.1, 0.0, 0.0, 0.0]), rectified=True)
    i = model.intrinsics
    assert (i.fx, i.cx, i.cy) == (50.0, 30.0, 20.0)
    assert model.distortion.is_none


@pytest.mark.parametrize(
    ("model_name", "d"),
    [
        ("plumb_bob", [-0.2, 0.05, 0.001, -0.001, 0.0]),
        ("rational_polynomial", [-0.2, 0.05, 0.001, -0.001, 0.0, 0.02, 0.0, 0.0]),
        ("equidistant", [-0.05, 0.01, 0.0, 0.0]),
    ],
)
def test_undistortion_brings_points_to_where_a_pinhole_sees_them(model_name, d):
    """A dot drawn where the lens shows a ray must end up where the pinhole shows it; depth goes along, unblended."""
    model = camera_model_from_msg("/camera_info", info(distortion_model=model_name, d=d))
    K = model.intrinsics.matrix
    ray = np.array([[[0.25, -0.18, 1.0]]])
    if model_name == "equidistant":
        seen = cv2.fisheye.projectPoints(ray, np.zeros(3), np.zeros(3), K, np.array(d))[0]
    else:
        seen = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), K, np.array(d))[0]
    u, v = np.rint(seen.reshape(2)).astype(int)
    color, depth_m = np.zeros((48, 64, 3), np.uint8), np.full((48, 64), 2.0, np.float32)
    color[v - 1 : v + 2, u - 1 : u + 2], depth_m[v - 1 : v + 2, u - 1 : u + 2] = 255, 1.0
    rows, cols = np.nonzero(model.color(color)[..., 0] > 127)
    expected = (K @ ray.reshape(3))[:2]
    np.testing.assert_allclose([cols.mean(), rows.mean()], expected, atol=1.0)
    flat = model.depth(depth_m)
    assert set(np.unique(flat[np.isfinite(flat)])) == {np.float32(1.0), np.float32(2.0)}
    rows, cols = np.nonzero(flat == 1.0)
    np.testing.assert_allclose([cols.mean(), rows.mean()], expected, atol=1.0)


def test_region_and_binning():
    full = CameraInfo(width=200, height=150, distortion_model="plumb_bob", binning_x=2, binning_y=2)
    full.k = [120.0, 0.0, 99.5, 0.0, 120.0, 74.5, 0.0, 0.0, 1.0]
    full.roi = RegionOfInterest(x_offset=20, y_offset=10, width=128, height=96)
    i = camera_model_from_msg("/camera_info", full).intrinsics
    assert (i.width, i.height, i.fx, i.fy) == (64, 48, 60.0, 60.0)
    # A world point at sensor pixel u lies at ((u - 20) + 0.5) / 2 - 0.5 of the binned region.
    assert (i.cx, i.cy) == (39.5, 32.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": [0.0] * 9}, "not calibrated"),
        ({"k": [60.0, 5.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]}, "skew"),
        ({"width": 0}, "holds nothing"),
        ({"distortion_model": "bent", "d": [0.1]}, "bent"),
        ({"d": [0.1, 0.2]}, "coefficients"),
    ],
)
def test_unusable_camera_info_names_the_topic(changes, said):
    with pytest.raises(DataFormatError, match=said) as caught:
        camera_model_from_msg("/front/camera_info", info(**changes))
    assert "/front/camera_info" in str(caught.value)
