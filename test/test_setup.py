"""`scripts/setup.sh` on machines that lack things: it runs with a PATH of our making."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_setup(tmp_path: Path, programs: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    """setup.sh with a PATH that holds coreutils and `programs` (name -> shell script)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("dirname", "sed", "sort", "head", "tr", "uname", "env"):
        (folder / name).symlink_to(next(p for d in ("/usr/bin", "/bin") if (p := Path(d, name)).exists()))
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
    env = {"PATH": str(folder), "HOME": os.environ.get("HOME", "/")}
    command = ["/bin/bash", str(ROOT / "scripts/setup.sh"), *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=60)


OLD_CMAKE = {"cmake": "echo cmake version 3.16.3"}
COMPILERS = {"cc": "", "c++": "", "make": ""}


def test_setup_names_everything_that_is_missing_in_one_message(tmp_path):
    result = run_setup(tmp_path, OLD_CMAKE)
    assert result.returncode == 1
    assert "Python 3.10 to 3.13" in result.stderr
    assert "cmake >= 3.21 (found 3.16.3" in result.stderr
    assert "apt-get install -y cmake g++ gcc make python3 python3-dev python3-venv" in result.stderr


def test_setup_notices_a_python_without_venv_and_headers(tmp_path):
    python = 'case "$2" in *version_info*) echo 3.12 ;; *) exit 1 ;; esac'
    result = run_setup(tmp_path, {"python3": python, "cmake": "echo cmake version 3.28.3", **COMPILERS})
    assert result.returncode == 1
    assert "apt-get install -y python3-dev python3-venv" in result.stderr
    assert "cmake" not in result.stderr


def test_setup_lists_missing_packages_for_scripts(tmp_path):
    result = run_setup(tmp_path, {**OLD_CMAKE, "make": ""}, "--packages")
    assert result.returncode == 0
    assert result.stdout.split() == ["cmake", "g++", "gcc", "python3", "python3-dev", "python3-venv"]


def test_setup_refuses_a_python_that_has_no_ros_wheels(tmp_path):
    result = run_setup(tmp_path, {"python3": "echo 3.9", "cmake": "echo cmake version 3.28.3", **COMPILERS})
    assert result.returncode == 1
    assert "python3 is 3.9" in result.stderr


def test_make_lists_its_targets():
    result = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, timeout=60)
    for target in ("setup", "demo", "test", "lint", "bench", "clean"):
        assert f"make {target} " in result.stdout
