"""What training takes from real tiles, kept in a file for each: a tile is measured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from imcat.simulate.population_tables import data_folder
from imcat.surveys import find_tiles, read_tile
from imcat.tile import Tile

__all__ = ["kept_for_tiles"]


def kept_for_tiles(
    names: Sequence[str], folder: Path, stem: str, make: Callable[[Tile, Path], None]
) -> list[Path]:
    """Files that hold what was made of real tiles; those that are there stay.

    Parameters
    ----------
    names : sequence of str
        Folders of tiles below that of real data (``IMCAT_DATA``).
    folder : path
        For the files.
    stem : str
        Of their names, with ``{}`` for the tile's.
    make : callable
        Writes the file of a tile.

    Raises
    ------
    InputError
        If there are no real data, or a tile cannot be read.
    """
    paths = []
    for name in names:
        path = folder / f"{stem.format(Path(name).name)}.npz"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (source,) = find_tiles([str(data_folder() / name)])
            make(read_tile(source), path)
        paths.append(path)
    return paths
