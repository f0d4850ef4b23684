"""Completions that were made before, by the content of what they were made from."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np

from .open_world import Completion, HiddenObject

CACHE_BYTES = 256 * 2**20


class CompletionCache:
    """The completions used last, up to `max_bytes` of pictures and masks."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self.hits = self.misses = 0
        self._found: OrderedDict[str, Completion] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Completion | None:
        """The completion with this key, or None."""
        found = self._found.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._found.move_to_end(key)
        return found

    def put(self, key: str, completion: Completion) -> None:
        """Keep a completion; those used longest ago go."""
        if key not in self._found:
            self._bytes += size_of(completion)
        self._found[key] = completion
        self._found.move_to_end(key)
        while self._bytes > self.max_bytes and len(self._found) > 1:
            _, oldest = self._found.popitem(last=False)
            self._bytes -= size_of(oldest)

    def __len__(self) -> int:
        return len(self._found)


def size_of(completion: Completion) -> int:
    """Bytes of its arrays."""
    return completion.picture.nbytes + completion.completed.nbytes + completion.asked.nbytes


def content_key(item: HiddenObject, how: str) -> str:
    """SHA-256 of a picture with its masks, prompt and seed, and of `how` it is completed: network and settings."""
    digest = hashlib.sha256(f"{how}\0{item.prompt}\0{item.seed}".encode())
    for array in (item.color, item.visible, item.occlusion, item.occluders):
        digest.update(str(array.shape).encode())
        digest.update((np.packbits(array) if array.dtype == bool else array).tobytes())
    return digest.hexdigest()
