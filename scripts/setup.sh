#!/usr/bin/env bash
# Checks that the system programs which the set-up needs are there, then builds .venv (setup_env.py).
#   scripts/setup.sh              set up, or do nothing when nothing changed
#   scripts/setup.sh --packages   only print the Debian/Ubuntu packages that are missing (nothing when complete)
set -u
scripts_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
# Inherited from a Python of another environment, these would make our own .venv load that one's libraries.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME

missing=()   # what, for people
packages=()  # how, for apt

need() { missing+=("$1"); shift; packages+=("$@"); }
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# ---- Python: the sourced ROS's own, else one that ROS 2 wheels exist for (3.10 to 3.13)
ros=wheels
python=
first_python=
if [ -n "${ROS_DISTRO:-}${AMENT_PREFIX_PATH:-}" ]; then
  for candidate in ${PYTHON:+"$PYTHON"} python3 /usr/bin/python3; do
    if "$candidate" -c 'import rclpy, sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
      python=$candidate ros=sourced
      break
    fi
  done
  [ "$ros" = sourced ] || echo "setup: ROS variables are set, but no Python >= 3.10 can import rclpy; using the ROS 2 wheels" >&2
fi
if [ -z "$python" ]; then
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.11 python3.13 python3.10; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    first_python=${first_python:-"$candidate is $version"}
    case $version in 3.10 | 3.11 | 3.12 | 3.13) python=$candidate; break ;; esac
  done
fi
if [ -z "$python" ]; then
  need "Python 3.10 to 3.13, or a sourced ROS 2 (${first_python:-no python3 found})" python3 python3-venv python3-dev
else
  "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || need "the venv module of $python" python3-venv
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(sysconfig.get_path("include") + "/Python.h"))' \
    >/dev/null 2>&1 || need "the C headers of $python (Python.h)" python3-dev
fi

# ---- build tools for the ROS message types
cmake_version=$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')
if [ -z "$cmake_version" ]; then
  need "cmake >= 3.21" cmake
elif ! version_at_least "$cmake_version" 3.21; then
  need "cmake >= 3.21 (found $cmake_version; a newer one also comes by 'pip install cmake')" cmake
fi
command -v make >/dev/null || need "make" make
command -v "${CC:-cc}" >/dev/null || need "a C compiler (${CC:-cc})" gcc
command -v "${CXX:-c++}" >/dev/null || need "a C++ compiler (${CXX:-c++})" g++

if [ "${1:-}" = --packages ]; then
  [ ${#packages[@]} -eq 0 ] || printf '%s\n' "${packages[@]}" | sort -u
  exit 0
fi
if [ ${#missing[@]} -gt 0 ]; then
  {
    echo "setup: this machine lacks:"
    printf '  - %s\n' "${missing[@]}"
    echo "On Debian or Ubuntu install them with the line below, then run the same command again:"
    echo "  sudo apt-get update && sudo apt-get install -y $(printf '%s\n' "${packages[@]}" | sort -u | tr '\n' ' ')"
  } >&2
  exit 1
fi
exec "$python" "$scripts_dir/setup_env.py" --ros "$ros"
