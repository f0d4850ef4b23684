"""`gena3d checkpoint`: lines about the weights of front ends, which their users bring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataFormatError

if TYPE_CHECKING:
    from ..checkpoints.front_end_table import FrontEndModel


def front_end_row(model: FrontEndModel) -> dict[str, Any]:
    """All that is known about a model, fit for JSON."""
    from ..checkpoints.front_ends import licence_text, present_folder
    from ..checkpoints.registry import places

    folder = present_folder(model)
    return {
        "name": model.name,
        "summary": model.summary,
        "stage": model.stage,
        "licence": licence_text(model),
        "non_commercial": model.non_commercial,
        "about_gb": model.about_gb,
        "expected": str(model.path),
        "present": None if folder is None else str(folder / model.files[0].name),
        "looked_for": [
            *(str(place) for place in places(model.name)),
            *([f"Hugging Face cache of {model.repository}"] if model.repository else []),
        ],
        "files": [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in model.files],
        "obtain": model.obtain,
        "package": model.package or None,
        "gated": model.gated,
        "note": model.note or None,
    }


def front_end_lines(row: dict[str, Any]) -> list[str]:
    """A paragraph a model."""
    known = [
        f"{file['name']}"
        + (f", {file['size']} bytes" if file["size"] else "")
        + f", sha256 {file['sha256'] or 'not known beforehand'}"
        for file in row["files"]
    ]
    facts = {
        "present": row["present"] or "no",
        "expected": row["expected"],
        "licence": row["licence"],
        "size": f"about {row['about_gb']:g} GB",
        "files": "; ".join(known),
        "obtain": row["obtain"],
        "access": "granted on the repository's page" if row["gated"] else None,
        "package": row["package"],
        "note": row["note"],
    }
    head = f"{row['name']}: {row['summary']} ({row['stage']})"
    return [head, *(f"  {name:<14}{value}" for name, value in facts.items() if value)]


def check_present(model: FrontEndModel) -> list[str]:
    """One line a file with its hash, checked; raises `DataFormatError` for absent, damaged and wrong ones."""
    from ..checkpoints.front_ends import check_files, required_folder
    from ..checkpoints.scene_geometry import CLASSES, find_scene_geometry
    from ..checkpoints.weight_files import file_sha256

    folder = required_folder(model)
    check_files(model, folder)
    if model.name in CLASSES:
        find_scene_geometry(model.name)
    return [
        f"  {file.name}  {(folder / file.name).stat().st_size / 1e6:.1f} MB  sha256 {file_sha256(folder / file.name)} "
        f"({'as stated' if file.sha256 else 'nothing to compare with'})"
        for file in model.files
    ]


def weights_path(name: str) -> tuple[Path, bool]:
    """Where the weights of a front end, or the folder of a family, are or are expected; whether they are there.

    Raises `DataFormatError` for a name that nothing is known by.
    """
    from ..checkpoints.front_end_table import FRONT_ENDS
    from ..checkpoints.front_ends import present_folder
    from ..checkpoints.locate import local_folder
    from ..checkpoints.registry import FAMILIES, places

    if name in FRONT_ENDS:
        model = FRONT_ENDS[name]
        folder = present_folder(model)
        return (model.path, False) if folder is None else (folder / model.files[0].name, True)
    if name in FAMILIES:
        found = local_folder(name)
        return (places(name)[1], False) if found is None else (found, True)
    raise DataFormatError(f"'{name}' is no known model; known: {', '.join((*FRONT_ENDS, *FAMILIES))}")
