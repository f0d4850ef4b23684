"""The command line as people and scripts use it: files, exit codes, one line on stderr."""

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from gena3d_core.cli import main
from gena3d_core.geometry.camera import project
from gena3d_core.geometry.transforms import apply, inverse
from gena3d_core.io import load_scene, load_views
from gena3d_core.simulation import random_scene, views_from_scene
from gena3d_core.simulation.scene import object_mesh

SPEC = random_scene(seed=3, object_count=3)


@dataclass
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def gena3d(*arguments: object) -> Done:
    """Run a command in this process, which has imported torch already; `test_real_process` checks that it may."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = int(error.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Three objects on a table, seen from four sides with sensor noise, as an RGB-D folder."""
    folder = tmp_path_factory.mktemp("recording")
    for part in ("color", "depth", "pose"):
        (folder / part).mkdir()
    k = SPEC.intrinsics
    camera = {"width": k.width, "height": k.height, "fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy}
    (folder / "camera.json").write_text(json.dumps(camera))
    for i, view in enumerate(views_from_scene(SPEC, 4)):
        cv2.imwrite(str(folder / f"color/{i:06d}.png"), view.color[..., ::-1])
        depth_mm = np.nan_to_num(1000 * view.depth_m, nan=0).astype(np.uint16)
        cv2.imwrite(str(folder / f"depth/{i:06d}.png"), depth_mm)
        np.savetxt(folder / f"pose/{i:06d}.txt", view.T_world_camera)
    return folder


@pytest.fixture(scope="module")
def reconstruction(recording, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "scene"
    done = gena3d("reconstruct", recording, "--out", out, "--views", 3, "--max-faces", 500)
    assert done.returncode == 0, done.stderr
    assert "objects from 3 views" in done.stdout
    return out


def assert_fails(done: Done, code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("usage:", " "))]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def test_outputs_of_reconstruct(reconstruction):
    content = json.loads((reconstruction / "scene.json").read_text())
    assert content["schema"] == 1
    assert content["objects"], "the simulated table has objects on it"
    for entry in content["objects"]:
        assert (reconstruction / entry["files"]["mesh"]).is_file()
        assert np.array(entry["T_world_object"]).shape == (4, 4)
    assert {"stereo", "segmentation", "generation", "total"} <= content["timings_s"].keys()
    picture = cv2.imread(str(reconstruction / "overview.png"))
    assert picture.shape[1] == 1600
    scene = load_scene(reconstruction)
    assert len(scene.view_names) == 3
    assert all(len(entry.mesh.faces) <= 500 for entry in scene.objects)


def test_chosen_frames_a_box_and_no_picture(recording, tmp_path):
    """One box around one of the objects, as its true mesh shows in the second frame: that object and no other."""
    view = load_views(recording, frames=[1])[0]
    item = SPEC.objects[0]
    points = apply(item.T_world_object, object_mesh(item).vertices)
    uv, _ = project(apply(inverse(view.T_world_camera), points), view.intrinsics)
    box = [*uv.min(axis=0).tolist(), *uv.max(axis=0).tolist()]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps([{"view": 1, "box_xyxy": box, "label": "thing"}]))
    arguments = ("--frames", "2,1", "--no-overview", "--no-refine", "--boxes", file)
    done = gena3d("reconstruct", recording, "--out", tmp_path / "s", *arguments)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "s/scene.json").read_text())
    assert [view["name"] for view in content["views"]] == ["000001", "000002"]
    assert not (tmp_path / "s/overview.png").exists()
    assert [entry["label"] for entry in content["objects"]] == ["thing"]
    found = np.array(content["objects"][0]["T_world_object"])[:2, 3]
    assert np.linalg.norm(found - item.T_world_object[:2, 3]) < 0.04


