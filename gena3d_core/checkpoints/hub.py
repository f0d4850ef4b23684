"""Repositories of the Hugging Face hub, offline first: the local cache, the rest only on request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataFormatError, MissingDependencyError

WANTED = ("*.json", "*.safetensors")
"""What is fetched of a repository: neither pickles nor pictures."""

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w./-]+)?")


def is_repository_name(name: str) -> bool:
    """Whether `name` reads owner/repository, with an optional @revision."""
    return _NAME.fullmatch(name) is not None


def may_be_cached(repository: str) -> bool:
    """False where the local cache surely holds nothing of owner/repository; costs next to nothing."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return True
    return (Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}").is_dir()


def snapshot(name: str, *, allow_download: bool, patterns: Sequence[str] = WANTED) -> Path:
    """Folder of the repository on this machine.

    allow_download: fetch what is missing; else only the local cache is looked at, without a connection. Raises
    `MissingDependencyError` without the package huggingface_hub, `DataFormatError` if the files cannot be had.
    """
    try:
        # The package imports its parts on use: a broken installation shows only when the function is asked for.
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingDependencyError("huggingface_hub", f"the hub repository {name}", "'gena3d[hub]'") from error
    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            local_files_only=not allow_download,
            allow_patterns=list(patterns),
        )
    except Exception as error:
        # Which exceptions come depends on the hub's version and on its network library.
        reason = " ".join(str(error).split()) or type(error).__name__
        if allow_download:
            raise DataFormatError(f"{repository} could not be fetched from the hub: {reason}") from error
        raise DataFormatError(
            f"{name} is not in the local hub cache; fetch it with --download, or on a machine with a connection: "
            f"hf download {repository}" + (f" --revision {revision}" if revision else "")
        ) from error
    return Path(folder)


def find_elsewhere(reference: str, *, allow_download: bool) -> Path | None:
    """Path, without suffix, of a network that a pipeline names as owner/repository/path; None for other references."""
    parts = reference.split("/")
    if len(parts) < 3 or not is_repository_name("/".join(parts[:2])):
        return None
    rest = "/".join(parts[2:])
    folder = snapshot(
        "/".join(parts[:2]), allow_download=allow_download, patterns=[f"{rest}.json", f"{rest}.safetensors"]
    )
    return folder / rest
