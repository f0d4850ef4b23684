"""Primitives: closed, outward, of the size that the parameters say."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry.mesh import volume
from gena3d_core.simulation.primitives import PRIMITIVES, make_primitive
from gena3d_core.simulation.surfaces import lathe
from gena3d_core.types import Mesh

HANDLED = {"mug", "torus"}


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_every_primitive_is_one_closed_outward_body_centred_at_the_origin(kind):
    mesh = make_primitive(kind)
    body = as_trimesh(mesh)
    assert body.is_watertight
    assert body.is_winding_consistent
    assert volume(mesh) > 1e-6
    assert body.body_count == 1
    assert body.euler_number == (0 if kind in HANDLED else 2)
    np.testing.assert_allclose(mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0), 0, atol=1e-6)
    longest_edge_m = body.edges_unique_length.max()
    assert longest_edge_m < 0.02, "too coarse to carry colours at the vertices"


lengths = st.floats(0.02, 0.3)


@settings(max_examples=25, deadline=None)
@given(size=st.tuples(lengths, lengths, lengths), bevel=st.floats(0.0, 0.008))
def test_box_has_its_extents_and_volume(size, bevel):
    mesh = make_primitive("box", {"size_m": size, "bevel_m": bevel})
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), size, rtol=1e-4)
    assert as_trimesh(mesh).is_watertight
    a, b, c = (s - 2 * bevel for s in size)
    rounded = (
        a * b * c + 2 * bevel * (a * b + b * c + c * a) + np.pi * bevel**2 * (a + b + c) + 4 / 3 * np.pi * bevel**3
    )
    assert volume(mesh) == pytest.approx(rounded, rel=6e-3)  # the rounding has eight facets a turn of 90°


@settings(max_examples=25, deadline=None)
@given(radius=lengths, height=lengths)
def test_bodies_of_revolution_have_their_volume(radius, height):
    cylinder = make_primitive("cylinder", {"radius_m": radius, "height_m": height, "bevel_m": 0.0})
    assert volume(cylinder) == pytest.approx(np.pi * radius**2 * height, rel=2e-3)
    cone = make_primitive("cone", {"radius_m": radius, "height_m": height})
    assert volume(cone) == pytest.approx(np.pi * radius**2 * height / 3, rel=2e-3)


def test_ball_lies_on_its_sphere():
    mesh = make_primitive("sphere", {"radius_m": 0.05})
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.05, atol=1e-6)
    assert volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.05**3, rel=3e-3)


def test_mug_is_hollow_and_has_a_handle():
    mesh = make_primitive("mug", {"radius_m": 0.04, "height_m": 0.1, "wall_m": 0.004})
    solid = np.pi * 0.04**2 * 0.1
    assert volume(mesh) < 0.4 * solid
    extent = np.ptp(mesh.vertices, axis=0)
    assert extent[0] > extent[1] + 0.02
    inside = as_trimesh(mesh).contains(np.array([[extent[1] / 2 - extent[0] / 2, 0.0, 0.02]]))
    assert not inside.any()


@pytest.mark.parametrize(
    ("kind", "params", "words"),
    [
        ("teapot", {}, "known:"),
        ("box", {"sise_m": (1, 1, 1)}, "no parameter 'sise_m'"),
        ("box", {"size_m": (0.1, -0.1, 0.1)}, "not negative"),
        ("box", {"size_m": (0.1, 0.1)}, "three positive extents"),
        ("cylinder", {"radius_m": 0.0}, "must be positive"),
        ("cylinder", {"radius_m": "thick"}, "finite"),
        ("sphere", {"radius_m": float("nan")}, "finite"),
        ("torus", {"major_radius_m": 0.01, "minor_radius_m": 0.02}, "minor < major"),
        ("lathe", {"profile_rz_m": [[0.1, 0], [0.1, 1], [0, 1]]}, "start and end on the axis"),
        ("capsule", {"radius_m": 0.1, "height_m": 0.1}, "twice its radius"),
    ],
)
def test_bad_parameters_are_refused(kind, params, words):
    with pytest.raises(InputError, match=words):
        make_primitive(kind, params)


def test_lathe_of_a_triangle_is_a_double_cone():
    surface = lathe(np.array([(0.0, 0.0), (0.05, 0.05), (0.0, 0.1)]))
    body = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    assert body.is_watertight
    assert body.volume == pytest.approx(np.pi * 0.05**2 * 0.1 / 3, rel=3e-3)
