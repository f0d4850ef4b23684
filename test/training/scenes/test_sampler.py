"""Sampled scenes could stand: nothing hovers, sinks in, overlaps or tips over."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry.mesh import make_mesh, transformed
from gena3d_core.geometry.solid_voxelization import solid_occupancy
from gena3d_core.geometry.transforms import rigid
from training.mesh_source import RecentSource, TrainingMesh, innermost
from training.scenes.sampler import SamplerSettings, center_of_mass, sample_scene
from training.scenes.source import open_scenes


class Solids:
    """Boxes, a ball, a ring, a cone, and one that cannot be loaded."""

    name, split = "solids", "all"

    def __init__(self, *chosen: str) -> None:
        made = {
            "plank": trimesh.creation.box((0.98, 0.5, 0.12)),
            "cube": trimesh.creation.box((0.98, 0.98, 0.98)),
            "ball": trimesh.creation.icosphere(subdivisions=3, radius=0.49),
            "ring": trimesh.creation.torus(0.38, 0.11),
            "cone": trimesh.creation.cone(0.4, 0.98),
        }
        self.meshes = {name: make_mesh(s.vertices - s.bounds.mean(axis=0), s.faces) for name, s in made.items()}
        self.chosen = list(chosen) or [*self.meshes, "broken"]

    def ids(self):
        return self.chosen

    def load(self, id):
        if id == "broken":
            raise DataFormatError("broken")
        return TrainingMesh(id, "test", self.meshes[id], 0.2 if id == "cube" else None)


def placed(layout, source):
    return [transformed(source.load(item.mesh).mesh, item.S_world_object) for item in layout.objects]


def share_inside_another(meshes):
    """Volume that belongs to several objects over the volume of all, on a fine grid."""
    low, high = mesh_ops.bounds(mesh_ops.concatenate(meshes))
    S = rigid(1.02 * float((high - low).max()) * np.eye(3), (low + high) / 2.0)
    filled = np.stack([solid_occupancy(mesh, S, 96) for mesh in meshes])
    return float(np.maximum(filled.sum(axis=0) - 1.0, 0.0).sum() / filled.sum())


@pytest.mark.parametrize("stacked", [0.0, 0.7])
def test_nothing_overlaps_sinks_in_or_hovers(stacked):
    source, on_top = Solids(), 0
    for index in range(3):
        layout = sample_scene(source, 3, index, SamplerSettings(objects=(3, 5), stacked=stacked))
        meshes = placed(layout, source)
        assert 3 <= len(meshes) <= 5
        assert "broken" not in {item.mesh for item in layout.objects}
        assert share_inside_another(meshes) < 1e-3
        lowest = np.array([mesh.vertices[:, 2].min() for mesh in meshes])
        assert lowest.min() > -1e-4
        on_top += int((lowest > 2e-3).sum())
        for number, height in enumerate(lowest):
            others = [mesh for k, mesh in enumerate(meshes) if k != number]
            if height > 2e-3:  # then it lies on something: lowered a little, it reaches into it
                down = transformed(meshes[number], rigid(t=np.array([0.0, 0.0, -0.02])))
                assert share_inside_another([down, *others]) > share_inside_another([meshes[number], *others])
        low, high = mesh_ops.bounds(mesh_ops.concatenate(meshes))
        np.testing.assert_allclose((low + high)[:2], 0.0, atol=1e-6)
    assert (on_top > 0) == (stacked > 0)


def test_sizes_are_those_that_are_known_within_limits():
    layout = sample_scene(Solids("cube"), 0, 0, SamplerSettings(objects=(2, 2)))
    for item in layout.objects:
        np.testing.assert_allclose(np.cbrt(np.linalg.det(item.S_world_object[:3, :3])), 0.2)
    small = sample_scene(Solids("cube"), 0, 0, SamplerSettings(objects=(2, 2), size_m=(0.02, 0.05)))
    np.testing.assert_allclose(np.cbrt(np.linalg.det(small.objects[0].S_world_object[:3, :3])), 0.05 / 0.98)


def test_yaws_are_random_and_numbers_are_scenes():
    source = Solids("plank")
    settings = SamplerSettings(objects=(2, 3), upright=1.0)
    layouts = [sample_scene(source, 1, index, settings) for index in range(12)]
    axes = np.array([item.S_world_object[:2, 0] for layout in layouts for item in layout.objects])
    angles = np.arctan2(axes[:, 1], axes[:, 0])
    assert np.ptp(angles) > 4.0
    again = sample_scene(source, 1, 5, settings)
    assert [item.mesh for item in again.objects] == [item.mesh for item in layouts[5].objects]
    np.testing.assert_array_equal(again.objects[-1].S_world_object, layouts[5].objects[-1].S_world_object)
    other = sample_scene(source, 2, 5, settings)
    assert np.abs(other.objects[0].S_world_object - layouts[5].objects[0].S_world_object).max() > 1e-3


def test_the_centre_of_mass_is_that_of_the_volume():
    cone = trimesh.creation.cone(0.4, 1.0, sections=64)
    np.testing.assert_allclose(center_of_mass(make_mesh(cone.vertices, cone.faces)), cone.center_mass, atol=1e-6)
    dense = trimesh.util.concatenate([trimesh.creation.box((1, 1, 1)).subdivide(), trimesh.creation.box((1, 1, 1))])
    np.testing.assert_allclose(center_of_mass(make_mesh(dense.vertices, dense.faces)), 0.0, atol=1e-7)


def test_what_balances_on_nothing_is_not_placed():
    # A cone stands on its base or lies; never on its tip, however it was modelled.
    source = Solids("cone")
    source.meshes["cone"] = transformed(source.meshes["cone"], np.diag([1.0, -1.0, -1.0, 1.0]))
    for index in range(6):
        for item in sample_scene(source, 0, index, SamplerSettings(objects=(1, 2), upright=1.0)).objects:
            axis = item.S_world_object[:3, 2] / np.linalg.norm(item.S_world_object[:3, 2])
            assert axis[2] < 0.75  # +1 would be the tip down


def test_sources_by_text():
    source = RecentSource(Solids())
    scenes = open_scenes("procedural:3:7,objects=2..3,stacked=0.5", source)
    assert list(scenes.ids()) == [f"procedural_7_{k:06d}" for k in range(3)]
    assert 2 <= len(scenes.load("procedural_7_000001").objects) <= 3
    assert innermost(source) is source.source
    assert source.load("cube") is source.load("cube")
    for text, message in (
        ("procedural:0", "want procedural:COUNT"),
        ("procedural:3,objects=3..2", "objects must be a range"),
        ("procedural:3,stacked=much", "stacked.*much"),
        ("procedural:3,colour=red", "unknown option 'colour'"),
        ("/no/such/folder", "no folder"),
    ):
        with pytest.raises(InputError, match=message):
            open_scenes(text, source)
    with pytest.raises(InputError, match="has no scene 'procedural_7_000003'"):
        scenes.load("procedural_7_000003")
    with pytest.raises(InputError, match="placed fewer objects"):
        sample_scene(Solids("broken"), 0, 0)
