"""What generators of galaxies learn from: bright galaxies of real tiles, and simulated ones as a sharper camera sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.augment.conditions import Conditions
from imcat.augment.observed import ObservedStamps, join_psfs
from imcat.catalogue import Catalogue
from imcat.catalogue.fields import AB_FLUX
from imcat.config import Config
from imcat.errors import InputError
from imcat.evaluate.cutouts import BLANK_RADIUS
from imcat.flags import SourceFlag
from imcat.measure.views import pixel_to_sky, sky_to_pixel
from imcat.noise import NoiseSettings, measure_noise
from imcat.pipeline import catalogue_tile
from imcat.psf.mixture import moffat_mixture
from imcat.render.draw import draw_stamps
from imcat.render.stamps import StampPsf
from imcat.simulate.filters import FilterSet
from imcat.simulate.galaxies import band_bulge_fraction, galaxy_components, half_light_radius
from imcat.simulate.scene import Models
from imcat.simulate.sources import Kind, Morphology, Sources
from imcat.simulate.twin import measure_profile
from imcat.tile import Tile
from imcat.train.real_tiles import kept_for_tiles
from imcat.window import Window

__all__ = ["SIZE", "galaxy_rows", "observed_galaxies", "real_stamps", "sharp_stamps", "tile_stamps"]

Float64 = NDArray[np.float64]

#: Side of a stamp, pixels.
SIZE = 40
_BLANKS = 60  # empty stamps of a tile, at most
_FAINTEST = 22.0  # in the reference band
_LEAST_SNR = 10.0
_EXTENDED = 0.12  # PSF minus model magnitude
_DIMMEST = 0.3  # errors of a flux: the least that a band of a galaxy is given
_RADIUS = (0.3, 6.0)  # arcsec: fits beyond are of something else, or of nothing
_MASKED = 1.6  # FWHM around a neighbour, and half-light radii of its own
_OWN = 1.5  # half-light radii within which a fainter source is taken for a part of the galaxy
_UNUSABLE = int(
    SourceFlag.SATURATED | SourceFlag.EDGE | SourceFlag.HALO | SourceFlag.BAD_PIXEL
    | SourceFlag.NOT_MEASURED | SourceFlag.OUTSIDE | SourceFlag.MOVING
)  # fmt: skip

# The camera that simulated galaxies are seen with: nearly free of noise. Generated ones may be drawn sharper, but show no finer detail.
_SHARP_FWHM, _SHARP_PIXEL = 0.19, 0.074  # arcsec
_SHARP_SNR = 150.0  # of a typical galaxy
_SHARP_BRIGHT, _SHARP_FAINT = 18.0, 24.5  # r


def real_stamps(names: Sequence[str], folder: Path) -> ObservedStamps:
    """Bright galaxies of real tiles, kept in a file for each tile.

    Parameters
    ----------
    names : sequence of str
        Folders of tiles below that of real data (``IMCAT_DATA``).
    folder : path
        For the files; those that are there stay.

    Raises
    ------
    InputError
        If there are no real data, or a tile cannot be read.
    """
    paths = kept_for_tiles(
        names, folder, f"light-{{}}-{SIZE}", lambda tile, path: tile_stamps(tile).write(path)
    )
    if not paths:
        raise InputError("no real tiles are named", expected="folders below that of the real data")
    parts = [ObservedStamps.read(path) for path in paths]
    return ObservedStamps.concatenate(
        [replace(own, field=np.full(len(own), k, np.int16)) for k, own in enumerate(parts)]
    )


def tile_stamps(
    tile: Tile, catalogue: Catalogue | None = None, faintest: float = _FAINTEST
) -> ObservedStamps:
    """Galaxies of a tile that show more than a point, in native pixels.

    Parameters
    ----------
    tile : Tile
        All its bands are used, the first exposure of each.
    catalogue : Catalogue, optional
        With fits; default: it is made.
    faintest : float
        Magnitude in the reference band.
    """
    catalogue = catalogue or catalogue_tile(tile, Config(classify_sources=False))
    rows = galaxy_rows(catalogue, tile, faintest)
    return observed_galaxies(tile, catalogue, rows)


def galaxy_rows(catalogue: Catalogue, tile: Tile, faintest: float = _FAINTEST) -> NDArray[np.int64]:
    """Galaxies of a catalogue that are bright, extended and whole."""
    band = tile.reference
    flux = np.asarray(catalogue[f"{band}_cmodel_flux"], float)
    with np.errstate(invalid="ignore", divide="ignore"):
        good = AB_FLUX * 10 ** (-0.4 * faintest) < flux
        good &= flux > _LEAST_SNR * np.asarray(catalogue[f"{band}_cmodel_flux_err"], float)
    radius = np.asarray(catalogue["model_radius"], float)
    good &= np.asarray(catalogue["psf_minus_model"], float) > _EXTENDED
    good &= (radius > _RADIUS[0]) & (radius < _RADIUS[1])
    good &= (np.asarray(catalogue["flags"]) & _UNUSABLE) == 0
    for other in tile.band_names:
        good &= np.isfinite(np.asarray(catalogue[f"{other}_cmodel_flux"], float))
    return np.flatnonzero(good)


def observed_galaxies(tile: Tile, catalogue: Catalogue, rows: NDArray[np.int64]) -> ObservedStamps:
    """Some sources of a tile with all that is known of how they were observed; those at its edges are left out."""
    profile = measure_profile(tile)
    ra, dec = (np.asarray(catalogue[n], float) for n in ("ra", "dec"))
    bands = tile.bands
    exposures = [band.exposures[0] for band in bands]
    places = [sky_to_pixel(e.wcs, ra, dec) for e in exposures]
    fits = np.ones(len(rows), bool)
    for (x, y), e in zip(places, exposures, strict=True):
        fits &= _fits(x[rows], e.shape[1]) & _fits(y[rows], e.shape[0])
    rows = rows[fits]
    asked = _asked(tile, catalogue, rows)
    blank_at = _blank_places(tile, catalogue, np.random.default_rng(len(catalogue)))
    signal, valid, blanks, noises, gains, xs, ys, matrices, psfs = [], [], [], [], [], [], [], [], []
    for band, exposure, (x, y) in zip(bands, exposures, places, strict=True):
        seen = next(p for p in profile.exposures if p.band == band.name)
        cutout = measure_noise(exposure, NoiseSettings()).read(exposure, Window.whole(exposure.shape))
        corner_x, corner_y = _corner(x[rows]), _corner(y[rows])
        unit = np.float32(seen.rms)
        signal.append(_cut(cutout.data, corner_x, corner_y) / unit)
        hidden = _neighbours(catalogue, rows, x, y, corner_x, corner_y, seen.psf.mixture.fwhm, exposure)
        valid.append(~_cut(cutout.bad, corner_x, corner_y) & ~hidden)
        blank_x, blank_y = sky_to_pixel(exposure.wcs, *blank_at)
        blanks.append(_cut(cutout.data, _corner(blank_x), _corner(blank_y)) / unit)
        noises.append(np.full(len(rows), unit))
        columns = np.clip(np.rint(x[rows]).astype(int), 0, exposure.shape[1] - 1)
        gains.append(seen.electrons_per_njy[columns])
        xs.append(x[rows] - corner_x)
        ys.append(y[rows] - corner_y)
        _, _, sky = pixel_to_sky(exposure.wcs, x[rows], y[rows])
        matrices.append(np.linalg.inv(sky))
        psfs.append(seen.psf.mixture)
    psf = StampPsf.stack(
        psfs, np.stack([x[rows] for x, _ in places], 1), np.stack([y[rows] for _, y in places], 1)
    )

    def stacked(values: list[NDArray[Any]], kind: Any) -> NDArray[Any]:
        return np.stack(values, axis=1).astype(kind)

    with np.errstate(over="ignore"):
        kept = np.clip(np.stack(signal, 1), -6e4, 6e4).astype(np.float16)
    return ObservedStamps(
        kept, stacked(valid, bool), stacked(noises, np.float32), stacked(gains, np.float32),
        stacked(xs, np.float32), stacked(ys, np.float32), stacked(matrices, np.float32),
        **join_psfs(psf, len(rows)),
        blank=np.clip(np.stack(blanks, 1), -60, 60).astype(np.float16), asked=asked, field=np.zeros(len(rows), np.int16),
    )  # fmt: skip


def _asked(tile: Tile, catalogue: Catalogue, rows: NDArray[np.int64]) -> Conditions:
    """What a generator is told of measured galaxies."""

    def column(name: str) -> Float64:
        return np.asarray(catalogue[name], float)[rows]

    n = len(rows)
    # Where a band shows nothing there is still some light.
    flux = [
        np.maximum(column(f"{b}_cmodel_flux"), _DIMMEST * column(f"{b}_cmodel_flux_err"))
        for b in tile.band_names
    ]
    return Conditions(
        np.stack(flux, axis=1),
        np.array([band.wavelength for band in tile.bands]),
        column("model_radius"), np.clip(column("model_axis_ratio"), 0.05, 1.0), column("model_angle"),
        np.clip(np.nan_to_num(column(f"{tile.reference}_fracdev")), 0, 1), np.full(n, np.nan), np.full(n, -1, np.int8),
    )  # fmt: skip


def _fits(place: Float64, length: int) -> NDArray[np.bool_]:
    corner = _corner(place)
    return np.asarray((corner >= 0) & (corner + SIZE <= length))


def _corner(place: Float64) -> NDArray[np.int64]:
    """First pixel of a stamp."""
    return np.asarray(np.rint(np.nan_to_num(place, nan=-1e6)).astype(np.int64) - SIZE // 2)


def _cut(image: NDArray[Any], x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[Any]:
    """Squares of an image, ``[n, SIZE, SIZE]``."""
    step = np.arange(SIZE)
    return np.asarray(image[(y[:, None] + step)[:, :, None], (x[:, None] + step)[:, None, :]])


def _neighbours(
    catalogue: Catalogue,
    rows: NDArray[np.int64],
    x: Float64,
    y: Float64,
    corner_x: NDArray[np.int64],
    corner_y: NDArray[np.int64],
    fwhm: float,
    exposure: Any,
) -> NDArray[np.bool_]:
    """Pixels that other sources light up, ``[n, SIZE, SIZE]``."""
    from scipy.spatial import cKDTree

    _, _, sky = pixel_to_sky(exposure.wcs, x[:1], y[:1])
    pixel = float(np.sqrt(abs(np.linalg.det(sky[0]))))
    size = np.nan_to_num(np.asarray(catalogue["half_light_radius"], float)) / pixel
    light = np.nan_to_num(np.asarray(catalogue["detection_snr"], float))
    radius = np.asarray(catalogue["model_radius"], float)[rows] / pixel
    ratio = np.asarray(catalogue["model_axis_ratio"], float)[rows]
    place = np.nan_to_num(np.stack([x, y], axis=1), nan=-1e6)
    near = cKDTree(place).query_ball_point(place[rows], SIZE)
    hidden = np.zeros((len(rows), SIZE, SIZE), bool)
    step = np.arange(SIZE)
    for k, others in enumerate(near):
        for j in others:
            own = rows[k]
            if j == own:
                continue
            distance = float(np.hypot(*(place[j] - place[own])))
            # Knots of a galaxy are found as sources, too.
            if distance < _OWN * radius[k] * max(ratio[k], 0.3) and light[j] < 0.5 * light[own]:
                continue
            reach = min(_MASKED * max(fwhm, 1.5 * size[j]), 0.8 * distance)
            dx, dy = corner_x[k] + step - place[j, 0], corner_y[k] + step - place[j, 1]
            hidden[k] |= dx[None, :] ** 2 + dy[:, None] ** 2 < reach**2
    return hidden


def _blank_places(tile: Tile, catalogue: Catalogue, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Sky positions of stamps without sources."""
    from scipy.spatial import cKDTree

    reference = tile.reference_exposure
    rows, columns = reference.shape
    margin = SIZE
    x = rng.uniform(margin, columns - margin, 40 * _BLANKS)
    y = rng.uniform(margin, rows - margin, 40 * _BLANKS)
    _, _, sky = pixel_to_sky(reference.wcs, np.array([columns / 2]), np.array([rows / 2]))
    pixel = float(np.sqrt(abs(np.linalg.det(sky[0]))))
    sources = np.stack([np.asarray(catalogue["x"]), np.asarray(catalogue["y"])], axis=1)
    if len(sources):
        free = cKDTree(sources).query(np.stack([x, y], 1))[0] * pixel > BLANK_RADIUS
        x, y = x[free], y[free]
    inside = np.ones(len(x), bool)
    ra, dec, _ = pixel_to_sky(reference.wcs, x, y)
    for band in tile.bands:
        exposure = band.exposures[0]
        bx, by = sky_to_pixel(exposure.wcs, ra, dec)
        inside &= _fits(bx, exposure.shape[1]) & _fits(by, exposure.shape[0])
    kept = np.flatnonzero(inside)[:_BLANKS]
    return ra[kept], dec[kept]


