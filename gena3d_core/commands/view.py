"""`gena3d view DIR`: a reconstructed scene in a window, or rendered to a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import integer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("scene", type=Path, metavar="DIR", help="folder that `gena3d reconstruct` wrote")
    parser.add_argument("--png", type=Path, metavar="FILE", help="render the scene to FILE; no window, no open3d")
    parser.add_argument("--azimuth", type=float, default=-60.0, metavar="DEG", help="of the camera, from +x towards +y")
    parser.add_argument("--elevation", type=float, default=30.0, metavar="DEG", help="of the camera")
    parser.add_argument(
        "--width", type=integer(64, 8192), default=1280, metavar="PIXELS", help="of the picture (default: 1280)"
    )


def run(args: argparse.Namespace) -> int:
    """Show or render."""
    from ..geometry.mesh import transformed
    from ..io import load_scene

    scene = load_scene(args.scene)
    meshes = [transformed(entry.mesh, entry.T_world_object) for entry in scene.objects]
    if args.png is not None:
        from ..io import write_picture
        from ..viz import scene_picture

        write_picture(args.png, scene_picture(meshes, scene.support, args.width, args.azimuth, args.elevation))
        print(f"wrote {args.png}")
    else:
        from ..viz.window import show_meshes

        show_meshes(meshes, title=f"{args.scene} - {len(meshes)} objects")
    return 0
