"""Solid textures: range, reproducibility, structure."""

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.simulation.primitives import make_primitive
from gena3d_core.simulation.textures import TEXTURE_KINDS, Texture, evaluate, paint, solid_noise

COLORS = ((0.9, 0.1, 0.1), (0.1, 0.8, 0.2), (0.1, 0.2, 0.9), (0.9, 0.9, 0.8))
LIMITS = {"bands": (-0.01, 0.0, 0.01), "label": (-0.02, 0.02)}


def make(kind, **kwargs):
    return Texture(kind, COLORS, scale_m=0.01, limits_m=LIMITS.get(kind, ()), **kwargs)


@pytest.mark.parametrize("kind", TEXTURE_KINDS)
def test_colours_are_in_range_reproducible_and_follow_the_seed(kind, rng):
    points = rng.uniform(-0.05, 0.05, (2000, 3)).astype(np.float32)
    color = evaluate(make(kind, seed=3), points)
    assert color.shape == (2000, 3)
    assert color.dtype == np.float32
    assert (color >= 0).all()
    assert (color <= 1).all()
    np.testing.assert_array_equal(color, evaluate(make(kind, seed=3), points))
    assert (color != evaluate(make(kind, seed=4), points)).any()
    # a colour depends on its own point only
    np.testing.assert_allclose(evaluate(make(kind, seed=3), points[::-1]), color[::-1], atol=1e-5)


def test_grain_keeps_the_mean_and_gives_contrast(rng):
    points = rng.uniform(-0.1, 0.1, (20000, 3))
    flat, grained = (evaluate(Texture(colors=((0.5, 0.5, 0.5),), grain=g), points) for g in (0.0, 0.2))
    assert flat.std() == 0
    assert grained.mean() == pytest.approx(0.5, abs=0.005)
    assert grained.std() == pytest.approx(0.5 * 0.2 / np.sqrt(3), rel=0.1)


def test_noise_is_uniform_smooth_and_tiles_without_seams(rng):
    points = rng.uniform(-1, 1, (50000, 3)).astype(np.float32)
    value = solid_noise(points, 0.02, seed=1)
    share, _ = np.histogram(value, bins=10, range=(0, 1))
    assert np.abs(share / len(points) - 0.1).max() < 0.04
    near = solid_noise(points + np.float32(2e-4), 0.02, seed=1)
    assert np.abs(near - value).max() < 0.2  # also across the border of the tile


def test_bands_change_at_their_heights():
    texture = Texture("bands", COLORS[:3], limits_m=(-0.01, 0.02), grain=0.0)
    points = np.array([[0, 0, -0.02], [0, 0, 0.0], [0.3, 0, 0.03]])
    np.testing.assert_allclose(evaluate(texture, points), COLORS[:3], atol=1e-6)


def test_paint_gives_each_vertex_its_colour():
    mesh = make_primitive("sphere")
    painted = paint(mesh, make("noise"))
    np.testing.assert_allclose(painted.vertex_colors / 255.0, evaluate(make("noise"), mesh.vertices), atol=0.5 / 255)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "plaid"}, "unknown texture kind"),
        ({"kind": "noise", "colors": ((1, 1, 1),)}, "at least 2 colors"),
        ({"colors": ((1.2, 0, 0),)}, r"\[0, 1\]"),
        ({"colors": ((1.0, 0),)}, "RGB"),
        ({"scale_m": 0.0}, "scale_m"),
        ({"grain": -0.1}, "grain"),
        ({"kind": "bands", "colors": COLORS[:3], "limits_m": (0.1,)}, "2 ascending"),
        ({"kind": "bands", "colors": COLORS[:3], "limits_m": (0.1, 0.0)}, "2 ascending"),
    ],
)
def test_bad_textures_are_refused(fields, words):
    with pytest.raises(InputError, match=words):
        Texture(**fields)
