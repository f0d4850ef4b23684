"""2D amodal completion of the views, before objects are completed in 3D: `ViewCompleter`s by name."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from .amodal.cache import CompletionCache, content_key
from .amodal.inpainter import BackgroundRemoval, Inpainter, InpaintTask, Outliner
from .amodal.open_world import Completion, OpenWorldConfig, complete_hidden_objects
from .amodal.views import hidden_objects, with_completions
from .errors import InputError
from .types import CancelCheck, ObjectObservation, ProgressCallback, UInt8Array, check_cancelled

log = logging.getLogger("gena3d")
PROMPT = "{label}, whole, on a plain background"
TASKS_PER_PASS = 4


class ViewCompleter(Protocol):
    """Paints the hidden parts of objects into their views."""

    def complete(
        self,
        observations: Sequence[ObjectObservation],
        *,
        seed: int = 0,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> list[ObjectObservation]:
        """The observations of one scene, in their order, with `completed_masks` and pictures to match.

        Pixels that show an object never change. The result depends on `seed` and on the scene, not on earlier calls.
        Raises `CancelledError` soon after `cancelled()` becomes true.
        """
        ...

    def close(self) -> None:
        """Give memory of the device back."""
        ...


class MasksOnly:
    """The completer `none`: observations as they are, with occlusion masks only, which is what Amodal3R takes."""

    def complete(self, observations: Sequence[ObjectObservation], **_: Any) -> list[ObjectObservation]:
        """The observations."""
        return list(observations)

    def close(self) -> None:
        """Nothing is held."""


class OpenWorldCompleter:
    """The open-world procedure on an `Inpainter`, for all objects of a view together; what was done is remembered."""

    def __init__(
        self,
        inpainter: Inpainter,
        *,
        outliner: Outliner | None = None,
        config: OpenWorldConfig | None = None,
        prompt: str = PROMPT,
        tasks_per_pass: int = TASKS_PER_PASS,
        cache: CompletionCache | None = None,
    ) -> None:
        """prompt: with `{label}`; tasks_per_pass: pictures painted at once, fewer where memory runs out."""
        if tasks_per_pass < 1:
            raise InputError(f"tasks_per_pass must be at least 1, got {tasks_per_pass}")
        try:
            prompt.format(label="")
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(f"prompt '{prompt}' may hold {{label}} and no other name in braces") from error
        self.inpainter, self.outliner = inpainter, outliner or BackgroundRemoval()
        self.config, self.prompt, self.tasks_per_pass = config or OpenWorldConfig(), prompt, tasks_per_pass
        self.cache = cache or CompletionCache()

    def complete(
        self,
        observations: Sequence[ObjectObservation],
        *,
        seed: int = 0,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> list[ObjectObservation]:
        """See `ViewCompleter`."""
        if not observations:
            return []
        found: list[dict[int, Completion]] = [{} for _ in observations]
        count = len(observations[0].views)
        for view in range(count):
            check_cancelled(cancelled)
            for number, completion in self._complete_view(observations, view, seed, cancelled).items():
                found[number][view] = completion
            if progress is not None:
                progress("amodal", (view + 1) / count)
        return [with_completions(item, own) for item, own in zip(observations, found, strict=True)]

    def close(self) -> None:
        """Give the network's memory back; completions stay remembered."""
        self.inpainter.close()

    def _complete_view(
        self, observations: Sequence[ObjectObservation], view: int, seed: int, cancelled: CancelCheck | None
    ) -> dict[int, Completion]:
        """Number of the observation -> its completion in this view."""
        items = hidden_objects(observations, view, seed, self.prompt)
        how = f"{self.inpainter.name}\0{self.outliner.name}\0{self.config}"
        keys = {number: content_key(item, how) for number, item in items.items()}
        found = {number: known for number, key in keys.items() if (known := self.cache.get(key)) is not None}
        missing = [number for number in items if number not in found]

        def paint(tasks: Sequence[InpaintTask]) -> list[UInt8Array]:
            check_cancelled(cancelled)
            return self._paint(tasks)

        done = complete_hidden_objects(
            [items[number] for number in missing], paint, self.inpainter.side, self.outliner, self.config
        )
        for number, completion in zip(missing, done, strict=True):
            self.cache.put(keys[number], completion)
            found[number] = completion
            log.debug(
                "amodal: object %d in view %d: %d pixels after %d rounds (%s)",
                observations[number].id,
                view,
                int(completion.completed.sum()),
                completion.iterations,
                completion.stop,
            )
        return found

    def _paint(self, tasks: Sequence[InpaintTask]) -> list[UInt8Array]:
        from .memory import in_chunks

        painted = in_chunks(len(tasks), self.tasks_per_pass, lambda start, stop: self.inpainter(tasks[start:stop]))
        return [picture for part in painted for picture in part]


