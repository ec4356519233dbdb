"""The columns of a truth table, from a scene."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.render.components import Components
from imcat.render.draw import draw
from imcat.simulate.galaxies import half_light_radius
from imcat.simulate.lens_systems import arc_snr
from imcat.simulate.observation import Observation
from imcat.simulate.scene import Scene
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.sources import Kind, Morphology

__all__ = ["truth_columns", "truth_rows"]

# Sources up to this far outside the image are listed: what is found at the edge may be theirs, arcsec.
_BESIDE = 3.0
_ARC_REACH = 8.0  # arcsec around a deflector that hold its images
_SURVEY_NUMBER = {"sdss": 1, "csst": 2}


def truth_columns(
    scene: Scene, observation: Observation, settings: SimulateSettings
) -> dict[str, NDArray[Any]]:
    """Truth of a tile, sorted by row and column.

    Parameters
    ----------
    scene : Scene
        The sky.
    observation : Observation
        That the scene was made for.
    settings : SimulateSettings
        That it was made with.

    Returns
    -------
    dict of array
        Every column of `imcat.simulate.truth.truth_fields`.
    """
    rows, x, y = truth_rows(scene, observation)
    sources = scene.sources.take(rows)
    bulge = sources.bulge_fraction > 0.5
    columns: dict[str, NDArray[Any]] = {
        "source_id": _identifiers(observation, len(rows)),
        "type": _names(Kind, sources.kind),
        "ra": scene.ra[rows],
        "dec": scene.dec[rows],
        "x": x[rows],
        "y": y[rows],
        "half_light_radius": half_light_radius(sources),
        "axis_ratio": np.where(bulge, sources.bulge_axis_ratio, sources.disc_axis_ratio),
        "position_angle": sources.position_angle,
        "bulge_fraction": sources.bulge_fraction,
        "bulge_radius": sources.bulge_radius,
        "disc_radius": sources.disc_radius,
        "bulge_index": sources.bulge_index,
        "morphology": _names(Morphology, sources.morphology),
        "detailed": scene.detailed[rows],
        "z_true": sources.redshift,
        "is_merger": sources.morphology == Morphology.MERGER,
        "ebv": np.full(len(rows), observation.ebv),
    }
    for index, band in enumerate(observation.bands):
        columns[f"{band}_mag"] = scene.mag[rows, index]
    columns |= {name: values[rows] for name, values in scene.lensed.truth().items()}
    columns["arc_snr"] = _arc_snr(scene, observation, settings)[rows]
    return columns


def truth_rows(
    scene: Scene, observation: Observation
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Which sources of a scene are in its truth.

    Returns
    -------
    rows : int64 array, ``[n]``
        Their indices, in the order of the truth.
    x, y : float64 arrays
        Places of **all** sources of the scene, pixels of the reference image.
    """
    reference = observation.reference_exposure
    x, y = reference.wcs.all_world2pix(scene.ra, scene.dec, 0)
    beside = _BESIDE / reference.pixel_scale
    inside = (x > -0.5 - beside) & (x < reference.shape[1] - 0.5 + beside)
    inside &= (y > -0.5 - beside) & (y < reference.shape[0] - 0.5 + beside)
    rows = np.flatnonzero(inside)
    return rows[np.lexsort((x[rows], y[rows]))], x, y


def _arc_snr(scene: Scene, observation: Observation, settings: SimulateSettings) -> NDArray[np.float64]:
    """S/N of the images of each lens in the first exposure of the reference band; NaN for other sources."""
    snr = np.full(len(scene.sources), np.nan)
    reference = observation.reference_exposure
    if not scene.lensed.images:
        return snr
    images = scene.lensed.images[0]
    x, y = reference.wcs.all_world2pix(scene.ra, scene.dec, 0)
    reach = int(_ARC_REACH / reference.pixel_scale)
    for row in scene.lensed.rows.tolist():  # there are few
        own = images.source == row
        corner = int(np.rint(x[row])) - reach, int(np.rint(y[row])) - reach
        stamp = np.zeros((2 * reach + 1, 2 * reach + 1))
        part = Components(
            np.zeros(int(own.sum()), np.int64),
            *(getattr(images, name)[own] for name in ("flux", "xi", "eta", "xx", "xy", "yy")),
        )
        band = observation.bands.index(observation.reference)
        at = np.array([x[row] - corner[0]]), np.array([y[row] - corner[1]])
        draw(stamp, part, band, *at, reference.jacobian, reference.psf)
        snr[row] = arc_snr(stamp, np.full(stamp.shape, reference.noise**2))
    return snr


def _identifiers(observation: Observation, n: int) -> NDArray[np.int64]:
    """4 bits survey, 36 bits tile, 23 bits rank, as in a catalogue."""
    survey = _SURVEY_NUMBER.get(observation.survey, 0)
    return (np.int64(survey) << 59) | (np.int64(observation.number) << 23) | np.arange(n, dtype=np.int64)


def _names(kinds: Any, values: NDArray[np.int8]) -> NDArray[np.str_]:
    names = np.array([kind.name.lower() for kind in kinds])
    return names[values]
