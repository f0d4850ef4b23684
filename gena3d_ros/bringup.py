"""Starts the nodes as separate processes where `ros2 launch` is not installed: `python -m gena3d_ros.bringup`.

Same nodes, parameters and options as launch/perception.launch.py. Ctrl-C or SIGTERM ends all of them; when one node
dies, the others are ended too and the exit code is 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gena3d_core.errors import Gena3DError

from .files import share_file
from .processes import ProcessGroup, describe_exit

PERCEPTION_NODES = ("view_accumulator", "reconstruction")
SOURCES: Mapping[str, str] = {"sim": "camera_sim", "player": "rgbd_player"}
"""What may stand in for camera drivers -> its node."""
INPUT_TOPICS: Mapping[str, Sequence[str]] = {
    "image": ("", "/compressed"),
    "depth": ("", "/compressed", "/compressedDepth"),
    "camera_info": ("",),
}
"""Topics that a user may have under other names -> the endings that image transports add to them."""
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Fast DDS 3 reads the first and complains about the second, which Fast DDS 2 (Humble, Jazzy) reads."""
SHARED_MEMORY_BYTES_PER_NODE = 40 * 2**20
POLL_S = 0.2

log = logging.getLogger("bringup")


@dataclass(frozen=True)
class Options:
    """What is started and how; `source` is none, sim or player."""

    namespace: str = ""
    params_file: str = ""
    source: str = "none"
    source_path: str = ""
    use_sim_time: bool = False
    autostart: bool = True
    log_level: str = "info"
    shared_memory: bool = True
    topics: Mapping[str, str] | None = None
    node_arguments: Sequence[str] = ()


def node_names(source: str) -> tuple[str, ...]:
    """Nodes to run, in the order in which they are activated: a source last, so that nothing of it is missed."""
    return (*PERCEPTION_NODES, SOURCES[source]) if source in SOURCES else PERCEPTION_NODES


def topic_remappings(topics: Mapping[str, str]) -> list[tuple[str, str]]:
    """(from, to) for the inputs whose names differ from ours, compressed forms included."""
    changed = ((name, target) for name, target in topics.items() if target and target != name)
    return [(name + ending, target + ending) for name, target in changed for ending in INPUT_TOPICS[name]]


def node_command(name: str, options: Options) -> list[str]:
    """Command line of one node."""
    arguments = ["--params-file", options.params_file or str(share_file("config/perception.yaml"))]
    clock = "publish_clock" if name in SOURCES.values() else "use_sim_time"
    arguments += ["-p", f"{clock}:=true"] if options.use_sim_time else []
    arguments += ["--log-level", f"{name}:={options.log_level}"]
    if name == SOURCES.get(options.source) and options.source_path:
        arguments += ["-p", f"path:={source_path(options.source_path)}"]
    if name == "view_accumulator":
        for source, target in topic_remappings(options.topics or {}):
            arguments += ["-r", f"{source}:={target}"]
    return [
        sys.executable,
        "-m",
        f"gena3d_ros.{name}",
        "--ros-args",
        *namespace(options),
        *arguments,
        *options.node_arguments,
    ]


def source_path(path: str) -> str:
    """The absolute path of a scene file or folder; anything else, such as the name of a packaged scene, stays."""
    given = Path(path).expanduser()
    return str(given.resolve()) if given.exists() else path


def autostart_command(options: Options) -> list[str]:
    nodes = node_names(options.source)
    return [sys.executable, "-m", "gena3d_ros.autostart", *nodes, "--ros-args", *namespace(options)]


def namespace(options: Options) -> list[str]:
    name = options.namespace.strip("/")
    return ["-r", f"__ns:=/{name}"] if name else []


