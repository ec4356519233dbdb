"""Truth of augmented tiles: what every truth has, boxes, and what was generated or added."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.augment.assembly_rare import RareSources
from imcat.schema import Column
from imcat.simulate.galaxies import half_light_radius
from imcat.simulate.observation import ExposureModel, Observation
from imcat.simulate.scene import Scene
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.truth_columns import truth_columns, truth_rows

__all__ = ["AUGMENTED_COLUMNS", "augmented_truth", "psf_half_light_radius"]

Float64 = NDArray[np.float64]

_BOX = 2.0  # half-light radii, PSF included, from the centre to each side
_EDGE = (
    "meta.note;pos.cartesian.{axis};instr.det",
    "{side} of the box in {axis}: two half-light radii, PSF included, from the centre.",
)

#: Columns beyond those of `imcat.simulate.truth.TRUTH_COLUMNS`.
AUGMENTED_COLUMNS: tuple[Column, ...] = (
    Column("generated", "bool", "", "meta.code", "Whether a network generated its light; its magnitudes, size and shape are as stated."),
    Column("added", "str", "", "meta.code", "merger, quasar or pair (a member of a close pair) for sources beyond the sky's own."),
    *(
        Column(f"{axis}_{end}", "float32", "pix", _EDGE[0].format(axis=axis), _EDGE[1].format(side=side, axis=axis))
        for axis in ("x", "y")
        for end, side in (("min", "Lower edge"), ("max", "Upper edge"))
    ),
)  # fmt: skip


def psf_half_light_radius(exposure: ExposureModel) -> float:
    """Radius that holds half of the light of a star, arcsec."""
    radius = np.linspace(0, 4 * exposure.psf.fwhm, 400)
    share = exposure.psf.encircled_energy(radius)
    return float(np.interp(0.5, share, radius)) * exposure.pixel_scale


def augmented_truth(
    scene: Scene, observation: Observation, settings: SimulateSettings, rare: RareSources
) -> dict[str, NDArray[Any]]:
    """Truth of an augmented tile.

    Boxes are squares around the position in the reference image. Their half width is twice the half-light radius behind
    the PSF: intrinsic radius (along the major axis; of a lens at least the Einstein radius) and that of the PSF, added in
    squares. They may reach beyond the image.

    Parameters
    ----------
    scene : Scene
        The sky.
    observation : Observation
        That the scene was made for.
    settings : SimulateSettings
        That it was made with.
    rare : RareSources
        That were added.

    Returns
    -------
    dict of array
        Every column of ``truth_fields(bands, AUGMENTED_COLUMNS)``.
    """
    columns = truth_columns(scene, observation, settings)
    rows, _, _ = truth_rows(scene, observation)
    reference = observation.reference_exposure
    seen = _seen_radius(scene, psf_half_light_radius(reference))[rows] / reference.pixel_scale
    for axis in ("x", "y"):
        columns[f"{axis}_min"] = columns[axis] - _BOX * seen
        columns[f"{axis}_max"] = columns[axis] + _BOX * seen
    columns["generated"] = scene.replaced[rows]
    names = np.append(rare.name, np.array([""], rare.name.dtype))
    columns["added"] = names[scene.added[rows]]  # -1, the last one, for what was not added
    return columns


def _seen_radius(scene: Scene, psf: float) -> Float64:
    """Half-light radii behind the PSF, arcsec, of all sources."""
    radius = half_light_radius(scene.sources)
    einstein = np.asarray(scene.lensed.truth()["einstein_radius"], np.float64)
    return np.hypot(np.fmax(radius, np.nan_to_num(einstein)), psf)
