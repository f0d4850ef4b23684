"""Bringup without `ros2 launch`: command lines, and real nodes that start, fail and end."""

import os
import re
import signal
from itertools import pairwise
from pathlib import Path

import pytest
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

from gena3d_core.errors import InputError
from gena3d_ros import bringup, files
from gena3d_ros.bringup import node_command, node_names, parse, shared_memory_environment, topic_remappings

ROOT = Path(__file__).resolve().parents[2]


def options_of(command: list[str], flag: str) -> list[str]:
    return [after for before, after in pairwise(command) if before == flag]


# Command lines.


def test_a_source_is_activated_last_so_that_nothing_of_it_is_missed():
    assert node_names("sim") == ("view_accumulator", "reconstruction", "camera_sim")
    assert node_names("none") == ("view_accumulator", "reconstruction")


def test_command_of_a_node():
    options = parse(["--namespace", "/left/", "--log-level", "debug", "--", "-p", "max_views:=4"])
    command = node_command("view_accumulator", options)
    assert command[1:4] == ["-m", "gena3d_ros.view_accumulator", "--ros-args"]
    assert options_of(command, "-r") == ["__ns:=/left"]
    assert options_of(command, "--log-level") == ["view_accumulator:=debug"]
    assert Path(*options_of(command, "--params-file")) == ROOT / "config/perception.yaml"
    assert command[-2:] == ["-p", "max_views:=4"]


def test_topics_of_a_camera_driver_are_taken_compressed_too():
    options = parse(["--image", "/camera/color/image_raw", "--depth", "depth"])
    assert options_of(node_command("view_accumulator", options), "-r") == [
        "image:=/camera/color/image_raw",
        "image/compressed:=/camera/color/image_raw/compressed",
    ]
    assert options_of(node_command("reconstruction", options), "-r") == []
    assert topic_remappings({"camera_info": "/camera/info"}) == [("camera_info", "/camera/info")]


def test_simulated_time_comes_from_the_source():
    options = parse(["--use-sim-time", "--source", "sim"])
    assert "use_sim_time:=true" in options_of(node_command("reconstruction", options), "-p")
    assert options_of(node_command("camera_sim", options), "-p") == ["publish_clock:=true"]


def test_path_of_a_source_is_made_absolute_when_it_is_one(tmp_path, monkeypatch):
    (tmp_path / "recording").mkdir()
    monkeypatch.chdir(tmp_path)
    options = parse(["--source", "player", "--path", "recording"])
    assert f"path:={tmp_path / 'recording'}" in node_command("rgbd_player", options)
    assert "path:=default" in node_command("camera_sim", parse(["--source", "sim", "--path", "default"]))


@pytest.mark.parametrize("arguments", [["--source", "video"], ["--params-file", "/nowhere/params.yaml"], ["--bogus"]])
def test_wrong_arguments_end_with_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(arguments)
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err or "unrecognized" in arguments[0]


# Files and the transport's profile.


def test_a_missing_file_is_named(monkeypatch):
    with pytest.raises(InputError, match=r"config/absent\.yaml .* is missing"):
        files.share_file("config/absent.yaml")


def test_an_installed_package_is_found_where_there_is_no_checkout(tmp_path, monkeypatch):
    share = tmp_path / "share" / files.PACKAGE
    (share / "config").mkdir(parents=True)
    (share / "config/perception.yaml").write_text("")
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / files.PACKAGE).write_text("")
    monkeypatch.setattr(files, "__file__", str(tmp_path / "lib/python/gena3d_ros/files.py"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert files.share_file("config/perception.yaml") == share / "config/perception.yaml"


@pytest.mark.parametrize("variable", bringup.PROFILE_VARIABLES)
def test_the_users_own_profile_is_kept(variable):
    assert shared_memory_environment(2, {variable: "/my.xml"}) == {}


@pytest.mark.parametrize(
    ("library", "variable"), list(zip(("libfastdds.so.3", "libfastrtps.so.2"), bringup.PROFILE_VARIABLES, strict=True))
)
def test_the_variable_is_the_one_that_this_fast_dds_reads(tmp_path, monkeypatch, library, variable):
    monkeypatch.setattr(bringup.sys, "prefix", str(tmp_path))
    (tmp_path / library).touch()
    assert shared_memory_environment(1, {"LD_LIBRARY_PATH": str(tmp_path)}) == {
        variable: str(ROOT / "config/fastdds_shm.xml")
    }


def test_a_small_shared_memory_keeps_the_default_transport(caplog):
    assert shared_memory_environment(10**6, {}) == {}
    assert "/dev/shm has less than" in caplog.text


# Real nodes.


def wait_until_active(ros, wait_for, process, names, namespace=""):
    """Wait until every node of `process` answers that it is active; fail with its output when it ends before."""
    observer = ros.node(f"observer_{len(ros.nodes)}")
    for name in names:
        client = observer.create_client(GetState, f"{namespace}/{name}/get_state")

        def is_active(client=client):
            assert process.poll() is None, process.communicate()[0]
            if not client.wait_for_service(0.5):
                return False
            future = client.call_async(GetState.Request())
            wait_for(future.done, 20.0, "the state")
            return future.result().current_state.id == State.PRIMARY_STATE_ACTIVE

        wait_for(is_active, 90.0, f"active {namespace}/{name}")


@pytest.mark.slow
def test_two_namespaces_come_up_side_by_side_and_end_on_sigint(ros, wait_for, stop):
    processes = {space: ros.spawn("gena3d_ros.bringup", "--namespace", space) for space in ("left", "right")}
    for space, process in processes.items():
        wait_until_active(ros, wait_for, process, node_names("none"), f"/{space}")
    for space, process in processes.items():
        code, output = stop(process)
        assert code == 0, output
        assert re.search(rf"\[{space}\.autostart\]: active: view_accumulator, reconstruction", output)


@pytest.mark.slow
def test_sigterm_and_a_source_with_simulated_time(ros, wait_for, stop):
    parameters = ("-p", "auto_reconstruct:=false", "-p", "width:=80")
    process = ros.spawn("gena3d_ros.bringup", "--source", "sim", "--use-sim-time", "--", *parameters)
    wait_until_active(ros, wait_for, process, node_names("sim"))
    code, output = stop(process, signal.SIGTERM)
    assert code == 0, output


@pytest.mark.slow
def test_one_dead_node_ends_all_and_is_named(ros, wait_for):
    process = ros.spawn("gena3d_ros.bringup")
    wait_until_active(ros, wait_for, process, node_names("none"))
    victim = next(pid for pid in children(process.pid) if "gena3d_ros.view_accumulator" in command_line(pid))
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "view_accumulator was ended by signal SIGKILL; ending the others" in output
    assert not children(process.pid)


def test_a_bad_parameter_ends_the_bringup_and_is_named(ros, tmp_path):
    params = tmp_path / "bad.yaml"
    params.write_text("/**/view_accumulator:\n  ros__parameters:\n    max_views: 0\n")
    process = ros.spawn("gena3d_ros.bringup", "--params-file", str(params))
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "max_views" in output
    assert "view_accumulator ended with exit code 1" in output


@pytest.mark.slow
def test_a_node_that_refuses_to_configure_ends_the_bringup(ros, tmp_path):
    process = ros.spawn("gena3d_ros.bringup", "--source", "player", "--path", str(tmp_path))
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "rgbd_player refused to configure; its log says why" in output
    assert str(tmp_path) in output


def test_autostart_names_a_node_that_never_appears(ros):
    process = ros.spawn("gena3d_ros.autostart", "nobody", "--timeout", "1")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "nobody did not appear within 1 s" in output


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
