"""SDSS reader on real fields."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import binary_dilation, gaussian_filter

from imcat.surveys import find_tiles, read_tile
from imcat.surveys.sdss_companions import companion_files, read_facts
from imcat.tile import Exposure, Tile
from imcat.window import Window

pytestmark = pytest.mark.realdata

FIELDS = ["003918-3-0213", "008115-2-0181", "008162-6-0080", "001992-1-0087"]


@pytest.fixture(scope="module")
def tiles(data_dir: Path) -> dict[str, Tile]:
    sources = find_tiles([data_dir / "sdss" / "fields" / name for name in FIELDS])
    return {s.name: read_tile(s, threads=os.cpu_count() or 1) for s in sources}


def test_groups_and_missing_bands(tiles: dict[str, Tile]) -> None:
    assert sorted(tiles) == sorted(FIELDS)
    assert tiles["008115-2-0181"].band_names == ("u", "g", "z")
    assert tiles["008115-2-0181"].reference == "g"
    assert tiles["003918-3-0213"].band_names == ("u", "g", "r", "i", "z")
    assert tiles["003918-3-0213"].primary_rows == (64.0, 1425.0)


def test_wcs_is_that_of_the_file(tiles: dict[str, Tile], data_dir: Path) -> None:
    path = data_dir / "sdss/fields/003918-3-0213/frame-r-003918-3-0213.fits.bz2"
    header = fits.getheader(path)
    header.rename_keyword("RADECSYS", "RADESYS")
    for key in ("DATE-OBS", "TIMESYS"):  # astropy would warn that it derives MJD-OBS from them
        del header[key]
    x, y = np.array([0.0, 1000.5, 2047.0]), np.array([0.0, 600.25, 1488.0])
    ours = tiles["003918-3-0213"].reference_exposure.wcs.pixel_to_world_values(x, y)
    np.testing.assert_allclose(ours, WCS(header).pixel_to_world_values(x, y), atol=1e-10)


def test_listed_galaxies_lie_on_light(tiles: dict[str, Tile], data_dir: Path) -> None:
    listed = np.loadtxt(data_dir / "sdss/catalogues/003918-3-0213_gals.csv", delimiter=",")[:, :2]
    image = tiles["003918-3-0213"].reference_exposure.read(Window.whole((1489, 2048))).data
    smooth = gaussian_filter(image, 1.5)
    inside = ((listed > 5) & (listed < [2042, 1483])).all(axis=1)
    x, y = np.rint(listed[inside]).astype(int).T
    assert np.mean(smooth[y, x] > 3 * np.std(smooth[::9, ::9][np.abs(smooth[::9, ::9]) < 30])) > 0.85


def blank_sky_ratio(exposure: Exposure) -> float:
    """Clipped rms of blank sky over the rebuilt one."""
    cutout = exposure.read(Window.whole(exposure.shape))
    assert cutout.variance is not None
    pull = cutout.data / np.sqrt(cutout.variance)
    smooth = gaussian_filter(pull, 2.0)
    centre, spread = np.median(smooth), np.percentile(smooth, 50) - np.percentile(smooth, 16)
    sky = pull[~binary_dilation(smooth > centre + 4 * spread, iterations=6)]
    for _ in range(10):
        median, rms = np.median(sky), sky.std()
        kept = sky[np.abs(sky - median) < 3 * rms]
        if kept.size == sky.size:
            break
        sky = kept
    return float(sky.std() / 0.98658)


@pytest.mark.parametrize("name", FIELDS)
def test_rebuilt_variance_is_that_of_blank_sky(tiles: dict[str, Tile], name: str) -> None:
    ratios = {band.name: blank_sky_ratio(e) for band, e in tiles[name].exposures()}
    print(name, {band: round(ratio, 3) for band, ratio in ratios.items()})
    assert all(0.90 <= ratio <= 1.10 for ratio in ratios.values()), ratios


def test_bright_stars_are_saturated(tiles: dict[str, Tile]) -> None:
    mask = tiles["008162-6-0080"].reference_exposure.mask
    assert mask is not None
    found = mask.read(Window.whole(mask.shape)) > 0
    assert found[1366:1382, 1571:1588].sum() > 5  # the brightest star of the field
    assert found.mean() < 1e-4


def test_companions_beside_a_frame(data_dir: Path) -> None:
    folder = data_dir / "sdss" / "catalogues"
    (source,) = find_tiles([folder / "frame-u-003900-6-0269.fits.bz2"])
    assert len(source.files) == 4
    tile = read_tile(source)
    (exposure,) = tile.bands[0].exposures
    objects = fits.getdata(folder / "photoObj-003900-6-0269.fits", 1)
    assert tile.extinction["u"] == pytest.approx(np.median(objects["EXTINCTION"][:, 0]))
    # The time of an object is that of its row.
    clock = 0.026322
    middle = np.median(objects["TAI"][:, 0] - objects["ROWC"][:, 0] * clock + 744 * clock) / 86400
    assert exposure.mjd == pytest.approx(middle, abs=0.2 / 86400)
    assert exposure.psf_fwhm == pytest.approx(np.median(objects["PSF_FWHM"][:, 0]), rel=0.1)
    psf = exposure.psf.image(1000.0, 700.0)
    assert psf.shape == (51, 51)
    assert psf.sum() == pytest.approx(1)
    assert np.unravel_index(psf.argmax(), psf.shape) == (25, 25)


def test_psf_models_agree_with_objects(data_dir: Path) -> None:
    folder = data_dir / "sdss" / "catalogues"
    facts = read_facts(companion_files([str(folder)], 3900, 6, 269), 269, ["g", "r", "i"])
    objects = fits.getdata(folder / "photoObj-003900-6-0269.fits", 1)
    for index, band in ((1, "g"), (2, "r"), (3, "i")):
        assert facts.psf_fwhm[band] == pytest.approx(np.median(objects["PSF_FWHM"][:, index]), rel=0.08)
        image = facts.psf[band].image(1024.0, 744.0)
        width = 2 * np.sqrt((image > image.max() / 2).sum() / np.pi) * 0.396
        assert width == pytest.approx(facts.psf_fwhm[band], rel=0.15)
    assert facts.saturation["i"] == 27653 - 1000
