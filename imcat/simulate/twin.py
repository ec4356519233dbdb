"""What a real tile is like: the facts of which `imcat simulate --like` makes its twins.

No pixel of the tile is kept: sky and noise are a few numbers and a coarse grid, the PSF is a mixture, and
the sources are counted, not copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from imcat.align import AlignSettings, map_grids, transform_positions
from imcat.catalogue.fields import AB_FLUX
from imcat.detect import (
    Combiner,
    Detections,
    DetectSettings,
    Plane,
    band_weights,
    detect_threshold,
    measure_psf_fwhm,
)
from imcat.flags import PixelFlag
from imcat.measure import Layer, MeasureSettings, measure_sources
from imcat.measure.occupied import native_labels, occupied
from imcat.measure.views import pixel_to_sky
from imcat.noise import NoiseModel, NoiseSettings, measure_covariance, measure_noise
from imcat.psf import FWHM_PER_SIGMA
from imcat.psf.star_select import measure_moments
from imcat.psf.stars import StarPsf, StarPsfSettings, measure_psf
from imcat.simulate.blank_sky import BlankSky, measure_blank_sky
from imcat.simulate.sdss_camera import galactic_place
from imcat.surveys.extinction import SDSS_COEFFICIENTS, ebv_from_maps
from imcat.surveys.sdss_variance import SkyGrid, SkyVariance
from imcat.tile import Band, Exposure, Tile
from imcat.window import Window

__all__ = ["BandProfile", "TileProfile", "TwinSettings", "measure_profile"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_AB_NJY = 2.5 * math.log10(AB_FLUX)  # AB magnitude of 1 nJy
#: E(B-V) of a plane layer of dust towards the pole, on the scale of the 1998 map (about 0.02 there), times 1 / sin|b|.
_POLE_EBV = 0.02
_LARGEST_EBV = 0.3
_SIZE_SCATTER = 0.06  # of the logarithm of a star's size around the PSF's, beside its noise
#: Electrons that stand for 1 rms where no gain is known: the photon noise of sources is then negligible.
_MANY_ELECTRONS = 1e3


@dataclass(frozen=True)
class TwinSettings:
    """How a tile is measured to make its twins.

    Attributes
    ----------
    count_limit : float
        Stars and galaxies are counted down to this magnitude in the reference band.
    grid : int
        Points along each axis of the sky of surveys that state no sky.
    """

    count_limit: float = 20.0
    grid: int = 16


@dataclass(frozen=True, eq=False)
class BandProfile:
    """One exposure of a real tile.

    Attributes
    ----------
    name, band : str
        Of the exposure, and its band.
    wavelength : float
        Å.
    wcs : astropy.wcs.WCS
        As it is: offset and rotation of the band are in it.
    shape : (int, int)
        Rows and columns.
    zero_point : float
        AB magnitude of one unit of the file.
    njy_per_count : float32 array, ``[x]``
        Calibration vector. Where a survey has no counts, a count is an electron.
    gain : float
        Electrons for one count.
    sky : SkyGrid
        Counts.
    dark_variance : float
        Of read noise and dark current, counts².
    blank : BlankSky
        Noise of blank sky relative to what sky, gain and dark variance give, and the background left in it.
    psf : StarPsf
        The effective PSF.
    saturation : float
        Counts of the brightest unsaturated pixel; infinite where nothing saturated.
    depth : float
        Magnitude of a point source of S/N 5.
    mjd : float or None
        Of mid-exposure.
    """

    name: str
    band: str
    wavelength: float
    wcs: object
    shape: tuple[int, int]
    zero_point: float
    njy_per_count: Float32
    gain: float
    sky: SkyGrid
    dark_variance: float
    blank: BlankSky
    psf: StarPsf
    saturation: float
    depth: float
    mjd: float | None

    @property
    def electrons_per_njy(self) -> Float32:
        """Electrons for one nJy, by column."""
        return np.asarray(self.gain / self.njy_per_count, np.float32)

    @property
    def sky_electrons(self) -> SkyGrid:
        """The sky in electrons per pixel."""
        return SkyGrid((self.sky.values * self.gain).astype(np.float32), self.sky.x, self.sky.y)

    @property
    def read_variance(self) -> float:
        """Variance of read noise and dark current, electrons²."""
        return self.dark_variance * self.gain**2

    @property
    def rms(self) -> float:
        """Noise of a pixel of blank sky, nJy (median over the image)."""
        counts = float(np.median(self.sky.values)) / self.gain + self.dark_variance
        return math.sqrt(max(counts, 0.0)) * float(np.median(self.njy_per_count)) * self.blank.ratio


@dataclass(frozen=True, eq=False)
class TileProfile:
    """A real tile in numbers.

    Attributes
    ----------
    name, survey : str
        Of the tile.
    number : int
        The tile's number; for SDSS it holds run, camera column and field (`imcat.surveys.sdss.FieldId`).
    reference : str
        The band of x and y.
    exposures : tuple of BandProfile
        Bands in order of wavelength.
    ra, dec : float
        Of the centre, ICRS degrees.
    latitude, longitude : float
        Galactic, degrees.
    ebv : float
        Of the Milky Way, on the scale of the 1998 map.
    ebv_source : str
        ``given``, ``tile``, ``map`` or ``latitude``.
    area : float
        Of the reference image, square degrees.
    count_limit : float
        Faintest magnitude that was counted, in the reference band.
    stars, galaxies : int
        Star-like and extended sources down to it. The caller divides by what the population expects.
    sources : int
        All sources that were detected.
    """

    name: str
    survey: str
    number: int
    reference: str
    exposures: tuple[BandProfile, ...]
    ra: float
    dec: float
    latitude: float
    longitude: float
    ebv: float
    ebv_source: str
    area: float
    count_limit: float
    stars: int
    galaxies: int
    sources: int

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in order of wavelength."""
        return tuple(dict.fromkeys(e.band for e in self.exposures))

    @property
    def star_density(self) -> float:
        """Stars on a square degree."""
        return self.stars / self.area

    @property
    def galaxy_density(self) -> float:
        """Galaxies on a square degree."""
        return self.galaxies / self.area


