"""Tables of an evaluation of scenes: a row for each method, and how far two methods are apart on the same scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .image_sets import PictureFigures, set_figures
from .scene_alignment import Alignment
from .scene_objects import PlacedMesh
from .scene_pictures import ScenePicture, ScenePictureScores, picture_scores
from .scene_scores import LIMITS, SceneScores, TrueScene, score_scene
from .summaries import cell, finite_or_none, known_mean, standard_error

MAIN_LIMIT = LIMITS.index(0.05)
"""The F-score that `fs_s` and `fs_o` stand for."""


@dataclass(frozen=True, eq=False)
class SceneResult:
    """What one method made of one scene.

    scores    of a failed method: those of an empty scene
    pictures  of renderings; None without
    seconds   that the whole scene took
    problem   why it failed, or empty
    figures   what networks say of its pictures; None without
    """

    scene: str
    method: str
    scores: SceneScores
    seconds: float
    pictures: ScenePictureScores | None = None
    problem: str = ""
    figures: PictureFigures | None = None


def scene_result(
    scene: str,
    method: str,
    predicted: Sequence[PlacedMesh] | None,
    truth: TrueScene,
    seconds: float,
    *,
    pictures: Sequence[ScenePicture] = (),
    alignment: Alignment = "similarity",
    up: Sequence[float] | np.ndarray = (0.0, 0.0, 1.0),
    problem: str = "",
    seed: int = 0,
) -> SceneResult:
    """Scores of what `method` gave for `scene`; None: it failed, which counts as an empty scene.

    pictures: what the true cameras should see, for PSNR and SSIM; alignment and up as in `score_scene`.
    """
    objects = list(predicted or ())
    scores = score_scene(objects, truth, alignment=alignment, up=up, seed=seed)
    seen = picture_scores(objects, scores.S_truth_predicted, pictures) if pictures else None
    if not any(item.found for item in scores.objects):
        problem = problem or "none of the true objects was found"
    return SceneResult(scene, method, scores, seconds, seen, problem)


def scene_figures(result: SceneResult) -> dict[str, float]:
    """Figures of one scene by name; `fs_s_1` is the F-score at 1 % of the scene's longest side. NaN: not known."""
    scores, pictures, nan = result.scores, result.pictures, float("nan")
    percent = [round(100 * limit) for limit in LIMITS]
    return {
        "cd_s": scores.scene.chamfer,
        **{f"fs_s_{limit}": value for limit, value in zip(percent, scores.scene.f, strict=True)},
        "fs_s": scores.scene.f[MAIN_LIMIT],
        "cd_o": scores.shape.chamfer,
        **{f"fs_o_{limit}": value for limit, value in zip(percent, scores.shape.f, strict=True)},
        "fs_o": scores.shape.f[MAIN_LIMIT],
        "cd_in_place": scores.in_place.chamfer,
        "iou_b": scores.iou_b,
        "collision": scores.iou_scene,
        "overlap": scores.overlap,
        "found": scores.found,
        "psnr": pictures.picture.psnr if pictures else nan,
        "ssim": pictures.picture.ssim if pictures else nan,
        "psnr_objects": pictures.objects.psnr if pictures else nan,
        "ssim_objects": pictures.objects.ssim if pictures else nan,
        "silhouette": pictures.silhouette if pictures else nan,
    }


