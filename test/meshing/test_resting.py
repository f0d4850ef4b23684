"""Meshes that end on their support."""

import numpy as np
import pytest

from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms, voxels
from gena3d_core.meshing.occupancy_surface import surface_from_logits
from gena3d_core.meshing.resting import rest_on_plane
from gena3d_core.types import SupportPlane


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_only_what_sinks_a_little_is_lifted(tilt):
    centers = voxels.voxel_centers(np.full(3, -0.5), 1 / 32, (32,) * 3)
    mesh = surface_from_logits(20 * (0.3 - np.linalg.norm(centers, axis=-1)))
    normal = np.array([np.sin(tilt), 0.0, np.cos(tilt)])
    S_world_mesh = transforms.rigid(0.2 * np.eye(3), np.array([1.0, 2.0, 0.5]))
    # The ball, 6 cm in radius, sinks by 4 mm.
    plane = SupportPlane(normal, float(-normal @ S_world_mesh[:3, 3] + 0.056))
    before = plane.height_m(mesh_ops.transformed(mesh, S_world_mesh).vertices.astype(np.float64))
    rested = rest_on_plane(mesh, plane, S_world_mesh, depth=0.03)
    after = plane.height_m(mesh_ops.transformed(rested, S_world_mesh).vertices.astype(np.float64))
    assert before.min() == pytest.approx(-0.004, abs=3e-4)
    assert after.min() == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(after[before > 0], before[before > 0], atol=1e-6)
    assert mesh_ops.is_watertight(rested)
    shallow = rest_on_plane(mesh, plane, S_world_mesh, depth=0.01)
    np.testing.assert_array_equal(
        np.all(shallow.vertices == mesh.vertices, axis=1), ~((before < 0) & (before >= -0.002))
    )
