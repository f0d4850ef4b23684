"""Rows of the benchmarks as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def seconds_text(seconds: float | None) -> str:
    """Three digits, in seconds or milliseconds."""
    if seconds is None:
        return "–"
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"


def bytes_text(count: float | None) -> str:
    """In MB or GB of 2^20 and 2^30 bytes."""
    if count is None:
        return "not measured"
    return f"{count / 2**30:.2f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"


def _key(name: str) -> Callable[[Row], str]:
    return lambda row: "–" if row.get(name) is None else str(row[name])


def _seconds(name: str) -> Callable[[Row], str]:
    return lambda row: seconds_text(row.get(name))


def _bytes(name: str) -> Callable[[Row], str]:
    return lambda row: bytes_text(row.get(name))


def _part(name: str) -> Callable[[Row], str]:
    return lambda row: seconds_text(row["parts_s"].get(name))


def _ratio(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name]:.2f}"


def _share(row: Row) -> str:
    return f"{100 * row['share_of_matrix_rate']:.0f} %"


def _measured(row: Row) -> str:
    if row["measured"] != "whole":
        return f"{row['measured']}, not warmed up"
    return f"median of {row['runs']}" if row["runs"] > 1 else "one run"


def _peak(row: Row) -> str:
    working = row["working_bytes"]
    return bytes_text(None if working is None else row["weights_bytes"] + working)


def _precision(row: Row) -> str:
    return f"{row['device']} {row['dtype']}"


STRUCTURE: tuple[Column, ...] = (
    ("size", _key("size")),
    ("views", _key("views")),
    ("objects", _key("objects")),
    ("steps", _key("steps")),
    ("device", _precision),
    ("measured", _measured),
    ("s/object", _seconds("seconds_per_object")),
    ("floor", _seconds("floor_s_per_object")),
    ("× floor", _ratio("times_floor")),
    ("share of matrix rate", _share),
    ("weights", _bytes("weights_bytes")),
    ("working memory", _bytes("working_bytes")),
    ("working memory/object", _bytes("working_bytes_per_object")),
    ("contexts", _part("contexts")),
    ("guided step", _part("step")),
    ("decoder", _part("decoder")),
    ("image encoder/view", _part("image_encoder_per_view")),
    ("cloud encoder", _part("cloud_encoder")),
)
SCENE: tuple[Column, ...] = (
    ("size", _key("size")),
    ("assets", _key("assets")),
    ("steps", _key("steps")),
    ("device", _precision),
    ("s/scene", _seconds("seconds")),
    ("floor", _seconds("floor_s")),
    ("× floor", _ratio("times_floor")),
    ("share of matrix rate", _share),
    ("weights", _bytes("weights_bytes")),
    ("working memory", _bytes("working_bytes")),
)
DETAIL: tuple[Column, ...] = (
    ("size", _key("size")),
    ("views", _key("views")),
    ("voxels", _key("voxels")),
    ("device", _precision),
    ("stage 1", _part("structure")),
    ("stage 2", _part("latents")),
    ("mesh features", _part("mesh_features")),
    ("floor of 1 + 2", _seconds("floor_s")),
    ("× floor", _ratio("times_floor")),
    ("weights", _bytes("weights_bytes")),
    ("working memory", _bytes("working_bytes")),
    ("peak", _peak),
)
TABLES: dict[str, tuple[Column, ...]] = {"stage 1": STRUCTURE, "SceneGen stage 1": SCENE, "stages 1 and 2": DETAIL}
"""Part of a row -> columns of its table."""


def report(rows: Sequence[Row]) -> str:
    """All tables, and what was not measured and why."""
    blocks = []
    for part, columns in TABLES.items():
        own = [row for row in rows if row["part"] == part]
        measured = [row for row in own if row["measured"] != "no"]
        lines = [f"### {part}"]
        if measured:
            lines += [
                "",
                *markdown([name for name, _ in columns], [[cell(r) for _, cell in columns] for r in measured]),
            ]
        missing = [f"- not measured: {_describe(row)}: {row['reason']}" for row in own if row["measured"] == "no"]
        if missing:
            lines += ["", *missing]
        if own:
            blocks.append("\n".join(lines))
        if part == "stage 1" and measured:
            blocks.append(_without_table(measured))
    return "\n\n".join(blocks)


def _without_table(rows: Sequence[Row]) -> str:
    # More views and objects only add savings, so the longest list holds them all, in their order.
    names = [entry["saving"] for entry in max((row["without"] for row in rows), key=len)]
    cells = []
    for row in rows:
        found = {entry["saving"]: entry for entry in row["without"]}
        fixed = [row["size"], str(row["views"]), str(row["objects"]), _precision(row)]
        differences = [entry["max_difference"] for entry in found.values() if "max_difference" in entry]
        largest = f"{max(differences):.1e}" if differences else "–"
        cells.append(
            [*fixed, seconds_text(row["seconds_per_object"]), *(_without(found.get(n)) for n in names), largest]
        )
    head = ["size", "views", "objects", "device", "all savings on", *names, "largest difference of logits"]
    title = "### stage 1 with one saving switched off: s/object (× all savings on)"
    return "\n".join([title, "", *markdown(head, cells)])


def _without(entry: Row | None) -> str:
    if entry is None:
        return "–"
    if "reason" in entry:
        return f"not measured ({entry['reason']})"
    return f"{seconds_text(entry['seconds_per_object'])} ({entry['ratio']:.2f})"


def _describe(row: Row) -> str:
    counts = [f"{row[name]} {name}" for name in ("views", "objects", "assets") if name in row]
    return ", ".join([row["size"], *counts, _precision(row)])


def markdown(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with columns of even width."""
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [head, ["-" * width for width in widths], *cells]
    return ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
