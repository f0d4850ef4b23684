"""The table of parameters: declarations, validation of changes, generated files."""

from dataclasses import fields
from pathlib import Path

import pytest
import rclpy
import yaml
from rcl_interfaces.srv import DescribeParameters, SetParameters

from gena3d_core.errors import InputError
from gena3d_ros.parameter_table import NODES, ViewAccumulatorParameters
from gena3d_ros.parameters import check_value, declare_parameters, infos, to_markdown, to_yaml

ROOT = Path(__file__).resolve().parents[2]


def test_config_file_is_the_table():
    assert (ROOT / "config" / "perception.yaml").read_text() == to_yaml(), "run python -m gena3d_ros.parameters --yaml"


def test_yaml_gives_every_default_back():
    document = yaml.safe_load(to_yaml())
    for node_name, node_type in NODES.items():
        given = document[f"/**/{node_name}"]["ros__parameters"]
        assert list(given) == [f.name for f in fields(node_type)]
        assert node_type(**{n: check_value(node_type, n, v) for n, v in given.items()}) == node_type()


@pytest.mark.parametrize("node_type", NODES.values())
def test_every_default_is_valid_and_described(node_type):
    node_type().check()
    for name, info in infos(node_type).items():
        assert check_value(node_type, name, getattr(node_type(), name)) == getattr(node_type(), name)
        assert len(info.description) > 10
    assert all(f"`{name}`" in to_markdown() for name in infos(node_type))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_views", 0),
        ("max_views", 2.0),
        ("max_views", True),
        ("sync_slop_s", "fast"),
        ("image_transport", ["raw", "theora"]),
        ("cameras", [1]),
        ("max_depth_m", float("nan")),
    ],
)
def test_bad_values_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        check_value(ViewAccumulatorParameters, name, value)


def test_declared_set_described_and_refused_over_services(ros, wait_for):
    node, caller, changes = ros.node("view_accumulator"), ros.node("caller"), []
    parameters = declare_parameters(node, "view_accumulator", changes.append)
    described = ros.call(
        caller,
        DescribeParameters,
        "/view_accumulator/describe_parameters",
        DescribeParameters.Request(names=["max_views", "sync_slop_s", "autostart", "image_reliability"]),
    ).descriptors
    assert described[0].integer_range[0].to_value == 100
    assert described[1].floating_point_range[0].to_value == 1.0
    assert "next configure" in described[1].description
    assert described[2].read_only
    assert described[3].additional_constraints == "reliable, best_effort"

    def set_parameter(name, value):
        request = SetParameters.Request(parameters=[rclpy.Parameter(name, value=value).to_parameter_msg()])
        return ros.call(caller, SetParameters, "/view_accumulator/set_parameters", request).results[0]

    assert set_parameter("max_views", 3).successful
    assert parameters.values.max_views == 3
    assert changes == [frozenset({"max_views"})]
    for name, value, reason in (
        ("max_views", 1000, "max_views"),
        ("max_views", "x", "type"),
        ("autostart", True, "read-only"),
        ("image_reliability", "fast", "one of"),
        ("min_depth_m", 50.0, "max_depth_m"),
        ("cameras", ["a", "a"], "twice"),
    ):
        result = set_parameter(name, value)
        assert not result.successful
        assert reason in result.reason
    assert parameters.values.max_views == 3
    assert len(changes) == 1


def test_integers_in_a_file_become_floats_and_typos_are_told(ros, tmp_path):
    overrides = [rclpy.Parameter("max_depth_m", value=5), rclpy.Parameter("max_vies", value=5)]
    node = ros.node("view_accumulator", parameter_overrides=overrides)
    warnings = []
    logger = node.get_logger()
    node.get_logger = lambda: type("L", (), {"warning": warnings.append, "info": logger.info})()
    assert declare_parameters(node, "view_accumulator").values.max_depth_m == 5.0
    assert len(warnings) == 1
    assert "max_vies" in warnings[0]


def test_yaml_file_reaches_a_namespaced_node(ros, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(to_yaml().replace("max_views: 8", "max_views: 5"))
    cli_args = ["--ros-args", "--params-file", str(path)]
    node = ros.node("view_accumulator", namespace="/left/arm", cli_args=cli_args)
    assert declare_parameters(node, "view_accumulator").values.max_views == 5
