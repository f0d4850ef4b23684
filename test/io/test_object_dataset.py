"""Folders of single objects, whole and broken."""

import csv

import numpy as np
import pytest

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.io.object_dataset import ObjectDataset

COLUMNS = ["id", "category", "scale_m", "split", "shard", "index", "licence"]


def write_folder(folder, rows, counts=(4, 5)):
    """One shard of tetrahedra-like meshes with that many vertices, and a table."""
    with (folder / "objects.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    rng = np.random.default_rng(0)
    vertices = [rng.uniform(-0.5, 0.5, (n, 3)).astype(np.float32) for n in counts]
    faces = [np.stack([np.arange(n), np.roll(np.arange(n), 1), np.roll(np.arange(n), 2)], axis=1) for n in counts]
    arrays = {
        "vertices": np.concatenate(vertices),
        "faces": np.concatenate(faces).astype(np.uint16),
        "vertex_colors": np.arange(3 * sum(counts), dtype=np.uint8).reshape(-1, 3),
        "vertex_offsets": np.cumsum([0, *counts]),
        "face_offsets": np.cumsum([0, *counts]),
    }
    np.savez(folder / "a.npz", **arrays)
    return vertices, faces, arrays


def row(id, index, **more):
    return {"id": id, "shard": "a.npz", "index": index, "category": "mug", "split": "val", "scale_m": 0.2} | more


def test_reads_entries_and_meshes(tmp_path):
    vertices, faces, arrays = write_folder(
        tmp_path, [row("one", 0), row("two", 1, split="train", scale_m="", category="procedural")]
    )
    data = ObjectDataset.open(tmp_path)
    assert data.splits == ("val", "train")
    one, two = data.entries
    assert (one.scale_m, two.scale_m) == (0.2, None)
    assert (one.procedural, two.procedural) == (False, True)
    for number, entry in enumerate(data.entries):
        mesh = data.load(entry)
        assert np.array_equal(mesh.vertices, vertices[number])
        assert np.array_equal(mesh.faces, faces[number])
    assert np.array_equal(data.load(two).vertex_colors, arrays["vertex_colors"][4:])
    assert data.select("val") == (one,)
    assert data.select(ids=["two"]) == (two,)


def test_unknown_split_and_object(tmp_path):
    write_folder(tmp_path, [row("one", 0)])
    data = ObjectDataset.open(tmp_path)
    with pytest.raises(InputError, match="no split 'test'"):
        data.select("test")
    with pytest.raises(InputError, match="no object three"):
        data.select(ids=["one", "three"])


def test_what_is_wrong_with_the_table(tmp_path):
    with pytest.raises(DataFormatError, match=r"objects\.csv"):
        ObjectDataset.open(tmp_path)
    for rows, message in (
        ([], "lists no object"),
        ([row("one", "first")], "line 2"),
        ([row("one", 0, scale_m=-1)], "scale_m"),
        ([row("one", 0), row("one", 1)], "twice"),
    ):
        write_folder(tmp_path, rows)
        with pytest.raises(DataFormatError, match=message):
            ObjectDataset.open(tmp_path)
    (tmp_path / "objects.csv").write_text("id,split\none,val\n")
    with pytest.raises(DataFormatError, match="lacks the columns index, shard"):
        ObjectDataset.open(tmp_path)


def test_what_is_wrong_with_a_shard(tmp_path):
    _, _, arrays = write_folder(tmp_path, [row("one", 0), row("nine", 9), row("lost", 0, shard="b.npz")])
    data = ObjectDataset.open(tmp_path)
    with pytest.raises(DataFormatError, match="holds 2 objects"):
        data.load(data.entries[1])
    with pytest.raises(DataFormatError, match=r"b\.npz"):
        data.load(data.entries[2])
    for change, message in (
        ({"vertex_offsets": np.array([0, 4, 7])}, "offsets end"),
        ({"faces": np.full((9, 3), 77, dtype=np.uint16)}, "object 'one'"),
    ):
        np.savez(tmp_path / "a.npz", **(arrays | change))
        fresh = ObjectDataset.open(tmp_path)
        with pytest.raises(DataFormatError, match=message):
            fresh.load(fresh.entries[0])
    arrays.pop("faces")
    np.savez(tmp_path / "a.npz", **arrays)
    fresh = ObjectDataset.open(tmp_path)
    with pytest.raises(DataFormatError, match="lacks faces"):
        fresh.load(fresh.entries[0])
    (tmp_path / "a.npz").write_bytes(b"not a zip")
    fresh = ObjectDataset.open(tmp_path)
    with pytest.raises(DataFormatError, match="shard of meshes"):
        fresh.load(fresh.entries[0])
