"""Tables of an evaluation of single objects: a row for each method and condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from typing import Any

import numpy as np

from .calibration import Calibration, CalibrationCounts, calibration, total
from .image_sets import set_figures
from .object_evaluation import ExampleResult, MethodResult
from .object_protocol import Condition
from .objects import ObjectScores
from .point_sets import SetScores, set_scores
from .summaries import cell, finite_or_none, known_mean, standard_error

Clouds = tuple[list[np.ndarray], list[np.ndarray]]
"""Generated and reference clouds of one row."""
MEANS = tuple(f.name for f in fields(ObjectScores) if f.type == "float" and f.name != "seconds")
WITH_INTERVAL = ("iou", "chamfer", "f1", "f2", "unseen_error")


@dataclass(frozen=True, eq=False)
class Row:
    """One method under one condition.

    objects   examples; skipped: objects that no example could be made of, which no method saw
    failed    results that were empty or errors, which count as such
    means     mean of each figure of `ObjectScores` over the examples to which it applies (see there for units)
    errors    standard error of some of these means, between objects
    seconds   mean time of one object
    sets      MMD and COV; images: figures of sets of pictures, by name
    voxels, surface   calibration of the confidence in voxels and vertices; None for methods without
    """

    method: str
    condition: Condition
    objects: int
    skipped: int
    failed: int
    means: Mapping[str, float]
    errors: Mapping[str, float]
    seconds: float
    voxels: Calibration | None
    surface: Calibration | None
    sets: SetScores | None = None
    images: Mapping[str, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Flat and ready for JSON; what is not known is None."""
        content: dict[str, Any] = {
            "method": self.method,
            "views": self.condition.views,
            "occlusion": self.condition.occlusion,
            "objects": self.objects,
            **self.means,
            "mmd": None if self.sets is None else self.sets.mmd,
            "cov": None if self.sets is None else self.sets.cov,
            "seconds_per_object": self.seconds,
            **{f"{name}_se": value for name, value in self.errors.items()},
            "failed": self.failed,
            "skipped": self.skipped,
            **(self.images or {}),
        }
        for prefix, found in (("", self.voxels), ("surface_", self.surface)):
            content[f"{prefix}ece"] = None if found is None else found.ece
            content[f"{prefix}auroc"] = None if found is None else found.auroc
            content[f"{prefix}reliability"] = [] if found is None else [vars(part) for part in found.curve]
        return {key: finite_or_none(value) for key, value in content.items()}


def make_rows(results: Sequence[ExampleResult]) -> list[Row]:
    """Rows by condition, then method, in the order in which the results have them."""
    rows = []
    for condition in dict.fromkeys(result.condition for result in results):
        own = [result for result in results if result.condition == condition]
        made = [result for result in own if not result.problem]
        methods = dict.fromkeys(part.method for result in made for part in result.results)
        for method in methods:
            parts = [[p for p in result.results if p.method == method] for result in made]
            rows.append(_row(method, condition, parts, skipped=len(own) - len(made)))
    return rows


def _row(method: str, condition: Condition, parts: Sequence[Sequence[MethodResult]], skipped: int) -> Row:
    def figures(name: str) -> np.ndarray:
        """One value an object: the mean over its draws, NaN where it does not apply."""
        values = [[float(getattr(part.scores, name)) for part in own] for own in parts]
        return np.array([float(np.mean(own)) for own in values])

    scores = [part.scores for own in parts for part in own]
    return Row(
        method=method,
        condition=condition,
        objects=len(parts),
        skipped=skipped,
        failed=sum(score.failed for score in scores),
        means={name: known_mean(figures(name)) for name in MEANS},
        errors={name: standard_error(figures(name)) for name in WITH_INTERVAL},
        seconds=known_mean(figures("seconds")),
        voxels=_calibration([score.voxel_confidence for score in scores]),
        surface=_calibration([score.surface_confidence for score in scores]),
        images=set_figures([part.images for own in parts for part in own if part.images is not None]),
    )


def _calibration(counts: Sequence[CalibrationCounts | None]) -> Calibration | None:
    known = [own for own in counts if own is not None]
    return calibration(total(known)) if known else None


def add_sets(rows: Sequence[Row], results: Sequence[ExampleResult], processes: int = 1) -> list[Row]:
    """The rows with MMD and COV of the first draw of their methods, on that many processes."""
    clouds = [_clouds(row, results) for row in rows]
    if processes <= 1 or len(rows) < 2:
        found = [set_scores(*own) for own in clouds]
    else:
        with ProcessPoolExecutor(min(processes, len(rows)), mp_context=get_context("spawn")) as pool:
            found = list(pool.map(set_scores, *zip(*clouds, strict=True)))
    return [replace(row, sets=own) for row, own in zip(rows, found, strict=True)]


def _clouds(row: Row, results: Sequence[ExampleResult]) -> Clouds:
    own = [result for result in results if result.condition == row.condition and result.cloud is not None]
    first = [part for result in own for part in result.results if part.method == row.method and part.draw == 0]
    generated = [part.scores.cloud for part in first if part.scores.cloud is not None]
    return generated, [result.cloud for result in own if result.cloud is not None]


COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("IoU", "iou", 1.0, 3),
    ("Chamfer %", "chamfer", 100.0, 2),
    ("F@1%", "f1", 1.0, 3),
    ("F@2%", "f2", 1.0, 3),
    ("normals", "normal_consistency", 1.0, 3),
    ("seen err %", "seen_error", 100.0, 2),
    ("unseen err %", "unseen_error", 100.0, 2),
    ("MMD ‰", "mmd", 1000.0, 2),
    ("COV %", "cov", 100.0, 1),
    ("free viol. %", "free_space_violation", 100.0, 2),
    ("covered %", "observed_coverage", 100.0, 1),
    ("PSNR", "psnr", 1.0, 1),
    ("SSIM", "ssim", 1.0, 3),
    ("ECE", "ece", 1.0, 3),
    ("AUROC", "auroc", 1.0, 3),
    ("s/object", "seconds_per_object", 1.0, 2),
)
"""Heading, key of `Row.as_json`, factor, digits."""


def markdown(rows: Sequence[Row]) -> str:
    """Table of the rows."""
    return markdown_of([row.as_json() for row in rows], dict.fromkeys(n for row in rows for n in row.images or {}))


def markdown_of(content: Sequence[Mapping[str, Any]], more: Iterable[str] = ()) -> str:
    """Table of rows as `Row.as_json` gives them; columns that no row can fill are left out. more: further keys."""
    extra = [(name.upper(), name, 1.0, 3) for name in more]
    columns = [c for c in (*COLUMNS, *extra) if any(row.get(c[1]) is not None for row in content)]
    lines = [
        "| method | views | occlusion | objects | " + " | ".join(column[0] for column in columns) + " |",
        "|---" * (4 + len(columns)) + "|",
    ]
    for row in content:
        cells = [str(row["method"]), str(row["views"]), f"{row['occlusion']:g}", str(row["objects"])]
        cells += [cell(row.get(key), factor, digits) for _, key, factor, digits in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
