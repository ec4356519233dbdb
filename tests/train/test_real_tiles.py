"""What training keeps of real tiles: made once for each, read again after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imcat.errors import InputError
from imcat.simulate.scene import Models
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import observe, write_tile
from imcat.tile import Tile
from imcat.train.real_tiles import kept_for_tiles


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data with one tile."""
    settings = SimulateSettings(density=20.0, star_density=20.0)
    folder = tmp_path / "data" / "fields" / "one"
    (tmp_path / "data" / "populations").mkdir(parents=True)
    write_tile(folder, observe("sdss", 0, 3, settings, (96, 128)), settings, Models.load(), 3)
    monkeypatch.setenv("IMCAT_DATA", str(tmp_path / "data"))
    return tmp_path


def test_a_tile_is_made_once_and_kept(data: Path) -> None:
    made: list[tuple[int, int]] = []

    def make(tile: Tile, path: Path) -> None:
        made.append(tile.shape)
        np.savez(path, shape=tile.shape)

    for _ in range(2):
        (path,) = kept_for_tiles(["fields/one"], data / "kept", "sky-{}-96", make)
    assert path == data / "kept" / "sky-one-96.npz"
    assert made == [(96, 128)]
    assert np.load(path)["shape"].tolist() == [96, 128]


def test_what_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(InputError, match="two"):
        kept_for_tiles(["fields/two"], data / "kept", "sky-{}", lambda tile, path: None)
    assert not list((data / "kept").iterdir())
