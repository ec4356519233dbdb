"""Fits of point sources and galaxies: values, errors, blends, fallbacks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from imcat.errors import ConfigError
from imcat.flags import SourceFlag
from imcat.measure.model_settings import ModelSettings
from imcat.measure.model_stack import _half_sides
from imcat.measure.models import FitImage, ModelFits, Shape, fit_models
from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.render.components import Components, ellipses, points
from imcat.render.draw import draw
from imcat.render.profiles import EXPONENTIAL, sersic_mixture

Float64 = NDArray[np.float64]
PIXEL = 0.396  # SDSS, arcsec
JACOBIAN = np.array([[-1 / PIXEL, 0.0], [0.0, 1 / PIXEL]])
PSFS = (moffat_mixture(1.3 / PIXEL, 3.0, (0.03, 0.02)), moffat_mixture(1.5 / PIXEL, 3.0))
QUICK = ModelSettings(sersic=False)


def _grid(n: int, step: int, rng: np.random.Generator) -> tuple[Float64, Float64, int]:
    side = int(np.ceil(np.sqrt(n)))
    place = np.arange(n)
    x = (place % side + 0.5) * step + rng.uniform(-0.5, 0.5, n)
    y = (place // side + 0.5) * step + rng.uniform(-0.5, 0.5, n)
    return x, y, side * step


def _flux(snr: float) -> float:
    """Flux of a star of some signal-to-noise ratio, noise 1 a pixel, first band."""
    return snr / float(np.sqrt(np.sum(PSFS[0].image(61) ** 2)))


def _images(
    sources: Components,
    x: Float64,
    y: Float64,
    side: int,
    rng: np.random.Generator,
    *,
    noise: float = 1.0,
    gain: float = np.inf,
    kernel: Float64 | None = None,
    shift: float = 0.2,
) -> list[FitImage]:
    n = len(x)
    guess_x, guess_y = x + rng.normal(0, shift, n), y + rng.normal(0, shift, n)
    images = []
    for b in range(sources.bands):
        light = np.zeros((side, side))
        draw(light, sources, b, x, y, JACOBIAN, PSFS[b], floor=1e-5)
        white = rng.normal(size=light.shape)
        rho = np.ones((1, 1))
        if kernel is not None:
            from scipy.ndimage import convolve
            from scipy.signal import correlate2d

            white = convolve(white, kernel, mode="wrap") / np.sqrt(np.sum(kernel**2))
            rho = correlate2d(kernel, kernel) / np.sum(kernel**2)
        data = light + noise * white
        if np.isfinite(gain):
            data += rng.poisson(light * gain) / gain - light
        images.append(
            FitImage(
                b, data.astype(np.float32), np.full(light.shape, noise**2, np.float32), gain, PSFS[b], (0, 0), rho,
                guess_x, guess_y, np.broadcast_to(JACOBIAN, (n, 2, 2)).copy(),
            )
        )  # fmt: skip
    return images


def _width(pull: Float64) -> float:
    return float(1.4826 * np.median(np.abs(pull - np.median(pull))))


def _values(fits: ModelFits) -> dict[str, NDArray[np.generic]]:
    result = {}
    for field in fields(fits):
        value = getattr(fits, field.name)
        if isinstance(value, Shape):
            result |= {f"{field.name}.{f.name}": getattr(value, f.name) for f in fields(value)}
        else:
            result[field.name] = value
    return result


def _stars(n: int, snr: float, seed: int, bands: int = 2, **options: float) -> tuple[list[FitImage], Float64]:
    rng = np.random.default_rng(seed)
    x, y, side = _grid(n, 40, rng)
    flux = np.full((n, bands), _flux(snr))
    return _images(points(flux), x, y, side, rng, **options), flux  # type: ignore[arg-type]


def _fit(
    images: list[FitImage], size: float, snr: float, settings: ModelSettings = QUICK, **options: bool
) -> ModelFits:
    n = len(images[0].x)
    return fit_models(
        images,
        np.arange(n),
        np.full(n, size),
        np.full(n, snr),
        len(images),
        settings,
        fixed=options.get("fixed", False),
    )


def test_fluxes_without_noise_are_exact() -> None:
    images, flux = _stars(9, 100.0, 1)
    clean = []
    for image in images:
        light = np.zeros(image.data.shape)
        draw(light, points(flux), image.band, image.x, image.y, JACOBIAN, image.psf, floor=1e-6)
        clean.append(replace(image, data=light.astype(np.float32)))
    fits = _fit(clean, 0.8, 100.0, fixed=True)
    np.testing.assert_allclose(fits.psf_flux, flux, rtol=1e-4)
    assert not fits.xi.any()
    assert np.all(fits.position_covariance == 0)


def test_pulls_of_stars() -> None:
    images, flux = _stars(300, 30.0, 2)
    fits = _fit(images, 0.8, 30.0, replace(QUICK, galaxies=False))
    pull = (fits.psf_flux - flux) / np.sqrt(fits.psf_variance)
    # Standard errors of a width from 300 are 0.04 and of a mean 0.06.
    for b in range(2):
        assert np.std(pull[:, b]) == pytest.approx(1, abs=0.13)
        assert abs(np.mean(pull[:, b])) < 0.2
    np.testing.assert_allclose(fits.psf_variance[:, 0], (flux[:, 0] / 30.0) ** 2, rtol=0.05)
    assert np.median(fits.psf_chi2 / fits.psf_pixels) == pytest.approx(1, abs=0.02)


def test_poisson_noise_of_the_source_counts() -> None:
    images, flux = _stars(200, 300.0, 3, gain=0.5)
    fits = _fit(images, 0.8, 300.0, replace(QUICK, galaxies=False))
    pull = (fits.psf_flux - flux) / np.sqrt(fits.psf_variance)
    assert _width(pull[:, 0]) == pytest.approx(1, abs=0.2)
    assert abs(np.mean(fits.psf_flux / flux - 1)) < 0.003
    # The source's own counts are the least that its flux varies by.
    assert np.all(fits.psf_variance > 0.99 * fits.psf_flux / 0.5)


def test_errors_in_correlated_noise() -> None:
    kernel = np.array([[0.5, 0.8, 0.5], [0.8, 1.5, 0.8], [0.5, 0.8, 0.5]])
    rng = np.random.default_rng(4)
    x, y, side = _grid(300, 40, rng)
    flux = np.full((300, 1), _flux(60.0))
    images = _images(points(flux), x, y, side, rng, kernel=kernel)
    fits = _fit(images, 0.8, 60.0)
    pull = (fits.psf_flux - flux) / np.sqrt(fits.psf_variance)
    assert np.std(pull) == pytest.approx(1, abs=0.13)
    assert np.all(fits.psf_variance > 3 * (flux / 60.0) ** 2)
    offset = (fits.xi + (x - images[0].x) * PIXEL) / np.sqrt(fits.position_covariance[:, 0, 0])
    assert np.std(offset) == pytest.approx(1, abs=0.13)
    assert _width(fits.spread_model / fits.spread_model_err) == pytest.approx(1, abs=0.2)


def _galaxies(
    n: int, snr: float, seed: int, noise: float, index: float = EXPONENTIAL
) -> tuple[list[FitImage], Float64, Shape]:
    rng = np.random.default_rng(seed)
    x, y, side = _grid(n, 64, rng)
    flux = np.full((n, 2), _flux(snr))
    shape = Shape(
        rng.uniform(0.6, 1.5, n),
        np.zeros(n),
        rng.uniform(0.3, 0.9, n),
        np.zeros(n),
        rng.uniform(0, 180, n),
        np.zeros(n),
    )
    sources = ellipses(np.arange(n), flux, shape.radius, shape.axis_ratio, shape.angle, sersic_mixture(index))
    return _images(sources, x, y, side, rng, noise=noise), flux, shape


def test_shapes_without_noise_come_back() -> None:
    images, flux, truth = _galaxies(16, 100.0, 5, 1e-3)
    fits = _fit(images, 1.2, 300.0)
    shape = fits.exponential
    np.testing.assert_allclose(shape.radius, truth.radius, rtol=2e-3)
    np.testing.assert_allclose(shape.axis_ratio, truth.axis_ratio, atol=2e-3)
    np.testing.assert_allclose((shape.angle - truth.angle + 90) % 180 - 90, 0, atol=0.5)
    assert np.all(fits.model == 0)
    np.testing.assert_allclose(fits.model_flux, flux, rtol=2e-3)
    np.testing.assert_allclose(fits.cmodel_flux, flux, rtol=5e-3)
    assert fits.fracdev.max() < 0.02


def test_errors_of_galaxies() -> None:
    images, flux, truth = _galaxies(200, 100.0, 6, 1.0)
    fits = _fit(images, 1.2, 60.0)
    pull = (fits.model_flux - flux) / np.sqrt(fits.model_variance)
    for b in range(2):
        assert _width(pull[:, b]) == pytest.approx(1, abs=0.25)
        assert abs(np.median(pull[:, b])) < 0.3
    assert _width((fits.exponential.radius - truth.radius) / fits.exponential.radius_err) == pytest.approx(
        1, abs=0.25
    )
    colour = fits.model_flux[:, 0] / fits.model_flux[:, 1]
    assert np.median(colour) == pytest.approx(1, abs=0.01)


def test_sersic_index_comes_back() -> None:
    images, flux, _ = _galaxies(40, 300.0, 7, 1.0, index=2.5)
    fits = _fit(images, 1.2, 200.0, ModelSettings())
    assert np.median(fits.sersic_index) == pytest.approx(2.5, abs=0.3)
    np.testing.assert_allclose(np.median(fits.sersic_flux / flux, axis=0), 1, atol=0.02)
    faint = _fit(images, 1.2, 10.0, ModelSettings())
    assert np.isnan(faint.sersic_index).all()
    assert np.isnan(faint.sersic_flux).all()


def test_a_source_on_a_halo_does_not_grow_into_it() -> None:
    # Half of the light of a faint source, and a plateau as bright as its peak all around.
    images, _ = _stars(9, 10.0, seed=31)
    lifted = [replace(image, data=image.data + np.float32(0.5 * image.data.max())) for image in images]
    fits = _fit(lifted, 1.0, 10.0)
    for shape in (fits.exponential, fits.de_vaucouleurs):
        major = shape.radius * np.sqrt(shape.axis_ratio)  # the geometric mean of both semi-axes
        assert major.max() <= 5.0 * 1.0 * 1.001
    assert (fits.flags & int(SourceFlag.MODEL_AT_BOUND)).any()


def test_large_and_faint_sources_have_small_footprints() -> None:
    images, _ = _stars(1, 100.0, seed=3)
    sizes, snr = np.array([2.0, 20.0, 20.0]), np.array([30.0, 30.0, 1e5])
    faint = replace(ModelSettings(), footprint_limit=400)
    usual, large, bright = _half_sides(images[0], np.full(3, PIXEL), sizes, snr, faint)
    extent = 2.0 / PIXEL
    # Down to a tenth of the noise of a pixel, within three radii.
    assert 2 * extent < usual <= 3 * extent + 1
    assert 60 <= large < 0.75 * 10 * usual
    assert bright == pytest.approx(3 * 20.0 / PIXEL, abs=1)


def test_given_shapes_are_kept() -> None:
    images, flux, truth = _galaxies(16, 100.0, 8, 1e-3)
    n = len(flux)
    fits = fit_models(
        images, np.arange(n), np.full(n, 1.2), np.full(n, 100.0), 2, QUICK, shapes=(truth, truth)
    )
    np.testing.assert_allclose(fits.exponential.radius, truth.radius)
    np.testing.assert_allclose(fits.model_flux, flux, rtol=2e-3)


def _pairs(n: int, separation: float, seed: int) -> tuple[list[FitImage], NDArray[np.int64], Float64]:
    rng = np.random.default_rng(seed)
    x, y, side = _grid(n, 48, rng)
    angle = rng.uniform(0, 2 * np.pi, n)
    d = separation * 1.3 / PIXEL
    px = np.stack([x, x + d * np.cos(angle)], axis=1).ravel()
    py = np.stack([y, y + d * np.sin(angle)], axis=1).ravel()
    flux = np.repeat(np.tile([_flux(60.0), _flux(30.0)], n)[:, None], 2, axis=1)
    return _images(points(flux), px, py, side, rng), np.repeat(np.arange(n), 2), flux


@pytest.mark.parametrize("separation", [1.0, 2.0])
def test_errors_of_pairs(separation: float) -> None:
    images, group, flux = _pairs(100, separation, 9)
    n = len(group)
    fits = fit_models(images, group, np.full(n, 0.8), np.full(n, 40.0), 2, QUICK)
    pull = (fits.psf_flux - flux) / np.sqrt(fits.psf_variance)
    assert 0.8 < _width(pull) < 1.3
    assert abs(np.median(pull)) < 0.25


def test_results_do_not_depend_on_other_groups_order_or_threads() -> None:
    images, group, _ = _pairs(16, 1.5, 10)
    n = len(group)
    size, snr = np.full(n, 0.8), np.full(n, 40.0)
    every = _values(fit_models(images, group, size, snr, 2, ModelSettings()))
    chosen = np.array([20, 21, 2, 3, 30, 31])
    part = [replace(i, x=i.x[chosen], y=i.y[chosen], jacobian=i.jacobian[chosen]) for i in images]

    def again(_: int) -> dict[str, NDArray[np.generic]]:
        return _values(fit_models(part, group[chosen] + 100, size[chosen], snr[chosen], 2, ModelSettings()))

    with ThreadPoolExecutor(3) as pool:
        for values in pool.map(again, range(3)):
            for name, value in values.items():
                np.testing.assert_array_equal(value, every[name][chosen], err_msg=name)


def test_missing_bands_and_bad_pixels() -> None:
    images, flux = _stars(9, 50.0, 11)
    second = replace(images[1], x=images[1].x.copy())
    second.x[4] = np.nan
    first = replace(images[0], variance=images[0].variance.copy(), data=images[0].data.copy())
    # A bad pixel near the centre of the first star, and nothing but bad pixels around the last one.
    x, y = round(float(first.x[0])) + 1, round(float(first.y[0]))
    first.variance[y, x], first.data[y, x] = 0, 1e6
    first.variance[80:, 80:] = 0
    fits = _fit([first, second], 0.8, 50.0)
    assert np.isnan(fits.psf_flux[4, 1])
    assert np.isfinite(fits.psf_flux[4, 0])
    assert fits.psf_pixels[0, 0] == fits.psf_pixels[1, 0] - 1
    assert abs(fits.psf_flux[0, 0] - flux[0, 0]) < 5 * np.sqrt(fits.psf_variance[0, 0])
    assert np.isnan(fits.psf_flux[8, 0])
    assert np.isfinite(fits.psf_flux[8, 1])
    assert fits.flags[8] & SourceFlag.MODEL_FALLBACK
    assert not fits.flags[1] & SourceFlag.MODEL_FALLBACK


def test_a_fit_that_runs_out_of_steps_is_flagged_and_finite() -> None:
    images, _, _ = _galaxies(9, 100.0, 12, 1.0)
    fits = _fit(images, 0.8, 100.0, replace(QUICK, iterations=2))
    assert np.all(fits.flags & SourceFlag.MODEL_NOT_CONVERGED)
    assert np.isfinite(fits.model_flux).all()
    assert np.isfinite(fits.model_variance).all()


def test_blank_sky_is_no_source() -> None:
    images, _ = _stars(25, 0.0, 13)
    fits = _fit(images, 0.8, 5.0)
    for values in (fits.psf_flux, fits.model_flux, fits.cmodel_flux, fits.psf_variance, fits.model_variance):
        assert np.isfinite(values).all()
    assert np.all(np.abs(fits.xi) <= 3 * QUICK.position_prior * 1.4)


def test_no_sources() -> None:
    images, _ = _stars(1, 10.0, 14)
    none = [replace(i, x=i.x[:0], y=i.y[:0], jacobian=i.jacobian[:0]) for i in images]
    empty = np.empty(0)
    fits = fit_models(none, np.empty(0, np.int64), empty, empty, 2, ModelSettings())
    assert fits.psf_flux.shape == (0, 2)


def test_subpixel_psfs_are_fitted() -> None:
    rng = np.random.default_rng(15)
    psf = moffat_mixture(1.6, 3.0)
    assert isinstance(psf, PsfMixture)
    x, y, side = _grid(16, 30, rng)
    light = np.zeros((side, side))
    draw(light, points(np.full((16, 1), 1e3)), 0, x, y, JACOBIAN, psf, floor=1e-5)
    image = FitImage(
        0, light.astype(np.float32), np.ones(light.shape, np.float32), np.inf, psf, (0, 0), np.ones((1, 1)),
        x + 0.2, y - 0.1, np.broadcast_to(JACOBIAN, (16, 2, 2)).copy(),
    )  # fmt: skip
    fits = fit_models([image], np.arange(16), np.full(16, 0.4), np.full(16, 100.0), 1, QUICK)
    np.testing.assert_allclose(fits.psf_flux[:, 0], 1e3, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shape_bands", "red", "one of reference, all"),
        ("iterations", 1, "2 to 1000"),
        ("tolerance", 0.0, "above 0"),
    ],
)
def test_wrong_settings_are_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelSettings(**{name: value})  # type: ignore[arg-type]


def test_the_bias_of_the_largest_likelihood_is_taken_out() -> None:
    # Portillo, Speagle & Finkbeiner 2020: at S/N 10 a free position makes a point source 1 % too bright in the band that
    # it was fitted in, and too faint in others.
    images, flux = _stars(3000, 10.0, 21)
    fits = _fit(images, 0.8, 10.0, replace(QUICK, galaxies=False))
    error = np.sqrt(fits.psf_variance) / flux
    offset = np.mean(fits.psf_flux / flux - 1, axis=0)
    assert np.all(np.abs(offset) < 3 * error.mean(axis=0) / np.sqrt(3000))


def test_psf_fluxes_agree_with_photutils() -> None:
    photutils = pytest.importorskip("photutils.psf")
    from astropy.table import Table

    images, flux = _stars(60, 40.0, 31)
    image = images[0]
    fits = _fit(images[:1], 0.8, 40.0, replace(QUICK, galaxies=False))
    fine, size = 4, 25
    psf = PsfMixture(PSFS[0].weights, PSFS[0].covariances * fine**2)
    model = photutils.ImagePSF(psf.image(size * fine) * fine**2, oversampling=fine)
    photometry = photutils.PSFPhotometry(model, (11, 11), aperture_radius=4)
    start = Table({"x_init": image.x, "y_init": image.y, "flux_init": flux[:, 0]})
    found = photometry(np.asarray(image.data, float), error=np.ones(image.data.shape), init_params=start)
    error = np.sqrt(fits.psf_variance[:, 0])
    # Noise is common to both; what differs are the sizes of the windows.
    ours = fits.psf_flux[:, 0]
    difference = (ours - np.asarray(found["flux_fit"])) / error
    assert abs(np.median(difference)) < 0.2
    assert _width(difference) < 0.35
    np.testing.assert_allclose(np.median(error / np.asarray(found["flux_err"])), 1, atol=0.1)
