"""Pictures: they show what they should, whatever is missing from the reconstruction."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import trimesh

from gena3d_core.errors import InputError, MissingDependencyError
from gena3d_core.geometry.camera import project
from gena3d_core.geometry.transforms import apply, inverse, look_at, rigid
from gena3d_core.types import (
    Intrinsics,
    Mesh,
    ObjectObservation,
    ReconstructedObject,
    Reconstruction,
    Scene,
    SupportPlane,
    View,
)
from gena3d_core.viz import canvas, contact_sheet, overview, scene_picture
from gena3d_core.viz.cameras import orbit_camera
from gena3d_core.viz.canvas import PALETTE, Canvas, fitted, text_width, wrapped
from gena3d_core.viz.render import instance_map, render_meshes

INTRINSICS = Intrinsics(80, 60, 70.0, 70.0, 39.5, 29.5)
SUPPORT = SupportPlane(np.array([0.0, 0.0, 1.0]), 0.0)


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """A quarter of the pixels is plenty for what is tested here."""
    monkeypatch.setattr("gena3d_core.viz.render.SUPERSAMPLING", 1)


def box(color=(200, 40, 40), seen: bool = True) -> Mesh:
    shape = trimesh.creation.box((0.1, 0.08, 0.06)).subdivide().subdivide()
    colors = np.empty((len(shape.vertices), 3), np.uint8)
    colors[:] = color
    observed = shape.vertices[:, 0] > 0 if seen else None
    return Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int32), colors, None, observed)


def make_result(objects: int = 2, views: int = 3, observed: bool = True) -> Reconstruction:
    made_views = tuple(
        View(
            np.full((60, 80, 3), 90 + 10 * i, np.uint8),
            INTRINSICS,
            look_at(np.array([0.6 * np.cos(i), 0.6 * np.sin(i), 0.4]), np.zeros(3)),
            np.full((60, 80), 0.7, np.float32) if i else None,
            name=f"{i:06d}",
        )
        for i in range(views)
    )
    made, observations = [], []
    for i in range(objects):
        T = rigid(t=np.array([0.15 * i - 0.1, 0.02 * i, 0.03]))
        made.append(
            ReconstructedObject(i + 1, f"thing {i}", 0.9, box(), T, np.array([0.1, 0.08, 0.06]), 0.5 + 0.1 * (i % 5))
        )
        if observed and views:
            mask = np.zeros((60, 80), bool)
            mask[20:30, 10 + 8 * (i % 6) : 16 + 8 * (i % 6)] = True
            observations.append(
                ObjectObservation(
                    i + 1, "", 0.9, made_views, (mask,) * views, (np.roll(mask, 10, axis=0),) * views,
                    np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8), np.zeros(1, np.int32), SUPPORT,
                )
            )  # fmt: skip
    scene = Scene(
        tuple(made),
        support=SUPPORT,
        view_names=tuple(v.name for v in made_views),
        timings_s={"stereo": 0.2, "meshing": 0.6, "total": 0.8},
        residuals={"registration_rmse_m": 0.0012},
        warnings=("poses drift by 1 cm " * 12,),
    )
    return Reconstruction(scene, made_views, tuple(observations))


def has_color(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 6) -> bool:
    return bool((np.abs(picture.astype(int) - color).max(axis=-1) <= tolerance).any())


def test_overview_shows_views_objects_and_times():
    picture = overview(make_result())
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (1600, 3)
    for color in PALETTE[:2]:
        assert has_color(picture, color)
    assert not has_color(picture, PALETTE[4])


@pytest.mark.parametrize(
    "result",
    [
        make_result(objects=0),
        make_result(views=0),
        make_result(objects=0, views=0),
        make_result(objects=40, views=1),
        make_result(objects=1, views=12),
        make_result(observed=False),
    ],
    ids=["no objects", "no views", "nothing", "40 objects", "12 views", "no observations"],
)
def test_overview_of_unusual_results(result):
    picture = overview(result)
    assert picture.shape[1:] == (1600, 3)
    assert picture.std() > 3


def test_overview_without_observations_marks_where_the_meshes_are():
    with_masks = overview(make_result(objects=1, views=1, observed=False))
    without = overview(make_result(objects=0, views=1))
    corner = (slice(100, 400), slice(40, 500))
    assert np.abs(with_masks[corner].astype(int) - without[corner]).max() > 60


def test_an_object_without_a_label_or_support_is_drawn_too():
    result = make_result(objects=1, views=1)
    entry = replace(result.scene.objects[0], label="", mesh=box(seen=False))
    bare = replace(result, scene=replace(result.scene, objects=(entry,), support=None, timings_s={}))
    assert overview(bare).shape[1] == 1600


def test_render_puts_the_mesh_where_the_camera_sees_it():
    T = look_at(np.array([0.4, -0.5, 0.4]), np.array([0.0, 0.0, 0.0]))
    empty = render_meshes([], T, INTRINSICS)
    drawn = render_meshes([box()], T, INTRINSICS)
    changed = np.abs(drawn.astype(int) - empty).max(axis=-1) > 8
    uv, _ = project(apply(inverse(T), box().vertices.astype(np.float64)), INTRINSICS)
    rows, cols = np.nonzero(changed)
    np.testing.assert_allclose([cols.min(), rows.min()], uv.min(axis=0), atol=1.5)
    np.testing.assert_allclose([cols.max(), rows.max()], uv.max(axis=0), atol=1.5)
    reds = drawn[changed].astype(int)
    assert (reds[:, 0] > reds[:, 1]).mean() > 0.95


def test_shadow_falls_on_the_support_only():
    T = look_at(np.array([0.3, -0.6, 0.5]), np.zeros(3))
    resting = Mesh(box().vertices + np.float32([0, 0, 0.03]), box().faces)
    lit = render_meshes([resting], T, INTRINSICS, SUPPORT).astype(int).sum(axis=-1)
    bare = render_meshes([resting], T, INTRINSICS, None).astype(int).sum(axis=-1)
    ground = instance_map([resting], T, INTRINSICS) < 0
    near = cv2.dilate((~ground).astype(np.uint8), np.ones((25, 25))) > 0
    drop = np.where(ground, bare - lit, 0)
    assert drop.max() > 120
    assert drop[near].mean() > 2 * drop[~near].mean()


def test_instance_map_tells_objects_apart():
    T = look_at(np.array([0.0, -0.6, 0.3]), np.zeros(3))
    meshes = [Mesh(box().vertices + np.float32([dx, 0, 0]), box().faces) for dx in (-0.1, 0.1)]
    shown = instance_map(meshes, T, INTRINSICS)
    assert set(np.unique(shown)) == {-1, 0, 1}
    assert np.nonzero(shown == 0)[1].mean() < np.nonzero(shown == 1)[1].mean()
    assert (instance_map([], T, INTRINSICS) == -1).all()


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300)])
@pytest.mark.parametrize("elevation", [0.0, 0.5, 1.57])
def test_orbit_camera_frames_every_point_tightly(width, height, elevation, rng):
    points = rng.normal(size=(200, 3)) * (0.3, 0.1, 0.05) + (-9, 8, 3)
    T, intrinsics = orbit_camera(points, 0.7, elevation, width, height, margin=0.1)
    uv, z = project(apply(inverse(T), points), intrinsics)
    assert (z > 0).all()
    share = (uv - (intrinsics.cx, intrinsics.cy)) / (width, height)
    assert np.abs(share).max() == pytest.approx(0.4, abs=2e-3)
    tight = int(np.argmax(np.abs(share).max(axis=0)))
    assert share[:, tight].max() == pytest.approx(-share[:, tight].min(), abs=2e-3)


def test_contact_sheet_has_a_cell_for_each_view():
    views = make_result(views=5).views
    sheet = contact_sheet(views, cell_width=160)
    assert sheet.shape[1] == 3 * 166 + 6
    for i in range(5):
        assert has_color(sheet, (90 + 10 * i,) * 3, tolerance=1)
    assert contact_sheet([], cell_width=160).shape[2] == 3
    assert contact_sheet(views, cell_width=160, columns=5).shape[1] == 5 * 166 + 6


def test_scene_picture_needs_a_scene():
    picture = scene_picture([box()], SUPPORT, width=160)
    assert picture.shape == (100, 160, 3)
    with pytest.raises(InputError, match="no objects"):
        scene_picture([], SUPPORT)


def test_text_fits_its_room():
    text = "a rather long label of one object"
    short = fitted(text, 14, 80)
    assert text_width(short, 14) <= 80
    assert short.endswith("…")
    assert fitted("mug", 14, 80) == "mug"
    lines = wrapped(text, 14, 90)
    assert " ".join(lines) == text
    assert all(text_width(line, 14) <= 90 for line in lines)


def test_canvas_draws_inside_rounded_corners():
    page = Canvas(40, 30, (0, 0, 0))
    page.paste(np.full((20, 20, 3), 255, np.uint8), (10, 5), radius=8)
    pixels = page.pixels
    assert pixels[15, 20].tolist() == [255, 255, 255]
    assert pixels[5, 10].max() < 60
    assert pixels[0, 0].max() == 0


def test_resized_fills_and_keeps_the_middle():
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[40:60, 90:110] = 255
    small = canvas.resized(picture, 50, 50)
    assert small.shape == (50, 50, 3)
    assert small[25, 25].min() == 255


def test_window_without_open3d_says_what_to_install(monkeypatch):
    import sys

    from gena3d_core.viz.window import show_meshes

    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(MissingDependencyError, match="pip install open3d-cpu"):
        show_meshes([box()], "title")


def test_old_pillow_takes_a_font_of_the_system_or_says_what_to_install(monkeypatch):
    def old(size=None):
        raise TypeError("load_default() takes 0 positional arguments")

    def absent(name, size):
        raise OSError("cannot open resource")

    canvas.font.cache_clear()
    monkeypatch.setattr(canvas.ImageFont, "load_default", old)
    monkeypatch.setattr(canvas.ImageFont, "truetype", absent)
    with pytest.raises(MissingDependencyError, match="pillow>=10"):
        canvas.font(14)
    monkeypatch.setattr(canvas.ImageFont, "truetype", lambda name, size: (name, size))
    assert canvas.font(14) == ("DejaVuSans.ttf", 14)
    canvas.font.cache_clear()
