"""Where the package's launch, config and rviz files lie: in the checkout, or where the package was installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gena3d_core.errors import InputError

PACKAGE = "gena3d_ros"


def share_folders() -> Iterator[Path]:
    """Folders that may hold the files, best first: the checkout, the ROS prefix, the Python prefix."""
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "package.xml").is_file():
        yield checkout
    with suppress(ImportError, LookupError, ValueError, OSError):  # no ROS, or not in its index
        yield _ament_share()
    yield Path(sys.prefix) / "share" / PACKAGE


def _ament_share() -> Path:
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory(PACKAGE))


def share_file(relative: str) -> Path:
    """Path of one of the package's files, such as `config/perception.yaml`; raises `InputError` where there is none."""
    searched = []
    for folder in share_folders():
        if (folder / relative).is_file():
            return folder / relative
        searched.append(str(folder))
    raise InputError(f"{relative} of package {PACKAGE} is missing; looked in {', '.join(searched)}; install it again")