@dataclass(frozen=True, eq=False)
class _Seen:
    """An exposure while it is measured."""

    band: Band
    exposure: Exposure
    noise: NoiseModel
    plane: Plane
    fwhm: float  # pixels
    pixel: float  # arcsec


def measure_profile(
    tile: Tile,
    settings: TwinSettings | None = None,
    *,
    psf: StarPsfSettings | None = None,
    noise: NoiseSettings | None = None,
    detect: DetectSettings | None = None,
    ebv: float | None = None,
) -> TileProfile:
    """Measure what a tile is like.

    Parameters
    ----------
    tile : Tile
        The pixels.
    settings : TwinSettings, optional
        Knobs of the profile.
    psf, noise, detect : settings of the rooms, optional
        How PSF, noise and sources are measured.
    ebv : float, optional
        E(B-V); default: of the tile's files, of the dust map where it is installed, or of a plane layer.

    Raises
    ------
    InputError
        If an exposure holds no usable pixel.
    """
    settings = settings or TwinSettings()
    noise, detect = noise or NoiseSettings(), detect or DetectSettings()
    seen = _look(tile, noise, detect)
    found = _sources(tile, seen, detect)
    reference = tile.reference_exposure
    profiles = [_profile(s, tile, found, noise, psf, settings) for s in seen]
    index = next(i for i, s in enumerate(seen) if s.exposure is reference)
    stars, galaxies = _count(tile, seen[index], profiles[index], found, settings)
    rows, columns = tile.shape
    ra, dec, _ = pixel_to_sky(reference.wcs, np.array([columns / 2.0]), np.array([rows / 2.0]))
    latitude, longitude = galactic_place(float(ra[0]), float(dec[0]))
    value, source = _reddening(tile, float(ra[0]), float(dec[0]), latitude, ebv)
    return TileProfile(
        name=tile.name,
        survey=tile.survey,
        number=tile.number,
        reference=tile.reference,
        exposures=tuple(profiles),
        ra=float(ra[0]),
        dec=float(dec[0]),
        latitude=latitude,
        longitude=longitude,
        ebv=value,
        ebv_source=source,
        area=rows * columns * (seen[index].pixel / 3600.0) ** 2,
        count_limit=settings.count_limit,
        stars=stars,
        galaxies=galaxies,
        sources=len(found),
    )


