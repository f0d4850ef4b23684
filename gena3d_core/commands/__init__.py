"""One module a verb of the command line, each with `add_arguments(parser)` and `run(args) -> exit code`."""

VERBS: dict[str, tuple[str, str]] = {
    "reconstruct": ("objects of a recording: scene.json, one .glb an object, overview.png", f"{__name__}.reconstruct"),
    "view": ("show a scene that was reconstructed, in a window or as a picture", f"{__name__}.view"),
    "evaluate": ("score completed objects and reconstructions against true shapes", f"{__name__}.evaluate"),
    "bench": ("time the pipeline and its nodes, or the networks of the generators", f"{__name__}.bench"),
    "checkpoint": (
        "what checkpoints there are and hold, and whether our networks equal them",
        f"{__name__}.checkpoint",
    ),
    "info": ("versions, devices and implementations, for a bug report", f"{__name__}.info"),
}
"""Verb -> (what it does, module). The modules import what is heavy inside `run`."""
