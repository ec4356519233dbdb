"""The output folder of a run: where things lie, who holds it, what may be removed."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from imcat.catalogue import is_leftover
from imcat.errors import OutputError

__all__ = ["OutputFolder", "lock_folder"]


@dataclass(frozen=True)
class OutputFolder:
    """Names of everything that a run writes.

    Attributes
    ----------
    root : pathlib.Path
        The folder OUT of the command line.
    """

    root: Path

    @property
    def ledger(self) -> Path:
        """The ledger, ``run.json``."""
        return self.root / "run.json"

    @property
    def journal(self) -> Path:
        """Tiles finished since the ledger was last written as a whole."""
        return self.root / ".run.journal"

    @property
    def sources(self) -> Path:
        """Folder of the source files."""
        return self.root / "sources"

    @property
    def images(self) -> Path:
        """Folder of the images asked for."""
        return self.root / "images"

    @property
    def report(self) -> Path:
        """Folder of the figures and the summary."""
        return self.root / "report"

    def source(self, tile: str) -> Path:
        """Source file of a tile."""
        return self.sources / f"{tile}.parquet"

    def image(self, tile: str, band: str, kind: str) -> Path:
        """One image of a tile."""
        return self.images / f"{tile}-{band}-{kind}.fits.fz"

    def figure(self, tile: str) -> Path:
        """Overview figure of a tile."""
        return self.report / f"{tile}.png"

    def engines_figure(self, tile: str) -> Path:
        """Stamps of what only one engine found."""
        return self.report / f"{tile}.engines.png"

    def preview(self, tile: str) -> Path:
        """Arrays that the overview figure is drawn from; removed once it is drawn."""
        return self.report / f".{tile}.npz"

    def holds_run(self) -> bool:
        """Whether a run has begun here."""
        return self.ledger.exists() or self.journal.exists()

    def is_empty(self) -> bool:
        """Whether nothing is here but what an interrupted write left behind."""
        if not self.root.exists():
            return True
        empty_ones = {self.sources, self.images, self.report}
        return all(
            is_leftover(entry) or (entry in empty_ones and entry.is_dir() and not any(entry.iterdir()))
            for entry in self.root.iterdir()
        )

    def check(self, resume: bool) -> None:
        """Refuse a folder that a run must not write to.

        Parameters
        ----------
        resume : bool
            Whether to go on with the run that the folder holds.

        Raises
        ------
        OutputError
            If it is no folder, holds a run and `resume` is false, or holds
            other files.
        """
        if self.root.exists() and not self.root.is_dir():
            raise OutputError(
                f"{self.root}: a file stands where the output folder should be; name another one"
            )
        if self.holds_run():
            if not resume:
                raise OutputError(
                    f"{self.root}: holds a run already; add --resume to go on with it, or name another folder"
                )
        elif not self.is_empty():
            raise OutputError(
                f"{self.root}: holds files that are not of a run; expected an absent or empty folder"
            )

    def create(self, images: bool, report: bool) -> None:
        """Make the folders that a run needs.

        Raises
        ------
        OutputError
            If one cannot be made.
        """
        wanted = [self.sources] + [self.images] * images + [self.report] * report
        for folder in wanted:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{folder}: the folder cannot be made ({error.strerror})") from None

    def remove_leftovers(self) -> int:
        """Remove half-written files; returns how many there were."""
        removed = 0
        for folder in (self.root, self.sources, self.images, self.report):
            for entry in list(folder.iterdir()) if folder.is_dir() else []:
                if is_leftover(entry):
                    entry.unlink(missing_ok=True)
                    removed += 1
        return removed

    def remove_run(self, keep_root: bool) -> None:
        """Remove a run that wrote no source file, so that nothing half-written is left.

        Parameters
        ----------
        keep_root : bool
            Whether the folder itself was there before.
        """
        self.remove_leftovers()
        for file in (self.ledger, self.journal):
            file.unlink(missing_ok=True)
        for folder in (self.sources, self.images, self.report):
            shutil.rmtree(folder, ignore_errors=True)
        if not keep_root and not any(self.root.iterdir()):
            self.root.rmdir()


def lock_folder(folder: Path) -> int | None:
    """Hold a folder against other runs until the process ends or closes the lock.

    Parameters
    ----------
    folder : pathlib.Path
        An existing folder.

    Returns
    -------
    int or None
        File descriptor that carries the lock; None where the file system has no locks.

    Raises
    ------
    OutputError
        If another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not a Unix
        return None
    # The folder itself is locked: a lock file would be one more thing to leave behind, and
    # the kernel releases this one however the process ends.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OutputError(
            f"{folder}: another imcat is writing there; wait for it or name another folder"
        ) from None
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
