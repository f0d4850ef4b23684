"""Configures and activates lifecycle nodes, then ends: `ros2 run gena3d_ros autostart view_accumulator reconstruction`.

Launch files and `bringup` start it beside the nodes. It asks for each node's state instead of waiting for transition
events, which are published once and are lost while discovery is still under way.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node
from rclpy.utilities import remove_ros_args

from gena3d_core.errors import Gena3DError

TRANSITIONS = (
    ("configure", Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_UNCONFIGURED, State.PRIMARY_STATE_INACTIVE),
    ("activate", Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_INACTIVE, State.PRIMARY_STATE_ACTIVE),
)
REPLY_TIMEOUT_S = 5.0
POLL_S = 0.1


class StartError(Gena3DError):
    """A node never answered or refused a transition."""


def call(node: Node, client: Any, request: Any, deadline: float) -> Any:
    """Response of a service, or None when none came in time: replies may be lost while discovery is under way."""
    future = client.call_async(request)
    rclpy.spin_until_future_complete(
        node, future, timeout_sec=min(REPLY_TIMEOUT_S, max(0.1, deadline - time.monotonic()))
    )
    if not future.done():
        client.remove_pending_request(future)
        return None
    return future.result()


def bring_up(node: Node, names: Sequence[str], timeout_s: float) -> None:
    """Configure all of `names` (relative to the namespace of `node`) in order, then activate them in order.

    Raises `StartError` naming the node that did not appear, did not answer or refused within `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    get_state: dict[str, Any] = {name: node.create_client(GetState, f"{name}/get_state") for name in names}
    change_state: dict[str, Any] = {name: node.create_client(ChangeState, f"{name}/change_state") for name in names}
    for name in names:
        for client in (get_state[name], change_state[name]):
            if not client.wait_for_service(timeout_sec=max(0.1, deadline - time.monotonic())):
                raise StartError(f"{name} did not appear within {timeout_s:g} s (service {client.srv_name})")
    for verb, transition, before, after in TRANSITIONS:
        for name in names:
            state = None
            while state != after:
                if time.monotonic() > deadline:
                    raise StartError(f"{name} could not {verb} within {timeout_s:g} s; its last state was {state}")
                answer = call(node, get_state[name], GetState.Request(), deadline)
                state = answer.current_state.id if answer is not None else None
                if state == before:
                    request = ChangeState.Request(transition=Transition(id=transition))
                    answer = call(node, change_state[name], request, deadline)
                    if answer is not None and not answer.success:
                        raise StartError(f"{name} refused to {verb}; its log says why")
                elif state == State.PRIMARY_STATE_ACTIVE:
                    break  # somebody else was faster
                elif state != after:
                    time.sleep(POLL_S)
    node.get_logger().info(f"active: {', '.join(names)}")


def main(args: Sequence[str] | None = None) -> int:
    argv = list(sys.argv if args is None else ["autostart", *args])
    parser = argparse.ArgumentParser(prog="autostart", description=str(__doc__).splitlines()[0])
    parser.add_argument("nodes", nargs="+", help="node names, relative to the namespace (--ros-args -r __ns:=/name)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds until giving up")
    options = parser.parse_args(remove_ros_args(argv)[1:])
    rclpy.init(args=argv)
    node = rclpy.create_node("autostart")
    try:
        bring_up(node, options.nodes, options.timeout)
    except StartError as error:
        node.get_logger().error(str(error))
        return 1
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        return 1
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