@dataclass(frozen=True, eq=False)
class SceneRow:
    """One method. means and errors (standard errors between scenes) by the names of `scene_figures`; assets: true
    objects of all its scenes; images: figures of sets of pictures, by name."""

    method: str
    scenes: int
    assets: int
    failed: int
    means: Mapping[str, float]
    errors: Mapping[str, float]
    seconds_per_asset: float
    images: Mapping[str, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Flat and ready for JSON; what is not known is None."""
        content = {
            "method": self.method,
            "scenes": self.scenes,
            "assets": self.assets,
            **self.means,
            "seconds_per_asset": self.seconds_per_asset,
            **{f"{name}_se": value for name, value in self.errors.items()},
            "failed": self.failed,
            **(self.images or {}),
        }
        return {key: finite_or_none(value) for key, value in content.items()}


def scene_rows(results: Sequence[SceneResult]) -> list[SceneRow]:
    """A row for each method, in the order in which the results have them."""
    rows = []
    for method in dict.fromkeys(result.method for result in results):
        own = [result for result in results if result.method == method]
        figures = [scene_figures(result) for result in own]
        columns = {name: np.array([found[name] for found in figures]) for name in figures[0]}
        assets = sum(len(result.scores.objects) for result in own)
        rows.append(
            SceneRow(
                method=method,
                scenes=len(own),
                assets=assets,
                failed=sum(bool(result.problem) for result in own),
                means={name: known_mean(values) for name, values in columns.items()},
                errors={name: standard_error(values) for name, values in columns.items()},
                seconds_per_asset=sum(result.seconds for result in own) / assets,
                images=set_figures([result.figures for result in own if result.figures is not None]),
            )
        )
    return rows


def paired_difference(results: Sequence[SceneResult], one: str, other: str, figure: str) -> tuple[float, float]:
    """Mean over the scenes that both methods have of `figure` of `one` minus that of `other`, and its standard error.

    Scenes differ more than methods: only pairs show which method is better. Raises `InputError` for methods that share
    no scene or an unknown figure.
    """
    values = [
        {result.scene: scene_figures(result) for result in results if result.method == method}
        for method in (one, other)
    ]
    shared = [scene for scene in values[0] if scene in values[1]]
    if not shared:
        raise InputError(f"methods '{one}' and '{other}' have no scene in common")
    if figure not in values[0][shared[0]]:
        raise InputError(f"unknown figure '{figure}', one of {', '.join(values[0][shared[0]])}")
    apart = np.array([values[0][scene][figure] - values[1][scene][figure] for scene in shared])
    return known_mean(apart), standard_error(apart)


COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("CD-S %", "cd_s", 100.0, 2),
    ("F-S@2%", "fs_s_2", 1.0, 3),
    ("F-S@5%", "fs_s", 1.0, 3),
    ("CD-O %", "cd_o", 100.0, 2),
    ("F-O@2%", "fs_o_2", 1.0, 3),
    ("F-O@5%", "fs_o", 1.0, 3),
    ("IoU-B", "iou_b", 1.0, 3),
    ("collision %", "collision", 100.0, 2),
    ("overlap %", "overlap", 100.0, 2),
    ("PSNR", "psnr", 1.0, 1),
    ("SSIM", "ssim", 1.0, 3),
    ("silhouette", "silhouette", 1.0, 3),
    ("s/asset", "seconds_per_asset", 1.0, 2),
)
"""Heading, key of `SceneRow.as_json`, factor, digits."""
WITH_INTERVAL = ("cd_s", "fs_s", "cd_o", "fs_o", "iou_b", "psnr")
"""Columns that show the 95 % interval of their mean over scenes."""


def scene_markdown(rows: Sequence[SceneRow]) -> str:
    """Table of the rows, ± half of a 95 % interval over scenes; columns that no row can fill are left out."""
    images = tuple(dict.fromkeys(name for row in rows for name in row.images or {}))
    return scene_markdown_of([row.as_json() for row in rows], images)


def scene_markdown_of(content: Sequence[Mapping[str, Any]], images: Sequence[str] = ()) -> str:
    """The same of rows as `SceneRow.as_json` gives them; images: names of figures of sets of pictures."""
    extra = [(name.upper(), name, 1.0, 3) for name in images]
    columns = [c for c in (*COLUMNS, *extra) if any(row.get(c[1]) is not None for row in content)]
    lines = [
        "| method | scenes | failed | " + " | ".join(column[0] for column in columns) + " |",
        "|---" * (3 + len(columns)) + "|",
    ]
    for row in content:
        cells = [str(row["method"]), str(row["scenes"]), str(row["failed"])]
        cells += [
            cell(row.get(key), factor, digits, row.get(f"{key}_se") if key in WITH_INTERVAL else None)
            for _, key, factor, digits in columns
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
