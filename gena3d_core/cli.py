"""`gena3d …`: verbs that live in one module each, imported only when called so that `--help` is instant."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from . import __version__
from .commands import VERBS
from .commands.arguments import UsageError
from .errors import Gena3DError

DONE, FAILED, WRONG_ARGUMENTS = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 failed (one line on stderr says why), 2 wrong arguments."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    verb = next((word for word in arguments if not word.startswith("-")), None)
    parser, module = _parser(verb)
    args = parser.parse_args(arguments)
    if module is None:
        parser.print_help(sys.stderr)
        return WRONG_ARGUMENTS
    _log_to_stderr(args.debug)
    try:
        return module.run(args)
    except UsageError as error:
        return _fail(args, str(error), WRONG_ARGUMENTS)
    except Gena3DError as error:
        return _fail(args, str(error), FAILED)
    except KeyboardInterrupt:
        return _fail(args, "interrupted", FAILED)
    except BrokenPipeError:
        # The reader of our output (`| head`) went away: nothing more to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _fail(args, f"{type(error).__name__}: {error} (this is a bug; --debug shows where)", FAILED)


def _parser(verb: str | None) -> tuple[argparse.ArgumentParser, ModuleType | None]:
    parser = argparse.ArgumentParser(
        prog="gena3d",
        description="Complete, metric object meshes and poses from a few camera views.",
        epilog="gena3d VERB --help describes a verb. Exit codes: 0 done, 1 failed, 2 wrong arguments.",
    )
    parser.add_argument("--version", action="version", version=f"gena3d {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", dest="verb")
    module = None
    for name, (summary, where) in VERBS.items():
        sub = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        sub.add_argument("--debug", action="store_true", help="show tracebacks and debug messages")
        if name == verb:
            module = import_module(where)
            module.add_arguments(sub)
    return parser, module


def _fail(args: argparse.Namespace, message: str, code: int) -> int:
    if args.debug:
        traceback.print_exc()
    print(f"gena3d {args.verb}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _log_to_stderr(debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("gena3d: %(levelname)s: %(message)s"))
    logger = logging.getLogger("gena3d")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
