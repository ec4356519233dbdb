"""The folder of a report: there whole or not at all, and its tables in Markdown."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from imcat.errors import OutputError

__all__ = ["check_report_folder", "markdown_number", "markdown_table", "report_folder"]


def check_report_folder(target: Path) -> None:
    """Refuse a place where a report cannot go.

    Raises
    ------
    OutputError
        If it is a file, or a folder that holds something else than a report.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputError(f"{target}: is a file; expected a folder for the report")
    if any(target.iterdir()) and not (target / "report.json").is_file():
        raise OutputError(f"{target}: holds something else than a report; name another folder")


@contextmanager
def report_folder(target: Path) -> Iterator[Path]:
    """A folder to write to, renamed to `target` when the block ends well; an earlier report is replaced.

    Parameters
    ----------
    target : pathlib.Path
        Where the finished report goes.

    Yields
    ------
    pathlib.Path
        An empty folder beside it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    aside.mkdir()
    try:
        yield aside
        # Folders do not overwrite: an earlier one is moved away first.
        old = aside.with_suffix(".old")
        if target.exists():
            target.rename(old)
        aside.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    if not rows:
        return ["(nothing to show)"]
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def markdown_number(value: float, digits: int) -> str:
    """A number with so many decimals, or a dash where there is none."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"
