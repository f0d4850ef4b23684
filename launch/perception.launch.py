"""Brings up perception: `ros2 launch gena3d_ros perception.launch.py source:=sim`; --show-args lists the arguments."""

from collections.abc import Callable

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from gena3d_ros.bringup import (
    INPUT_TOPICS,
    SOURCES,
    node_names,
    shared_memory_environment,
    source_path,
    topic_remappings,
)
from gena3d_ros.files import share_file

PATIENCE_S = "20"  # an interpreter with PyTorch takes seconds to end on a busy machine
BOOLEANS = ["true", "false", "True", "False"]
ARGUMENTS = [
    DeclareLaunchArgument("namespace", default_value="", description="namespace of every node; two run side by side"),
    DeclareLaunchArgument(
        "params_file",
        default_value=str(share_file("config/perception.yaml")),
        description="YAML file with the parameters of the nodes",
    ),
    DeclareLaunchArgument(
        "source",
        default_value="none",
        choices=["none", *SOURCES],
        description="what stands in for camera drivers: none, a simulated camera, or a recorded folder",
    ),
    DeclareLaunchArgument(
        "path", default_value="", description="scene file of the simulated camera, or the folder to play"
    ),
    *(
        DeclareLaunchArgument(topic, default_value=topic, description=f"topic to take {topic} from (single camera)")
        for topic in INPUT_TOPICS
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=BOOLEANS,
        description="follow /clock, which a source publishes then",
    ),
    DeclareLaunchArgument(
        "autostart", default_value="true", choices=BOOLEANS, description="configure and activate the nodes"
    ),
    DeclareLaunchArgument("rviz", default_value="false", choices=BOOLEANS, description="open RViz"),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="least severity that the nodes log",
    ),
    DeclareLaunchArgument(
        "shared_memory",
        default_value="true",
        choices=BOOLEANS,
        description="give Fast DDS shared memory large enough for images, unless a profile is set already",
    ),
]


def start(context: LaunchContext) -> list:
    """The nodes; needs the arguments' values, since the source decides which nodes there are."""
    value = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}

    def is_true(argument: str) -> bool:
        return value[argument].lower() == "true"

    names = node_names(value["source"])
    remappings = topic_remappings({topic: value[topic] for topic in INPUT_TOPICS})
    nodes = []
    for name in names:
        is_source = name in SOURCES.values()
        parameters = {"publish_clock" if is_source else "use_sim_time": True} if is_true("use_sim_time") else {}
        if is_source and value["path"]:
            parameters["path"] = source_path(value["path"])
        nodes.append(
            LifecycleNode(
                package="gena3d_ros",
                executable=name,
                name=name,
                namespace=value["namespace"],
                parameters=[value["params_file"], *([parameters] if parameters else [])],
                remappings=remappings if name == "view_accumulator" else [],
                ros_arguments=["--log-level", f"{name}:={value['log_level']}"],
                output="screen",
                sigterm_timeout=PATIENCE_S,
                on_exit=shut_down_once(f"{name} ended"),
            )
        )
    profile = shared_memory_environment(len(names)) if is_true("shared_memory") else {}
    actions = [SetEnvironmentVariable(variable, text) for variable, text in profile.items()] + nodes
    return actions + (autostart(names, value["namespace"]) if is_true("autostart") else [])


def autostart(names: tuple[str, ...], namespace: str) -> list:
    """A process that takes the nodes through configure and activate, then ends; its failure ends everything."""
    process = Node(
        package="gena3d_ros",
        executable="autostart",
        name="autostart",
        namespace=namespace,
        arguments=list(names),
        output="screen",
    )

    handler = OnProcessExit(
        target_action=process, on_exit=shut_down_once("the nodes could not be started", failed=True)
    )
    return [process, RegisterEventHandler(handler)]


def shut_down_once(reason: str, failed: bool = False) -> Callable[..., list]:
    """Handler of a process's exit that ends the launch, `failed`: only when the exit code is not 0."""

    def on_exit(event, context: LaunchContext) -> list:
        # A second shutdown while the first is under way makes launch_ros report errors of its own.
        return [] if context.is_shutdown or (failed and event.returncode == 0) else [Shutdown(reason=reason)]

    return on_exit


def generate_launch_description() -> LaunchDescription:
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", str(share_file("rviz/perception.rviz"))],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start), rviz])
