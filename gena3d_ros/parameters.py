"""Declares the parameters of `parameter_table` on a node, validates changes, and prints the YAML and the table.

The top of this module needs no ROS, so that `python -m gena3d_ros.parameters --yaml` runs anywhere.
"""

from __future__ import annotations

import argparse
import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any, Generic, TypeVar, cast

from gena3d_core.errors import InputError

from .parameter_table import NODES, NodeParameters, ParameterInfo

P = TypeVar("P", bound=NodeParameters)
OnChange = Callable[[frozenset[str]], None]


def infos(node_type: type[NodeParameters]) -> dict[str, ParameterInfo]:
    """Parameter name -> what its declaration says, in the order of the table."""
    return {f.name: f.metadata["info"] for f in fields(node_type)}


def coerce(node_type: type[NodeParameters], name: str, value: Any) -> Any:
    """`value` in the type of the field: integers become floats where floats are due, arrays become tuples."""
    wanted = typing.get_type_hints(node_type)[name]
    is_list = typing.get_origin(wanted) is tuple
    element = typing.get_args(wanted)[0] if is_list else wanted
    items = list(value) if is_list and not isinstance(value, str) else [value]
    if element is float:
        items = [float(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in items]
    if any(type(v) is not element for v in items):
        kind = f"list of {element.__name__}" if is_list else element.__name__
        raise InputError(f"parameter '{name}' must be a {kind}, got {value!r}")
    return tuple(items) if is_list else items[0]


def check_value(node_type: type[NodeParameters], name: str, value: Any) -> Any:
    """The coerced value; raises `InputError` where its type, bounds or choices are violated."""
    value, info = coerce(node_type, name, value), infos(node_type)[name]
    for item in value if isinstance(value, tuple) else (value,):
        if info.bounds is not None and not info.bounds[0] <= item <= info.bounds[1]:
            raise InputError(f"parameter '{name}' must lie in [{info.bounds[0]:g}, {info.bounds[1]:g}], got {item}")
        if info.choices is not None and item not in info.choices:
            raise InputError(f"parameter '{name}' must be one of {', '.join(info.choices)}; got '{item}'")
    return value


class Parameters(Generic[P]):
    """The live values of a node's parameters: `values` is replaced, never changed, when somebody sets a parameter."""

    def __init__(self, node: Any, node_type: type[P], on_change: OnChange | None = None) -> None:
        from rclpy.exceptions import ParameterException

        self._node, self._type, self._on_change = node, node_type, on_change
        _prepare_overrides(node, node_type)
        given: dict[str, Any] = {}
        for name, info in infos(node_type).items():
            default = _default(node_type, name)
            try:
                given[name] = node.declare_parameter(name, _ros(default), _descriptor(info, default)).value
            except ParameterException as error:
                raise InputError(f"parameter '{name}' of {node.get_name()}: {error}") from error
        self.values = cast(P, self._merged(node_type(), given))
        node.add_on_set_parameters_callback(self._on_set)

    def _merged(self, values: NodeParameters, given: dict[str, Any]) -> NodeParameters:
        merged = replace(values, **{n: check_value(self._type, n, v) for n, v in given.items()})
        merged.check()
        return merged

    def _on_set(self, ros_parameters: Iterable[Any]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        known = infos(self._type)
        changed = {p.name: p.value for p in ros_parameters if p.name in known}
        if changed:
            try:
                self.values = cast(P, self._merged(self.values, changed))
            except InputError as error:
                return SetParametersResult(successful=False, reason=str(error))
            if self._on_change is not None:
                self._on_change(frozenset(changed))
        return SetParametersResult(successful=True)


def declare_parameters(node: Any, node_name: str, on_change: OnChange | None = None) -> Parameters[Any]:
    """Declare every parameter of `node_name` on `node`; `.values` of the result is that node's dataclass.

    `on_change(names)` is called after each accepted change, when `.values` already holds it. Raises `InputError` for a
    bad initial value.
    """
    return Parameters(node, NODES[node_name], on_change)


def _default(node_type: type[NodeParameters], name: str) -> Any:
    return next(f.default for f in fields(node_type) if f.name == name)


def _ros(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _descriptor(info: ParameterInfo, default: Any) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    takes_effect = "" if info.live or info.read_only else " (takes effect at the next configure)"
    descriptor = ParameterDescriptor(description=info.description + takes_effect, read_only=info.read_only)
    descriptor.additional_constraints = _allowed(info)
    if info.bounds is not None and isinstance(default, float):
        low, high = map(float, info.bounds)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    elif info.bounds is not None and isinstance(default, int):
        descriptor.integer_range = [IntegerRange(from_value=int(info.bounds[0]), to_value=int(info.bounds[1]), step=1)]
    return descriptor


def _prepare_overrides(node: Any, node_type: type[NodeParameters]) -> None:
    """Let `max_depth_m: 5` in a YAML file mean 5.0, and say which names of the file nobody knows."""
    overrides = getattr(node, "_parameter_overrides", {})
    known, elsewhere = infos(node_type), {n for other in NODES.values() for n in infos(other)}
    for name, ros_parameter in list(overrides.items()):
        if name in known:
            value = _ros(coerce(node_type, name, ros_parameter.value))
            overrides[name] = type(ros_parameter)(name, value=value)
        elif name not in elsewhere and not name.startswith(("use_sim_time", "qos_overrides.", "start_type_desc")):
            node.get_logger().warning(f"parameter '{name}' is not known and has no effect: check its spelling")


HEADER = (
    "# Made from gena3d_ros/parameter_table.py by `python -m gena3d_ros.parameters --yaml`; defaults of every node.\n"
)


def to_yaml() -> str:
    """The text of `config/perception.yaml`: every node, every parameter, its default and description."""
    blocks = [HEADER]
    for node_name, node_type in NODES.items():
        lines = [f"/**/{node_name}:", "  ros__parameters:"]
        for name, info in infos(node_type).items():
            allowed = _allowed(info)
            lines.append(f"    # {info.description}" + (f" ({allowed})" if allowed else ""))
            lines.append(f"    {name}: {_yaml_value(_default(node_type, name))}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def to_markdown() -> str:
    """The README's tables of parameters, one a node."""
    blocks = []
    for node_name, node_type in NODES.items():
        lines = [f"**`{node_name}`**", "", "| parameter | default | allowed | meaning |", "| --- | --- | --- | --- |"]
        for name, info in infos(node_type).items():
            live = " (live)" if info.live else ""
            default = _yaml_value(_default(node_type, name))
            lines.append(f"| `{name}` | `{default}` | {_allowed(info)} | {info.description}{live} |")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _allowed(info: ParameterInfo) -> str:
    if info.choices is not None:
        return ", ".join(info.choices)
    return f"{info.bounds[0]:g} to {info.bounds[1]:g}" if info.bounds is not None else ""


def _yaml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_yaml_value(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def main() -> int:
    """Print the YAML or the Markdown table of every parameter."""
    parser = argparse.ArgumentParser(prog="python -m gena3d_ros.parameters", description=main.__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--yaml", action="store_true", help="text of config/perception.yaml")
    group.add_argument("--markdown", action="store_true", help="tables for the README")
    sys.stdout.write(to_yaml() if parser.parse_args().yaml else to_markdown())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