def test_view_renders_a_scene(reconstruction, tmp_path):
    done = gena3d("view", reconstruction, "--png", tmp_path / "deep.png", "--width", 200)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / "deep.png")).shape == (125, 200, 3)
    assert_fails(gena3d("view", reconstruction, "--png", tmp_path / "scene.gif"), 1, ".png or .jpg")
    assert_fails(gena3d("view", tmp_path), 1, "scene.json")


def test_help_needs_none_of_the_heavy_packages(tmp_path):
    """`--help` and wrong arguments answer at once: torch, OpenCV and the like are not even imported."""
    script = (
        "import sys; from gena3d_core.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'cv2', 'numpy', 'scipy', 'trimesh', 'rosbags'} & set(sys.modules)))"
    )
    for arguments in (["--help"], ["reconstruct", "--help"], ["reconstruct"]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]", arguments


def test_version_and_info():
    assert gena3d("--version").stdout.startswith("gena3d ")
    done = gena3d("info")
    assert done.returncode == 0
    assert "observed" in done.stdout.partition("generators: ")[2].partition("\n")[0].split(", ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ()),
        (("dance",), ("invalid choice",)),
        (("reconstruct",), ("required",)),
        (("reconstruct", "x", "--out", "y", "--views", "21"), ("--views", "from 1 to 20")),
        (("reconstruct", "x", "--out", "y", "--views", "2", "--frames", "1"), ("not allowed with",)),
        (("reconstruct", "x", "--out", "y", "--frames", "1,one"), ("--frames", "'one'")),
        (("reconstruct", "x", "--out", "y", "--frames", "1,1"), ("--frames", "twice")),
        (("reconstruct", "x", "--out", "y", "--seed", "-1"), ("--seed",)),
        (("reconstruct", "x", "--out", "y", "--max-faces", "3"), ("--max-faces",)),
        (("reconstruct", "x", "--out", "y", "--boxes", "absent.json"), ("--boxes", "absent.json")),
        (("reconstruct", "x", "--out", "y", "--boxes", '[{"view": 1}]'), ("--boxes", "box_xyxy")),
        (("reconstruct", "x", "--out", "y", "--boxes", '[{"view": 1, "box_xyxy": [9, 0, 1, 1]}]'), ("empty",)),
    ],
)
def test_wrong_arguments_exit_2(arguments, words):
    done = gena3d(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--stereo", "magic"),
        ("--segmenter", "magic"),
        ("--generator", "magic"),
        ("--device", "abacus"),
        ("--checkpoint", "magic"),
    ],
)
def test_unknown_names_exit_2(recording, tmp_path, option, value):
    done = gena3d("reconstruct", recording, "--out", tmp_path / "s", option, value)
    assert_fails(done, 2, "checkpoint" if option == "--checkpoint" else value)
    assert not (tmp_path / "s").exists()


def test_two_inputs_exit_2(recording, tmp_path):
    assert_fails(gena3d("reconstruct", recording, recording, "--out", tmp_path / "s"), 2, "2 inputs")


def test_bad_input_exits_1_with_one_line(recording, tmp_path):
    out = tmp_path / "s"
    cases = {
        ("absent",): "no such file",
        (tmp_path,): "not a recording",
        (recording, "--frames", "7"): "nearest of its 4 frames are 0, 1, 2, 3",
        (recording / "color/000000.png", "--stereo", "plane_sweep"): "without camera poses",
        (recording / "color/000000.png", recording / "color/000001.png", "--stereo", "plane_sweep"): "--stereo sfm",
        (recording, "--prompt", "mug"): "text prompts",
    }
    for arguments, words in cases.items():
        assert_fails(gena3d("reconstruct", *arguments, "--out", out), 1, words)
        assert not out.exists()