AUTO, NONE = "auto", "none"
NETWORKS = {"oaac": "sd-inpainting", "flux": "flux-fill", "pix2gestalt": "pix2gestalt"}
"""Completers with a network -> the front-end model whose weights they take."""
ONE_PASS = ("flux", "pix2gestalt")
"""Completers that paint once, as GENA3D compares them with OAAC; `max_iterations` changes that."""


def _none(device: str = "cpu", mask_model: object = None) -> ViewCompleter:
    return MasksOnly()


def _with_network(name: str) -> Callable[..., ViewCompleter]:
    def make(
        *,
        checkpoint: str | None = None,
        device: str = "cpu",
        mask_model: Any = None,
        prompt: str = PROMPT,
        tasks_per_pass: int = TASKS_PER_PASS,
        **options: Any,
    ) -> ViewCompleter:
        from .checkpoints.front_ends import front_end, log_licence, required_folder
        from .checkpoints.registry import places

        names = {field.name for field in fields(OpenWorldConfig)}
        config = {key: value for key, value in options.items() if key in names}
        if name in ONE_PASS:
            config.setdefault("max_iterations", 1)
        kind = _pix2gestalt if name == "pix2gestalt" else _painting
        model = front_end(NETWORKS[name])
        if checkpoint:
            folder = Path(checkpoint)
        else:
            # What diffusers reads may lie there without the release that it was converted from.
            converted = [place for place in places(model.name) if (place / "unet" / "config.json").is_file()]
            folder = converted[0] if converted else required_folder(model)
            log_licence(model)
        own = {key: value for key, value in options.items() if key not in names}
        inpainter = kind(folder, device=device, **own)
        outliner = None if mask_model is None else _prompted(mask_model)
        return OpenWorldCompleter(
            inpainter,
            outliner=outliner,
            config=OpenWorldConfig(**config),
            prompt=prompt,
            tasks_per_pass=tasks_per_pass,
        )

    return make


def _painting(folder: Path, **options: Any) -> Inpainter:
    from .amodal.diffusers_inpainter import DiffusersInpainter

    return DiffusersInpainter(folder, **options)


def _pix2gestalt(folder: Path, **options: Any) -> Inpainter:
    from .amodal.pix2gestalt import Pix2Gestalt

    return Pix2Gestalt(folder, **options)


def _prompted(mask_model: Any) -> Outliner:
    from .outlines import PromptedOutline

    return PromptedOutline(mask_model)


VIEW_COMPLETERS: Mapping[str, Callable[..., ViewCompleter]] = {
    NONE: _none,
    **{name: _with_network(name) for name in NETWORKS},
}
"""Name -> factory that takes `device`, `mask_model`, and the options of its network and of `OpenWorldConfig`."""


def chosen_view_completer(name: str, *, checkpoint: object = None) -> str:
    """What `auto` stands for on this machine, which is logged; other names as they are."""
    if name != AUTO:
        return name
    from .checkpoints.front_ends import front_end, present_folder

    packages = all(importlib.util.find_spec(package) is not None for package in ("diffusers", "transformers"))
    if packages and (checkpoint or present_folder(front_end(NETWORKS["oaac"])) is not None):
        log.info("amodal: auto chose 'oaac': its weights are here")
        return "oaac"
    log.info("amodal: auto chose 'none': no weights of %s, or no package diffusers", NETWORKS["oaac"])
    return NONE


def make_view_completer(name: str, **options: Any) -> ViewCompleter:
    """The completer called `name`, or `AUTO`; `mask_model` is a promptable segmenter's network, or None.

    Weights are checked, and loaded on first use. Raises `InputError` for an unknown name or option, `DataFormatError`
    for weights that are absent, damaged or of another network, `MissingDependencyError` without the packages.
    """
    name = chosen_view_completer(name, checkpoint=options.get("checkpoint"))
    if name not in VIEW_COMPLETERS:
        raise InputError(f"unknown amodal completer '{name}': choose one of {', '.join([AUTO, *VIEW_COMPLETERS])}")
    if name == NONE:
        # Options of a network that is not here must not stop what works without it.
        options = {}
    try:
        return VIEW_COMPLETERS[name](**options)
    except TypeError as error:
        raise InputError(f"amodal completer '{name}' does not take these options: {error}") from error
