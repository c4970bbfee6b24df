"""``python -m theus``: looks at machines and programs, ends orphans, shows guide and header."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ._version import __version__
from .gone import COMMANDS, gone_text

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="theus", description="Shared arrays and worker processes: the command line of theus."
    )
    parser.add_argument("--version", action="version", version=f"theus {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    doctor = commands.add_parser(
        "doctor",
        help="say whether theus works on this machine, what limits it, and how to mend that",
        description="Look at Python, kernel, limits and memory, and try an engine. Exit status: 0 "
        "theus works, 1 it works less well (only with --strict), 2 it does not work.",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument("--strict", action="store_true", help="exit with 1 if anything is degraded")
    reap = commands.add_parser(
        "reap",
        help="list the processes of theus on this machine, and end those that lost their program",
        description="List the programs of this user that have theus' workers, and processes whose "
        "program is gone. Shared memory has no names and goes with the last process that maps it, "
        "so there is never anything else to sweep. Exit status: 0 no orphan is left, 1 there are.",
    )
    reap.add_argument("--kill", action="store_true", help="end the orphans (SIGKILL)")
    commands.add_parser("agents", help="print the guide to writing code for this version")
    check = commands.add_parser(
        "check",
        help="look for mistakes with theus in the text of programs",
        description="Parse Python files and look for what breaks the rules of parallel processes "
        "and shared arrays (docs/check.md lists them). Nothing is imported or run. pyproject.toml "
        "can have [tool.theus.check] with select, ignore and exclude; a comment, # theus: allow "
        "or # theus: allow TH003, silences a line. Exit status: 0 nothing was found, 1 something "
        "was, 2 wrong use.",
    )
    check.add_argument("paths", nargs="+", metavar="PATH", help="a file or a directory")
    check.add_argument(
        "--format",
        choices=["text", "json", "github", "sarif"],
        default="text",
        help="of the output",
    )
    check.add_argument("--select", metavar="CODES", help="look for these only: TH001,TH002")
    check.add_argument("--ignore", metavar="CODES", help="do not look for these")
    check.add_argument("--fix", action="store_true", help="mend in the files what can be mended")
    commands.add_parser("includes", help="print the directory of theus.h, for cc -I")
    commands.add_parser("libs", help="print the path of the shared library, to link with")
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in COMMANDS:
        print(gone_text(f"theus {arguments[0]}", COMMANDS[arguments[0]]), file=sys.stderr)
        return 2
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 2
    if options.command == "doctor":
        return _doctor(as_json=options.json, strict=options.strict)
    if options.command == "reap":
        return _reap(kill=options.kill)
    if options.command == "check":
        return _check(options)
    return _place(options.command)


def _doctor(*, as_json: bool, strict: bool) -> int:
    from .doctor import examine, report

    findings = examine()
    print(report.as_json(findings) if as_json else report.as_text(findings))
    return report.exit_status(findings, strict=strict)


def _reap(*, kill: bool) -> int:
    from . import orphans

    found = orphans.find()
    left = found.orphans
    if kill:
        left = [orphan for orphan in left if not orphans.end(orphan)]
    print(orphans.as_text(found, killed=kill))
    return 1 if left else 0


def _check(options: argparse.Namespace) -> int:
    from .check import command

    return command.run(options)


def _place(command: str) -> int:
    found = {"agents": _guide, "includes": _includes, "libs": _library}[command]()
    if found is None:
        print(
            f"theus {command}: not found beside {Path(__file__).parent}; this is a source tree or "
            "an incomplete installation. Install it with pip install theus-go.",
            file=sys.stderr,
        )
        return 1
    print(found.read_text(encoding="utf-8") if command == "agents" else found)
    return 0


def _guide() -> Path | None:
    here = Path(__file__).resolve().parent
    candidates = (here / "agents.md", here.parent.parent / "docs" / "agents.md")
    return next((c for c in candidates if c.is_file()), None)


def _includes() -> Path | None:
    here = Path(__file__).resolve().parent
    candidates = (here / "include", here.parent.parent / "include")
    return next((c for c in candidates if (c / "theus.h").is_file()), None)


def _library() -> Path | None:
    library = Path(__file__).resolve().parent / "libtheus.so"
    return library if library.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
