"""The `ifailsense` command. Sub-commands import what they need when they run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ifailsense_ros import __version__
from ifailsense_ros.core.errors import IFailSenseError

_OWN = {
    "detect": ("ifailsense_ros.cli.detect", "judge the episodes of recorded bags"),
    "evaluate": ("ifailsense_ros.cli.evaluate", "judge bags and data sets: results, tables, page"),
    "check": ("ifailsense_ros.cli.check", "check a checkpoint folder"),
    "annotate": ("ifailsense_ros.cli.annotate", "label episodes by keyboard, in a browser"),
    "convert": ("ifailsense_ros.cli.convert", "the authors' published files as a checkpoint"),
    "report": ("ifailsense_ros.cli.report", "the HTML page of evaluated episodes"),
}
"""Sub-commands with `add_arguments(parser)` and `run(args) -> int`."""

_PASSED_ON = {
    ("sim", "record"): ("ifailsense_ros.sim.record", "record labelled expert episodes"),
    ("sim", "record-failures"): (
        "ifailsense_ros.sim.record_failures",
        "record failures of seven classes, each beside its successful twin",
    ),
    ("sim", "record-unseen"): (
        "ifailsense_ros.sim.unseen.record",
        "record episodes and failures of Meta-World, the unseen world",
    ),
    ("sim", "render"): ("ifailsense_ros.sim.render_again", "render recorded episodes again"),
    ("sim", "unfinished"): (
        "ifailsense_ros.sim.unfinished",
        "expert episodes that end before their task came true",
    ),
    ("sim", "questions"): (
        "ifailsense_ros.sim.questions",
        "questions about the scenes of recorded episodes, for stage 0",
    ),
    ("sim", "failure-sheet"): (
        "ifailsense_ros.sim.failure_sheet",
        "picture of recorded failures beside their twins",
    ),
    ("sim", "contact-sheet"): (
        "ifailsense_ros.sim.contact_sheet",
        "picture of episodes as the detector sees them, or an exam with a key",
    ),
    ("sim", "check-experts"): (
        "ifailsense_ros.sim.check_experts",
        "how often the experts succeed, task by task",
    ),
    ("sim", "record-bag"): ("ifailsense_ros.sim.record_bag", "record an episode as a rosbag2"),
    ("data", "build"): ("ifailsense_ros.cli.data:build", "pair expert episodes with instructions"),
    ("data", "show"): ("ifailsense_ros.cli.data:show", "counts, data card and contact sheets"),
    ("data", "check"): ("ifailsense_ros.cli.data:check", "hashes, leaks, balance, pictures"),
    ("data", "export"): ("ifailsense_ros.cli.data_export", "episodes as LeRobot v3 or rosbag2"),
    ("data", "probe"): (
        "ifailsense_ros.evaluate.metadata_probe",
        "can failures be told from their twins by numbers alone?",
    ),
    ("gallery",): (
        "ifailsense_ros.evaluate.gallery",
        "a page of the most confident mistakes, and what they have in common",
    ),
    ("train", "fs"): (
        "ifailsense_ros.cli.train_fs",
        "re-train a checkpoint's FS blocks on your own labels",
    ),
    ("train",): (
        "ifailsense_ros.train.run",
        "train a checkpoint from recorded episodes; `train fs`: FS blocks on your labels",
    ),
    ("calibrate",): (
        "ifailsense_ros.train.calibrate",
        "give a checkpoint probabilities that hold, and the means to say that it does not know",
    ),
    ("predict",): (
        "ifailsense_ros.evaluate.predict",
        "what a checkpoint says of every pair of a data set, kept for all figures",
    ),
    ("experiments",): (
        "ifailsense_ros.experiments.runner",
        "train and judge all cells of the paper's tables, and write docs/results.md",
    ),
    ("replay",): (
        "ifailsense_ros.ros.replay_command",
        "recorded bags through the live node, whose verdicts must be the offline ones",
    ),
    ("label",): (
        "ifailsense_ros.cli.label",
        "verdicts on a LeRobot data set, and labelled or filtered copies of it",
    ),
    ("closed-loop", "report"): (
        "ifailsense_ros.closed_loop.report",
        "the closed loop's figures and plots in docs/closed_loop.md",
    ),
    ("closed-loop", "early"): (
        "ifailsense_ros.closed_loop.early",
        "how early a failure is announced, at what false alarm rate",
    ),
    ("closed-loop", "film"): (
        "ifailsense_ros.closed_loop.film",
        "a rescue, with the verdicts on screen",
    ),
    ("closed-loop",): (
        "ifailsense_ros.closed_loop.command",
        "how much more a robot gets done that listens to the monitor; also report, early, film",
    ),
    ("figures",): (
        "ifailsense_ros.evaluate.breakdown",
        "figures of what `ifailsense predict` wrote, with intervals",
    ),
}
"""Sub-commands whose arguments go to a function `(argv) -> int` as they are: "module" means its
`main`, "module:function" another one."""

_GROUPS = {"sim": "the simulated Franka", "data": "data sets of labelled episodes"}
"""First words of commands of two words."""

_MISSING = {
    "mujoco": "the simulator needs MuJoCo: pip install '.[sim]' in the checkout",
    "pyarrow": "episode stores need pyarrow: pip install '.[train]' in the checkout",
    "scipy": "evaluation needs SciPy: pip install '.[train]' in the checkout",
    "accelerate": "training needs accelerate: pip install '.[train]' in the checkout",
    "jinja2": "the report needs Jinja2: pip install '.[train]' in the checkout",
    "matplotlib": "pictures need matplotlib: pip install '.[train]' in the checkout",
    "tqdm": "this needs tqdm: pip install '.[train]' in the checkout",
    "torch": "the detector needs PyTorch: pip install torch (see README.md)",
    "transformers": "the detector needs transformers: pip install ifailsense_ros",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; None: the process's.

    Returns:
        The exit status: 0, 2 for a user's mistake (one line on stderr), 130 after Ctrl-C; a
        sub-command may have others.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        for words, (target, _) in _PASSED_ON.items():
            if tuple(argv[: len(words)]) == words:
                module, _, function = target.partition(":")
                command = getattr(import_module(module), function or "main")
                return int(command(argv[len(words) :]) or 0)
        args = _parser(argv).parse_args(argv)
        args.argv = argv
        return args.run(args)
    except IFailSenseError as error:
        print(f"ifailsense: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        hint = _MISSING.get((error.name or "").split(".")[0])
        if hint is None:
            raise
        print(f"ifailsense: {hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `ifailsense detect ... | head`: nobody reads on, and that is no mistake. Without this,
        # Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ifailsense",
        description="Failure detection for language-conditioned manipulation.",
        epilog="`ifailsense COMMAND --help` says more.",
    )
    parser.add_argument("--version", action="version", version=f"ifailsense {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module_name, help_text) in _OWN.items():
        command = commands.add_parser(name, help=help_text, description=help_text)
        # Only the sub-command that runs is imported: `--help` must answer at once.
        if name in argv[:1]:
            module = import_module(module_name)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    groups: dict[str, argparse._SubParsersAction] = {}
    for words, (_, help_text) in _PASSED_ON.items():
        if (words[0],) in _PASSED_ON and len(words) > 1:
            continue  # a command of its own with one of its kinds behind it: listed by the former
        if len(words) == 1:
            commands.add_parser(words[0], help=help_text, add_help=False)
            continue
        if words[0] not in groups:
            group = commands.add_parser(words[0], help=_GROUPS[words[0]])
            groups[words[0]] = group.add_subparsers(required=True, metavar="COMMAND")
        groups[words[0]].add_parser(words[1], help=help_text, add_help=False)
    return parser
