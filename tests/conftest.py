"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

# Tests run side by side, one on each core: more threads in each would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("IMCAT_THREADS", "1")

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


def _data_dir() -> Path | None:
    named = os.environ.get("IMCAT_DATA")
    folder = Path(named) if named else _DEFAULT
    return folder if folder.is_dir() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of real data where the data are not there."""
    if _data_dir() is not None:
        return
    skip = pytest.mark.skip(reason="real data absent: set IMCAT_DATA to the folder that holds them")
    for item in items:
        if "realdata" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real and independent data."""
    folder = _data_dir()
    if folder is None:
        pytest.skip("real data absent: set IMCAT_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def alive() -> Callable[[int], bool]:
    """A function that tells whether the process of a number still runs."""
    return _alive


def _alive(pid: int) -> bool:
    # It may end, and its entry go, at any moment: before the file is opened, or between opening and reading.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # One that has ended and that nobody has asked for yet is a zombie.
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture(scope="session")
def write_tile() -> Callable[..., Path]:
    """A function that writes a small generic tile: images of stars, and the TOML file that names them.

    ``write_tile(folder, name, seed=1, size=96, bands=("g", "r"), position=(150, 2), stars=12, **keywords)``
    returns the TOML file; keywords are added to each band of it. The images are ``NAME-BAND.fits``,
    their noise has an rms of 1, and there is no other noise in them.
    """
    return _write_tile


def _write_tile(
    folder: Path,
    name: str,
    seed: int = 1,
    size: int = 96,
    bands: tuple[str, ...] = ("g", "r"),
    position: tuple[float, float] = (150.0, 2.0),
    stars: int = 12,
    **keywords: Any,
) -> Path:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(8, size - 8, (2, stars))
    flux = rng.uniform(150, 900, stars)
    rows, columns = np.mgrid[:size, :size]
    lines = [f'name = "{name}"']
    for k, band in enumerate(bands):
        image = rng.normal(0, 1, (size, size))
        for x_star, y_star, f in zip(x, y, flux, strict=True):
            image += (
                f
                / (2 * np.pi * 1.5**2)
                * np.exp(-((columns - x_star) ** 2 + (rows - y_star) ** 2) / (2 * 1.5**2))
            )
        header = fits.Header()
        for axis, value in ((1, position[0]), (2, position[1])):
            header[f"CTYPE{axis}"] = ("RA---TAN", "DEC--TAN")[axis - 1]
            header[f"CRVAL{axis}"] = value
            header[f"CRPIX{axis}"] = (size + 1) / 2
            header[f"CD{axis}_{axis}"] = (-1, 1)[axis - 1] * 0.4 / 3600
        fits.writeto(folder / f"{name}-{band}.fits", image.astype(np.float32), header)
        values = {
            "image": f"{name}-{band}.fits",
            "zero_point": 22.5,
            "wavelength": 4700.0 + 1500 * k,
            **keywords,
        }
        lines += [f"[bands.{band}]", *(f"{key} = {value!r}" for key, value in values.items())]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path
