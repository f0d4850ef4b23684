"""A scene as markers for RViz: decimated coloured meshes, boxes, labels.

Markers hold one Python object a vertex and a face corner, which costs about 10 ms a thousand faces: make them small,
and only when somebody subscribes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from gena3d_core.meshing.simplification import simplify
from gena3d_core.types import Float64Array, Mesh, ReconstructedObject, Scene

from .message_fields import header_to_msg, pose_to_msg

GREY = (0.7, 0.7, 0.7)
BOX_COLOR = (1.0, 0.8, 0.1)
LOW, HIGH = np.array([0.85, 0.15, 0.1]), np.array([0.1, 0.7, 0.25])
"""Colours of confidence 0 (also: not observed) and 1 (observed)."""
LINE_WIDTH_M = 0.002
TEXT_HEIGHT_M = 0.03
TEXT_CLEARANCE_M = 0.04
_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_EDGES = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if (_CORNERS[a] != _CORNERS[b]).sum() == 1])


def scene_markers(scene: Scene, *, max_faces: int, color_by: str = "texture") -> MarkerArray:
    """Markers that replace those of the scene before: namespaces `mesh`, `box`, `label`, ids those of the objects.

    max_faces is the budget of all meshes together; color_by is one of `COLORINGS`.
    """
    header = header_to_msg(scene.frame_id, scene.stamp_ns)
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    budgets = face_budgets(scene, max_faces)
    for item, budget in zip(scene.objects, budgets, strict=True):
        mesh = simplify(item.mesh, budget)
        if len(mesh.faces):
            markers.append(_mesh_marker(header, item, mesh, COLORINGS[color_by](mesh)))
        markers += [_box_marker(header, item), _label_marker(header, item)]
    return MarkerArray(markers=markers)


def face_budgets(scene: Scene, max_faces: int, floor: int = 50) -> list[int]:
    """Faces that each object gets of a common budget, in proportion to what it has, at least `floor`."""
    counts = np.array([len(item.mesh.faces) for item in scene.objects], dtype=np.float64)
    share = min(1.0, max_faces / max(counts.sum(), 1.0))
    return [int(budget) for budget in np.maximum(np.floor(counts * share), floor)]


def texture_colors(mesh: Mesh) -> Float64Array:
    """(V, 3) colours in [0, 1] as the cameras saw them."""
    if mesh.vertex_colors is None:
        return np.tile(GREY, (len(mesh.vertices), 1))
    return mesh.vertex_colors / 255.0


def confidence_colors(mesh: Mesh) -> Float64Array:
    """(V, 3) colours in [0, 1] from red (confidence 0) to green (1); grey where the mesh has no confidence."""
    return _ramp(mesh, mesh.vertex_confidence)


def observed_colors(mesh: Mesh) -> Float64Array:
    """(V, 3) colours in [0, 1]: green where a camera saw the surface, red where not; grey where unknown."""
    return _ramp(mesh, mesh.vertex_observed)


COLORINGS: Mapping[str, Callable[[Mesh], Float64Array]] = {
    "texture": texture_colors,
    "confidence": confidence_colors,
    "observed": observed_colors,
}


def _ramp(mesh: Mesh, values: np.ndarray | None) -> Float64Array:
    if values is None:
        return np.tile(GREY, (len(mesh.vertices), 1))
    share = np.clip(values.astype(np.float64), 0.0, 1.0)[:, None]
    return share * HIGH + (1.0 - share) * LOW


def _marker(header: Header, item: ReconstructedObject, namespace: str, kind: int, scale: tuple[float, float, float]):
    x, y, z = scale
    return Marker(
        header=header,
        ns=namespace,
        id=int(item.id),
        type=kind,
        action=Marker.ADD,
        pose=pose_to_msg(item.T_world_object),
        scale=Vector3(x=x, y=y, z=z),
    )


def _points(values: np.ndarray) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y, z in values.astype(np.float64).tolist()]


def _mesh_marker(header: Header, item: ReconstructedObject, mesh: Mesh, colors: Float64Array) -> Marker:
    marker = _marker(header, item, "mesh", Marker.TRIANGLE_LIST, (1.0, 1.0, 1.0))
    # Corners share the message objects of their vertex: a sixth of the objects that one a corner would need.
    points = _points(mesh.vertices)
    tints = [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in colors.tolist()]
    corners = mesh.faces.reshape(-1).tolist()
    marker.points = [points[corner] for corner in corners]
    marker.colors = [tints[corner] for corner in corners]
    marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    return marker


def _box_marker(header: Header, item: ReconstructedObject) -> Marker:
    marker = _marker(header, item, "box", Marker.LINE_LIST, (LINE_WIDTH_M, 0.0, 0.0))
    marker.points = _points((_CORNERS * item.size_m)[_EDGES.reshape(-1)])
    r, g, b = BOX_COLOR
    marker.color = ColorRGBA(r=r, g=g, b=b, a=1.0)
    return marker


def _label_marker(header: Header, item: ReconstructedObject) -> Marker:
    marker = _marker(header, item, "label", Marker.TEXT_VIEW_FACING, (0.0, 0.0, TEXT_HEIGHT_M))
    marker.pose.position.z += float(item.size_m[2]) / 2.0 + TEXT_CLEARANCE_M
    marker.text = f"{item.id} {item.label}".strip() + f" ({item.score:.0%})"
    marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    return marker
