"""Simulated sources in real pixels: light, places, photon noise, mix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.wcs import WCS

from imcat.catalogue.fields import AB_FLUX
from imcat.errors import ConfigError
from imcat.psf.mixture import moffat_mixture
from imcat.simulate.inject import ExposureLight, Injected, inject, kinds
from imcat.simulate.scene import Models
from imcat.simulate.settings import InjectSettings
from imcat.tile import ArrayPixels, Band, Exposure, Tile
from imcat.window import Window

SHAPE = (240, 260)
NOISE = 30.0  # nJy


@pytest.fixture(scope="module")
def models() -> Models:
    return Models.load()


def _tile(gain: float | None = None, shift: float = 0.0) -> Tile:
    """Two empty bands, the second shifted by some pixels."""
    bands = []
    for k, (name, wavelength) in enumerate((("g", 4770.0), ("r", 6231.0))):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = [150.0, 40.0]
        wcs.wcs.crpix = [130.0 + k * shift, 120.0]
        wcs.wcs.cdelt = [-0.396 / 3600, 0.396 / 3600]
        image = ArrayPixels(np.zeros(SHAPE, np.float32))
        bands.append(Band(name, wavelength, (Exposure(name, image, wcs, gain=gain),)))
    return Tile("t", "sdss", 7, tuple(bands), "r")


def _lights(enclosed: float = 1.0) -> list[ExposureLight]:
    return [ExposureLight(moffat_mixture(3.0, 3.0), enclosed, NOISE)] * 2


def _image(tile: Tile, band: str) -> np.ndarray:
    return np.asarray(tile.band(band).exposures[0].image.read(Window.whole(SHAPE)))


STARS = InjectSettings(galaxies=0.0, quasars=0.0)


def test_light_is_that_of_the_magnitudes_and_lies_at_the_places(models: Models) -> None:
    tile = _tile(shift=5.0)
    changed, added = inject(tile, _lights(), 12, replace(STARS, brighter=5.0, fainter=-3.0), models)
    assert isinstance(added, Injected)
    assert np.all(added.kind == 0)
    assert not _image(tile, "g").any()
    for k, band in enumerate(("g", "r")):
        image = _image(changed, band)
        flux = AB_FLUX * 10 ** (-0.4 * added.mag[:, k])
        # Wings reach over the edge and end below the noise.
        assert image.sum() == pytest.approx(flux.sum(), rel=0.03)
        rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
        middle = (image * columns).sum() / image.sum(), (image * rows).sum() / image.sum()
        expected = (flux * (added.x + 5.0 * k - 5.0)).sum() / flux.sum(), (flux * added.y).sum() / flux.sum()
        # The reference is r, which lies 5 pixels to the right of g.
        np.testing.assert_allclose(middle, expected, atol=1.0)


def test_magnitudes_refer_to_the_enclosed_share_of_the_light(models: Models) -> None:
    whole, _ = inject(_tile(), _lights(), 10, STARS, models)
    part, _ = inject(_tile(), _lights(0.9), 10, STARS, models)
    assert _image(part, "r").sum() == pytest.approx(_image(whole, "r").sum() / 0.9, rel=1e-4)


def test_as_many_of_each_magnitude_about_the_limit(models: Models) -> None:
    _, added = inject(_tile(), _lights(), 400, InjectSettings(brighter=4.0, fainter=1.0), models)
    r = added.mag[:, 1]
    # A point source at the limit has S/N 5 in the matched filter.
    p = np.asarray(moffat_mixture(3.0, 3.0).image(41, 130.0, 120.0))
    flux = AB_FLUX * 10 ** (-0.4 * added.limit)
    assert flux * np.sqrt((p**2).sum()) / NOISE == pytest.approx(5, rel=0.02)
    assert added.limit - 4 <= r.min() < r.max() <= added.limit + 1
    counts, _ = np.histogram(r, np.linspace(added.limit - 4, added.limit + 1, 6))
    assert counts.sum() == 400
    assert np.all(np.abs(counts - 80) < 45)
    own = kinds(added.kind)
    assert set(own) == {"star", "galaxy", "quasar"}
    assert own["galaxy"].sum() > own["star"].sum() > own["quasar"].sum()
    assert np.all((added.x > 7) & (added.x < SHAPE[1] - 8) & (added.y > 7) & (added.y < SHAPE[0] - 8))


def test_light_brings_its_photon_noise(models: Models) -> None:
    gain = 1.0  # electrons for one nJy
    quiet, _ = inject(_tile(), _lights(), 60, STARS, models)
    noisy, _ = inject(_tile(gain), _lights(), 60, STARS, models)
    expected = _image(quiet, "r").astype(float)
    bright = expected > 200 / gain
    assert bright.sum() > 20
    pull = (_image(noisy, "r")[bright] - expected[bright]) / np.sqrt(expected[bright] / gain)
    assert pull.std() == pytest.approx(1, abs=0.35)
    assert np.abs(pull.mean()) < 0.5
    # A pixel holds whole electrons.
    faint = (expected > 0) & (expected < 20 / gain)
    electrons = _image(noisy, "r")[faint] * gain
    np.testing.assert_allclose(electrons, np.rint(electrons), atol=1e-3)


def test_the_same_seed_gives_the_same_sources(models: Models) -> None:
    first, second, third = (
        inject(_tile(), _lights(), 5, InjectSettings(seed=s), models)[1] for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.mag, second.mag)
    assert not np.array_equal(first.x, third.x)


def test_bands_of_unknown_cameras_lie_between_those_of_sdss(models: Models) -> None:
    tile = _tile()
    renamed = replace(
        tile, survey="generic", reference="f2",
        bands=(replace(tile.bands[0], name="f1", wavelength=5500.0), replace(tile.bands[1], name="f2")),
    )  # fmt: skip
    _, added = inject(renamed, _lights(), 50, InjectSettings(), models)
    assert np.isfinite(added.mag).all()
    assert 0 < np.median(added.mag[:, 0] - added.mag[:, 1]) < 1.0


@pytest.mark.parametrize(("values", "message"), [
    ({"brighter": -2.0, "fainter": 1.0}, "leave no magnitudes"),
    ({"stars": -1.0}, "0 or more"),
    ({"stars": 0.0, "galaxies": 0.0, "quasars": 0.0}, "one of them positive"),
])  # fmt: skip
def test_settings_that_leave_nothing_are_refused(
    values: dict[str, float], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        InjectSettings(**values)
