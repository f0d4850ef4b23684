"""Colours and observed flags of imagined meshes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.meshing.appearance import with_appearance
from gena3d_core.pipeline import Pipeline
from gena3d_core.simulation import default_scene, views_from_scene


@pytest.fixture(scope="module")
def seen():
    """A reconstruction of the simulated scene from one side, with its observations."""
    return Pipeline().run(views_from_scene(default_scene(), 1))


def bare(item):
    return replace(item, mesh=replace(item.mesh, vertex_colors=None, vertex_observed=None))


def test_what_the_camera_saw_is_observed_and_coloured(seen):
    for item, observation in zip(seen.scene.objects, seen.observations, strict=True):
        made = with_appearance(bare(item), observation)
        expected = item.mesh.vertex_observed
        # The generator's own flags come from the fused weights, these from projection: they agree but for the rim.
        assert (made.mesh.vertex_observed == expected).mean() > 0.8
        assert made.observed_fraction == pytest.approx(item.observed_fraction, abs=0.2)
        both = made.mesh.vertex_observed & expected
        difference = made.mesh.vertex_colors[both].astype(int) - item.mesh.vertex_colors[both]
        assert np.median(np.abs(difference)) <= 10


def test_flags_of_the_generator_are_kept(seen):
    item = seen.scene.objects[0]
    assert with_appearance(item, seen.observations[0]) is item


def test_colours_of_the_generator_are_kept(seen):
    item = seen.scene.objects[0]
    blue = np.tile(np.array([0, 0, 255], np.uint8), (len(item.mesh.vertices), 1))
    made = with_appearance(
        replace(item, mesh=replace(item.mesh, vertex_colors=blue, vertex_observed=None)), seen.observations[0]
    )
    assert (made.mesh.vertex_colors == blue).all()
    assert made.mesh.vertex_observed.any()
