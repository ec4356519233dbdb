"""Sources on images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.render.components import Components, ellipses, points
from imcat.render.draw import FAINT_SHARE, draw, draw_stamps
from imcat.render.profiles import EXPONENTIAL, Mixture, sersic_mixture

Float64 = NDArray[np.float64]
PSF = PsfMixture(np.array([0.8, 0.2]), np.array([[1.4, 0.2, 1.1], [6.0, -1.0, 5.0]]))
SQUARE = np.array([[-2.5, 0.0], [0.0, 2.5]])  # 0.4 arcsec pixels, north up
ONE = Mixture(np.array([1.0]), np.array([1.0]))


def _galaxies(n: int, seed: int, size: int = 120) -> tuple[Components, Float64, Float64]:
    rng = np.random.default_rng(seed)
    components = ellipses(
        np.arange(n),
        rng.uniform(1, 100, (n, 2)),
        rng.uniform(0.2, 2, n),
        rng.uniform(0.2, 1, n),
        rng.uniform(0, 180, n),
        sersic_mixture(EXPONENTIAL),
    )
    x, y = rng.uniform(-3, size + 2, (2, n))
    return components, x, y


def _exact(size: int, flux: float, x: float, y: float, covariance: Float64) -> Float64:
    v, u = np.mgrid[:size, :size]
    d = np.stack([u - x, v - y], axis=-1)
    inverse = np.linalg.inv(covariance)
    return (
        flux
        / (2 * np.pi * np.sqrt(np.linalg.det(covariance)))
        * np.exp(-0.5 * np.einsum("yxi,ij,yxj->yx", d, inverse, d))
    )


def test_one_gaussian_is_exact() -> None:
    jacobian = np.array([[-2.4, 0.3], [0.2, 2.6]])
    source = ellipses([0], [[50.0]], [1.5], [0.3], [25.0], ONE, xi=0.7, eta=-0.4)
    sky = np.array([[source.xx[0], source.xy[0]], [source.xy[0], source.yy[0]]])
    total = jacobian @ sky @ jacobian.T + np.array([[1.2, 0.1], [0.1, 0.9]])
    x, y = np.array([30.3, 28.8]) + jacobian @ [0.7, -0.4]
    image = np.zeros((64, 64))
    psf = PsfMixture(np.array([1.0]), np.array([[1.2, 0.1, 0.9]]))
    draw(image, source, 0, [30.3], [28.8], jacobian, psf, floor=1e-9)
    exact = _exact(64, 50.0, x, y, total)
    np.testing.assert_allclose(image, exact, atol=1e-8 * exact.max())


def test_a_long_thin_source_is_exact_far_from_its_centre() -> None:
    source = ellipses([0], [[1.0]], [100.0], [0.02], [40.0], ONE)
    image = np.zeros((900, 900))
    draw(
        image,
        source,
        0,
        [450.0],
        [450.0],
        np.eye(2),
        PsfMixture(np.array([1.0]), np.array([[1.0, 0.0, 1.0]])),
    )
    sky = np.array([[source.xx[0], source.xy[0]], [source.xy[0], source.yy[0]]])
    exact = _exact(900, 1.0, 450.0, 450.0, sky + np.eye(2))
    assert np.abs(image - exact).max() < 1.5e-4 * exact.max()
    assert image.sum() == pytest.approx(1, abs=1e-5)


def test_east_is_left_and_north_is_up() -> None:
    image = np.zeros((41, 41))
    source = ellipses([0], [[1.0]], [0.1], [1.0], [0.0], ONE, xi=2.0, eta=4.0)
    draw(image, source, 0, [20.0], [20.0], SQUARE, PSF)
    assert np.unravel_index(image.argmax(), image.shape) == (30, 15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flux_is_kept_whatever_the_floor(dtype: type) -> None:
    source = ellipses([0], [[100.0]], [0.6], [0.5], [30.0], sersic_mixture(EXPONENTIAL))
    for floor in (0.0, 1e-6, 1e-2, 0.1, 10.0):
        image = np.zeros((80, 80), dtype)
        draw(image, source, 0, [40.2], [39.7], SQUARE, PSF, floor=floor)
        assert image.sum() == pytest.approx(100, rel=2e-3 if floor else 1e-4)


def test_what_is_left_out_is_below_the_floor() -> None:
    source = points(np.array([[1e4]]))
    exact, image = np.zeros((80, 80)), np.zeros((80, 80))
    draw(exact, source, 0, [40.0], [40.0], SQUARE, PSF, floor=1e-9)
    draw(image, source, 0, [40.0], [40.0], SQUARE, PSF, floor=0.5)
    missing = image == 0
    assert missing.any()
    assert exact[missing].max() < 0.5 * len(PSF)
    # Of a source near the floor its core is left, and nearly all of its flux.
    faint = np.zeros((80, 80))
    draw(faint, points(np.array([[1.0]])), 0, [40.0], [40.0], SQUARE, PSF, floor=0.5)
    assert faint.sum() == pytest.approx(1, abs=0.1)
    assert (faint > 0).sum() < 2 * np.pi * 6.0 * -2 * np.log(FAINT_SHARE)


def test_parts_beyond_the_edges_are_cut() -> None:
    components, x, y = _galaxies(60, 1)
    large, part = np.zeros((200, 200)), np.zeros((120, 120))
    draw(large, components, 1, x + 40, y + 40, SQUARE, PSF)
    draw(part, components, 1, x, y, SQUARE, PSF)
    np.testing.assert_allclose(part, large[40:160, 40:160], rtol=1e-9, atol=1e-12)


def test_adds_and_is_linear() -> None:
    components, x, y = _galaxies(20, 2)
    image = np.full((120, 120), 7.0)
    for _ in range(2):
        draw(image, components, 0, x, y, SQUARE, PSF)
    once = np.zeros((120, 120))
    draw(once, components, 0, x, y, SQUARE, PSF)
    np.testing.assert_allclose(image - 7, 2 * once, atol=1e-10)


def test_negative_components_take_light_away() -> None:
    image = np.zeros((40, 40))
    draw(image, points(np.array([[-5.0]])), 0, [20.0], [20.0], SQUARE, PSF, floor=0.001)
    assert image.sum() == pytest.approx(-5, rel=1e-3)
    assert image.max() <= 0


def test_any_phase_of_an_undersampled_psf_has_the_same_flux() -> None:
    psf = moffat_mixture(1.1, 3.0)
    assert psf.subpixels == 2
    rng = np.random.default_rng(3)
    for x, y in rng.uniform(59, 61, (20, 2)):
        image = np.zeros((121, 121))
        draw(image, points(np.array([[1.0]])), 0, [x], [y], SQUARE, psf, floor=1e-9)
        assert image.sum() == pytest.approx(1, abs=2e-3)


def test_a_psf_that_varies_is_that_of_each_place() -> None:
    variation = np.zeros((1, 3, 2))
    variation[0, 0, 0] = variation[0, 2, 0] = 1.5
    psf = PsfMixture(np.array([1.0]), np.array([[2.5, 0.0, 2.5]]), variation, shape=(60, 201))
    image = np.zeros((60, 201))
    x = np.array([25.0, 100.0, 175.0])
    draw(image, points(np.ones((3, 1))), 0, x, np.full(3, 30.0), SQUARE, psf)
    widths = psf.at(x, np.full(3, 30.0))[:, 0, 0]
    np.testing.assert_allclose(image[30, [25, 100, 175]], 1 / (2 * np.pi * widths), rtol=2e-4)


def test_one_thread_and_two_give_the_same_bytes() -> None:
    components, x, y = _galaxies(100, 4)

    def band(b: int) -> NDArray[np.float32]:
        image = np.zeros((120, 120), np.float32)
        draw(image, components, b, x, y, SQUARE, PSF, floor=1e-3)
        return image

    alone = [band(b) for b in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(band, (0, 1)))
    np.testing.assert_array_equal(alone, together)


def test_stamps_are_the_same_as_images() -> None:
    components, x, y = _galaxies(12, 5, size=32)
    psfs = [PSF, moffat_mixture(1.5, 3.0)]
    jacobians = [SQUARE, np.array([[-2.4, 0.1], [0.1, 2.4]])]
    stamps = np.zeros((4, 2, 32, 32), np.float32)
    stamp = np.arange(12) % 4
    both_x = np.stack([x, x + 0.3])
    draw_stamps(stamps, stamp, components, both_x, y, jacobians, psfs, floors=[0.0, 1e-3])
    for number in range(4):
        for b in (0, 1):
            image = np.zeros((32, 32), np.float32)
            keep = np.isin(components.source, np.flatnonzero(stamp == number))
            some = Components(
                *(getattr(components, f)[keep] for f in ("source", "flux", "xi", "eta", "xx", "xy", "yy"))
            )
            draw(image, some, b, both_x[b], y, jacobians[b], psfs[b], floor=(0.0, 1e-3)[b])
            np.testing.assert_allclose(stamps[number, b], image, rtol=1e-5, atol=1e-6)


def test_nothing_to_draw() -> None:
    image = np.zeros((10, 10), np.float32)
    draw(image, points(np.empty((0, 3))), 0, [], [], SQUARE, PSF)
    draw(image, points(np.array([[1.0]])), 0, [500.0], [-400.0], SQUARE, PSF)
    draw(image, points(np.array([[0.0]])), 0, [5.0], [5.0], SQUARE, PSF)
    assert not image.any()


def test_wrong_arguments_are_refused() -> None:
    image, star = np.zeros((10, 10)), points(np.array([[1.0]]))
    with pytest.raises(ValueError, match="expected one each"):
        draw(image, points(np.ones((3, 1))), 0, [1.0], [1.0], SQUARE, PSF)
    with pytest.raises(ValueError, match="positions of shapes"):
        draw(image, star, 0, [1.0], [1.0, 2.0], SQUARE, PSF)
    with pytest.raises(ValueError, match="jacobian of shape"):
        draw(image, star, 0, [1.0], [1.0], np.eye(3), PSF)
    with pytest.raises(ValueError, match="band 1 of components with 1"):
        draw(image, star, 1, [1.0], [1.0], SQUARE, PSF)
    with pytest.raises(ValueError, match="not finite"):
        draw(image, star, 0, [np.nan], [1.0], SQUARE, PSF)
    with pytest.raises(ValueError, match="same number of each"):
        draw_stamps(np.zeros((1, 2, 8, 8)), [0], star, [1.0], [1.0], [SQUARE], [PSF])
    with pytest.raises(ValueError, match="sources in stamps 0 to 3 of 1"):
        draw_stamps(np.zeros((1, 1, 8, 8)), [0, 3], star, [1.0, 1.0], [1.0, 1.0], [SQUARE], [PSF])
