"""The ``offsim`` command."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from app.allocator import keep_freed_memory
from app.errors import Interrupted, UserError
from app.notices import set_up_warnings
from app.threads import let_waiting_threads_sleep

COMMANDS = {
    "import": "turn logs of your own system, CSV or NumPy files, into a dataset to train on",
    "data": "find out what is wrong with a dataset before training on it",
    "train": "learn a simulator and train a policy in it, evaluate, report: the main job",
    "experiment": "carry out a grid of training runs from one YAML, and write the page of their results",
    "collect": "train an expert in the real task and record datasets of several levels",
    "evaluate": "run a saved policy in the real task and report its returns",
    "diagnose": "find out whether simulator, reward or learner keeps a run's policy from the expert's level",
    "report": "write one self-contained HTML page about a run: result, curves, histograms, roll-outs, data",
    "zoo": "list, show, fetch, publish, measure and export pretrained simulators",
}
MODULES = {"import": "import_data"}  # a word of Python's own cannot name a module
LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room, none left to this user, none for so large a file
NOT_READ = 141  # the status that shells give a program which SIGPIPE ended

DESCRIPTION = """\
Learn a simulator and a reward from logged demonstrations, and train a policy inside it
without touching the real system."""

EPILOG = """\
examples:
  offsim train hopper                          everything, on the bundled data, to runs/hopper-seed0/report.html
  offsim train hopper --expert ID --diverse ID --demonstrations 1 --seed 3 --budget full
  offsim fit --config configs/fit/behaviour_cloning.yaml --trainer.max_steps 400
  offsim evaluate runs/hopper-seed0 --task hopper --episodes 20
  offsim diagnose runs/hopper-seed0            why its policy is as good as it is: simulator, reward or learner

`offsim COMMAND --help` explains each command."""


def build_parser(word: str | None = None) -> argparse.ArgumentParser:
    """Parser of every command but those of LightningCLI, which parses its own arguments.

    Args:
        word: the command that is meant; of the others there are the names alone, as importing them takes seconds.
    """
    parser = argparse.ArgumentParser(
        prog="offsim", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"offsim {version('offsim')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        if name == word:
            module = _module(name)
            if "zoo.tasks" in sys.modules:  # a command that knows tasks
                sys.modules["zoo.tasks"].register_installed_tasks()
            module.configure(command)
    for name in LIGHTNING_COMMANDS:
        commands.add_parser(name, help=f"{name} one stage from a configuration file (LightningCLI)", add_help=False)
    return parser


def _module(command: str) -> Any:
    return importlib.import_module(f"app.{MODULES.get(command, command)}")


def _of_files(error: OSError) -> str:
    """What the system refused about a file or folder, and what to do."""
    what = error.filename or "what was to be written"
    if error.errno in FULL_DISK:
        return f"no room on the disk for {what} ({error.strerror}): make some and repeat it"
    return f"cannot use {what}: {error.strerror}; name another place, or put this one right"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    set_up_warnings()
    keep_freed_memory()
    let_waiting_threads_sleep()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words and words[0] in LIGHTNING_COMMANDS:
            return importlib.import_module("app.stages").run(words)
        if not words:
            build_parser().print_help(sys.stderr)
            return 2
        parser = build_parser(words[0])
        parsed, rest = parser.parse_known_args(words)
        if rest and parsed.command != "train":
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        parsed.overrides = rest
        status = int(_module(parsed.command).run(parsed))
        sys.stdout.flush()  # here, where it is known what to do if nobody reads
        return status
    except UserError as error:
        print(f"offsim: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        if not error.speaks:
            return 0  # Lightning kills the first process if another fails
        named = words[0] in LIGHTNING_COMMANDS and not error.found
        again = f"add --ckpt_path {error.checkpoint}" if named else "the same command goes on"
        print(f"offsim: {error}; {again}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("offsim: interrupted", file=sys.stderr)
        return 130
    except FloatingPointError as error:  # a training that diverges (lit_modules.method)
        print(f"offsim: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output, such as `head`, has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it goes nowhere
        return NOT_READ
    except OSError as error:
        if error.errno not in FULL_DISK and error.filename is None:
            raise
        print(f"offsim: {_of_files(error)}", file=sys.stderr)
        return 2
    except ValueError as error:
        from lit_modules.method import RefusedCheckpoint  # commands that do not train need no torch

        if not isinstance(error, RefusedCheckpoint):
            raise
        print(f"offsim: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        from lit_modules.parallel import tell_of_lost_process  # likewise

        if not tell_of_lost_process(error):
            raise
        return 1


if __name__ == "__main__":
    sys.exit(main())
