"""What a run says of its own catalogue: the other engine's opinion, and the injected sources that came back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imcat.align import transform_positions
from imcat.catalogue import Catalogue
from imcat.detect import Detections
from imcat.products import Prepared, picture_bands
from imcat.psf.exposure_psf import ExposurePsf
from imcat.simulate.settings import InjectSettings
from imcat.tile import Tile
from imcat.window import Window

if TYPE_CHECKING:
    from imcat.evaluate.disagreement import Disagreement

__all__ = ["compare_engines", "inject_and_recover"]

_HALF = 20  # pixels: half side of a stamp


def compare_engines(
    tile: Tile,
    prepared: Sequence[Prepared],
    found: Detections,
    search: Callable[[], Detections],
    engines: tuple[str, str],
    fwhm: float,
) -> Disagreement:
    """Ask the other engine, and collect what only one of the two found.

    Parameters
    ----------
    tile : Tile
        The pixels.
    prepared : sequence of Prepared
        Its exposures.
    found : Detections
        Of the engine that the rows come from.
    search : callable
        Gives those of the other.
    engines : (str, str)
        Names of both.
    fwhm : float
        Of the PSF, reference pixels.
    """
    from imcat.evaluate.disagreement import SHOWN, Disagreement, compare_lists

    begin = time.perf_counter()
    other = search()
    alone = compare_lists(found.x, found.y, other.x, other.y, fwhm)
    x, y, snr, first = [], [], [], []
    for number, (engine, own) in enumerate(zip((found, other), alone, strict=True)):
        rows = np.flatnonzero(own)
        rows = rows[np.argsort(-engine.snr[rows], kind="stable")][:SHOWN]
        x.append(engine.x[rows])
        y.append(engine.y[rows])
        snr.append(engine.snr[rows])
        first.append(np.full(rows.size, number == 0))
    places = np.concatenate(x), np.concatenate(y)
    stamps = _stamps(tile, prepared, *places)
    return Disagreement(
        engines, int((~alone[0]).sum()), (int(alone[0].sum()), int(alone[1].sum())), np.concatenate(first),
        *places, np.concatenate(snr), stamps, round(time.perf_counter() - begin, 3),
    )  # fmt: skip


def _stamps(
    tile: Tile, prepared: Sequence[Prepared], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Three bands around places, in units of their noise, each to its nearest pixel."""
    side = 2 * _HALF + 1
    stamps = np.zeros((x.size, 3, side, side), np.float32)
    first = {p.band.name: p for p in reversed(prepared)}
    for colour, name in enumerate(picture_bands(tile.band_names)):
        p = first[name]
        px, py = transform_positions(tile.reference_exposure.wcs, p.exposure.wcs, x, y)
        rows, columns = p.exposure.shape
        for k, (cx, cy) in enumerate(zip(np.rint(px).astype(int), np.rint(py).astype(int), strict=True)):
            window = Window(
                max(cy - _HALF, 0),
                min(cy + _HALF + 1, rows),
                max(cx - _HALF, 0),
                min(cx + _HALF + 1, columns),
            )
            if window.empty:
                continue
            top, left = window.y0 - (cy - _HALF), window.x0 - (cx - _HALF)
            data = p.noise.read(p.exposure, window).data / np.float32(max(p.noise.rms, 1e-30))
            stamps[k, colour, top : top + data.shape[0], left : left + data.shape[1]] = data
    return stamps


def inject_and_recover(
    tile: Tile,
    prepared: Sequence[Prepared],
    psfs: Sequence[ExposurePsf],
    before: Catalogue,
    count: int,
    settings: InjectSettings,
    ebv: float,
    fwhm: float,
    process: Callable[[Tile], Catalogue],
) -> dict[str, Any]:
    """Add simulated sources to a tile, process it as before, and see which come back.

    Parameters
    ----------
    tile : Tile
        The pixels.
    prepared, psfs : sequences
        Its exposures and their PSFs.
    before : Catalogue
        Of the tile as it is.
    count : int
        Sources to add.
    settings : InjectSettings
        Which ones.
    ebv : float
        E(B-V) of the Milky Way.
    fwhm : float
        Of the PSF, reference pixels.
    process : callable
        Makes the catalogue of a tile.

    Returns
    -------
    dict
        See `imcat.evaluate.injection.recovery`; with ``limit``, the magnitude of a point source of S/N 5, and
        ``seconds``.
    """
    from imcat.evaluate.injection import recovery
    from imcat.simulate.inject import ExposureLight, inject, kinds
    from imcat.simulate.scene import Models

    begin = time.perf_counter()
    lights = [
        ExposureLight(psf.mixture, psf.enclosed, float(p.noise.rms))
        for p, psf in zip(prepared, psfs, strict=True)
    ]
    changed, added = inject(tile, lights, count, settings, Models.load(), ebv)
    after = process(changed)
    column = tile.band_names.index(tile.reference)
    result = recovery(
        after, before, kinds(added.kind), added.x, added.y, added.mag[:, column],
        reference=tile.reference, fwhm=fwhm,
    )  # fmt: skip
    return {
        "band": tile.reference, "limit": round(added.limit, 3), **result,
        "seconds": round(time.perf_counter() - begin, 3),
    }  # fmt: skip
