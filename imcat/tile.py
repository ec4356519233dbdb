"""Tile, Band, Exposure: one patch of sky as it enters the pipeline.

A tile is a set of bands, a band has one or more exposures, and an exposure
keeps its native pixel grid. Pixels are read window by window, so that a tile
never has to fit in memory: `Exposure.image`, `.variance` and `.mask` are
`Pixels`, anything with a shape and a ``read`` method.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.flags import BAD_PIXEL_BITS, PixelFlag
from imcat.window import Window

__all__ = ["ArrayPixels", "Band", "Cutout", "Exposure", "Pixels", "Tile"]

Float32 = NDArray[np.float32]
Mask = NDArray[np.uint16]


@runtime_checkable
class Pixels(Protocol):
    """A two-dimensional image that is read window by window."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def read(self, window: Window) -> NDArray[Any]:
        """Pixels of a window that lies inside the image.

        A native-endian array of the window's shape that the caller must not write to.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArrayPixels:
    """An image that is already in memory (shape ``[y, x]``)."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (int(self.array.shape[0]), int(self.array.shape[1]))

    def read(self, window: Window) -> NDArray[Any]:
        """A view of the window."""
        return self.array[window.slices]


@dataclass(frozen=True, eq=False)
class Cutout:
    """Pixels of one window of one exposure, all of shape ``[y, x]``.

    Attributes
    ----------
    data : float32 array
        nJy; zero where `bad`.
    variance : float32 array or None
        nJy², sky and detector only; None when it must be measured from the image.
    mask : uint16 array
        Bits of `imcat.flags.PixelFlag`; pixels that are not finite or have no
        variance carry ``NO_DATA``.
    bad : bool array
        True where a pixel carries no information.
    any_bad : bool
        Whether there is such a pixel.
    """

    window: Window
    data: Float32
    variance: Float32 | None
    mask: Mask
    bad: NDArray[np.bool_]
    any_bad: bool


