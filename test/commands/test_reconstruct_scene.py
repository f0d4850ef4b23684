"""`gena3d reconstruct --mode scene` on pictures with masks: what is written, and what bad input leads to."""

import json

import cv2
import numpy as np
import pytest
import torch

from gena3d_core.cli import main
from gena3d_core.generative.scene_generator import MAX_ASSETS, SceneFlowGenerator
from gena3d_core.generative.settings import SamplingSettings
from gena3d_core.io import load_scene

from ..known_scene import known_bundle

SIZE = (60, 100)


@pytest.fixture(autouse=True)
def known_answer(monkeypatch):
    """Every asset is a small cube; they stand in a row."""
    torch.set_num_threads(1)
    poses = [[0.8 * n, 0, 0, 1, 0, 0, 0, 1] for n in range(MAX_ASSETS)]
    bundle = known_bundle([(2, 2, 2)] * MAX_ASSETS, poses)
    asked = []

    def make(name, **options):
        asked.append((name, options))
        return SceneFlowGenerator(bundle, settings=SamplingSettings(steps=2))

    monkeypatch.setattr("gena3d_core.pipeline.make_scene_generator", make)
    return asked


@pytest.fixture
def reconstruct(tmp_path, capsys):
    """Run the verb on a picture with the masks (boxes x, y, side); gives exit code, stdout, stderr and the folder."""

    def run(boxes, *options, sizes=None):
        folder, out = tmp_path / "photo", tmp_path / "out"
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        cv2.imwrite(str(folder / "image.jpg"), rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8))
        for number, (x, y, side) in enumerate(boxes):
            mask = np.zeros(sizes or SIZE, dtype=np.uint8)
            mask[y : y + side, x : x + side] = 255
            cv2.imwrite(str(folder / f"mask_{number:02d}.png"), mask)
        arguments = ["reconstruct", str(folder), "--out", str(out), "--hypotheses", "1", "--no-overview", *options]
        try:
            code = main(arguments)
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err, out

    return run


TWO = [(2, 2, 20), (50, 10, 14)]


def test_a_photo_becomes_a_scene_that_says_it_has_no_metres(reconstruct, tmp_path):
    code, out, _, folder = reconstruct(TWO)
    assert code == 0
    scene = load_scene(folder)
    assert not scene.metric
    assert [item.id for item in scene.objects] == [0, 1]
    assert [len(item.mesh.faces) > 0 for item in scene.objects] == [True, True]
    content = json.loads((folder / "scene.json").read_text())
    assert content["metric"] is False
    assert "unknown in metres" in content["conventions"]["units"]
    assert "units   at" in out
    assert "not in metres" in out
    assert content["frame_id"] == "scene"


def test_options_reach_the_generator_of_scenes_and_sizes_the_layout(reconstruct, known_answer):
    options = ("--mode", "scene", "--checkpoint", "somewhere", "--max-assets", "5", "--known-size", "1=0.08")
    code, out, _, folder = reconstruct(TWO, *options)
    assert code == 0
    ((name, given),) = known_answer
    assert name == "auto"
    assert (given["checkpoint"], given["max_assets"]) == ("somewhere", 5)
    scene = load_scene(folder)
    assert scene.metric
    np.testing.assert_allclose(scene.objects[1].size_m, 0.08, rtol=0.1)
    assert " cm   at" in out


def test_the_picture_shows_input_and_result(reconstruct, tmp_path):
    folder = tmp_path / "photo"
    assert reconstruct(TWO)[0] == 0
    assert main(["reconstruct", str(folder), "--out", str(tmp_path / "out2"), "--hypotheses", "1"]) == 0
    picture = cv2.imread(str(tmp_path / "out2/overview.png"))
    assert picture.shape[1] == 1600


BAD = {
    "one mask": ([(2, 2, 20)], 1, "object 0 is the only one: a layout needs at least two objects"),
    "an empty mask": ([*TWO, (0, 0, 0)], 2, "object 2 is left out: its mask is empty"),
    "overlapping masks": ([(2, 2, 30), (10, 10, 12)], 2, "the masks of object 0 and object 1 overlap by 100 %"),
    "a fully hidden object": ([*TWO, (50, 10, 14)], 2, "object 2 is left out: other masks cover all but 0 of its 196"),
    "thirty masks": (
        [(6 * (n % 15), 6 + 20 * (n // 15), 5) for n in range(30)],
        30,
        "30 assets are more than 16: they are generated in 2 groups",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_odd_masks_have_a_defined_result_and_one_message(reconstruct, case):
    boxes, objects, message = BAD[case]
    code, out, _, folder = reconstruct(boxes)
    assert code == 0
    assert len(load_scene(folder).objects) == objects
    assert sum(message in line for line in out.splitlines() if line.startswith("warning: ")) == 1


@pytest.mark.parametrize(
    ("boxes", "options", "sizes", "code", "message"),
    [
        (TWO, (), (30, 50), 1, "mask_00.png: this mask is 50x30 pixels, but image.jpg has 100x60"),
        ([(0, 0, 0), (0, 0, 3)], (), None, 1, "no object of the scene is to be seen"),
        ([], ("--mode", "scene"), None, 1, "needs a picture and masks of its objects beside it"),
        ([], ("--stereo", "plane_sweep"), None, 1, "pictures without camera poses cannot be reconstructed"),
        (TWO, ("--mode", "objects", "--stereo", "plane_sweep"), None, 1, "--mode scene"),
        (TWO, ("--known-size", "7=0.1"), None, 1, r"sizes are known of objects [7], but the scene has [0, 1]"),
        (TWO, ("--known-size", "mug"), None, 2, "3=0.095"),
        (TWO, ("--fusion", "view_wise"), None, 2, "--fusion is for --mode objects"),
        (TWO, ("--generator", "edge"), None, 2, "--generator 'edge' is unknown"),
        (TWO, ("--boxes", "[]", "--prompt", "mug"), None, 2, "--frames, --boxes and --prompt are for recordings"),
    ],
)
def test_what_cannot_be_done_is_one_line(reconstruct, boxes, options, sizes, code, message):
    done, _, err, folder = reconstruct(boxes, *options, sizes=sizes)
    assert done == code
    assert message in err
    assert not folder.exists()


@pytest.mark.slow
def test_a_recording_is_placed_in_its_own_metres(kitchen_dir, tmp_path, capsys):
    options = ["--mode", "scene", "--frames", "0,478,204", "--hypotheses", "1", "--no-overview"]
    assert main(["reconstruct", str(kitchen_dir), "--out", str(tmp_path / "out"), *options]) == 0
    scene = load_scene(tmp_path / "out")
    assert scene.metric
    assert scene.objects
    for item in scene.objects:
        assert 0.02 < item.size_m.max() < 0.5
        assert "layout_sigma_m" in item.residuals
    assert scene.support is not None
    assert main(["reconstruct", str(kitchen_dir), "--out", str(tmp_path / "no"), "--known-size", "1=0.1"]) == 2
    assert "recordings have their own metres" in capsys.readouterr().err
