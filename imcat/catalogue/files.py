"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path", "is_leftover"]

_LEFTOVER = re.compile(r"^\..+\.\d+-[0-9a-f]{8}\.part$")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file aside and rename it when it is complete.

    The temporary file lies in the same folder and is named
    ``.NAME.PID-xxxxxxxx.part``, so that what a killed process leaves behind
    is recognised (`is_leftover`) and is no member of a data set.

    Parameters
    ----------
    path : path
        Where the finished file goes; a file that is there is replaced.

    Yields
    ------
    pathlib.Path
        The temporary name to write to. A block that writes nothing leaves
        nothing.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("done")
    >>> [p.name for p in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield temporary
        if temporary.exists():
            _sync(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_leftover(path: str | Path) -> bool:
    """Whether a file is what an interrupted `atomic_path` left behind.

    Parameters
    ----------
    path : path
        Only the name is looked at.

    Examples
    --------
    >>> is_leftover("out/.a.parquet.123-0badcafe.part"), is_leftover("out/a.parquet")
    (True, False)
    """
    return _LEFTOVER.match(Path(path).name) is not None


def _sync(path: Path) -> None:
    # Without this a power cut after the rename could leave an empty file.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
