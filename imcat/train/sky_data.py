"""Patches of real empty sky, in units of the noise, for the generator of sky to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue import Catalogue
from imcat.catalogue.files import atomic_path
from imcat.config import Config
from imcat.errors import InputError
from imcat.measure.views import pixel_to_sky, sky_to_pixel
from imcat.noise import NoiseSettings, measure_noise
from imcat.pipeline import catalogue_tile
from imcat.tile import Tile
from imcat.train.real_tiles import kept_for_tiles
from imcat.window import Window

__all__ = ["PATCH", "SkyPatches", "real_sky", "tile_sky"]

#: Side of a patch, pixels.
PATCH = 96
_STEP = 0.05  # of the pixels as they are kept, in units of the noise
_FREE = 0.7  # least share of a patch that no source lights up
_MOST = 90  # patches of a tile
_GROWN, _WINGS = (
    2.5,
    0.8,
)  # half-light radii, and pixels for the root of the signal-to-noise ratio, around a source


@dataclass(frozen=True, eq=False)
class SkyPatches:
    """Patches of sky.

    Attributes
    ----------
    sky : int8 array ``[n, bands, PATCH, PATCH]``
        In steps of a twentieth of the noise.
    valid : bool array ``[n, bands, PATCH, PATCH]``
        Where no source is, and there are data.
    bands : tuple of str
        Names.
    """

    sky: NDArray[np.int8]
    valid: NDArray[np.bool_]
    bands: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sky)

    def pixels(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Pixels in units of the noise."""
        kept = self.sky if rows is None else self.sky[rows]
        return kept.astype(np.float32) * np.float32(_STEP)

    def write(self, path: Path) -> None:
        """Write to a file, aside and renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream, sky=self.sky, valid=np.packbits(self.valid), bands=np.array(self.bands)
            )

    @staticmethod
    def read(path: Path) -> SkyPatches:
        """Read what `write` wrote."""
        with np.load(path) as file:
            sky, bits = file["sky"], file["valid"]
            bands = tuple(str(b) for b in file["bands"])
        return SkyPatches(sky, np.unpackbits(bits, count=sky.size).reshape(sky.shape).astype(bool), bands)


def real_sky(names: Sequence[str], folder: Path) -> SkyPatches:
    """Patches of real tiles, kept in a file for each tile.

    Parameters
    ----------
    names : sequence of str
        Folders of tiles below that of real data (``IMCAT_DATA``).
    folder : path
        For the files; those that are there stay.

    Raises
    ------
    InputError
        If there are no real data, a tile cannot be read, or their bands differ.
    """
    paths = kept_for_tiles(names, folder, f"sky-{{}}-{PATCH}", lambda tile, path: tile_sky(tile).write(path))
    parts = [SkyPatches.read(path) for path in paths]
    if not parts or len({p.bands for p in parts}) > 1:
        raise InputError(
            f"real tiles have bands {', '.join(sorted({'/'.join(p.bands) for p in parts})) or 'of none'}",
            expected="at least one tile, and the same bands in all",
        )
    return SkyPatches(
        np.concatenate([p.sky for p in parts]), np.concatenate([p.valid for p in parts]), parts[0].bands
    )


def tile_sky(tile: Tile, catalogue: Catalogue | None = None) -> SkyPatches:
    """Patches of a tile where there is little beside sky; bands are laid over each other to the nearest pixel.

    Parameters
    ----------
    tile : Tile
        The first exposure of each band is used, as its survey subtracted the sky.
    catalogue : Catalogue, optional
        Its sources are left out; default: it is made.
    """
    catalogue = catalogue or catalogue_tile(tile, Config(classify_sources=False, fit_models=False))
    corners = _corners(tile, catalogue)
    sky, valid = [], []
    for band in tile.bands:
        exposure = band.exposures[0]
        cutout = exposure.read(Window.whole(exposure.shape))
        free = ~cutout.bad & ~_lit(catalogue, exposure)
        unit = measure_noise(exposure, NoiseSettings()).rms
        x, y = sky_to_pixel(exposure.wcs, *corners)
        left, top = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
        step = np.arange(PATCH)
        inside = (
            (left >= 0)
            & (top >= 0)
            & (left + PATCH <= exposure.shape[1])
            & (top + PATCH <= exposure.shape[0])
        )
        at = (
            (np.where(inside, top, 0)[:, None] + step)[:, :, None],
            (np.where(inside, left, 0)[:, None] + step)[:, None, :],
        )
        values = np.clip(np.rint(cutout.data[at] / (unit * _STEP)), -127, 127)
        sky.append(values.astype(np.int8))
        valid.append(free[at] & inside[:, None, None])
    good = np.stack(valid, 1)
    kept = np.flatnonzero((good.mean(axis=(2, 3)) > _FREE).all(axis=1))[:_MOST]
    return SkyPatches(np.stack(sky, 1)[kept], good[kept], tile.band_names)


def _corners(tile: Tile, catalogue: Catalogue) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sky positions of the first pixels of patches that cover the reference image, in random order."""
    reference = tile.reference_exposure
    rows, columns = reference.shape
    x, y = np.meshgrid(np.arange(8, columns - PATCH - 8, PATCH), np.arange(8, rows - PATCH - 8, PATCH))
    order = np.random.default_rng(len(catalogue)).permutation(x.size)
    ra, dec, _ = pixel_to_sky(reference.wcs, x.ravel()[order].astype(float), y.ravel()[order].astype(float))
    return ra, dec


def _lit(catalogue: Catalogue, exposure: object) -> NDArray[np.bool_]:
    """Pixels near sources."""
    wcs, shape = exposure.wcs, exposure.shape  # type: ignore[attr-defined]
    x, y = sky_to_pixel(wcs, np.asarray(catalogue["ra"], float), np.asarray(catalogue["dec"], float))
    middle = np.array([shape[1] / 2]), np.array([shape[0] / 2])
    pixel = float(np.sqrt(abs(np.linalg.det(pixel_to_sky(wcs, *middle)[2][0]))))
    size = np.nan_to_num(np.asarray(catalogue["half_light_radius"], float), nan=1.0) / pixel
    light = np.sqrt(np.clip(np.nan_to_num(np.asarray(catalogue["detection_snr"], float)), 1, 1e5))
    reach = _GROWN * size + _WINGS * light + 2
    lit = np.zeros(shape, bool)
    for cx, cy, r in zip(x.tolist(), y.tolist(), reach.tolist(), strict=True):
        if not (np.isfinite(cx) and np.isfinite(cy)):
            continue
        y0, y1 = max(int(cy - r), 0), min(int(cy + r) + 2, shape[0])
        x0, x1 = max(int(cx - r), 0), min(int(cx + r) + 2, shape[1])
        if y1 > y0 and x1 > x0:
            v, u = np.ogrid[y0:y1, x0:x1]
            lit[y0:y1, x0:x1] |= (u - cx) ** 2 + (v - cy) ** 2 < r * r
    return lit