def sharp_stamps(
    number: int,
    seed: int,
    models: Models | None = None,
    *,
    fwhm: float = _SHARP_FWHM,
    snr: float = _SHARP_SNR,
) -> ObservedStamps:
    """Simulated galaxies in CSST's bands as an ideal camera sees them, with the structure of their morphology.

    Parameters
    ----------
    number : int
        Of galaxies.
    seed : int
        Decides all of them.
    models : Models, optional
        Of the simulator; default: those that come with imcat.
    fwhm : float
        Of the PSF, arcsec.
    snr : float
        Signal-to-noise ratio of half the light of each galaxy, in every band.
    """
    models = models or Models.load()
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    filters = FilterSet.named("csst")
    waves = np.asarray(filters.wavelengths, float)
    sources = _sharp_sources(models, rng, number)
    template = models.spectra.choose(sources.kind, sources.mag, sources.redshift, rng)
    mag = models.spectra.magnitudes(sources.kind, template, sources.redshift, sources.mag, filters, ebv=0.0)
    flux = np.clip(AB_FLUX * 10 ** (-0.4 * mag), 1e-3, None)
    light = galaxy_components(
        sources, flux, band_bulge_fraction(sources, flux, waves), rng, detail=np.ones(len(sources), bool),
        wavelengths=waves,
    )  # fmt: skip
    psf = moffat_mixture(fwhm / _SHARP_PIXEL, 4.0)
    matrix = np.array([[-1.0, 0.0], [0.0, 1.0]]) / _SHARP_PIXEL
    n, bands = len(sources), len(waves)
    x, y = (rng.uniform(-0.5, 0.5, n) + (SIZE - 1) / 2 for _ in range(2))
    images = np.zeros((n, bands, SIZE, SIZE), np.float32)
    draw_stamps(images, np.arange(n), light, x, y, [matrix] * bands, [psf] * bands)
    np.maximum(images, 0, out=images)
    radius = half_light_radius(sources)
    noise = _sharp_noise(flux, radius, fwhm, snr)
    dice = rng.standard_normal(images.shape, np.float32)
    bulge = sources.bulge_fraction > 0.5
    asked = Conditions(
        flux, waves, radius, np.where(bulge, sources.bulge_axis_ratio, sources.disc_axis_ratio), sources.position_angle,
        sources.bulge_fraction, sources.redshift, sources.morphology.astype(np.int8),
    )  # fmt: skip
    stack = StampPsf.stack([psf] * bands)
    return ObservedStamps(
        np.clip(images / noise[..., None, None] + dice, -6e4, 6e4).astype(np.float16),
        np.ones(images.shape, bool), noise, np.full((n, bands), 1e6, np.float32),
        np.repeat(x[:, None], bands, 1).astype(np.float32), np.repeat(y[:, None], bands, 1).astype(np.float32),
        np.broadcast_to(matrix.astype(np.float32), (n, bands, 2, 2)).copy(), **join_psfs(stack, n),
        blank=rng.standard_normal((min(n, 256), bands, SIZE, SIZE), np.float32).astype(np.float16), asked=asked,
        field=np.zeros(n, np.int16),
    )  # fmt: skip


