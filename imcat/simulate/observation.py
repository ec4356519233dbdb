"""How a patch of sky is observed: the exposures to draw, before any source is known.

An `Observation` comes from the model of a survey's camera (`imcat.simulate.sdss_camera`,
`imcat.simulate.csst_camera`) or from a real tile (`imcat.simulate.twin`); scenes, drawing and
writing do not ask which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.errors import InputError
from imcat.psf.mixture import PsfMixture
from imcat.simulate.filters import FilterSet
from imcat.surveys.sdss_variance import SkyGrid

__all__ = ["ExposureModel", "Observation", "sky_plane"]

Float32 = NDArray[np.float32]
#: A point source of S/N 5 in an aperture of optimal weights.
_LIMIT_SNR = 5.0


@dataclass(frozen=True, eq=False)
class ExposureModel:
    """One image to draw.

    Attributes
    ----------
    name : str
        Of the exposure.
    band : str
        Of the exposure; several exposures may be of one band.
    wcs : astropy.wcs.WCS
        Its `array_shape` is the shape of the image.
    shape : (int, int)
        Rows and columns.
    psf : PsfMixture
        Effective PSF, pixel response included.
    electrons_per_njy : float32 array, ``[x]``
        Electrons for one nJy, by column.
    sky : SkyGrid
        Electrons per pixel.
    read_variance : float
        Of read noise and dark current, electrons².
    full_well : float
        Electrons above which a pixel is saturated.
    noise_scale : float32 array, ``[x]``
        Factor on the noise, by column.
    residual_rms, residual_length : float
        What the subtraction of the sky left: rms as a fraction of the noise of a pixel, correlation length
        in pixels.
    residual_mean : float
        Its mean, as a fraction of the noise of a pixel. Both include the light of sources that are too faint to
        be told from the sky.
    row_rms : (float, float)
        Scatter of the levels of rows in the left and the right half, as a fraction of the noise of a pixel.
    row_link : float
        Correlation of both.
    column_rms : float
        Scatter of the levels of columns, as a fraction of the noise of a pixel.
    neighbours : (float, float)
        Correlation of the noise of neighbouring pixels along x and along y.
    correlation : float
        Standard deviation of the Gaussian that smooths the noise, pixels.
    cosmic_rays : float
        Mean number of hits.
    marks_cosmic_rays : float
        Share of the hits that the survey's mask holds.
    interpolates : bool
        Whether the survey's pipeline fills bad columns and cosmic rays from their neighbours.
    trails : float
        Mean number of satellite trails.
    bad_columns : tuple of int
        Columns without signal.
    light_scale : float
        Light on the detector for one unit of flux: above 1 where magnitudes are defined within an
        aperture that misses the PSF's outer wings.
    quantum : float
        Electrons for one count, the smallest step of a pixel; 0: pixels take any value.
    mjd : float
        Of mid-exposure.
    extra : dict
        What the writer of the survey's files needs.
    """

    name: str
    band: str
    wcs: Any
    shape: tuple[int, int]
    psf: PsfMixture
    electrons_per_njy: Float32
    sky: SkyGrid
    read_variance: float
    full_well: float
    noise_scale: Float32
    residual_rms: float = 0.0
    residual_length: float = 256.0
    residual_mean: float = 0.0
    row_rms: tuple[float, float] = (0.0, 0.0)
    row_link: float = 0.0
    column_rms: float = 0.0
    neighbours: tuple[float, float] = (0.0, 0.0)
    correlation: float = 0.0
    cosmic_rays: float = 0.0
    marks_cosmic_rays: float = 0.0
    interpolates: bool = False
    trails: float = 0.0
    bad_columns: tuple[int, ...] = ()
    light_scale: float = 1.0
    quantum: float = 0.0
    mjd: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def pixel_scale(self) -> float:
        """Arcsec."""
        matrix = 3600.0 * np.asarray(self.wcs.pixel_scale_matrix)
        return math.sqrt(abs(float(np.linalg.det(matrix))))

    @property
    def jacobian(self) -> NDArray[np.float64]:
        """Pixels ``(x, y)`` for one arcsec ``(east, north)`` in the middle of the image."""
        y, x = 0.5 * (self.shape[0] - 1), 0.5 * (self.shape[1] - 1)
        ra, dec = self.wcs.all_pix2world(x, y, 0)
        step = 1.0 / 3600.0
        east = np.array(self.wcs.all_world2pix(ra + step / math.cos(math.radians(float(dec))), dec, 0))
        north = np.array(self.wcs.all_world2pix(ra, dec + step, 0))
        return np.stack([east - (x, y), north - (x, y)], axis=1)

    @property
    def noise(self) -> float:
        """Rms of blank sky in the middle of the image, nJy."""
        electrons = float(np.median(self.sky.values)) + self.read_variance
        scale = float(np.median(self.noise_scale)) / float(np.median(self.electrons_per_njy))
        return math.sqrt(electrons) * scale

    @property
    def limit(self) -> float:
        """Magnitude of a point source of S/N 5 in this exposure."""
        # Effective number of pixels of the PSF, 1 / Σ p².
        size = max(15, int(6 * self.psf.fwhm) | 1)
        image = self.psf.image(size, 0.5 * self.shape[1], 0.5 * self.shape[0])
        flux = _LIMIT_SNR * self.noise / math.sqrt(float(np.sum(np.asarray(image) ** 2)))
        return 2.5 * math.log10(AB_FLUX / flux)


@dataclass(frozen=True, eq=False)
class Observation:
    """A tile to simulate.

    Attributes
    ----------
    name : str
        Of the tile.
    survey : str
        ``sdss``, ``csst`` or ``generic``.
    number : int
        The tile's number (36 bits).
    exposures : tuple of ExposureModel
        In the order in which they are drawn and written.
    reference : str
        The band of x and y; its first exposure is the reference image.
    filters : FilterSet
        Throughput of the bands.
    latitude, longitude : float
        Galactic, degrees.
    ebv : float
        Of the Milky Way, on the scale of the 1998 map.
    star_density, galaxy_density : float
        Factors on the population's densities.
    """

    name: str
    survey: str
    number: int
    exposures: tuple[ExposureModel, ...]
    reference: str
    filters: FilterSet
    latitude: float
    longitude: float
    ebv: float
    star_density: float = 1.0
    galaxy_density: float = 1.0

    def __post_init__(self) -> None:
        bands = {e.band for e in self.exposures}
        missing = sorted(bands - set(self.filters.names))
        if missing:
            raise InputError(
                f"there is no throughput curve of band {', '.join(missing)}",
                path=self.name,
                expected=f"bands among {', '.join(self.filters.names)}",
            )
        if self.reference not in bands:
            raise InputError(f"the reference band {self.reference!r} has no exposure", path=self.name)

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands that are observed, in the order of the filters."""
        there = {e.band for e in self.exposures}
        return tuple(name for name in self.filters.names if name in there)

    @property
    def reference_exposure(self) -> ExposureModel:
        """The first exposure of the reference band."""
        return next(e for e in self.exposures if e.band == self.reference)

    def limit(self, band: str) -> float:
        """Magnitude of a point source of S/N 5 in all exposures of a band together."""
        fluxes = [10 ** (-0.4 * e.limit) for e in self.exposures if e.band == band]
        return -2.5 * math.log10(1.0 / math.sqrt(sum(f**-2 for f in fluxes)))


def sky_plane(shape: tuple[int, int], level: float, slope: tuple[float, float] = (0.0, 0.0)) -> SkyGrid:
    """A plane sky on a grid of four points, electrons.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    level : float
        In the centre.
    slope : (float, float)
        Change along y and x over the whole image.
    """
    y, x = (np.linspace(0, 1, n, dtype=np.float32) for n in shape)
    half = np.array([-0.5, 0.5])
    values = level + slope[0] * half[:, None] + slope[1] * half[None, :]
    return SkyGrid(np.maximum(values, 0).astype(np.float32), x, y)
