"""`gena3d evaluate recording DATA`: reconstructions of a recording against its reference surfaces."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from .arguments import UsageError, add_pipeline_arguments, integers

if TYPE_CHECKING:
    import numpy as np

    from ..io.rgbd_folder import RgbdFolder
    from ..pipeline import Pipeline
    from ..types import Mesh, View


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-verb."""
    parser.add_argument("data", type=Path, metavar="DATA", help="RGB-D folder with annotations.json and objects_ref/")
    parser.add_argument("--views", type=integers(1), metavar="1,2,4", help="numbers of views (default: all there are)")
    parser.add_argument("--objects", metavar="NAME,NAME", help="only these objects (default: all)")
    parser.add_argument(
        "--whole-mesh", action="store_true", help="judge also what no camera saw, such as the closed underside"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one row a set of views to FILE")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Reconstruct every set of frames that the recording names, print a table, write JSON if asked."""
    from tqdm import tqdm

    from ..errors import Gena3DError
    from ..io.atomic import write_file
    from ..io.rgbd_folder import RgbdFolder
    from ..metrics import recording as metric
    from .stages import make_pipeline

    folder = RgbdFolder.open(args.data)
    sets = _chosen_sets(metric.read_sparse_sets(args.data), args)
    withheld = args.stereo == "plane_sweep"
    runner = _Runner(make_pipeline(args), folder if withheld else None, args.whole_mesh)
    with tqdm(total=len(sets), disable=None, desc="sets", unit="set") as bar:

        def advance(_: metric.RecordingRow) -> None:
            bar.update()

        rows = metric.evaluate_recording(
            args.data,
            runner.reconstruct,
            sets=sets,
            prepare=_without_depth if withheld else lambda view: view,
            progress=advance,
        )
    print(metric.format_table(rows))
    for line in runner.summary():
        print(line)
    if args.json:
        content = {
            "schema": 1,
            "command": "evaluate recording",
            "stereo": args.stereo,
            "whole_mesh": args.whole_mesh,
            "rows": [
                {"method": args.generator, **row, "seconds": seconds}
                for row, seconds in zip(metric.rows_to_json(rows), runner.seconds, strict=True)
            ],
            "depth_error": runner.depth_figures(),
            "failures": runner.failures,
        }
        write_file(args.json, json.dumps(content, indent=1).encode())
        print(f"wrote {args.json}")
    if len(runner.failures) == len(rows):
        raise Gena3DError(f"every reconstruction failed: {runner.failures[0]}")
    return 0


def _chosen_sets(sets: Sequence[Any], args: argparse.Namespace) -> list[Any]:
    known = {entry.object for entry in sets}
    objects = known if args.objects is None else set(args.objects.split(","))
    if objects - known:
        raise UsageError(f"--objects {sorted(objects - known)} are not in the recording; it has {sorted(known)}")
    chosen = [
        entry for entry in sets if entry.object in objects and (args.views is None or len(entry.frames) in args.views)
    ]
    if args.stereo == "plane_sweep":
        single = sum(len(entry.frames) < 2 for entry in chosen)
        if single:
            print(f"{single} sets of one view are left out: plane sweeping needs two", file=sys.stderr)
        chosen = [entry for entry in chosen if len(entry.frames) >= 2]
    if not chosen:
        raise UsageError("no set of views is left to evaluate; the recording has sets of "
                         f"{sorted({len(entry.frames) for entry in sets})} views")  # fmt: skip
    return chosen


def _without_depth(view: View) -> View:
    return replace(view, depth_m=None, depth_confidence=None)


@dataclass
class _Runner:
    """Runs the pipeline on each set and remembers what the metric does not ask for.

    recorded: where to look up the depth that the stereo matcher was not shown; None: it was shown
    whole_mesh: hand on what no camera saw as if it had been seen
    """

    pipeline: Pipeline
    recorded: RgbdFolder | None
    whole_mesh: bool
    seconds: list[float | None] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    depth_pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    def reconstruct(self, views: Sequence[View]) -> list[Mesh]:
        """Meshes in the world; none, and a failure noted, where a stage fails."""
        from ..errors import StageError
        from ..geometry.mesh import transformed

        try:
            result = self.pipeline.run(views)
        except StageError as error:
            self.seconds.append(None)
            self.failures.append(f"frames {', '.join(view.name for view in views)}: {error}")
            return []
        self.seconds.append(result.scene.timings_s["total"])
        if self.recorded is not None:
            self._compare_depth(self.recorded, result.views)
        meshes = [transformed(entry.mesh, entry.T_world_object) for entry in result.scene.objects]
        return [replace(mesh, vertex_observed=None) for mesh in meshes] if self.whole_mesh else meshes

    def _compare_depth(self, recorded: RgbdFolder, views: Sequence[View]) -> None:
        from ..metrics.depth import texture_mask

        for view in views:
            truth = recorded.read(int(view.name)).depth_m
            if view.depth_m is not None and truth is not None:
                self.depth_pairs.append((view.depth_m, truth, texture_mask(view.color)))

    def depth_figures(self) -> dict[str, float] | None:
        """Errors of the estimated depth over every view of every set, where there is texture."""
        import numpy as np

        from ..metrics.depth import depth_error

        if not self.depth_pairs:
            return None
        estimated, truth, textured = (np.stack(parts) for parts in zip(*self.depth_pairs, strict=True))
        return asdict(depth_error(estimated, truth, textured))

    def summary(self) -> list[str]:
        """Lines about time, depth and failures."""
        done = [seconds for seconds in self.seconds if seconds is not None]
        lines = [f"{len(done)} sets reconstructed, {median(done):.2f} s each in the median"] if done else []
        figures = self.depth_figures()
        if figures:
            lines.append(
                f"depth where there is texture: median error {100 * figures['median_ratio']:.2f} %, "
                f"{100 * figures['bad_fraction']:.0f} % of pixels off by more than 5 %, "
                f"{100 * figures['coverage']:.0f} % estimated"
            )
        return lines + [f"failed: {failure}" for failure in self.failures]
