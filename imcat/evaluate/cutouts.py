"""Five-band cutouts of real tiles and of their twins, cut by the same code from both.

A cutout is 64 × 64 native pixels of each band, centred on blank sky, on a star-like source or on a
galaxy of the tile's own catalogue; each band is aligned to the sky position to the nearest pixel, so
nothing is resampled. White noise is added to both sides first, so that the steps in which a survey
stores its pixels are not what tells one side from the other.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from imcat.catalogue import Catalogue
from imcat.catalogue.names import pogson_magnitude
from imcat.errors import InputError
from imcat.flags import SourceFlag
from imcat.noise import NoiseSettings, measure_noise
from imcat.psf import FWHM_PER_SIGMA, half_sample_mode
from imcat.tile import Tile
from imcat.window import Window

__all__ = [
    "BLANK_RADIUS",
    "EXTRA_NOISE",
    "KINDS",
    "MAGNITUDE_RANGE",
    "SIZE",
    "Cutouts",
    "Patch",
    "Positions",
    "aperture_sums",
    "blank_positions",
    "choose",
    "cut",
    "kinds_of",
    "read_patch",
    "widened",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Side of a cutout, pixels.
SIZE = 64

#: Rms of the white noise that both sides get, in units of the band's own noise.
EXTRA_NOISE = 0.2

#: Kinds of cutouts, in the order of their codes.
KINDS = ("blank", "star", "galaxy")

#: Magnitudes in the reference band between which sources are compared.
MAGNITUDE_RANGE = (16.0, 21.5)

#: Around a position of blank sky no source is detected within this radius, arcsec.
BLANK_RADIUS = 10.0

# A source with one of these bits is centred on nothing that can be compared.
_UNUSABLE = int(
    SourceFlag.SATURATED
    | SourceFlag.EDGE
    | SourceFlag.HALO
    | SourceFlag.BAD_PIXEL
    | SourceFlag.NOT_MEASURED
    | SourceFlag.OUTSIDE
    | SourceFlag.MOVING
)
# Radii whose flux ratio is the concentration, FWHM of the PSF.
_INNER, _OUTER = 0.6, 1.7
# A source is a star within so much of the stars' concentration, and a galaxy beyond so much, in
# magnitudes and in standard errors: in between it is neither, so that both lists are pure.
_STAR_WIDTH, _STAR_SIGMA = 0.06, 2.0
_GALAXY_EXCESS, _GALAXY_SIGMA = 0.12, 2.0
# The stars' concentration is the mode of that of sources with a smaller error than this, magnitudes.
_SHARP = 0.03


@dataclass(frozen=True, eq=False)
class Patch:
    """A tile in memory, with its catalogue.

    Attributes
    ----------
    name : str
        The tile.
    bands : tuple of str
        In order of wavelength.
    reference : str
        The band of x and y, of magnitudes and of concentrations.
    images : tuple of float32 array [y, x]
        nJy, one per band (its first exposure), bad pixels zero, extra noise included.
    rms : float64 array [band]
        Noise of a pixel before noise was added, nJy.
    wcs : tuple
        One per band.
    catalogue : Catalogue
        The tile's sources.
    pixel_scale : float
        Of the reference band, arcsec.
    """

    name: str
    bands: tuple[str, ...]
    reference: str
    images: tuple[Float32, ...]
    rms: Float64
    wcs: tuple[Any, ...]
    catalogue: Catalogue
    pixel_scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the reference band."""
        rows, columns = self.images[self.bands.index(self.reference)].shape
        return rows, columns

    @property
    def magnitude(self) -> Float64:
        """Kron magnitude of each source in the reference band, NaN where its flux is not positive."""
        return pogson_magnitude(np.asarray(self.catalogue[f"{self.reference}_kron_flux"], np.float64))

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Sources that no flag speaks against."""
        return np.asarray((self.catalogue["flags"] & _UNUSABLE) == 0)

    def pixels(self, band: int, ra: Float64, dec: Float64) -> tuple[Float64, Float64]:
        """Columns and rows of sky positions (degrees) in a band."""
        x, y = self.wcs[band].world_to_pixel_values(ra, dec)
        return np.asarray(x, np.float64), np.asarray(y, np.float64)


@dataclass(frozen=True, eq=False)
class Positions:
    """Where cutouts are centred.

    Attributes
    ----------
    ra, dec : float64 array [n]
        ICRS, degrees.
    kind : int64 array [n]
        Index in `KINDS`.
    magnitude : float64 array [n]
        Of the source in the reference band; NaN for blank sky.
    """

    ra: Float64
    dec: Float64
    kind: NDArray[np.int64]
    magnitude: Float64

    def __len__(self) -> int:
        return int(self.kind.size)

    def select(self, rows: NDArray[Any]) -> Positions:
        """Some of the positions, by mask or by index."""
        return Positions(self.ra[rows], self.dec[rows], self.kind[rows], self.magnitude[rows])


@dataclass(frozen=True, eq=False)
class Cutouts:
    """Cutouts of one patch.

    Attributes
    ----------
    pixels : float32 array [n, band, SIZE, SIZE]
        In units of the noise `rms` of the band. The position lies within half a pixel of pixel
        ``(SIZE // 2, SIZE // 2)``.
    offset : float64 array [n, band, 2]
        Column and row of the position relative to that pixel.
    kind : int64 array [n]
        Index in `KINDS`.
    magnitude : float64 array [n]
        Of the source in the reference band; NaN for blank sky.
    upper : bool array [n]
        Whether the position lies in the upper half of the tile.
    rms : float64 array [band]
        nJy.
    """

    pixels: Float32
    offset: Float64
    kind: NDArray[np.int64]
    magnitude: Float64
    upper: NDArray[np.bool_]
    rms: Float64

    def __len__(self) -> int:
        return int(self.kind.size)

    def select(self, rows: NDArray[Any]) -> Cutouts:
        """Some of the cutouts, by mask or by index."""
        return replace(
            self,
            pixels=self.pixels[rows],
            offset=self.offset[rows],
            kind=self.kind[rows],
            magnitude=self.magnitude[rows],
            upper=self.upper[rows],
        )


def read_patch(
    tile: Tile, catalogue_of: Callable[[Tile], Catalogue], bands: Sequence[str], side: str
) -> Patch:
    """Read a tile's pixels, make its catalogue and add the extra noise.

    Parameters
    ----------
    tile : Tile
        The pixels; the first exposure of each band is taken.
    catalogue_of : callable
        Makes the catalogue of a tile.
    bands : sequence of str
        Bands to take.
    side : str
        ``real`` or ``twin``: with the tile's name it decides the added noise.

    Raises
    ------
    InputError
        If an image is smaller than two cutouts.
    """
    rng = np.random.default_rng(zlib.crc32(f"{side} {tile.name}".encode()))
    images, rms = [], []
    for name in bands:
        exposure = tile.band(name).exposures[0]
        if min(exposure.shape) < 2 * SIZE:
            raise InputError(
                f"the image has {exposure.shape[1]} x {exposure.shape[0]} pixels",
                path=exposure.name,
                expected=f"at least {2 * SIZE} x {2 * SIZE} to compare cutouts",
            )
        noise = measure_noise(exposure, NoiseSettings()).rms
        image = np.array(exposure.read(Window.whole(exposure.shape)).data, np.float32)
        image += np.float32(EXTRA_NOISE * noise) * rng.standard_normal(image.shape, np.float32)
        images.append(image)
        rms.append(noise)
    catalogue = catalogue_of(tile)
    wcs = tuple(tile.band(name).exposures[0].wcs for name in bands)
    reference = tile.reference if tile.reference in bands else bands[len(bands) // 2]
    matrix = np.asarray(wcs[bands.index(reference)].pixel_scale_matrix)
    scale = 3600 * float(abs(np.linalg.det(matrix))) ** 0.5
    return Patch(tile.name, tuple(bands), reference, tuple(images), np.array(rms), wcs, catalogue, scale)


def widened(patch: Patch, factor: float) -> Patch:
    """The patch as a wider PSF would show it, with noise of the same level and as white as before.

    Each band is convolved with the Gaussian that widens a Gaussian PSF by the factor. That takes from
    white noise the power ``1 - |K|²`` at each frequency, K the kernel's transform; Gaussian noise of
    just this power is added, so the sum is white with the same rms and only the PSF has changed.

    Parameters
    ----------
    patch : Patch
        With the widths of its PSF in the catalogue's meta (``psf_fwhm``, arcsec).
    factor : float
        New over old FWHM, more than 1.
    """
    from scipy.fft import irfft2, rfft2

    rng = np.random.default_rng(zlib.crc32(f"widened {patch.name}".encode()))
    images = []
    total = np.hypot(1.0, EXTRA_NOISE)
    for name, image, rms in zip(patch.bands, patch.images, patch.rms, strict=True):
        sigma = patch.catalogue.meta["psf_fwhm"][name] / patch.pixel_scale / FWHM_PER_SIGMA
        sigma *= float(np.sqrt(factor**2 - 1))
        v = np.fft.fftfreq(image.shape[0])[:, None]
        u = np.fft.rfftfreq(image.shape[1])[None, :]
        kernel = np.exp(-2 * np.pi**2 * sigma**2 * (u**2 + v**2)).astype(np.float32)
        white = np.float32(total * rms) * rng.standard_normal(image.shape, np.float32)
        spectrum = rfft2(image) * kernel + rfft2(white) * np.sqrt(1 - kernel**2)
        images.append(np.asarray(irfft2(spectrum, s=image.shape), np.float32))
    return replace(patch, images=tuple(images))


@njit(cache=True, nogil=True)
def _aperture_sums(image, x, y, radii, out):  # type: ignore[no-untyped-def]
    rows, columns = image.shape
    for k in range(x.size):
        for j in range(radii.size):
            out[k, j] = 0.0
        reach = int(radii[radii.size - 1] + 1.5)
        cx, cy = int(np.floor(x[k] + 0.5)), int(np.floor(y[k] + 0.5))
        for iy in range(max(cy - reach, 0), min(cy + reach + 1, rows)):
            for ix in range(max(cx - reach, 0), min(cx + reach + 1, columns)):
                distance = np.sqrt((ix - x[k]) ** 2 + (iy - y[k]) ** 2)
                value = image[iy, ix]
                for j in range(radii.size):
                    weight = min(max(radii[j] + 0.5 - distance, 0.0), 1.0)
                    out[k, j] += weight * value


def aperture_sums(image: Float32, x: Float64, y: Float64, radii: Sequence[float]) -> Float64:
    """Sums of pixels in circles whose edge falls from one to zero over a pixel.

    Parameters
    ----------
    image : float32 array [y, x]
        Any unit.
    x, y : float64 array [n]
        Centres, pixels.
    radii : sequence of float
        Pixels, rising.

    Returns
    -------
    float64 array [n, radii]
        Pixels outside the image count as zero.
    """
    out = np.zeros((x.size, len(radii)))
    _aperture_sums(image, x, y, np.asarray(radii, np.float64), out)
    return out


def kinds_of(patch: Patch) -> tuple[NDArray[np.int64], Float64]:
    """Tell stars from galaxies by their concentration against that of the PSF.

    Parameters
    ----------
    patch : Patch
        Its reference band is looked at.

    Returns
    -------
    kind : int64 array [n]
        Index in `KINDS` of each source of the catalogue; -1 for sources that are flagged, out of
        `MAGNITUDE_RANGE`, or neither clearly compact nor clearly extended.
    excess : float64 array [n]
        Concentration minus that of the stars, magnitudes; positive for extended sources.
    """
    band = patch.bands.index(patch.reference)
    x, y = patch.pixels(band, patch.catalogue["ra"], patch.catalogue["dec"])
    fwhm = patch.catalogue.meta["psf_fwhm"][patch.reference] / patch.pixel_scale
    radii = np.array([_INNER, _OUTER]) * fwhm
    flux = aperture_sums(patch.images[band], x, y, radii)
    noise = patch.rms[band] * np.hypot(1.0, EXTRA_NOISE) * np.sqrt(np.pi) * radii
    with np.errstate(divide="ignore", invalid="ignore"):
        concentration = 2.5 * np.log10(flux[:, 1] / flux[:, 0])
        error = 2.5 / np.log(10) * np.hypot(noise[0] / flux[:, 0], noise[1] / flux[:, 1])
    magnitude, usable = patch.magnitude, patch.usable & np.isfinite(concentration)
    usable &= (magnitude >= MAGNITUDE_RANGE[0]) & (magnitude < MAGNITUDE_RANGE[1])
    kind = np.full(len(x), -1, np.int64)
    sharp = usable & (error < _SHARP)
    if not sharp.any():
        return kind, np.full(len(x), np.nan)
    excess = concentration - half_sample_mode(concentration[sharp])
    star = usable & (np.abs(excess) < np.maximum(_STAR_WIDTH, _STAR_SIGMA * error)) & (error < 0.1)
    galaxy = usable & (excess > np.maximum(_GALAXY_EXCESS, _GALAXY_SIGMA * error))
    kind[star], kind[galaxy] = KINDS.index("star"), KINDS.index("galaxy")
    return kind, excess


def blank_positions(patch: Patch, number: int, rng: np.random.Generator) -> tuple[Float64, Float64]:
    """Random positions with no detection around them.

    Parameters
    ----------
    patch : Patch
        Its whole catalogue counts, whatever its flags.
    number : int
        Positions wanted; where the field is crowded there may be fewer.
    rng : numpy.random.Generator
        Draws them.

    Returns
    -------
    x, y : float64 array [n]
        Pixels of the reference band.
    """
    from scipy.spatial import cKDTree

    rows, columns = patch.shape
    margin = SIZE / 2 + 4
    x = rng.uniform(margin, columns - margin, 40 * number)
    y = rng.uniform(margin, rows - margin, 40 * number)
    sources = np.column_stack([patch.catalogue["x"], patch.catalogue["y"]])
    if len(sources):
        distance, _ = cKDTree(sources).query(np.column_stack([x, y]))
        free = distance * patch.pixel_scale > BLANK_RADIUS
        x, y = x[free], y[free]
    return x[:number], y[:number]


def choose(patch: Patch, number: int, rng: np.random.Generator) -> Positions:
    """Choose up to `number` positions of each kind at random, in random order within a kind.

    Parameters
    ----------
    patch : Patch
        Where they lie.
    number : int
        Largest number of each kind.
    rng : numpy.random.Generator
        Draws the sources and the blank positions.
    """
    kind, _ = kinds_of(patch)
    rows = rng.permutation(np.flatnonzero(kind > 0))
    reference = patch.bands.index(patch.reference)
    x, y = blank_positions(patch, number, rng)
    blank = patch.wcs[reference].pixel_to_world_values(x, y)
    ra = np.concatenate([blank[0], patch.catalogue["ra"][rows]])
    dec = np.concatenate([blank[1], patch.catalogue["dec"][rows]])
    codes = np.concatenate([np.zeros(x.size, np.int64), kind[rows]])
    magnitude = np.concatenate([np.full(x.size, np.nan), patch.magnitude[rows]])
    inside = np.ones(ra.size, bool)
    for band, image in enumerate(patch.images):
        for place, size in zip(patch.pixels(band, ra, dec), image.shape[::-1], strict=True):
            # One pixel more at the upper edge, so that the mirrored patch keeps the same sources.
            inside &= (place >= SIZE // 2 + 1) & (place <= size - SIZE // 2 - 2)
    keep = np.concatenate([np.flatnonzero(inside & (codes == c))[:number] for c in range(len(KINDS))])
    return Positions(ra[keep], dec[keep], codes[keep], magnitude[keep])


def cut(patch: Patch, positions: Positions, mirror: bool = False) -> Cutouts:
    """Cut the pixels around some positions.

    Parameters
    ----------
    patch : Patch
        Where from.
    positions : Positions
        From `choose`, for this patch or one of the same sky.
    mirror : bool
        Cut from the patch turned over in x, about the same positions.
    """
    n = len(positions)
    pixels = np.empty((n, len(patch.bands), SIZE, SIZE), np.float32)
    offset = np.empty((n, len(patch.bands), 2))
    upper = np.zeros(n, bool)
    for band, image in enumerate(patch.images):
        x, y = patch.pixels(band, positions.ra, positions.dec)
        if mirror:
            image, x = image[:, ::-1], image.shape[1] - 1 - x
        column, row = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
        offset[:, band] = np.column_stack([x - column, y - row])
        for k in range(n):
            top, left = row[k] - SIZE // 2, column[k] - SIZE // 2
            pixels[k, band] = image[top : top + SIZE, left : left + SIZE]
        pixels[:, band] /= np.float32(patch.rms[band])
        if patch.bands[band] == patch.reference:
            upper = y > image.shape[0] / 2
    return Cutouts(pixels, offset, positions.kind, positions.magnitude, upper, patch.rms)