def _sharp_sources(models: Models, rng: np.random.Generator, number: int) -> Sources:
    """Galaxies of all magnitudes alike, not too wide for a stamp; rare looks are drawn more often than the sky has them."""
    parts, have = [], 0
    while have < number:
        mag = rng.uniform(_SHARP_BRIGHT, _SHARP_FAINT, 2 * number)
        drawn = models.population.galaxies(rng, mag)
        some = rng.random(len(drawn)) < 0.35
        rare = rng.choice(
            [Morphology.SPIRAL, Morphology.BARRED, Morphology.RING, Morphology.IRREGULAR, Morphology.MERGER], len(drawn)
        )  # fmt: skip
        drawn = drawn.replace(morphology=np.where(some, rare, drawn.morphology).astype(np.int8))
        radius = half_light_radius(drawn)
        kept = (radius > 0.08) & (radius < 0.35 * SIZE * _SHARP_PIXEL) & (drawn.kind == Kind.GALAXY)
        parts.append(drawn.take(kept))
        have += int(kept.sum())
    return Sources.concatenate(parts).take(np.arange(number))


def _sharp_noise(flux: Float64, radius: Float64, fwhm: float, snr: float) -> NDArray[np.float32]:
    """Noise of a pixel that gives each galaxy the same high signal-to-noise ratio in every band, ``[n, bands]``, nJy."""
    area = np.pi * (np.maximum(radius, 0.5 * fwhm) / _SHARP_PIXEL) ** 2
    return np.asarray(0.5 * flux / np.sqrt(area)[:, None] / snr, np.float32)