@dataclass(frozen=True, eq=False)
class Exposure:
    """One image on its native grid.

    Attributes
    ----------
    name : str
        How messages call it, usually the file.
    image : Pixels
        nJy.
    wcs : astropy.wcs.WCS
        Celestial; pixel (0, 0) is the centre of the first pixel with astropy's
        ``pixel_to_world_values``.
    variance : Pixels, optional
        nJy², of sky and detector only.
    mask : Pixels, optional
        Bits of `imcat.flags.PixelFlag`.
    zero_point : float
        AB magnitude of one unit of the file (pixels here are nJy already).
    gain : float, optional
        Electrons per nJy, for the Poisson noise of sources.
    psf_fwhm : float, optional
        arcsec, when a file states it; else it is measured.
    mjd : float, optional
        Modified Julian date (TAI) of mid-exposure.
    saturation : float, optional
        nJy per pixel above which a pixel is saturated, where no mask says so.
    variance_source : str
        How the variance came about: ``calibration``, ``variance``, ``weight``,
        ``rms``, ``gain+sky`` or ``measured``.
    psf : object, optional
        A PSF model from a file, where there is one.
    notes : tuple of str
        What a user should know about how the exposure was read; they become
        warnings of the tile.
    """

    name: str
    image: Pixels
    wcs: Any
    variance: Pixels | None = None
    mask: Pixels | None = None
    zero_point: float = 31.4
    gain: float | None = None
    psf_fwhm: float | None = None
    mjd: float | None = None
    saturation: float | None = None
    variance_source: str = "measured"
    psf: Any = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in ("variance", "mask"):
            other = getattr(self, kind)
            if other is not None and other.shape != self.image.shape:
                raise InputError(
                    f"the {kind} has {_size(other.shape)} pixels",
                    path=self.name,
                    expected=f"the image's {_size(self.image.shape)}",
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape

    def read(self, window: Window) -> Cutout:
        """Read one window, with bad pixels found and set to zero.

        Parameters
        ----------
        window : Window
            Must lie inside the image.
        """
        data = _own(self.image.read(window), np.float32)
        if self.mask is None:
            mask = np.zeros(data.shape, dtype=np.uint16)
        else:
            mask = _own(self.mask.read(window), np.uint16)
        if self.saturation is not None:
            mask[data >= np.float32(self.saturation)] |= np.uint16(PixelFlag.SATURATED)
        variance = None
        lost = _not_finite(data)
        if self.variance is not None:
            variance = _own(self.variance.read(window), np.float32)
            lost |= _not_finite(variance)
            lost |= variance <= 0
        if lost.any():
            mask[lost] |= np.uint16(PixelFlag.NO_DATA)
        # Without a mask the only bad pixels are the lost ones.
        bad = lost if self.mask is None else (mask & np.uint16(BAD_PIXEL_BITS)) != 0
        any_bad = bool(bad.any())
        if any_bad:
            data[bad] = 0
        return Cutout(window, data, variance, mask, bad, any_bad)


@dataclass(frozen=True, eq=False)
class Band:
    """One filter of a tile: a name, its place in wavelength, its exposures."""

    name: str
    wavelength: float
    exposures: tuple[Exposure, ...]

    def __post_init__(self) -> None:
        if not self.exposures:
            raise InputError(f"band {self.name} has no exposure", expected="at least one")


@dataclass(frozen=True, eq=False)
class Tile:
    """A set of bands of one patch of sky.

    Attributes
    ----------
    name : str
        Unique in a run; part of file names.
    survey : str
        ``sdss``, ``csst`` or ``generic``.
    number : int
        36 bits that identify the tile within its survey, part of ``source_id``.
    bands : tuple of Band
        In order of wavelength; names are unique.
    reference : str
        The band whose first exposure is the grid of ``x`` and ``y``.
    primary_rows : (float, float), optional
        Rows ``y`` (half-open) within which a source is primary by the survey's own rule.
    extinction : dict
        E(B−V) or per-band extinction in magnitudes, where files say so: keys
        ``ebv`` or names of bands.
    files : tuple of str
        Every file that was read, for checksums.
    notes : tuple of str
        What a user should know about how the tile was read.
    """

    name: str
    survey: str
    number: int
    bands: tuple[Band, ...]
    reference: str
    primary_rows: tuple[float, float] | None = None
    extinction: dict[str, float] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.band_names
        if not names:
            raise InputError(f"tile {self.name} has no band", expected="at least one")
        if len(set(names)) != len(names):
            raise InputError(f"tile {self.name} names a band twice: {', '.join(names)}")
        if self.reference not in names:
            raise InputError(
                f"tile {self.name} has no band {self.reference!r} to be the reference",
                expected=f"one of {', '.join(names)}",
            )

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in order of wavelength."""
        return tuple(band.name for band in self.bands)

    def band(self, name: str) -> Band:
        """The band of that name.

        Raises
        ------
        InputError
            If the tile has no such band.
        """
        for band in self.bands:
            if band.name == name:
                return band
        raise InputError(
            f"tile {self.name} has no band {name!r}",
            expected=f"one of {', '.join(self.band_names)}",
        )

    @property
    def reference_exposure(self) -> Exposure:
        """The exposure whose grid defines ``x`` and ``y``."""
        return self.band(self.reference).exposures[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the reference grid."""
        return self.reference_exposure.shape

    def exposures(self) -> Iterator[tuple[Band, Exposure]]:
        """Every exposure with its band, bands in order of wavelength."""
        for band in self.bands:
            for exposure in band.exposures:
                yield band, exposure


def _own(pixels: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """An array of that type that may be written to, copied only where it must be."""
    if (
        pixels.flags.owndata
        and pixels.flags.writeable
        and pixels.flags.c_contiguous
        and pixels.dtype == dtype
    ):
        return pixels
    return np.array(pixels, dtype=dtype, order="C")


def _not_finite(pixels: Float32) -> NDArray[np.bool_]:
    """Where pixels are not finite; their sum tells cheaply when none is."""
    with np.errstate(over="ignore", invalid="ignore"):
        fine = bool(np.isfinite(pixels.sum()))
    return np.zeros(pixels.shape, bool) if fine else ~np.isfinite(pixels)


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"
