"""Seconds of each step that makes a training example, on objects of everyday shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from ..generative.inputs import prepare_inputs
from ..geometry.mesh import make_mesh
from ..geometry.solid_voxelization import solid_occupancy
from ..meshing.simplification import simplify
from ..simulation.example_settings import ExampleSettings
from ..simulation.object_example import make_example
from ..simulation.primitives import make_primitive
from ..simulation.textures import solid_noise
from ..types import Mesh

SHAPES = ("mug", "bottle", "bowl", "banana", "l_bracket", "torus")
FACES = 4000
IMAGE_SIZE = 112
RESOLUTION = 64
STAGES = ("observation", "inputs", "occupancy")
"""The example with its views; crops and partial cloud; filled voxels of the true mesh."""


@dataclass(frozen=True)
class DataRow:
    """Means over `examples`: milliseconds of processor time by stage, and examples a second of one core."""

    occlusion: str
    views: int
    examples: int
    median_faces: int
    milliseconds: dict[str, float]
    examples_per_s: float
    ms_per_view: float


def unit_shapes(faces: int = FACES) -> list[Mesh]:
    """Everyday shapes of at most about `faces` faces in the cube [-0.5, 0.5]^3."""
    shapes = []
    for name in SHAPES:
        mesh = simplify(make_primitive(name), faces)
        side = float(np.ptp(mesh.vertices, axis=0).max())
        shapes.append(make_mesh(0.98 * mesh.vertices / side, mesh.faces))
    return shapes


def measure_data(
    occlusions: Sequence[str], views: Sequence[int], examples: int, clock: Callable[[], float] = time.process_time
) -> list[DataRow]:
    """One row for each kind of occlusion and number of views, after one example that is not counted."""
    shapes = unit_shapes()
    solid_noise(shapes[0].vertices, 0.01)  # textures share a volume of noise that is made once in a process
    rows = []
    for occlusion in occlusions:
        for count in views:
            settings = ExampleSettings(views=count, occlusion=occlusion)
            _measure(shapes[0], settings, examples, clock)
            taken = [_measure(shapes[n % len(shapes)], settings, n, clock) for n in range(examples)]
            mean = {stage: 1e3 * fmean(entry[stage] for entry in taken) for stage in STAGES}
            total = sum(mean.values())
            faces = int(np.median([len(shape.faces) for shape in shapes]))
            rows.append(DataRow(occlusion, count, examples, faces, mean, 1e3 / total, total / count))
    return rows


def _measure(mesh: Mesh, settings: ExampleSettings, seed: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of each stage of one example."""
    marks = [clock()]
    example = make_example(mesh, settings, seed)
    marks.append(clock())
    inputs = prepare_inputs([example.observation], IMAGE_SIZE, RESOLUTION, "observed")
    marks.append(clock())
    solid_occupancy(example.mesh, inputs.S_world_grid[0], RESOLUTION)
    marks.append(clock())
    return dict(zip(STAGES, np.diff(marks).tolist(), strict=True))


def data_table(rows: Sequence[DataRow]) -> str:
    """The rows as text."""
    head = f"{'occlusion':<10}{'views':>6}" + "".join(f"{stage:>14}" for stage in STAGES)
    lines = [head + f"{'ms per view':>14}{'examples/s':>13}"]
    for row in rows:
        cells = "".join(f"{row.milliseconds[stage]:>11.1f} ms" for stage in STAGES)
        lines.append(f"{row.occlusion:<10}{row.views:>6}{cells}{row.ms_per_view:>14.1f}{row.examples_per_s:>13.2f}")
    return "\n".join(lines)


def as_records(rows: Sequence[DataRow]) -> list[dict[str, Any]]:
    """The rows for JSON."""
    return [asdict(row) for row in rows]
