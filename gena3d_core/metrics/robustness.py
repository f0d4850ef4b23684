"""How completions get worse as their inputs do: one error of the inputs at a time, all else and all seeds equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from .object_protocol import Condition
from .object_table import Row

CLOUD = "cloud"
"""The variation that takes the partial cloud from the network, not from the observation."""


@dataclass(frozen=True)
class Variation:
    """One error of the inputs.

    title, unit   in words
    levels        that the curve has unless others are asked for
    usual         the level that the protocol has anyway, whose examples all variations share
    changes       settings (`with_text_settings`) of a level
    low, high     levels that make sense
    """

    title: str
    unit: str
    levels: tuple[float, ...]
    usual: float
    changes: Callable[[float], tuple[str, ...]]
    low: float = 0.0
    high: float = 100.0


VARIATIONS: dict[str, Variation] = {
    "mask": Variation(
        "visible mask eroded (-), dilated (+)", "px", (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0), 0.0,
        lambda px: (f"mask_error_px={px}",), -50.0, 50.0,
    ),
    "position": Variation(
        "noise of camera positions", "cm", (0.0, 0.5, 1.0, 2.0), 0.0, lambda cm: (f"pose_jitter_m={0.01 * cm}",)
    ),
    "rotation": Variation(
        "noise of camera rotations", "deg", (0.0, 0.5, 1.0, 2.0), 0.0,
        lambda deg: (f"pose_jitter_deg={deg}",), 0.0, 90.0,
    ),
    "depth_noise": Variation(
        "noise of depth, times an ordinary camera's", "x", (0.0, 1.0, 2.0, 4.0, 8.0), 1.0,
        lambda level: (f"noise_level={level}",),
    ),
    "holes": Variation(
        "pixels of the object without depth", "share", (0.0, 0.25, 0.5, 0.75), 0.0,
        lambda share: (f"depth_holes={share}",), 0.0, 1.0,
    ),
    "blind_views": Variation(
        "views without depth (one keeps it)", "share", (0.0, 0.5, 1.0), 0.0,
        lambda share: (f"missing_depth={share}",), 0.0, 1.0,
    ),
    CLOUD: Variation(
        "stereo condition dropped", "share", (0.0, 1.0), 0.0, lambda _: (), 0.0, 1.0,
    ),
}  # fmt: skip
"""Pose noise spares the first view, which places the object: with one view there is none. Pixels are those of the
examples' pictures, 160 x 120 around the object. `cloud`: of generators with a checkpoint only; the network sees no
partial cloud, while its grid stays where the measured points put it."""


@dataclass(frozen=True)
class Level:
    """One point of one curve; `condition` says which examples it is measured on."""

    variation: str
    value: float
    condition: Condition

    @property
    def drops_cloud(self) -> bool:
        """Whether the network goes without the partial cloud."""
        return self.variation == CLOUD and self.value > 0


def make_levels(chosen: Mapping[str, Sequence[float]], base: Condition) -> list[Level]:
    """Levels of the chosen variations, in order. Raises `InputError` for a name or a value that makes no sense."""
    levels = []
    for name, values in chosen.items():
        if name not in VARIATIONS:
            raise InputError(f"unknown variation '{name}'; choose one of: {', '.join(VARIATIONS)}")
        variation = VARIATIONS[name]
        wrong = [value for value in values if not variation.low <= value <= variation.high]
        if wrong or not values or (name == CLOUD and set(values) - {0.0, 1.0}):
            allowed = "0 and 1" if name == CLOUD else f"{variation.low:g} to {variation.high:g}"
            raise InputError(f"variation '{name}' takes values of {allowed} ({variation.unit}), got {list(values)}")
        for value in sorted(set(values)):
            changes = () if value == variation.usual else variation.changes(value)
            levels.append(Level(name, value, replace(base, changes=changes)))
    return levels


@dataclass(frozen=True, eq=False)
class LevelRow:
    """Figures of one method at one level."""

    level: Level
    row: Row

    def as_json(self) -> dict[str, Any]:
        """Flat and ready for JSON."""
        variation = VARIATIONS[self.level.variation]
        where = {"variation": self.level.variation, "level": self.level.value, "unit": variation.unit}
        return {**where, **self.row.as_json()}


def level_rows(levels: Sequence[Level], rows: Sequence[Row], without_cloud: Sequence[Row]) -> list[LevelRow]:
    """Rows of every level: those of its condition, or of the methods whose network went without the cloud."""
    found = []
    for level in levels:
        source = without_cloud if level.drops_cloud else rows
        methods = {row.method for row in without_cloud}
        for row in source:
            if row.condition == level.condition and (level.variation != CLOUD or row.method in methods):
                found.append(LevelRow(level, row))
    return found


FIGURES: tuple[tuple[str, str, float, int], ...] = (
    ("IoU", "iou", 1.0, 3),
    ("Chamfer %", "chamfer", 100.0, 2),
    ("± %", "chamfer_se", 100.0, 2),
    ("F@1%", "f1", 1.0, 3),
    ("F@2%", "f2", 1.0, 3),
    ("seen err %", "seen_error", 100.0, 2),
    ("unseen err %", "unseen_error", 100.0, 2),
    ("free viol. %", "free_space_violation", 100.0, 2),
)
"""Heading, key of `Row.as_json`, factor, digits."""


def markdown(rows: Sequence[LevelRow]) -> str:
    """A table with a line a variation, level and method."""
    lines = [
        "| variation | level | method | objects | " + " | ".join(figure[0] for figure in FIGURES) + " |",
        "|---" * (4 + len(FIGURES)) + "|",
    ]
    for entry in rows:
        content = entry.as_json()
        cells = [entry.level.variation, f"{entry.level.value:g} {content['unit']}", entry.row.method]
        cells.append(str(entry.row.objects))
        for _, key, factor, digits in FIGURES:
            value = content[key]
            cells.append("–" if value is None else f"{factor * value:.{digits}f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
