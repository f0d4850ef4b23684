"""A window to turn a scene in, with Open3D where it is installed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import Gena3DError, MissingDependencyError
from ..types import Mesh


def show_meshes(meshes: Sequence[Mesh], title: str) -> None:
    """Open a window with `meshes` (world frame) and return when it is closed.

    Raises `MissingDependencyError` without Open3D and `Gena3DError` where no window can be opened.
    """
    try:
        import open3d
    except ImportError as error:
        raise MissingDependencyError("open3d", "a window (--png FILE needs none)", "open3d-cpu") from error
    shown = [open3d.geometry.TriangleMesh.create_coordinate_frame(size=0.1)]
    for mesh in meshes:
        triangles = open3d.geometry.TriangleMesh(
            open3d.utility.Vector3dVector(mesh.vertices.astype(np.float64)),
            open3d.utility.Vector3iVector(mesh.faces),
        )
        if mesh.vertex_colors is not None:
            triangles.vertex_colors = open3d.utility.Vector3dVector(mesh.vertex_colors / 255.0)
        triangles.compute_vertex_normals()
        shown.append(triangles)
    window = open3d.visualization.Visualizer()
    if not window.create_window(window_name=title, width=1280, height=800):
        raise Gena3DError("no window can be opened here (no display?); use --png FILE")
    for geometry in shown:
        window.add_geometry(geometry)
    window.get_render_option().mesh_show_back_face = True
    window.run()
    window.destroy_window()