def _look(tile: Tile, noise: NoiseSettings, detect: DetectSettings) -> list[_Seen]:
    """Noise, PSF width and place of every exposure."""
    weights = band_weights({band.name: band.wavelength for band in tile.bands}, detect)
    reference = tile.reference_exposure
    scale = _pixel_scale(reference)
    seen = []
    for band, exposure in tile.exposures():
        model = measure_noise(exposure, noise)
        pixel = _pixel_scale(exposure)
        if exposure.psf_fwhm is not None:
            fwhm = exposure.psf_fwhm / pixel
        else:
            fwhm = measure_psf_fwhm(exposure, model) or detect.fallback_fwhm
        grid = map_grids(reference.wcs, reference.shape, exposure.wcs, exposure.shape, AlignSettings())
        plane = Plane(exposure, model, grid, (scale / pixel) ** 2, weights[band.name])
        seen.append(_Seen(band, exposure, model, plane, fwhm, pixel))
    return seen


def _sources(tile: Tile, seen: list[_Seen], detect: DetectSettings) -> Detections:
    used = [s.fwhm * s.pixel for s in seen if s.plane.weight > 0]
    fwhm = detect.kernel_fwhm or float(np.median(used))
    combiner = Combiner([s.plane for s in seen], tile.shape, fwhm / _pixel_scale(tile.reference_exposure))
    combiner.calibrate()
    return detect_threshold(combiner, detect)


def _profile(
    seen: _Seen,
    tile: Tile,
    found: Detections,
    noise: NoiseSettings,
    psf: StarPsfSettings | None,
    settings: TwinSettings,
) -> BandProfile:
    """One exposure: its camera, its blank sky, its PSF."""
    exposure, reference = seen.exposure, tile.reference_exposure
    taken = partial(occupied, found.footprints, reference, exposure)
    model = measure_covariance(exposure, seen.noise, taken, noise)
    whole = Window.whole(exposure.shape)
    cutout = exposure.read(whole)
    saturated = (cutout.mask & np.uint16(PixelFlag.SATURATED)) != 0
    bad = cutout.bad | saturated
    njy_per_count, gain, sky, dark, variance = _camera(exposure, model, cutout.variance, bad, settings)
    lost = bad | taken(whole)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.asarray(cutout.data / np.sqrt(variance), np.float32)
    values[lost] = 0
    blank = measure_blank_sky(values, ~lost, amplifiers=tile.survey == "sdss")
    del values
    data = cutout.data
    model.mesh.subtract_level(whole, cutout.bad, data)
    x, y = found.x, found.y
    if exposure is not reference:
        x, y = transform_positions(reference.wcs, exposure.wcs, x, y)
    stars = measure_psf(
        data, variance * np.float32(blank.ratio**2), bad, x, y,
        labels=native_labels(found.footprints, reference, exposure, whole),
        gain=gain / float(np.median(njy_per_count)) if exposure.gain is not None else None,
        fwhm=seen.fwhm, settings=psf,
    )  # fmt: skip
    full = data[~bad]
    level = float(full.max()) / float(np.median(njy_per_count)) if saturated.any() and full.size else math.inf
    rms = math.sqrt(float(np.median(variance[~bad]))) * blank.ratio if (~bad).any() else seen.noise.rms
    size = max(15, int(6 * stars.mixture.fwhm) | 1)
    flux = 5.0 * rms / math.sqrt(float(np.sum(stars.mixture.image(size) ** 2)))
    return BandProfile(
        name=exposure.name,
        band=seen.band.name,
        wavelength=seen.band.wavelength,
        wcs=exposure.wcs,
        shape=exposure.shape,
        zero_point=exposure.zero_point,
        njy_per_count=njy_per_count,
        gain=gain,
        sky=sky,
        dark_variance=dark,
        blank=blank,
        psf=stars,
        saturation=level,
        depth=_AB_NJY - 2.5 * math.log10(flux),
        mjd=exposure.mjd,
    )


