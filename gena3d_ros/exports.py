"""A scene in the types of other packages, where installed: vision_msgs for detections, moveit_msgs for planning."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from shape_msgs.msg import Mesh as MeshMsg
from shape_msgs.msg import MeshTriangle

from gena3d_core.meshing.simplification import simplify
from gena3d_core.types import Mesh, ReconstructedObject, Scene

from .message_fields import header_to_msg, pose_to_msg


def optional_messages(package: str) -> Any | None:
    """Module `<package>.msg`, or None where the package is not installed."""
    try:
        return import_module(f"{package}.msg")
    except ImportError:
        return None


def shape_mesh(mesh: Mesh, max_faces: int) -> MeshMsg:
    """`shape_msgs/Mesh` of at most `max_faces` faces; one Python object a face and vertex, so keep it small."""
    mesh = simplify(mesh, max_faces)
    return MeshMsg(
        triangles=[
            MeshTriangle(vertex_indices=np.array(face, dtype=np.uint32)) for face in mesh.faces.astype(np.uint32)
        ],
        vertices=[Point(x=x, y=y, z=z) for x, y, z in mesh.vertices.astype(np.float64).tolist()],
    )


def detections_3d(scene: Scene, vision_msgs: Any) -> Any:
    """`vision_msgs/Detection3DArray`: one box with label and score an object; class_id is the label, or `object`."""
    header = header_to_msg(scene.frame_id, scene.stamp_ns)
    return vision_msgs.Detection3DArray(
        header=header, detections=[_detection(item, header, vision_msgs) for item in scene.objects]
    )


def planning_scene(scene: Scene, removed: Collection[str], max_faces: int, moveit_msgs: Any) -> Any:
    """`moveit_msgs/PlanningScene` diff that puts every object in, as a mesh, and takes the ids in `removed` out.

    max_faces: of each object's mesh.
    """
    message = moveit_msgs.PlanningScene(is_diff=True)
    message.robot_state.is_diff = True
    header = header_to_msg(scene.frame_id, scene.stamp_ns)
    added = [_collision_object(item, header, max_faces, moveit_msgs) for item in scene.objects if len(item.mesh.faces)]
    gone = sorted(set(removed) - {item.id for item in added})
    message.world.collision_objects = [
        *(
            moveit_msgs.CollisionObject(header=header, id=name, operation=moveit_msgs.CollisionObject.REMOVE)
            for name in gone
        ),
        *added,
    ]
    return message


def collision_id(item: ReconstructedObject) -> str:
    """Name of an object in the planning scene."""
    return f"object_{item.id}"


def _detection(item: ReconstructedObject, header: Any, vision_msgs: Any) -> Any:
    pose = pose_to_msg(item.T_world_object)
    result = vision_msgs.ObjectHypothesisWithPose()
    result.hypothesis.class_id = str(item.label or "object")
    result.hypothesis.score = float(item.score)
    result.pose.pose = pose
    box = vision_msgs.BoundingBox3D(
        center=pose, size=Vector3(**{axis: float(v) for axis, v in zip("xyz", item.size_m, strict=True)})
    )
    return vision_msgs.Detection3D(header=header, results=[result], bbox=box, id=str(item.id))


def _collision_object(item: ReconstructedObject, header: Any, max_faces: int, moveit_msgs: Any) -> Any:
    identity = Pose(orientation=Quaternion(w=1.0))
    return moveit_msgs.CollisionObject(
        header=header,
        id=collision_id(item),
        pose=pose_to_msg(item.T_world_object),
        meshes=[shape_mesh(item.mesh, max_faces)],
        mesh_poses=[identity],
        operation=moveit_msgs.CollisionObject.ADD,
    )