def shared_memory_environment(nodes: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables that give Fast DDS a shared-memory segment large enough for images; {} when the user has chosen.

    Without it best-effort images of more than half a megabyte are lost. A container's small /dev/shm cannot hold the
    segments: the default transport is kept then, and said so.
    """
    if any(environment.get(name) for name in PROFILE_VARIABLES):
        return {}
    try:
        free = os.statvfs("/dev/shm")
    except OSError:
        return {}
    needed = nodes * SHARED_MEMORY_BYTES_PER_NODE
    if free.f_bavail * free.f_frsize < needed:
        log.warning("/dev/shm has less than %d MB free: large images go through UDP, slower", needed // 2**20)
        return {}
    folders = [*environment.get("LD_LIBRARY_PATH", "").split(":"), f"{sys.prefix}/lib"]
    is_version_2 = any(next(Path(folder).glob("libfastrtps.so*"), None) for folder in folders if folder)
    return {PROFILE_VARIABLES[is_version_2]: str(share_file("config/fastdds_shm.xml"))}


def run(options: Options, stop: threading.Event) -> int:
    """Run the nodes until `stop` is set or one of them ends; the exit code."""
    names = node_names(options.source)
    env = shared_memory_environment(len(names)) if options.shared_memory else {}
    group = ProcessGroup()
    try:
        for name in names:
            group.start(name, node_command(name, options), env)
        if options.autostart:
            group.start("autostart", autostart_command(options), env)
        log.info("started %s", ", ".join(names))
        while not stop.wait(POLL_S):
            exited = group.exited()
            if exited.get("autostart") == 0:
                group.forget("autostart")
                log.info("every node is active; Ctrl-C ends them")
                del exited["autostart"]
            if exited:
                for name, code in exited.items():
                    log.error("%s %s; ending the others", name, describe_exit(code))
                return 1
        return 0
    finally:
        for name, code in group.stop().items():
            if stop.is_set() and code not in (0, -signal.SIGINT, 128 + signal.SIGINT) and name != "autostart":
                log.error("%s %s while ending", name, describe_exit(code))


def parse(args: Iterable[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="bringup",
        description=str(__doc__).splitlines()[0],
        epilog="What follows -- is handed to every node, after --ros-args: bringup --source sim -- -p max_views:=4",
    )
    parser.add_argument("--namespace", default="", help="namespace of every node; two of them run side by side")
    parser.add_argument("--params-file", default="", help="parameters of the nodes (default: config/perception.yaml)")
    parser.add_argument("--source", choices=("none", *SOURCES), default="none", help="what stands in for cameras")
    parser.add_argument("--path", default="", help="scene file of the simulated camera, or folder to play")
    parser.add_argument("--use-sim-time", action="store_true", help="follow /clock, which a source publishes then")
    parser.add_argument("--no-autostart", action="store_true", help="leave the nodes unconfigured")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warn", "error", "fatal"))
    parser.add_argument("--no-shared-memory", action="store_true", help="keep Fast DDS's own transport settings")
    for topic in INPUT_TOPICS:
        flag = "--" + topic.replace("_", "-")
        parser.add_argument(flag, default=topic, metavar="TOPIC", help=f"topic to take {topic} from")
    argv = list(sys.argv[1:] if args is None else args)
    split = argv.index("--") if "--" in argv else len(argv)
    given = parser.parse_args(argv[:split])
    if given.params_file and not Path(given.params_file).is_file():
        parser.error(f"--params-file {given.params_file}: no such file")
    return Options(
        namespace=given.namespace,
        params_file=given.params_file,
        source=given.source,
        source_path=given.path,
        use_sim_time=given.use_sim_time,
        autostart=not given.no_autostart,
        log_level=given.log_level,
        shared_memory=not given.no_shared_memory,
        topics={topic: getattr(given, topic) for topic in INPUT_TOPICS},
        node_arguments=argv[split + 1 :],
    )


def main(args: Iterable[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] [%(name)s]: %(message)s", stream=sys.stderr)
    options = parse(args)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        return run(options, stop)
    except Gena3DError as error:
        log.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
