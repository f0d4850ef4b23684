"""`gena3d checkpoint verify | list | info | path`: weights at hand, what they hold, whether our networks are equal."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import UsageError
from .checkpoint_weights import check_present, front_end_lines, front_end_row, weights_path

if TYPE_CHECKING:
    from ..checkpoints.bundle import SamplerDefaults
    from ..checkpoints.inspection import ModuleFacts
    from ..checkpoints.verification import CaseReport, KeysReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-verbs and their options."""
    what = parser.add_subparsers(metavar="WHAT", dest="what", required=True)
    verify = what.add_parser("verify", help="compare our networks with numerical cases and published parameter names")
    verify.add_argument("cases", nargs="*", type=Path, metavar="CASE_DIR", help="case.json and its .safetensors files")
    verify.add_argument("--keys", nargs="+", type=Path, default=[], metavar="FILE", help="lists of parameters to match")
    verify.add_argument("--details", action="store_true", help="list every compared tensor, not only what fails")
    verify.add_argument("--device", default="cpu", metavar="DEVICE", help="where to compute the cases (default: cpu)")
    verify.add_argument("--backend", metavar="NAME", help="attention backend of the cases (default: each module's own)")
    listing = what.add_parser("list", help="the known models, what they need and where they are")
    info = what.add_parser("info", help="what a checkpoint holds")
    info.add_argument("checkpoint", metavar="NAME|DIR", help="family, front end, directory, file or owner/repository")
    info.add_argument("--image-encoder", metavar="PATH|NAME", help="show this image encoder too")
    info.add_argument("--download", action="store_true", help="fetch what is not on this machine")
    path = what.add_parser("path", help="where a model is, or is expected")
    path.add_argument("checkpoint", metavar="NAME", help="family or front end, as in the list")
    for sub in (verify, listing, info, path):
        sub.add_argument("--json", type=Path, metavar="FILE", help="write the same to FILE")
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Do the sub-verb; the exit code."""
    return {"verify": _verify, "list": _list, "info": _info, "path": _path}[args.what](args)


def _verify(args: argparse.Namespace) -> int:
    """One line a case and a keys file, then the counts; 0 only if all hold."""
    import torch

    from ..checkpoints.verification import verify_case, verify_keys
    from ..nn.attention import BACKENDS
    from .stages import checked_device

    if not args.cases and not args.keys:
        raise UsageError("give CASE_DIR..., or --keys FILE...")
    if args.backend is not None and args.backend not in BACKENDS:
        raise UsageError(f"--backend '{args.backend}' is unknown; choose one of: {', '.join(BACKENDS)}")
    device = checked_device(args.device)
    torch.manual_seed(0)
    width = max(len(path.resolve().name) for path in (*args.cases, *args.keys))
    rows: list[dict[str, Any]] = []
    for folder in args.cases:
        case = verify_case(folder, device=device, backend=args.backend)
        _print_lines(case_lines(case, width, args.details))
        rows.append(_case_row(case, folder))
    for file in args.keys:
        keys = verify_keys(file)
        _print_lines([keys_line(keys, width)])
        rows.append(_keys_row(keys, file))
    passed = sum(row["outcome"] == "ok" for row in rows)
    print(f"{passed} passed, {len(rows) - passed} failed")
    _write_json(args.json, "checkpoint verify", {"rows": rows, "passed": passed, "failed": len(rows) - passed})
    return 0 if passed == len(rows) else 1


def _list(args: argparse.Namespace) -> int:
    """A paragraph a family, then one a model of a front end."""
    from ..checkpoints.front_end_table import FRONT_ENDS
    from ..checkpoints.locate import local_folder
    from ..checkpoints.registry import FAMILIES, places

    rows = []
    for family in FAMILIES.values():
        folder = local_folder(family.name)
        looked = [str(place) for place in places(family.name)]
        if family.repository is not None:
            looked.append(f"Hugging Face cache of {family.repository}")
        rows.append({**asdict(family), "looked_for": looked, "present": None if folder is None else str(folder)})
        print(f"{family.name}: {family.summary}")
        facts = {
            "present": "no" if folder is None else str(folder),
            "obtained": family.obtain,
            "licence": family.licence,
            "grid frame": family.frame,
            "several views": family.fusion,
            "needs": ", ".join(family.roles),
            "files": ", ".join(family.files),
            "looked for": ", ".join(looked),
            "note": "; ".join(family.remarks),
        }
        _print_lines([f"  {name:<14}{value}" for name, value in facts.items() if value])
    front_ends = [front_end_row(model) for model in FRONT_ENDS.values()]
    for row in front_ends:
        _print_lines(front_end_lines(row))
    _write_json(args.json, "checkpoint list", {"rows": rows, "front_ends": front_ends})
    return 0


def _info(args: argparse.Namespace) -> int:
    """What the checkpoint states, then a paragraph a network; 1 if one of them could not be opened."""
    from ..checkpoints.front_end_table import FRONT_ENDS
    from ..checkpoints.inspection import module_facts
    from ..checkpoints.locate import describe, describe_image_encoder
    from ..errors import Gena3DError

    if args.checkpoint in FRONT_ENDS and not Path(args.checkpoint).exists():
        return _info_front_end(args)
    found = describe(args.checkpoint, allow_download=args.download)
    modules = dict(found.modules)
    if args.image_encoder:
        encoder = describe_image_encoder(args.image_encoder, Path(found.source), allow_download=args.download)
        modules["image_encoder"] = encoder.modules["image_encoder"]
    stated = {
        "family": found.family,
        "source": found.source,
        "grid frame": found.frame,
        "several views": found.fusion,
        "image size": found.image_size,
        "image encoder": found.image_encoder or ("its own" if "image_encoder" in modules else "none named"),
        **{f"sampler {name}": _sampler_text(sampler) for name, sampler in found.samplers.items()},
        "latent mean": found.slat_mean,
        "latent std": found.slat_std,
        **found.metadata,
    }
    _print_lines([f"{name:<28}{value}" for name, value in stated.items() if value is not None])
    facts = [module_facts(files) for files in modules.values()]
    for module in facts:
        _print_lines(module_lines(module))
    _write_json(args.json, "checkpoint info", {"stated": stated, "modules": [asdict(module) for module in facts]})
    if faulty := [module for module in facts if module.fault]:
        raise Gena3DError(faulty[0].fault)
    return 0


def _info_front_end(args: argparse.Namespace) -> int:
    """What is known about the model of a front end; its files are checked where they are there."""
    from ..checkpoints.front_ends import front_end

    model = front_end(args.checkpoint)
    row = front_end_row(model)
    _print_lines(front_end_lines(row))
    if row["present"]:
        _print_lines(check_present(model))
    _write_json(args.json, "checkpoint info", {"front_end": row})
    return 0


def _path(args: argparse.Namespace) -> int:
    """Where the model is; 1, after the place where it is expected, if it is not there."""
    from ..errors import DataFormatError

    path, there = weights_path(args.checkpoint)
    print(path)
    _write_json(args.json, "checkpoint path", {"path": str(path), "present": there})
    if not there:
        raise DataFormatError(f"{args.checkpoint} is not there yet; see: gena3d checkpoint info {args.checkpoint}")
    return 0


def _sampler_text(sampler: SamplerDefaults) -> str:
    low, high = sampler.guidance_interval
    return (
        f"{sampler.steps} steps, guidance {sampler.guidance_strength:g} for t in [{low:g}, {high:g}], "
        f"rescale {sampler.rescale_t:g}, sigma {sampler.sigma_min:g}"
    )


def module_lines(module: ModuleFacts) -> list[str]:
    """Class, counts and dtypes of a network, then a line a file."""
    dtypes = ", ".join(f"{name} {count}" for name, count in sorted(module.dtypes.items())) or "unread"
    head = f"{module.role} ({module.class_name}): {module.tensors} tensors, {module.parameters} parameters; {dtypes}"
    verdicts = {True: "as stated", False: "NOT as stated", None: "nothing to compare with"}
    lines = [
        f"  {file.path.name}  {file.size / 1e6:.1f} MB  sha256 {file.sha256} ({verdicts[file.as_stated]})"
        for file in module.files
    ]
    return [head, *lines, *([f"  FAULT {_one_line(module.fault)}"] if module.fault else [])]


def case_lines(case: CaseReport, width: int, details: bool) -> list[str]:
    """`CASE ok|FAIL max_abs max_rel tolerance`, then a line for each tensor that fails (or for each, with details).

    A tolerance T means |ours - theirs| <= T + T·|theirs|; A/R means A + R·|theirs|.
    """
    if case.outcome == "not supported yet":
        return [f"{case.name:<{width}} not supported yet"]
    if case.tolerance is None:
        return [f"{case.name:<{width}} FAIL - - - {_one_line(case.reason)}"]
    atol, rtol = f"{case.tolerance.atol:.0e}", f"{case.tolerance.rtol:.0e}"
    stated = atol if atol == rtol else f"{atol}/{rtol}"
    remarks = [case.reason] if case.reason else []
    if case.skipped:
        remarks.append(f"({len(case.skipped)} not compared)")
    head = [f"{case.name:<{width}}", f"{case.outcome:<4}", f"{case.max_abs:.2e}", f"{case.max_rel:.2e}", stated]
    lines = [" ".join(head + remarks)]
    for name, difference in case.differences.items():
        if details or not difference.ok:
            verdict = "ok" if difference.ok else "FAIL"
            figures = f"{difference.max_abs:.2e} {difference.max_rel:.2e} {difference.remark}".rstrip()
            lines.append(f"  {name:<{width}} {verdict:<4} {figures}")
    if details:
        lines += [f"  {name:<{width}} not compared: {why}" for name, why in case.skipped.items()]
    return lines


def keys_line(keys: KeysReport, width: int) -> str:
    """`FILE ok N tensors, M parameters`, or what does not fit."""
    if keys.outcome == "ok":
        return f"{keys.name:<{width}} ok {keys.tensors} tensors, {keys.parameters} parameters"
    return f"{keys.name:<{width}} {keys.outcome} {_one_line(keys.reason)}".rstrip()


def _case_row(case: CaseReport, folder: Path) -> dict[str, Any]:
    tensors = {
        name: {"ok": d.ok, "max_abs": _finite(d.max_abs), "max_rel": _finite(d.max_rel), "remark": d.remark}
        for name, d in case.differences.items()
    }
    tolerance = None if case.tolerance is None else {"atol": case.tolerance.atol, "rtol": case.tolerance.rtol}
    return {
        "case": case.name,
        "path": str(folder),
        "outcome": case.outcome,
        "max_abs": _finite(case.max_abs),
        "max_rel": _finite(case.max_rel),
        "tolerance": tolerance,
        "reason": case.reason,
        "tensors": tensors,
        "not_compared": dict(case.skipped),
    }


def _keys_row(keys: KeysReport, file: Path) -> dict[str, Any]:
    return {
        "keys": keys.name,
        "path": str(file),
        "outcome": keys.outcome,
        "tensors": keys.tensors,
        "parameters": keys.parameters,
        "reason": keys.reason,
    }


def _finite(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def _print_lines(lines: Sequence[str]) -> None:
    # A whole golden folder takes a while: every line as soon as it is known.
    print("\n".join(lines), flush=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write_json(file: Path | None, command: str, content: dict[str, Any]) -> None:
    from ..io.atomic import write_file

    if file is not None:
        write_file(
            file,
            json.dumps({"schema": 1, "command": command, **content}, indent=1, allow_nan=False, default=str).encode(),
        )
        print(f"wrote {file}")
