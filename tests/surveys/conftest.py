"""Small survey files, made by the writers or by astropy."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from imcat.surveys.csst_write import Level1Exposure, write_level1
from imcat.surveys.sdss import FieldId
from imcat.surveys.sdss_write import SdssFrame, sky_grid, write_frames

FIELD = FieldId(3918, 3, 213)
SHAPE = (48, 64)


def tan(shape: tuple[int, int], ra: float = 150.0, dec: float = 2.0, scale: float = 0.396) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [shape[1] / 2 + 0.5, shape[0] / 2 + 0.5]
    wcs.wcs.cd = np.array([[-scale, 0.0], [0.0, scale]]) / 3600
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.set()
    return wcs


@pytest.fixture(scope="session")
def make_wcs() -> Callable[..., WCS]:
    return tan


def frame(band: str, shape: tuple[int, int] = SHAPE, seed: int = 1) -> SdssFrame:
    rng = np.random.default_rng(seed)
    calibration = np.linspace(0.004, 0.006, shape[1]).astype(np.float32)
    data = (rng.normal(0, 6, shape) * calibration).astype(np.float32)
    return SdssFrame(band, data, calibration, sky_grid(shape, 120.0, (10.0, -6.0)), tan(shape), 4.5e9)


@pytest.fixture(scope="session")
def make_frame() -> Callable[..., SdssFrame]:
    return frame


@pytest.fixture
def sdss_folder(tmp_path: Path) -> Path:
    """A field with g and r, packed with bzip2."""
    write_frames(tmp_path / "sdss", FIELD, [frame("g", seed=1), frame("r", seed=2)])
    return tmp_path / "sdss"


def generic_tile(folder: Path, shape: tuple[int, int] = SHAPE, **changes: Any) -> Path:
    """A tile of two bands with noise of rms 2 units; `changes` are keywords of band r."""
    folder.mkdir(exist_ok=True, parents=True)
    rng = np.random.default_rng(7)
    text = ['name = "field-1"', 'reference = "r"']
    for band, wavelength, ra in (("g", 4686, 150.0), ("r", 6166, changes.pop("ra", 150.0))):
        image = fits.PrimaryHDU(rng.normal(0, 2, shape).astype("f4"), tan(shape, ra).to_header())
        image.writeto(folder / f"{band}.fits", overwrite=True)
        keys: dict[str, Any] = {"image": f"{band}.fits", "zero_point": 22.5, "wavelength": wavelength}
        if band == "r":
            keys.update(changes)
        text.append(f"[bands.{band}]")
        text += [f"{k} = {json.dumps(v)}" for k, v in keys.items()]
    (folder / "tile.toml").write_text("\n".join(text))
    return folder / "tile.toml"


@pytest.fixture(scope="session")
def make_generic() -> Callable[..., Path]:
    return generic_tile


def level1(
    folder: Path,
    detector: int,
    obsid: int,
    *,
    ra: float = 30.0,
    shape: tuple[int, int] = (96, 128),
    zero_point: float = 25.5,
    source_noise: bool = True,
) -> list[Path]:
    """An exposure with a bright star; weights as in Cycle 5 if `source_noise`."""
    rng = np.random.default_rng(obsid % 2**32 + detector)
    y, x = np.mgrid[: shape[0], : shape[1]]
    star = 3000.0 * np.exp(-0.5 * ((y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2) / 18.0)  # electrons
    electrons = star + rng.normal(0, 1, shape) * np.sqrt(55.0 + star)
    variance = 55.0 + (np.maximum(electrons, 0) if source_noise else 0)
    flags = np.zeros(shape, np.uint16)
    flags[3, 4], flags[5, 6], flags[7, 8] = 1, 8 | 16, 128
    weight = np.where(flags > 0, 0, 150.0**2 / variance)
    exposure = Level1Exposure(
        (electrons / 150).astype(np.float32),
        weight.astype(np.float32),
        flags,
        tan(shape, ra, 5.0, 0.074),
        detector,
        obsid,
        datetime(2027, 8, 10, 8, 19, 50, tzinfo=UTC),
        zero_point,
        fwhm=0.15,
    )
    return write_level1(folder, exposure)


@pytest.fixture(scope="session")
def make_level1() -> Callable[..., list[Path]]:
    return level1
