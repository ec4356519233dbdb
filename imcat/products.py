"""Images beside the catalogue, as users of SExtractor expect them, and the preview of the figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imcat.align import GridMap
from imcat.detect import Detections
from imcat.errors import UsageError
from imcat.measure.occupied import native_labels
from imcat.measure.views import pixel_to_sky
from imcat.noise import NoiseModel
from imcat.tile import Band, Exposure, Tile
from imcat.window import Window

if TYPE_CHECKING:
    from imcat.evaluate.overview import Preview

__all__ = ["IMAGE_KINDS", "ImageProduct", "Prepared", "make_images", "tile_preview"]

#: What ``--images`` may name.
IMAGE_KINDS = ("background", "rms", "segmentation", "residual")

_PREVIEW_PIXELS = 1024  # of the longer side of the preview, at most


class Prepared(Protocol):
    """An exposure with its noise and its place on the reference grid."""

    @property
    def band(self) -> Band:
        """Its band."""
        ...

    @property
    def exposure(self) -> Exposure:
        """The pixels."""
        ...

    @property
    def noise(self) -> NoiseModel:
        """Sky and noise."""
        ...

    @property
    def grid(self) -> GridMap:
        """From the reference grid to its pixels."""
        ...


@dataclass(frozen=True, eq=False)
class ImageProduct:
    """An image to write.

    Attributes
    ----------
    band : str
        Band, with the number of the exposure where the band has several.
    kind : str
        One of `IMAGE_KINDS`.
    header : astropy.io.fits.Header
        Celestial WCS and unit.
    data : array [y, x]
        float32 nJy, or int32 ranks of sources plus one for the segmentation.
    """

    band: str
    kind: str
    header: Any
    data: NDArray[Any]


def make_images(
    kinds: Sequence[str], tile: Tile, prepared: Sequence[Prepared], found: Detections
) -> list[ImageProduct]:
    """Images of the given kinds on the data's own grids.

    Parameters
    ----------
    kinds : sequence of str
        Of `IMAGE_KINDS`.
    tile : Tile
        The pixels.
    prepared : sequence
        Every exposure with its noise.
    found : Detections
        The sources, whose ranks the segmentation holds.

    Raises
    ------
    UsageError
        If a kind is unknown.
    """
    for kind in kinds:
        if kind not in IMAGE_KINDS:
            raise UsageError(f"no image of the kind {kind!r}; expected {', '.join(IMAGE_KINDS)}")
    images = []
    for p in prepared:
        many = len(p.band.exposures) > 1
        name = f"{p.band.name}{p.band.exposures.index(p.exposure) + 1}" if many else p.band.name
        whole = Window.whole(p.exposure.shape)
        for kind in kinds:
            if kind == "segmentation":
                if p.exposure is tile.reference_exposure:
                    header = _header(p.exposure, "")
                    images.append(ImageProduct(name, kind, header, found.footprints.at(whole)))
                continue
            images.append(ImageProduct(name, kind, _header(p.exposure, "nJy"), _plane(kind, p, found, tile)))
    return images


def _plane(kind: str, p: Prepared, found: Detections, tile: Tile) -> NDArray[np.float32]:
    whole = Window.whole(p.exposure.shape)
    if kind == "background":
        return p.noise.mesh.level_at(whole)
    cutout = p.noise.read(p.exposure, whole)
    if kind == "rms":
        return np.sqrt(cutout.variance)
    # The residual: sky-subtracted pixels, those of sources set to zero.
    taken = native_labels(found.footprints, tile.reference_exposure, p.exposure, whole) > 0
    return np.where(taken, np.float32(0), cutout.data)


def _header(exposure: Exposure, unit: str) -> Any:
    header = exposure.wcs.to_header(relax=True)
    if unit:
        header["BUNIT"] = unit
    return header


def picture_bands(bands: Sequence[str]) -> tuple[str, str, str]:
    """Bands of red, green and blue.

    Parameters
    ----------
    bands : sequence of str
        In order of wavelength.

    Returns
    -------
    (str, str, str)
        i, r and g where they are there, as in SDSS pictures; else the last, middle and first.

    Examples
    --------
    >>> picture_bands(["u", "g", "r", "i", "z"]), picture_bands(["u", "g"])
    (('i', 'r', 'g'), ('g', 'g', 'u'))
    """
    if {"g", "r", "i"} <= set(bands):
        return ("i", "r", "g")
    return (bands[-1], bands[len(bands) // 2], bands[0])


def tile_preview(tile: Tile, prepared: Sequence[Prepared]) -> Preview:
    """Small images of three bands and the background, for the overview figure."""
    from imcat.evaluate.overview import make_preview

    first = {p.band.name: p for p in reversed(prepared)}
    chosen = tuple(dict.fromkeys(picture_bands(tile.band_names)))
    factor = max(1, -(-max(tile.shape) // _PREVIEW_PIXELS))
    rows, columns = tile.shape
    _, _, cd = pixel_to_sky(tile.reference_exposure.wcs, np.array([columns / 2.0]), np.array([rows / 2.0]))
    return make_preview(
        tile.name,
        {name: _binned(first[name], factor) for name in chosen},
        {name: first[name].noise.rms for name in chosen},
        first[tile.reference].noise.mesh.level.astype(np.float32),
        background_band=tile.reference,
        cd=cd[0],
        shifts={name: (float(first[name].grid.x[0, 0]), float(first[name].grid.y[0, 0])) for name in chosen},
        factor=factor,
        shape=tile.shape,
    )


def _binned(p: Prepared, factor: int) -> NDArray[np.float32]:
    """Sky-subtracted image, mean of blocks of pixels, read strip by strip."""
    rows, columns = p.exposure.shape[0] // factor * factor, p.exposure.shape[1] // factor * factor
    out = np.empty((rows // factor, columns // factor), np.float32)
    step = 128 * factor
    for y in range(0, rows, step):
        window = Window(y, min(y + step, rows), 0, columns)
        data = p.noise.read(p.exposure, window).data
        blocks = data.reshape(data.shape[0] // factor, factor, columns // factor, factor)
        out[y // factor : (y + data.shape[0]) // factor] = blocks.mean(axis=(1, 3))
    return out
