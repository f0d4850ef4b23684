"""Weights of front ends: where they belong, and one clear message for each way in which they can be wrong."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gena3d_core.checkpoints.front_end_table import FRONT_ENDS, WeightFile
from gena3d_core.checkpoints.front_ends import check_files, front_end, present_folder, required_folder
from gena3d_core.checkpoints.scene_geometry import checked_scene_geometry, find_scene_geometry
from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.models.geometry.pi3 import Pi3


@pytest.fixture
def pi3_folder(nowhere, tmp_path) -> Path:
    folder = tmp_path / "nowhere/.cache/gena3d/checkpoints/pi3"
    folder.mkdir(parents=True)
    return folder


def put(folder: Path, case: Path, class_name: str) -> Path:
    """The weights of a numerical case as a published file and its description."""
    file = folder / "model.safetensors"
    constructor = json.loads((case / "case.json").read_text())["constructor"]
    save_file(load_file(case / "weights.safetensors"), file)
    file.with_suffix(".json").write_text(json.dumps({"name": class_name, "args": constructor}))
    return file


def test_every_model_says_where_what_and_how(nowhere):
    for name, model in FRONT_ENDS.items():
        assert name in str(model.path)
        assert str(model.folder) in model.obtain
        assert model.files[0].name in model.obtain or model.patterns
        assert model.licence
        assert (model.repository is None) == all(file.url for file in model.files)
        assert all(file.sha256 is None or len(file.sha256) == 64 for file in model.files)
    assert FRONT_ENDS["pi3"].non_commercial
    with pytest.raises(InputError, match="pi3, pi3x, vggt"):
        front_end("pie3")


def test_list_info_and_path_of_absent_weights(gena3d, nowhere, tmp_path):
    listed = gena3d("list", "--json", tmp_path / "list.json")
    rows = json.loads((tmp_path / "list.json").read_text())["front_ends"]
    assert {"pi3", "vggt", "sam-vit-h", "sam2", "florence-2", "sd-inpainting", "pix2gestalt", "dinov2"} <= {
        row["name"] for row in rows
    }
    assert not any(row["present"] for row in rows)
    assert listed.code == 0
    info = gena3d("info", "pi3")
    text = "\n".join(info.out)
    assert info.code == 0
    assert "non-commercial" in text
    assert "hf download yyfz233/Pi3 model.safetensors --local-dir" in text
    path = gena3d("path", "pi3")
    assert path.code == 1
    assert path.out == [str(FRONT_ENDS["pi3"].path)]
    assert "checkpoint info pi3" in path.err
    assert gena3d("path", "pie3").code == 1


def test_weights_in_their_place_are_found_checked_and_opened(gena3d, pi3_folder, golden_dir, caplog):
    file = put(pi3_folder, golden_dir / "h_pi3", "Pi3")
    assert present_folder(front_end("pi3")) == pi3_folder
    assert gena3d("path", "pi3").out == [str(file)]
    assert any("sha256" in line and "nothing to compare" in line for line in gena3d("info", "pi3").out)
    open_network = checked_scene_geometry("pi3")
    assert not caplog.records
    # The command line keeps its log to itself, in this process too.
    logging.getLogger("gena3d").addHandler(caplog.handler)
    try:
        assert isinstance(open_network(), Pi3)
    finally:
        logging.getLogger("gena3d").removeHandler(caplog.handler)
    assert any("non-commercial" in record.message for record in caplog.records)


def fails(message: str, **options) -> str:
    with pytest.raises(DataFormatError, match=message) as caught:
        checked_scene_geometry("pi3", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_absent_weights_say_where_they_belong_and_how_to_get_them(pi3_folder):
    text = fails("not on this machine")
    assert str(pi3_folder) in text
    assert "hf download yyfz233/Pi3" in text
    assert "non-commercial" in text


def test_the_cache_of_the_hub_is_looked_at_without_a_connection(nowhere, tmp_path, golden_dir, fake_hub):
    (tmp_path / "blob").mkdir()
    put(tmp_path / "blob", golden_dir / "h_pi3", "Pi3")
    calls = fake_hub({"yyfz233/Pi3": tmp_path / "blob"})
    assert find_scene_geometry("pi3").files == (tmp_path / "blob/model.safetensors",)
    assert all(local_only for _, _, local_only, _ in calls)


def test_truncated_weights(pi3_folder, golden_dir):
    file = put(pi3_folder, golden_dir / "h_pi3", "Pi3")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    text = fails("not a whole safetensors file")
    assert str(file) in text
    assert "hf download" in text


def test_another_network_under_the_right_name(pi3_folder, golden_dir):
    shutil.copy(golden_dir / "g_vggt_aggregator/weights.safetensors", pi3_folder / "model.safetensors")
    assert str(pi3_folder) in fails("holds the aggregator of VGGT, not π³")
    save_file({"conv.weight": torch.ones(3)}, pi3_folder / "model.safetensors")
    fails("which network is this")


def test_another_size_of_the_network(pi3_folder, golden_dir):
    file = put(pi3_folder, golden_dir / "h_pi3", "Pi3")
    file.with_suffix(".json").unlink()
    fails("does not fit Pi3")


def test_values_and_hashes_are_checked_when_the_weights_are_read(pi3_folder, golden_dir):
    file = put(pi3_folder, golden_dir / "h_pi3", "Pi3")
    weights = load_file(file)
    weights["camera_head.fc_t.bias"][0] = torch.nan
    save_file(weights, file)
    with pytest.raises(DataFormatError, match="NaN or infinity"):
        checked_scene_geometry("pi3")()
    (pi3_folder / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n")
    with pytest.raises(DataFormatError, match="SHA-256"):
        checked_scene_geometry("pi3")()


def test_a_checkpoint_given_by_its_path(nowhere, tmp_path, golden_dir):
    file = put(tmp_path, golden_dir / "h_pi3", "Pi3")
    assert isinstance(checked_scene_geometry("pi3", file)(), Pi3)
    fails("absent", checkpoint=tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="no network of scene geometry"):
        find_scene_geometry("pie3")


def test_files_of_another_size_or_hash_are_refused(tmp_path):
    model = FRONT_ENDS["sam-vit-b"]
    (tmp_path / model.files[0].name).write_bytes(b"short")
    with pytest.raises(DataFormatError, match="5 bytes instead of 375042383"):
        check_files(model, tmp_path)
    wrong = type(model)(**{**vars(model), "files": (WeightFile(model.files[0].name, 5, "0" * 64, "url"),)})
    check_files(wrong, tmp_path, hashes=False)
    with pytest.raises(DataFormatError, match="SHA-256"):
        check_files(wrong, tmp_path)


def test_one_kind_of_geometry_network_under_the_name_of_another(nowhere, tmp_path, golden_dir):
    folder = tmp_path / "nowhere/.cache/gena3d/checkpoints/pi3x"
    folder.mkdir(parents=True)
    put(folder, golden_dir / "h_pi3", "Pi3")
    with pytest.raises(DataFormatError, match="holds π³, not π³X") as caught:
        checked_scene_geometry("pi3x")
    assert "hf download yyfz233/Pi3X" in str(caught.value)


def test_gated_and_patterned_models_say_how_they_are_had(nowhere, gena3d):
    text = "\n".join(gena3d("info", "flux-fill").out)
    assert "granted on the repository's page" in text
    assert "non-commercial" in text
    assert "FLUX.1-Fill-dev" in text
    assert "allow_patterns" in text
    with pytest.raises(DataFormatError, match=r"accept its terms first: https://huggingface.co/facebook/sam3"):
        required_folder(front_end("sam3"))
