"""Stamps against analytic images and against scipy's interpolation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from imcat.align import AlignSettings, map_grids
from imcat.errors import ConfigError
from imcat.measure import Layer
from imcat.noise import NoiseSettings, measure_noise
from imcat.stamps import Stamps, StampSettings, band_conditions, compress, cut_stamps, expand, stamp_windows
from imcat.surveys.fits_header import Header
from imcat.surveys.sky_wcs import celestial_wcs
from imcat.tile import ArrayPixels, Exposure

SIDE = 200
SCALE = 0.4  # arcsec


def wcs(dx: float = 0.0, dy: float = 0.0, scale: float = SCALE, angle: float = 0.0) -> object:
    step, c, s = scale / 3600, np.cos(np.radians(angle)), np.sin(np.radians(angle))
    header = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 180.0, "CRVAL2": 10.0,
        "CRPIX1": 0.5 * SIDE + dx, "CRPIX2": 0.5 * SIDE + dy,
        "CD1_1": -step * c, "CD1_2": step * s, "CD2_1": step * s, "CD2_2": step * c,
    }  # fmt: skip
    return celestial_wcs(Header(header), (SIDE, SIDE), "test")


def layer(image: NDArray[np.float32], variance: float = 1.0, band: str = "r", **place: float) -> Layer:
    # A whisper of noise: a constant image is refused.
    image = image + np.random.default_rng(1).normal(0, 1e-3, image.shape).astype(np.float32)
    exposure = Exposure(
        name=band, image=ArrayPixels(image), wcs=wcs(**place),
        variance=ArrayPixels(np.full(image.shape, variance, np.float32)),
        mask=ArrayPixels(np.zeros(image.shape, np.uint16)), zero_point=31.4, psf_fwhm=1.2,
    )  # fmt: skip
    reference = wcs()
    grid = map_grids(reference, (SIDE, SIDE), exposure.wcs, image.shape, AlignSettings())
    noise = replace(measure_noise(exposure, NoiseSettings(subtract_background=False)), variance_scale=1.0)
    return Layer(band, exposure, noise, grid, 1.2 / 2.3548, 1.0)


def gaussian(x: float, y: float, sigma: float = 2.0) -> NDArray[np.float32]:
    v, u = np.mgrid[:SIDE, :SIDE]
    return (1000 * np.exp(-0.5 * ((u - x) ** 2 + (v - y) ** 2) / sigma**2)).astype(np.float32)


def cut(layers: list[Layer], x: float, y: float, **settings: float) -> Stamps:
    waves = {one.band: 6000.0 + 1000 * k for k, one in enumerate(layers)}
    return cut_stamps(
        layers,
        waves,
        layers[0].exposure,
        np.array([x]),
        np.array([y]),
        SCALE,
        StampSettings(**settings),  # type: ignore[arg-type]
    )


def test_a_source_is_centred_to_a_fraction_of_a_pixel() -> None:
    stamps = cut([layer(gaussian(90.3, 101.7))], 90.3, 101.7)
    v, u = np.mgrid[:40, :40] - 19.5
    expected = 1000 * np.exp(-0.5 * (u**2 + v**2) / 4)
    assert np.abs(stamps.signal[0, 0] - expected).max() < 12  # of 1000: what cubic interpolation leaves
    assert stamps.noise[0, 0] == pytest.approx(1.0, rel=1e-5)


def test_shift_and_general_interpolation_agree() -> None:
    image = np.random.default_rng(1).normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    own = layer(image)
    stamps = cut([own], 90.3, 101.7)
    turned = layer(image, angle=0.3)  # enough to leave the fast path
    v, u = np.mgrid[:40, :40] - 19.5
    expected = map_coordinates(image, [v + 101.7, u + 90.3], order=3, prefilter=False, mode="nearest")
    # scipy's spline without its prefilter smooths; Catmull-Rom is compared by hand in a few pixels.
    w = catmull_rom(90.3 - 19.5), catmull_rom(101.7 - 19.5)
    corner = image[int(101.7 - 19.5) - 1 : int(101.7 - 19.5) + 3, int(90.3 - 19.5) - 1 : int(90.3 - 19.5) + 3]
    assert stamps.signal[0, 0, 0, 0] == pytest.approx(float(w[1] @ corner @ w[0]), abs=5e-3)
    assert np.corrcoef(stamps.signal[0, 0].ravel(), expected.ravel())[0, 1] > 0.85
    assert turned.exposure.shape == own.exposure.shape


def catmull_rom(position: float) -> NDArray[np.float64]:
    t = position - int(position)
    return np.array(
        [
            ((-0.5 * t + 1) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1,
            ((-1.5 * t + 2) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
    )


def test_bands_on_other_grids_show_the_source_at_the_same_place() -> None:
    # The same sky on a grid that is shifted, turned and half as fine: surface brightness is per pixel.
    first, second = layer(gaussian(99.0, 99.0)), wcs(dx=7.3, dy=-4.6, scale=0.5, angle=20.0)
    ra, dec = first.exposure.wcs.all_pix2world(99.0, 99.0, 0)  # type: ignore[attr-defined]
    x, y = second.all_world2pix(ra, dec, 0)  # type: ignore[attr-defined]
    coarse = layer(
        gaussian(float(x), float(y), sigma=2.0 * 0.8), band="i", dx=7.3, dy=-4.6, scale=0.5, angle=20.0
    )
    stamps = cut([first, coarse], 99.0, 99.0)
    v, u = np.mgrid[:40, :40] - 19.5
    for band in range(2):
        light = stamps.signal[0, band]
        assert float((light * u).sum() / light.sum()) == pytest.approx(0, abs=0.03)
        assert float((light * v).sum() / light.sum()) == pytest.approx(0, abs=0.03)
    # One pixel of the stamp has 0.64 of the area, and so of the light, of a coarse one.
    assert stamps.noise[0, 1] == pytest.approx(0.64, rel=1e-3)
    assert (stamps.signal[0, 1] * stamps.noise[0, 1]).sum() == pytest.approx(
        1000 * 2 * np.pi * 1.6**2, rel=0.01
    )


def test_exposures_of_a_band_are_averaged_by_their_variance() -> None:
    deep, shallow = (
        layer(np.full((SIDE, SIDE), 2.0, np.float32), 1.0),
        layer(np.full((SIDE, SIDE), 5.0, np.float32), 4.0),
    )
    stamps = cut([deep, shallow], 99.0, 99.0)
    assert stamps.noise[0, 0] == pytest.approx((1 / (1 + 0.25)) ** 0.5, rel=1e-4)
    assert (stamps.signal * stamps.noise[..., None, None]) == pytest.approx((2 + 5 / 4) / 1.25, rel=3e-3)


def test_edges_and_bad_pixels_have_no_data() -> None:
    image = gaussian(5.0, 100.0)
    image[90:95, 10] = np.nan
    stamps = cut([layer(image)], 5.0, 100.0)
    assert not stamps.valid[0, 0, :, :14].any()
    assert stamps.valid[0, 0, :, 16:20].all()
    assert (stamps.signal[stamps.valid == 0] == 0).all()
    assert np.isfinite(stamps.signal).all()
    outside = cut([layer(image)], -500.0, 100.0)
    assert not outside.valid.any()
    assert np.isnan(outside.noise).all()


def test_colour_survives_the_scaling() -> None:
    stamps = cut([layer(gaussian(99, 99), 1.0), layer(0.5 * gaussian(99, 99), 9.0, "i")], 99.0, 99.0)
    values, told = expand(compress(stamps.signal)), band_conditions(stamps)
    flux = (values * np.exp(told[..., 2])[..., None, None]).sum(axis=(2, 3))[0]
    assert flux[0] / flux[1] == pytest.approx(2.0, rel=1e-3)


def test_every_source_is_in_one_batch() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-5, 2100, 3000), rng.uniform(-5, 1500, 3000)
    x[0] = np.nan
    batches = stamp_windows((1489, 2048), x, y)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(3000))
    assert max(map(len, batches)) <= 512


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="size"):
        StampSettings(size=4)
    with pytest.raises(ConfigError, match="pixel"):
        StampSettings(pixel=-1)
    with pytest.raises(ConfigError, match="binning"):
        StampSettings(binning=0)


def test_binned_stamps_show_twice_as_much_and_keep_the_light() -> None:
    one = layer(gaussian(99.0, 99.0))
    fine, wide = cut([one], 99.0, 99.0, size=80), cut([one], 99.0, 99.0, size=40, binning=2)
    assert wide.signal.shape == (1, 1, 40, 40)
    assert wide.pixel == pytest.approx(2 * SCALE)
    assert wide.noise[0, 0] == pytest.approx(2 * fine.noise[0, 0])
    squares = fine.signal.reshape(1, 1, 40, 2, 40, 2).sum((3, 5))
    np.testing.assert_allclose(wide.signal * 2, squares, rtol=1e-5, atol=1e-4)
    light = (wide.signal[0, 0] * wide.noise[0, 0]).sum()
    assert light == pytest.approx(1000 * 2 * np.pi * 2.0**2, rel=0.01)


def test_a_binned_pixel_makes_up_for_what_is_missing() -> None:
    image = np.full((SIDE, SIDE), 5.0, np.float32)
    image[100, :] = np.nan
    wide = cut([layer(image)], 99.0, 99.0, size=16, binning=2)
    known = wide.valid[0, 0] > 0
    assert 0.7 < known.mean() < 1
    np.testing.assert_allclose(
        wide.signal[0, 0][known], 10.0, rtol=2e-3
    )  # four pixels of 5, in units of noise 2
