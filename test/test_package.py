"""The package's own files agree with one another: versions, interfaces, parameters, executables and launch."""

import ast
import importlib.util
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

import gena3d_core

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def package() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def cmake() -> str:
    return (ROOT / "CMakeLists.txt").read_text()


def test_package_xml_is_format_3_with_all_that_an_index_shows(package):
    assert package.get("format") == "3"
    for tag in ("name", "version", "description", "maintainer", "license", "author"):
        assert package.findtext(tag), tag
    assert {url.get("type") for url in package.iter("url")} == {"website", "repository", "bugtracker"}
    assert package.findtext("member_of_group") == "rosidl_interface_packages"
    assert package.findtext("export/build_type") == "ament_cmake"


def test_no_dependency_is_listed_twice(package):
    named = [e.text for e in package if e.tag in ("depend", "exec_depend", "build_depend", "buildtool_depend")]
    assert len(named) == len(set(named))


def test_versions_agree(package):
    assert package.findtext("version") == gena3d_core.__version__


def test_every_interface_file_is_built(cmake):
    built = set(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', cmake))
    present = {str(p.relative_to(ROOT)) for kind in ("msg", "srv", "action") for p in (ROOT / kind).glob("*." + kind)}
    assert built == present


def test_interface_dependencies_are_declared(package, cmake):
    used = set()
    for path in (p for kind in ("msg", "srv", "action") for p in (ROOT / kind).iterdir()):
        used |= set(re.findall(r"^(\w+)/\w+", path.read_text(), re.MULTILINE))
    listed = re.search(r"DEPENDENCIES ([\w ]+)", cmake)
    assert listed is not None
    assert used <= set(listed.group(1).split())
    assert used <= {e.text for e in package.iter("depend")}


def test_every_executable_has_a_module_with_main(cmake):
    listed = re.search(r"foreach\(executable ([\w ]+)\)", cmake)
    assert listed is not None
    for name in listed.group(1).split():
        tree = ast.parse((ROOT / "gena3d_ros" / f"{name}.py").read_text())
        assert any(isinstance(n, ast.FunctionDef) and n.name == "main" for n in tree.body), name


def test_imported_ros_packages_are_declared(package):
    """Every top-level import of gena3d_ros is ours, the standard library's, pip's or in package.xml."""
    known = {e.text for e in package} | {
        "gena3d_core",
        "gena3d_ros",
        "numpy",
        "cv2",
        "torch",
        "yaml",
        "trimesh",
        "scipy",
    }
    known |= {"rosbags", "tf2_ros"}  # python3-rosbags-pip, tf2_ros_py
    for path in (ROOT / "gena3d_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in (n.split(".")[0] for n in names):
                assert name in known or name in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_yaml_equals_the_parameter_table():
    from gena3d_ros.parameters import to_yaml

    assert (ROOT / "config/perception.yaml").read_text() == to_yaml()
    content = yaml.safe_load(to_yaml())
    from gena3d_ros.bringup import PERCEPTION_NODES, SOURCES

    assert {f"/**/{n}" for n in (*PERCEPTION_NODES, *SOURCES.values())} == set(content)


def test_fastdds_profile_is_well_formed_and_large_enough_for_images():
    tree = ElementTree.parse(ROOT / "config/fastdds_shm.xml")
    space = {"f": "http://www.eprosima.com"}
    assert int(tree.findtext(".//f:segment_size", "0", space)) >= 8 * 1920 * 1080
    used = [e.text for e in tree.iterfind(".//f:userTransports/f:transport_id", space)]
    defined = [e.text for e in tree.iterfind(".//f:transport_descriptor/f:transport_id", space)]
    assert sorted(used) == sorted(defined)


def test_rviz_shows_what_the_nodes_publish():
    config = yaml.safe_load((ROOT / "rviz/perception.rviz").read_text())
    topics = {d["Topic"]["Value"] for d in config["Visualization Manager"]["Displays"] if "Topic" in d}
    assert topics == {"markers", "points", "view_accumulator/keyframes", "image"}
    parameters = yaml.safe_load((ROOT / "config/perception.yaml").read_text())
    world = parameters["/**/view_accumulator"]["ros__parameters"]["world_frame"]
    assert config["Visualization Manager"]["Global Options"]["Fixed Frame"] == world


def test_launch_file_compiles_and_describes_its_arguments():
    path = ROOT / "launch/perception.launch.py"
    compile(path.read_text(), path, "exec")
    pytest.importorskip("launch_ros", reason="the launch file is loaded where ros2 launch is installed")
    spec = importlib.util.spec_from_file_location("perception_launch", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = module.generate_launch_description().get_launch_arguments()
    assert {"namespace", "params_file", "source", "path", "use_sim_time", "autostart", "rviz", "log_level"} <= {
        a.name for a in arguments
    }
    assert all(a.description for a in arguments)
