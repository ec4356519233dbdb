"""A tile of known sources: results against truth, and against the way they were computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sep
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter
from scipy.special import erf

from imcat.catalogue import Catalogue
from imcat.catalogue.match import match_xy
from imcat.config import Config
from imcat.flags import PixelFlag, SourceFlag
from imcat.pipeline import process_tile
from imcat.tile import ArrayPixels, Band, Exposure, Tile

SHAPE = (520, 560)
SIGMA = 1.4  # pixels, of every source
RMS = 10.0
GAIN = 5.0
PIXEL = 0.4  # arcsec


def _wcs(dx: float = 0.0, dy: float = 0.0, turn: float = 0.0) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 30.0, 5.0
    wcs.wcs.crpix = SHAPE[1] / 2 + dx, SHAPE[0] / 2 + dy
    c, s = np.cos(turn), np.sin(turn)
    wcs.wcs.cd = PIXEL / 3600 * np.array([[-c, s], [s, c]])
    return wcs


def _draw(x: np.ndarray, y: np.ndarray, flux: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
    """Gaussians integrated over pixels."""
    image = np.zeros(SHAPE)
    u = np.arange(-12, 13)
    for a, b, f in zip(x, y, flux, strict=True):
        ix, iy = round(a), round(b)

        def side(centre: float, at: int) -> np.ndarray:
            edge = (at + u - centre)[:, None] + np.array([-0.5, 0.5])
            return 0.5 * np.diff(erf(edge / sigma / np.sqrt(2)), axis=1)[:, 0]

        image[iy - 12 : iy + 13, ix - 12 : ix + 13] += f * np.outer(side(b, iy), side(a, ix))
    return image


def _population(rng: np.random.Generator, step: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    gy, gx = np.mgrid[30 : SHAPE[0] - 30 : step, 30 : SHAPE[1] - 30 : step]
    x, y = gx.ravel() + rng.uniform(-6, 6, gx.size), gy.ravel() + rng.uniform(-6, 6, gx.size)
    return x, y, 10 ** rng.uniform(3.0, 4.3, gx.size)


def _noisy(rng: np.random.Generator, image: np.ndarray, smooth: float = 0.0) -> np.ndarray:
    noise = rng.normal(0, 1, SHAPE)
    if smooth:
        noise = gaussian_filter(noise, smooth)
        noise /= noise.std()
    source = rng.normal(0, 1, SHAPE) * np.sqrt(np.maximum(image, 0) / GAIN)
    return np.asarray(image + RMS * noise + source + 50, dtype=np.float32)


def _tile(images: dict[str, np.ndarray], wcs: dict[str, WCS]) -> Tile:
    bands = tuple(
        Band(name, 5000.0 + 1000 * k, (Exposure(name, ArrayPixels(image), wcs[name], gain=GAIN),))
        for k, (name, image) in enumerate(images.items())
    )
    return Tile("t", "generic", 7, bands, "r")


@pytest.fixture(scope="module")
def two_bands() -> tuple[Tile, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    x, y, flux = _population(rng)
    # Pairs, a bright star and a masked patch, so that windows have something to disagree about.
    x, y, flux = np.append(x, x[::5] + 5), np.append(y, y[::5] + 3), np.append(flux, 0.5 * flux[::5])
    flux[20] = 3e6
    wcs = {"g": _wcs(2.3, -1.6, 0.004), "r": _wcs()}
    gx, gy = wcs["g"].all_world2pix(*wcs["r"].all_pix2world(x, y, 0), 0)
    images = {"g": _noisy(rng, _draw(gx, gy, 0.6 * flux)), "r": _noisy(rng, _draw(x, y, flux))}
    images["r"][200:204, 300:330] = np.nan
    return _tile(images, wcs), x, y, flux


def _same(first: Catalogue, second: Catalogue) -> None:
    whole = (np.asarray(first["flags"]) & int(SourceFlag.TRUNCATED)) == 0
    assert len(first) == len(second)
    assert whole.mean() > 0.9
    for name in first.columns:
        a, b = np.asarray(first[name])[whole], np.asarray(second[name])[whole]
        if name in ("x", "y"):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
        elif a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_window_size_does_not_matter(two_bands) -> None:
    tile = two_bands[0]
    whole = process_tile(tile, Config()).catalogue
    small = Config().replace(
        detect={"window_size": 150, "overlap": 64}, measure={"window_size": 170, "margin": 256}
    )
    _same(whole, process_tile(tile, small).catalogue)


def test_number_of_threads_does_not_change_a_bit(two_bands) -> None:
    config = Config().replace(detect={"window_size": 150, "overlap": 64}, measure={"window_size": 170})
    one = process_tile(two_bands[0], config, threads=1).catalogue
    two = process_tile(two_bands[0], config, threads=2).catalogue
    for name in one.columns:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_sources_colours_and_positions_are_found(two_bands) -> None:
    tile, x, y, flux = two_bands
    found = process_tile(tile, Config()).catalogue
    alone = match_xy(x, y, found["x"], found["y"], 1.0)
    bright = flux[alone.first] > 3000
    assert alone.first.size > 0.9 * x.size
    ratio = found["g_color_flux"][alone.second] / found["r_color_flux"][alone.second]
    assert np.median(ratio[bright]) == pytest.approx(0.6, abs=0.01)
    offset = np.hypot(found["x"][alone.second] - x[alone.first], found["y"][alone.second] - y[alone.first])
    assert np.median(offset[bright]) < 0.06


def test_faint_sources_keep_the_place_of_an_engine_that_knows_it(two_bands) -> None:
    places = {}
    for snr in (0.0, 60.0):
        config = Config().replace(measure={"centroid_snr": snr}, fit_models=False)
        places[snr] = process_tile(two_bands[0], config).catalogue
    light, mixed = places[0.0], places[60.0]
    np.testing.assert_array_equal(light["source_id"], mixed["source_id"])
    assert set(light["position_source"]) == {"windowed"}
    faint = np.asarray(mixed["detection_snr"]) < 60
    assert 0.1 < faint.mean() < 0.9
    np.testing.assert_array_equal(np.asarray(mixed["position_source"]) == "detection", faint)
    np.testing.assert_array_equal(light["x"][~faint], mixed["x"][~faint])
    assert np.all(light["x"][faint] != mixed["x"][faint])
    # Their errors are the network's, the same along both axes, and nothing is called a fallback.
    np.testing.assert_allclose(mixed["ra_err"][faint], mixed["dec_err"][faint], rtol=1e-3)
    assert np.all(np.asarray(mixed["ra_err"])[faint] > 0)
    assert not np.any(np.asarray(mixed["flags"])[faint] & int(SourceFlag.CENTROID_FALLBACK))
    # Fits, whose errors may be smaller, do not move them either.
    config = Config().replace(measure={"centroid_snr": 60.0}, classify_sources=False)
    fitted = process_tile(two_bands[0], config).catalogue
    assert np.isfinite(np.asarray(fitted["r_psf_flux"])[faint]).mean() > 0.9
    assert set(np.asarray(fitted["position_source"])[faint]) == {"detection"}
    np.testing.assert_array_equal(fitted["x"][faint], mixed["x"][faint])
    # The threshold engine knows no errors of its own: light decides.
    threshold = process_tile(two_bands[0], Config(detector="threshold", fit_models=False)).catalogue
    assert set(threshold["position_source"]) == {"windowed"}


def _misplaced(
    number: float, offset: tuple[float, float], seed: int = 3
) -> tuple[Tile, np.ndarray, np.ndarray]:
    """A tile whose second band lies, in pixels of its own, elsewhere than its file says."""
    rng = np.random.default_rng(seed)
    x, y, flux = _population(rng)
    some = np.arange(x.size) < number
    x, y, flux = x[some], y[some], np.maximum(flux[some], 6000)
    wcs = {"g": _wcs(2.3, -1.6, 0.3), "r": _wcs()}
    gx, gy = wcs["g"].all_world2pix(*wcs["r"].all_pix2world(x, y, 0), 0)
    inside = (gx > 20) & (gx < SHAPE[1] - 20) & (gy > 20) & (gy < SHAPE[0] - 20)
    image = _draw(gx[inside] + offset[0], gy[inside] + offset[1], 4 * flux[inside])
    images = {"g": _noisy(rng, image), "r": _noisy(rng, _draw(x, y, flux))}
    return _tile(images, wcs), x, y


def test_an_offset_between_bands_is_measured_and_taken_away() -> None:
    tile, x, y = _misplaced(np.inf, (0.35, -0.2))
    quick = Config().replace(fit_models=False, classify_sources=False)
    median, pull = {}, {}
    for stars in (0, 100):
        found = process_tile(
            tile, quick.replace(measure={"registration_stars": stars, "registration_error": 0.02})
        ).catalogue
        pair = match_xy(x, y, found["x"], found["y"], 1.0)
        away = np.stack([found["x"][pair.second] - x[pair.first], found["y"][pair.second] - y[pair.first]])
        median[stars] = float(np.median(np.hypot(*away)))
        pull[stars] = float(np.std(away[0] * PIXEL / found["ra_err"][pair.second]))
        if stars:
            dx, dy, error, number = found.meta["registration"]["g"]
            assert (dx, dy) == pytest.approx((0.35 * PIXEL, -0.2 * PIXEL), abs=0.01)
            assert error < 0.01
            assert 50 < number <= 100
            assert found.meta["registration"]["r"] == [0.0, 0.0, 0.0, 0]
            # g, four times as bright, tells most of the place; and apertures sit on the light.
            ratio = found["g_color_flux"][pair.second] / found["r_color_flux"][pair.second]
            seen = found["g_color_flux"][pair.second] > 1e3
            assert np.nanmedian(ratio[seen]) == pytest.approx(4.0, abs=0.03)
    assert median[100] < 0.3 * median[0]
    assert 0.8 < pull[100] < 1.2


def test_wide_offsets_are_followed_to_their_end() -> None:
    rng = np.random.default_rng(8)
    x, y, flux = _population(rng)
    flux = np.maximum(flux, 6000) * 4
    images = {"g": _noisy(rng, _draw(x + 7, y, flux, 3.0)), "r": _noisy(rng, _draw(x, y, flux, 3.0))}
    tile = _tile(images, {"g": _wcs(), "r": _wcs()})
    found = process_tile(
        tile, Config(fit_models=False, classify_sources=False, detector="threshold")
    ).catalogue
    dx, dy, error, number = found.meta["registration"]["g"]
    assert (dx, dy) == pytest.approx((7 * PIXEL, 0), abs=0.02)
    assert error < 0.02
    assert number > 30


@pytest.mark.parametrize("detector", ["network", "threshold"])
def test_one_exposure_of_several_is_put_right_with_all_products(detector: str) -> None:
    tile, x, y = _misplaced(np.inf, (0.35, -0.2))
    rng = np.random.default_rng(4)
    second = Exposure("g2", ArrayPixels(_noisy(rng, _draw(x, y, np.full(x.size, 2e4)))), _wcs(), gain=GAIN)
    mask = np.zeros(SHAPE, np.uint16)
    mask[rng.uniform(size=SHAPE) < 0.01] = int(PixelFlag.WARM)  # they are used, here too
    g, r = tile.bands
    first = replace(g.exposures[0], mask=ArrayPixels(mask))
    tile = replace(tile, bands=(replace(g, exposures=(second, first)), r))
    config = Config(fit_models=False, classify_sources=False, detector=detector)
    result = process_tile(tile, config, images=("background", "segmentation"), preview=True, inject=5)
    assert result.catalogue.meta["registration"]["g"][:2] == pytest.approx([0, 0], abs=0.01)
    pair = match_xy(x, y, result.catalogue["x"], result.catalogue["y"], 1.0)
    away = np.hypot(
        result.catalogue["x"][pair.second] - x[pair.first], result.catalogue["y"][pair.second] - y[pair.first]
    )
    assert np.median(away) < 0.02
    assert result.preview is not None
    assert result.preview.disagreement is not None
    assert result.injection is not None
    assert len(result.images) == 4
    # The moved exposure's maps say where its pixels are.
    moved = next(image for image in result.images if image.header["CRPIX1"] not in (280.0, 282.3))
    assert moved.header["CRPIX1"] == pytest.approx(282.65, abs=0.03)


def test_few_sources_leave_the_astrometry_of_files_alone() -> None:
    tile, _, _ = _misplaced(8, (0.35, -0.2))
    found = process_tile(tile, Config(fit_models=False, classify_sources=False)).catalogue
    assert found.meta["registration"]["g"] == [0.0, 0.0, 0.1, 0]


def test_bands_that_lie_far_apart_are_warned_of() -> None:
    tile, _, _ = _misplaced(np.inf, (2.2, 0.0))
    result = process_tile(tile, Config(fit_models=False, classify_sources=False, detector="threshold"))
    assert any("its astrometry lies 0.88 arcsec from that of r" in warning for warning in result.warnings)


@pytest.mark.parametrize(("smooth", "low", "high"), [(0.0, 0.92, 1.08), (0.8, 0.9, 1.1)])
def test_errors_are_true(smooth: float, low: float, high: float) -> None:
    pulls: dict[str, list[np.ndarray]] = {"flux": [], "x": [], "y": []}
    for seed in range(4):
        rng = np.random.default_rng([seed, 5])
        x, y, flux = _population(rng, 30)
        image = _draw(x, y, flux)
        found = process_tile(_tile({"r": _noisy(rng, image, smooth)}, {"r": _wcs()}), Config()).catalogue
        pair = match_xy(x, y, found["x"], found["y"], 2.0)
        # The truth of an aperture: the image without noise, summed by another package.
        true, _, _ = sep.sum_circle(image, x, y, 1.5 / PIXEL, subpix=0)
        error = found["r_aper_flux_3_err"][pair.second]
        pulls["flux"].append((found["r_aper_flux_3"][pair.second] - true[pair.first]) / error)
        x, y = x[pair.first], y[pair.first]
        pulls["x"].append((found["x"][pair.second] - x) * PIXEL / found["ra_err"][pair.second])
        pulls["y"].append((found["y"][pair.second] - y) * PIXEL / found["dec_err"][pair.second])
    for name, parts in pulls.items():
        pull = np.concatenate(parts)
        width = 1.4826 * np.median(np.abs(pull - np.median(pull)))
        # The robust width of 1000 values is good to 4 %.
        assert pull.size > 900
        assert low < width < high, (name, width)


def test_a_source_outside_one_band_keeps_the_other() -> None:
    rng = np.random.default_rng(3)
    x, y, _ = _population(rng)
    wcs = {"g": _wcs(-150.0, 0.0), "r": _wcs()}
    images = {"g": _noisy(rng, np.zeros(SHAPE)), "r": _noisy(rng, _draw(x, y, np.full(x.size, 20000.0)))}
    found = process_tile(_tile(images, wcs), Config()).catalogue
    outside = (np.asarray(found["g_flags"]) & int(SourceFlag.OUTSIDE)) != 0
    assert 0.1 < outside.mean() < 0.5
    assert np.isnan(found["g_kron_flux"][outside]).all()
    assert np.isfinite(found["g_kron_flux"][~outside]).all()
    assert np.isfinite(found["r_kron_flux"]).all()
    assert (np.asarray(found["x"])[outside] < 160).all()


def test_a_moving_source_is_flagged() -> None:
    rng = np.random.default_rng(9)
    x, y, flux = _population(rng)
    flux = np.full(x.size, 20000.0)
    bands = []
    for k in range(5):
        moved = x.copy()
        moved[17] += 0.9 * k  # pixels from band to band
        image = _noisy(rng, _draw(moved, y, flux))
        bands.append(
            Band(
                f"b{k}",
                4000.0 + 900 * k,
                (Exposure(f"b{k}", ArrayPixels(image), _wcs(), gain=GAIN, mjd=k * 72 / 86400),),
            )
        )
    tile = Tile("t", "generic", 7, tuple(bands), "b2")
    found = process_tile(tile, Config()).catalogue
    moving = (np.asarray(found["flags"]) & int(SourceFlag.MOVING)) != 0
    assert moving.sum() == 1
    at = int(np.nonzero(moving)[0][0])
    assert found["y"][at] == pytest.approx(y[17], abs=0.5)
    assert found["motion_offset"][at] == pytest.approx(3.6 * PIXEL, abs=0.15)