def _camera(
    exposure: Exposure,
    model: NoiseModel,
    given: Float32 | None,
    bad: NDArray[np.bool_],
    settings: TwinSettings,
) -> tuple[Float32, float, SkyGrid, float, Float32]:
    """Calibration (nJy per count), gain, sky, dark variance (counts) and the variance of each pixel that they stand for."""
    if isinstance(exposure.variance, SkyVariance) and given is not None:
        own = exposure.variance
        return own.calibration, own.gain, own.sky, own.dark_variance, given
    whole = Window.whole(exposure.shape)
    variance = given if given is not None else model.mesh.variance_at(whole, model.variance_scale, bad)
    rms = math.sqrt(float(np.median(variance[~bad])))
    electrons = exposure.gain or _MANY_ELECTRONS / rms
    njy_per_count = np.full(exposure.shape[1], 1.0 / electrons, np.float32)
    values = _coarse(variance, bad, settings.grid) * np.float32(electrons**2)
    rows, columns = exposure.shape
    places = [
        (np.arange(n, dtype=np.float32) + 0.5) * np.float32(settings.grid / n) - np.float32(0.5)
        for n in (columns, rows)
    ]
    return njy_per_count, 1.0, SkyGrid(values, places[0], places[1]), 0.0, variance


def _coarse(variance: Float32, bad: NDArray[np.bool_], size: int) -> Float32:
    """Median of an image in each of ``size`` x ``size`` boxes."""
    overall = np.float32(np.median(variance[~bad]))
    values = np.full((size, size), overall, np.float32)
    rows, columns = (np.linspace(0, n, size + 1).astype(int) for n in variance.shape)
    for i in range(size):
        for j in range(size):
            box = (slice(rows[i], rows[i + 1]), slice(columns[j], columns[j + 1]))
            good = variance[box][~bad[box]]
            if good.size:
                values[i, j] = np.median(good)
    return values


def _count(
    tile: Tile, seen: _Seen, profile: BandProfile, found: Detections, settings: TwinSettings
) -> tuple[int, int]:
    """Star-like and extended sources down to the limit in the reference band."""
    if not len(found):
        return 0, 0
    exposure = seen.exposure
    layer = Layer(
        seen.band.name, exposure, seen.noise, seen.plane.grid, seen.fwhm * seen.pixel / FWHM_PER_SIGMA, 1.0
    )
    measured = measure_sources([layer], exposure, found, MeasureSettings())
    flux = measured.flux[:, 0, 0]
    whole = Window.whole(exposure.shape)
    cutout = seen.noise.read(exposure, whole)
    saturated = (cutout.mask & np.uint16(PixelFlag.SATURATED)) != 0
    moments = measure_moments(
        cutout.data,
        cutout.bad | saturated,
        measured.x,
        measured.y,
        seen.noise.rms,
        seen.fwhm / FWHM_PER_SIGMA,
    )
    mixture = profile.psf.mixture
    star = mixture.image(41).astype(np.float32)
    own = measure_moments(star, np.zeros(star.shape, bool), np.array([20.0]), np.array([20.0]), 1.0)
    size = float(own.size[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = np.abs(np.log(moments.size / size))
        like_star = offset < 3 * np.hypot(_SIZE_SCATTER, 1.0 / np.maximum(moments.snr, 1e-3))
        # The Gaussian of a star's own moments misses its wings.
        psf_flux = moments.flux / float(own.flux[0])
        like_star |= moments.lost >= 4
        bright = np.where(like_star & np.isfinite(psf_flux), psf_flux, flux)
        counted = _AB_NJY - 2.5 * np.log10(bright) < settings.count_limit
    return int((counted & like_star).sum()), int((counted & ~like_star).sum())


def _reddening(tile: Tile, ra: float, dec: float, latitude: float, given: float | None) -> tuple[float, str]:
    """E(B-V), and where it is from."""
    if given is not None:
        return given, "given"
    if "ebv" in tile.extinction:
        return tile.extinction["ebv"], "tile"
    known = [tile.extinction[b] / c for b, c in SDSS_COEFFICIENTS.items() if b in tile.extinction]
    if tile.survey == "sdss" and known:
        return float(np.median(known)), "tile"
    value = ebv_from_maps(ra, dec)
    if value is not None:
        return value, "map"
    sine = math.sin(math.radians(abs(latitude)))
    return min(_POLE_EBV / max(sine, 1e-3), _LARGEST_EBV), "latitude"


def _pixel_scale(exposure: Exposure) -> float:
    """Side of the middle pixel, arcsec."""
    rows, columns = exposure.shape
    _, _, jacobian = pixel_to_sky(exposure.wcs, np.array([columns / 2.0]), np.array([rows / 2.0]))
    return float(np.sqrt(abs(np.linalg.det(jacobian[0]))))
