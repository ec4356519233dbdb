"""Bands with several exposures: each is measured in its own pixels, and a band has one flux."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from numpy.typing import NDArray

from imcat.catalogue import Catalogue
from imcat.config import Config
from imcat.pipeline import TileResult, process_tile
from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.render.components import points
from imcat.render.draw import draw
from imcat.tile import ArrayPixels, Band, Exposure, Tile

SHAPE = (400, 420)
PIXEL = 0.4  # arcsec
RMS = 6.0
PSF: PsfMixture = moffat_mixture(3.2, 3.0)


def _wcs(dx: float = 0.0, dy: float = 0.0, turn: float = 0.0) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 30.0, 5.0
    wcs.wcs.crpix = SHAPE[1] / 2 + dx, SHAPE[0] / 2 + dy
    c, s = np.cos(turn), np.sin(turn)
    wcs.wcs.cd = PIXEL / 3600 * np.array([[-c, s], [s, c]])
    return wcs


def _exposure(
    name: str, sky: NDArray[np.float64], flux: NDArray[np.float64], wcs: WCS, seed: int
) -> Exposure:
    x, y = wcs.all_world2pix(sky, 0).T
    image = np.zeros(SHAPE, np.float32)
    draw(image, points(flux[:, None]), 0, x, y, np.eye(2), PSF, floor=1e-4)
    image += np.random.default_rng(seed).normal(0, RMS, SHAPE)
    variance = ArrayPixels(np.full(SHAPE, RMS**2, np.float32))
    return Exposure(name, ArrayPixels(image), wcs, variance=variance)


@pytest.fixture(scope="module")
def measured() -> tuple[NDArray[np.float64], NDArray[np.float64], Catalogue, TileResult]:
    """Sky positions and fluxes; the catalogues of a band with one exposure, and with three."""
    rng = np.random.default_rng(5)
    gy, gx = np.mgrid[40 : SHAPE[0] - 40 : 30, 40 : SHAPE[1] - 40 : 30]
    x, y = gx.ravel() + rng.uniform(-4, 4, gx.size), gy.ravel() + rng.uniform(-4, 4, gx.size)
    sky = np.stack(_wcs().all_pix2world(x, y, 0), axis=1)
    flux = 10 ** rng.uniform(2.9, 3.8, x.size)
    grids = [_wcs(), _wcs(3.3, -2.6, 0.01), _wcs(-170.4, 0.2)]
    exposures = [_exposure(f"r{k}", sky, flux, grid, k) for k, grid in enumerate(grids)]
    config = Config(detector="threshold", classify_sources=False)

    def catalogue(count: int, images: tuple[str, ...] = ()) -> TileResult:
        band = Band("r", 6200.0, tuple(exposures[:count]))
        return process_tile(Tile("t", "generic", 1, (band,), "r"), config, images=images)

    kinds = ("background", "rms", "segmentation", "residual")
    return sky, flux, catalogue(1).catalogue, catalogue(3, kinds)


def _rows(catalogue: Catalogue, sky: NDArray[np.float64]) -> NDArray[np.int64]:
    ra, dec = np.asarray(catalogue["ra"]), np.asarray(catalogue["dec"])
    distance = np.hypot((ra - sky[:, :1]) * np.cos(np.deg2rad(5.0)), dec - sky[:, 1:]) * 3600
    assert distance.min(axis=1).max() < 0.4
    return distance.argmin(axis=1)


def test_every_exposure_counts(
    measured: tuple[NDArray[np.float64], NDArray[np.float64], Catalogue, TileResult],
) -> None:
    sky, flux, one, result = measured
    three = result.catalogue
    a, b = _rows(one, sky), _rows(three, sky)
    assert set(one["r_n_exposures"][a]) == {1}
    # The third exposure is shifted by 170 columns.
    x = _wcs().all_world2pix(sky, 0)[:, 0]
    covered = np.where(x > 170.4 + 2, 3, 2)
    clear = np.abs(x - 170.4) > 3
    np.testing.assert_array_equal(three["r_n_exposures"][b][clear], covered[clear])
    for kind in ("psf_flux", "aper_flux_3"):
        gain = (one[f"r_{kind}_err"][a] / three[f"r_{kind}_err"][b])[clear]
        np.testing.assert_allclose(gain, np.sqrt(covered[clear]), rtol=0.12)
    # Wings beyond the circle that fluxes refer to are the same for all.
    share = np.median(three["r_psf_flux"][b] / flux)
    assert share == pytest.approx(0.98, abs=0.02)
    pull = (three["r_psf_flux"][b] - share * flux) / three["r_psf_flux_err"][b]
    assert 0.75 < pull.std() < 1.3


def test_images_of_every_exposure(
    measured: tuple[NDArray[np.float64], NDArray[np.float64], Catalogue, TileResult],
) -> None:
    sky, _, _, result = measured
    images = {(image.band, image.kind): image for image in result.images}
    assert {band for band, _ in images} == {"r1", "r2", "r3"}
    # There is one segmentation, on the reference grid; its values are rows plus one.
    assert [band for band, kind in images if kind == "segmentation"] == ["r1"]
    x, y = np.round(_wcs().all_world2pix(sky, 0)).astype(int).T
    labels = images["r1", "segmentation"].data[y, x]
    np.testing.assert_array_equal(labels, _rows(result.catalogue, sky) + 1)
    for k, band in enumerate(("r1", "r2", "r3")):
        assert images[band, "rms"].data.mean() == pytest.approx(RMS, rel=0.05)
        assert abs(images[band, "background"].data.mean()) < 0.2 * RMS
        residual = images[band, "residual"]
        # Sources are gone, noise is left.
        own = WCS(residual.header)
        px, py = np.round(own.all_world2pix(sky, 0)).astype(int).T
        inside = (px > 1) & (py > 1) & (px < SHAPE[1] - 2) & (py < SHAPE[0] - 2)
        seen = residual.data[py[inside], px[inside]]
        assert (seen == 0).mean() > (0.95 if k < 2 else 0.9)
        assert residual.data[residual.data != 0].std() == pytest.approx(RMS, rel=0.1)