def test_a_broken_file_is_named_and_debug_shows_where(recording, tmp_path):
    broken = tmp_path / "broken"
    for part in ("color", "depth", "pose"):
        (broken / part).mkdir(parents=True)
        for file in (recording / part).iterdir():
            (broken / part / file.name).write_bytes(file.read_bytes())
    (broken / "camera.json").write_bytes((recording / "camera.json").read_bytes())
    (broken / "color/000002.png").write_bytes(b"")
    assert_fails(gena3d("reconstruct", broken, "--out", tmp_path / "s"), 1, "color/000002.png", "empty")
    assert "Traceback" in gena3d("reconstruct", broken, "--out", tmp_path / "s", "--debug").stderr
    (broken / "camera.json").unlink()
    assert_fails(gena3d("reconstruct", broken, "--out", tmp_path / "s"), 1, "camera.json")


def test_an_output_that_cannot_be_written(recording, tmp_path):
    (tmp_path / "file").write_text("x")
    done = gena3d("reconstruct", recording, "--out", tmp_path / "file/s", "--views", 1, "--no-overview")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr.splitlines()[-1]


def test_real_process(recording, tmp_path):
    """The installed entry point's module as a process: exit codes and streams as a script sees them."""
    command = [sys.executable, "-m", "gena3d_core.cli", "reconstruct"]
    for arguments, code in ((["absent", "--out", str(tmp_path / "s")], 1), ([], 2)):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert done.stdout == ""
        assert done.stderr.splitlines()[-1].startswith("gena3d reconstruct: error: ")


def test_bench_of_a_recording(recording, tmp_path):
    file = tmp_path / "bench.json"
    arguments = ("--recording", recording, "--views", 2, "--repeat", 2, "--no-ros", "--json", file)
    done = gena3d("bench", "pipeline", *arguments)
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text())
    assert [row["input"] for row in content["rows"]] == [str(recording)]
    for row in content["rows"]:
        assert row["views"] == 2
        stages = {stage: seconds for stage, seconds in row["median_s"].items() if stage != "total"}
        assert {"stereo", "segmentation", "generation", "meshing", "layout"} <= stages.keys()
        assert all(seconds >= 0 for seconds in stages.values())
    assert "generation" in done.stdout


@pytest.fixture(scope="module")
def referenced(recording, tmp_path_factory) -> Path:
    """The recording with its true surfaces as references and sets of 1 and 2 views."""
    folder = tmp_path_factory.mktemp("referenced") / "r"
    shutil.copytree(recording, folder)
    (folder / "objects_ref").mkdir()
    for item in SPEC.objects:
        mesh = object_mesh(item)
        points = trimesh.Trimesh(apply(item.T_world_object, mesh.vertices), mesh.faces, process=False)
        cloud, _ = trimesh.sample.sample_surface(points, 8000, seed=0)
        trimesh.PointCloud(cloud).export(folder / "objects_ref" / f"{item.name}.ply")
    sets = [{"object": item.name, "frames": frames} for item in SPEC.objects for frames in ([0], [0, 1])]
    (folder / "annotations.json").write_text(json.dumps({"sparse_views": sets}))
    return folder


def test_evaluate_a_recording(referenced, tmp_path):
    file = tmp_path / "rows.json"
    done = gena3d("evaluate", "recording", referenced, "--views", 2, "--generator", "observed", "--json", file)
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text())
    assert [row["object"] for row in content["rows"]] == [item.name for item in SPEC.objects]
    for row in content["rows"]:
        assert row["views"] == 2
        assert row["method"] == "observed"
    found = [row for row in content["rows"] if row["found"]]
    assert len(found) >= 2
    assert [row for row in found if not (row["f_score"] > 0.8 and row["centroid_m"] < 0.02)] == []
    assert "| object | views |" in done.stdout


def test_evaluate_says_what_it_cannot_do(referenced, recording):
    assert_fails(gena3d("evaluate", "recording", referenced, "--views", 7), 2, "sets of [1, 2] views")
    assert_fails(gena3d("evaluate", "recording", referenced, "--objects", "teapot"), 2, "teapot")
    assert_fails(gena3d("evaluate", "recording", recording), 1, "annotations.json")
    assert_fails(gena3d("evaluate", "recording", "absent"), 1, "absent")
