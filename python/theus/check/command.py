"""The command line of the checker."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import check_paths, config
from .report import FORMATS

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Do what the options say; gives the exit status."""
    paths = [Path(path) for path in options.paths]
    try:
        settings = config.find(paths)
        if options.select is not None:
            settings = settings._replace(select=config.codes(options.select.split(","), "--select"))
        if options.ignore is not None:
            settings = settings._replace(ignore=config.codes(options.ignore.split(","), "--ignore"))
        checked = check_paths(paths, settings, fix=options.fix)
    except config.WrongUse as wrong:
        sys.stderr.write(f"theus check: {wrong}\n")
        return 2
    if settings.note:
        sys.stderr.write(f"theus check: {settings.note}\n")
    text = FORMATS[options.format](checked.findings, checked.fixed)
    if text:
        sys.stdout.write(f"{text}\n")
    return 1 if checked.findings else 0
