"""Catalogues and runs in the formats and under the names that others expect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from imcat.catalogue.fields import FieldTable
from imcat.catalogue.files import is_leftover
from imcat.catalogue.formats import write_csv, write_ecsv, write_fits
from imcat.catalogue.names import rename
from imcat.catalogue.parquet import read_parquet, write_parquet, write_parquet_table
from imcat.catalogue.regions import write_regions
from imcat.catalogue.resolve import read_footprints
from imcat.catalogue.table import Catalogue, concatenate
from imcat.catalogue.votable import write_votable
from imcat.errors import InputError, OutputError, UsageError

__all__ = ["FORMATS", "export", "read_run", "source_files", "write_table"]


def _write_regions(table: FieldTable, path: Path) -> None:
    write_regions(table.columns, path)


#: Writers by the ending of a file's name.
FORMATS: dict[str, Callable[[FieldTable, Path], None]] = {
    ".fits": write_fits,
    ".vot": write_votable,
    ".ecsv": write_ecsv,
    ".parquet": write_parquet_table,
    ".csv": write_csv,
    ".reg": _write_regions,
}


def export(
    source: Catalogue | str | Path, path: str | Path, names: str = "imcat", primary: bool = False
) -> int:
    """Write a catalogue, or that of a run, to one file.

    Parameters
    ----------
    source : Catalogue or path
        A catalogue, the folder of a run, or one file of its ``sources``. For a
        folder ``is_primary`` is resolved between its tiles.
    path : path
        Its ending chooses the format: ``.fits .vot .ecsv .parquet .csv .reg``.
    names : str
        ``imcat``, ``sdss`` or ``sextractor`` (regions have no names).
    primary : bool
        Leave out sources that are counted in another tile.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    UsageError
        If the ending or the convention is unknown.
    InputError
        If the source cannot be read.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    _check_ending(path)
    catalogue = source if isinstance(source, Catalogue) else _read(Path(source))
    if primary:
        catalogue = catalogue.select(catalogue["is_primary"])
    if names == "imcat" and path.suffix.lower() == ".parquet":
        # With all that is needed to read it as a Catalogue again.
        _guarded(lambda: write_parquet(catalogue, path), path)
    else:
        write_table(rename(catalogue, "imcat" if path.suffix.lower() == ".reg" else names), path)
    return len(catalogue)


def write_table(table: FieldTable, path: str | Path) -> None:
    """Write a table in the format that the file's ending names.

    Parameters
    ----------
    table : FieldTable
        What to write.
    path : path
        Replaced when it is there.

    Raises
    ------
    UsageError
        If no format has that ending.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    _check_ending(path)
    _guarded(lambda: FORMATS[path.suffix.lower()](table, path), path)


def source_files(run_dir: str | Path) -> list[Path]:
    """Source files of a run, sorted by name, without what an interrupted run left behind.

    Parameters
    ----------
    run_dir : path
        Folder of a run.

    Raises
    ------
    InputError
        If there is none.
    """
    folder = Path(run_dir) / "sources"
    files = sorted(p for p in folder.glob("*.parquet") if not is_leftover(p))
    if not files:
        found = "no source file in it" if folder.is_dir() else "no such folder"
        raise InputError(found, path=folder, expected="the folder sources/ of a run with one file a tile")
    return files


def read_run(run_dir: str | Path) -> Catalogue:
    """The catalogue of a whole run, with ``is_primary`` resolved between its tiles.

    Parameters
    ----------
    run_dir : path
        Folder of a run.

    Raises
    ------
    InputError
        If it holds no source file, or one that cannot be read.
    """
    catalogue = concatenate([read_parquet(path) for path in source_files(run_dir)])
    if not (Path(run_dir) / "run.json").exists():
        return catalogue  # a bare data set: nothing is known of footprints
    resolved = read_footprints(run_dir).primary(
        catalogue["ra"], catalogue["dec"], catalogue["tile"], catalogue["is_primary"]
    )
    return catalogue.with_columns({"is_primary": resolved})


def _read(path: Path) -> Catalogue:
    return read_run(path) if path.is_dir() else read_parquet(path)


def _check_ending(path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"{path}: no format has the ending {path.suffix or '(none)'!r}; expected one of {' '.join(FORMATS)}"
        )


def _guarded(write: Callable[[], None], path: Path) -> None:
    try:
        write()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None
