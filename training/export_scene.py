"""`python -m training.export_scene RUN --base edge --out DIR`: the checkpoint of a run of scene_edge, in 16 bits.

What the networks have from the base they were grown from is left out: it is read from there (`checkpoints.grown`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gena3d_core.checkpoints.locate import local_folder
from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.registry import FAMILIES
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.errors import Gena3DError, InputError

from .make_edge import DTYPES, MAX_FILE_MB, half

LAST, BEST = "last", "best"


def export_scene(run: Path, base: str, out: Path, dtype: str = "bfloat16") -> float:
    """Write RUN/best (or RUN itself, if it is a checkpoint) to `out`; base: a name of `FAMILIES` or a folder.

    Returns the megabytes of its weights. Raises `InputError` where either is not there.
    """
    source = next((folder for folder in (run / BEST, run / LAST, run) if (folder / "config.json").is_file()), None)
    if source is None:
        raise InputError(f"{run}: holds no checkpoint of a run; train one with `python -m training.train scene_edge`")
    bundle = open_checkpoint(source)
    modules = {role: half(module, DTYPES[dtype]) for role, module in bundle.modules.items()}
    facts = {"license": "Apache-2.0", **bundle.metadata}
    save_bundle(replace(bundle, modules=modules, metadata=facts), out, MAX_FILE_MB, base=base_folder(base))
    return sum(file.stat().st_size for file in out.glob("*.safetensors")) / 1e6


def base_folder(name: str) -> Path:
    """Folder of a checkpoint on this machine; raises `InputError`."""
    found = local_folder(name) if name in FAMILIES else Path(name)
    if found is None or not found.is_dir():
        raise InputError(f"the base '{name}' is neither a folder nor a checkpoint on this machine")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 failed with one line on stderr, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m training.export_scene", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--base", default="edge", metavar="NAME|DIR", help="what it was grown from (default: edge)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES), help="of the stored matrices")
    options = parser.parse_args(arguments)
    try:
        size = export_scene(options.run, options.base, options.out, options.dtype)
    except Gena3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"checkpoint": str(options.out), "megabytes": round(size, 2)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
