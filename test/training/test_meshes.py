"""Sources of training meshes: packed objects, folders of mesh files in published layouts, the cache."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry.mesh import select_faces
from gena3d_core.geometry.solid_voxelization import is_solid
from gena3d_core.simulation.primitives import make_primitive
from gena3d_core.types import Mesh
from training.mesh_source import CachedSource, TrainingMesh
from training.meshes import open_source

COLUMNS = ("id", "category", "scale_m", "split", "shard", "index")
UUID = "0123456789abcdef0123456789abcdef"


def write_packed(folder: Path, meshes: dict[str, list[tuple[str, Mesh, str]]]) -> None:
    """objects.csv with a shard for each split of (id, mesh, scale_m)."""
    folder.mkdir(exist_ok=True)
    with (folder / "objects.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for split, items in meshes.items():
            shard = f"objects_{split}_00.npz"
            for index, (id, _, scale) in enumerate(items):
                row = (id, f"kind_{id}", scale, split, shard, index)
                table.writerow(dict(zip(COLUMNS, row, strict=True)))
            np.savez(
                folder / shard,
                vertices=np.concatenate([m.vertices for _, m, _ in items]),
                faces=np.concatenate([m.faces for _, m, _ in items]).astype(np.uint16),
                vertex_colors=np.concatenate([np.full((len(m.vertices), 3), 9, np.uint8) for _, m, _ in items]),
                vertex_offsets=np.cumsum([0, *(len(m.vertices) for _, m, _ in items)]),
                face_offsets=np.cumsum([0, *(len(m.faces) for _, m, _ in items)]),
            )


def pole() -> trimesh.Trimesh:
    """Twice as long along x as along y, thrice along z, with a knob on its upper end."""
    body = trimesh.creation.box((0.2, 0.1, 0.3))
    knob = trimesh.creation.box((0.02, 0.02, 0.3))
    knob.apply_translation((0.05, 0, 0.15))
    return trimesh.util.concatenate([body, knob])


def y_up(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    turned = mesh.copy()
    turned.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0)))
    return turned


def assert_stands(item: TrainingMesh, scale_m: float | None) -> None:
    """The pole with its knob up: closed, normalised."""
    extent = np.ptp(item.mesh.vertices, axis=0)
    np.testing.assert_allclose(extent / extent[2], (0.2 / 0.45, 0.1 / 0.45, 1.0), atol=0.02)
    top = item.mesh.vertices[item.mesh.vertices[:, 2] > 0.3]
    assert (top[:, 0] > 0).all()
    assert is_solid(item.mesh)
    assert item.scale_m == (None if scale_m is None else pytest.approx(scale_m, rel=0.02))


def test_packed_objects_are_read_by_split_and_open_ones_closed(tmp_path: Path) -> None:
    bowl, ball = make_primitive("bowl"), make_primitive("sphere")
    torn = select_faces(ball, np.arange(len(ball.faces)) > 40)
    write_packed(tmp_path, {"train": [("a", bowl, "0.15"), ("b", torn, "")], "val": [("c", ball, "2.0")]})
    source = open_source(str(tmp_path))
    assert source.split == "train"
    assert list(source.ids()) == ["a", "b"]
    first, second = source.load("a"), source.load("b")
    assert (first.category, first.scale_m, second.scale_m) == ("kind_a", 0.15, None)
    assert is_solid(first.mesh)
    assert is_solid(second.mesh)
    assert np.ptp(second.mesh.vertices, axis=0).max() == pytest.approx(0.98, abs=1e-5)
    np.testing.assert_array_equal(np.unique(first.mesh.vertex_colors), [9])
    val = open_source(f"{tmp_path},split=val")
    assert (val.split, list(val.ids())) == ("val", ["c"])
    with pytest.raises(InputError, match="no object 'c'"):
        source.load("c")
    with pytest.raises(InputError, match="no split 'test'"):
        open_source(f"{tmp_path},split=test")


def test_damaged_packed_objects_are_named(tmp_path: Path) -> None:
    write_packed(tmp_path, {"train": [("a", make_primitive("bowl"), "1")]})
    (tmp_path / "objects_train_00.npz").write_bytes(b"damaged")
    with pytest.raises(DataFormatError, match="objects_train_00"):
        open_source(str(tmp_path)).load("a")
    (tmp_path / "objects.csv").write_text("id,split\na,train\n")
    with pytest.raises(DataFormatError, match="category"):
        open_source(str(tmp_path))


def test_gso_is_z_up_and_metric_with_its_texture_elsewhere(tmp_path: Path) -> None:
    model = tmp_path / "Pole" / "meshes"
    model.mkdir(parents=True)
    mesh = pole()
    mesh.visual = trimesh.visual.TextureVisuals(uv=np.tile([0.25, 0.75], (len(mesh.vertices), 1)))
    mesh.export(model / "model.obj")
    # the published material names an image that lies in another folder
    (model / "material.mtl").write_text("newmtl material_0\nKd 1 1 1\nmap_Kd texture.png\n")
    (model / "material_0.png").unlink()
    textures = tmp_path / "Pole" / "materials" / "textures"
    textures.mkdir(parents=True)
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2] = (200, 100, 50)  # u < 1/2, v > 1/2
    Image.fromarray(image).save(textures / "texture.png")
    (tmp_path / "Pole" / "metadata.pbtxt").write_text('categories {\n  first: "Pole"\n}\n')
    source = open_source(str(tmp_path))
    item = source.load("Pole")
    assert_stands(item, 0.45 / 0.98)
    assert item.category == "Pole"
    np.testing.assert_array_equal(np.unique(item.mesh.vertex_colors, axis=0), [[200, 100, 50]])


def test_abo_and_objaverse_are_y_up_with_their_ids_and_units(tmp_path: Path) -> None:
    abo = tmp_path / "abo" / "3dmodels" / "original" / "6"
    objaverse = tmp_path / "objaverse" / "glbs" / "000-001"
    for folder in (abo, objaverse):
        folder.mkdir(parents=True)
    mesh = y_up(pole())
    mesh.visual.vertex_colors = np.tile([1, 2, 3, 255], (len(mesh.vertices), 1))
    mesh.export(abo / "B07ABCDEF6.glb")
    mesh.export(objaverse / f"{UUID}.glb")
    annotations = gzip.compress(json.dumps({"stick": [UUID]}).encode())
    (tmp_path / "objaverse" / "lvis-annotations.json.gz").write_bytes(annotations)
    item = open_source(str(tmp_path / "abo")).load("B07ABCDEF6")
    assert_stands(item, 0.45 / 0.98)
    np.testing.assert_array_equal(np.unique(item.mesh.vertex_colors, axis=0), [[1, 2, 3]])
    other = open_source(str(tmp_path / "objaverse"))
    assert list(other.ids()) == [UUID]
    assert_stands(other.load(UUID), None)
    assert other.load(UUID).category == "stick"


def test_3d_future_is_y_up_with_categories_from_its_list(tmp_path: Path) -> None:
    model = tmp_path / "abc-1"
    model.mkdir()
    y_up(pole()).export(model / "raw_model.obj")
    y_up(pole()).export(model / "normalized_model.obj")
    (tmp_path / "model_info.json").write_text(
        json.dumps([{"model_id": "abc-1", "category": None, "super-category": "Sofa"}])
    )
    source = open_source(str(tmp_path))
    assert list(source.ids()) == ["abc-1"]
    item = source.load("abc-1")
    assert_stands(item, 0.45 / 0.98)
    assert item.category == "Sofa"


def test_any_other_folder_goes_by_the_kind_of_file_unless_told(tmp_path: Path) -> None:
    (tmp_path / "poles").mkdir()
    pole().export(tmp_path / "poles" / "standing.stl")
    y_up(pole()).export(tmp_path / "poles" / "gltf.glb")
    source = open_source(f"{tmp_path},unit_m=0.001")
    assert list(source.ids()) == ["poles/gltf", "poles/standing"]
    for id in source.ids():
        assert_stands(source.load(id), 0.45e-3 / 0.98)
        assert source.load(id).category == "poles"
    lying = open_source(f"{tmp_path},up=y").load("poles/standing")
    assert np.ptp(lying.mesh.vertices, axis=0).argmax() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",up=x", "one of y, z"),
        (",unit_m=no", "positive number"),
        (",unit_m=-1", "positive"),
        (",split=val", "unknown"),
        (",up", "KEY=VALUE"),
    ],
)
def test_wrong_options_are_refused(options: str, message: str, tmp_path: Path) -> None:
    pole().export(tmp_path / "a.stl")
    with pytest.raises(InputError, match=message):
        open_source(f"{tmp_path}{options}")


def test_nothing_to_open_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        open_source(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="no mesh file"):
        open_source(str(tmp_path))
    (tmp_path / "bad.glb").write_bytes(b"not a mesh")
    with pytest.raises(DataFormatError, match=r"bad\.glb"):
        open_source(str(tmp_path)).load("bad")


def test_the_cache_saves_the_work_and_survives_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    pole().export(data / "a.stl")
    first = open_source(str(data), cache=cache).load("a")
    source = open_source(str(data), cache=cache)
    assert isinstance(source, CachedSource)

    def fail(self: object, id: str) -> TrainingMesh:
        raise AssertionError("loaded although it is cached")

    with monkeypatch.context() as patch:
        patch.setattr(type(source.source), "load", fail)
        again = source.load("a")
    np.testing.assert_array_equal(again.mesh.vertices, first.mesh.vertices)
    np.testing.assert_array_equal(again.mesh.faces, first.mesh.faces)
    np.testing.assert_array_equal(again.mesh.vertex_colors, first.mesh.vertex_colors)
    assert (again.id, again.category, again.scale_m) == (first.id, first.category, first.scale_m)
    for path in cache.iterdir():
        path.write_bytes(b"damaged")
    np.testing.assert_array_equal(source.load("a").mesh.vertices, first.mesh.vertices)
