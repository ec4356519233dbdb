"""A simulated tile to disk, in the survey's own files, with its truth beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imcat.catalogue.fields import AB_FLUX
from imcat.errors import InputError
from imcat.flags import PixelFlag
from imcat.simulate.expose import Exposed
from imcat.simulate.observation import ExposureModel, Observation
from imcat.surveys.csst_constants import EXPOSURE_SECONDS, FLAG_BITS
from imcat.surveys.csst_write import Level1Exposure, write_level1
from imcat.surveys.sdss_constants import NMGY_TO_NJY
from imcat.surveys.sdss_write import SdssFrame, write_frames

__all__ = ["write_exposure"]


def write_exposure(
    folder: Path, observation: Observation, model: ExposureModel, exposed: Exposed, *, packed: bool = False
) -> list[Path]:
    """Write one exposure.

    Parameters
    ----------
    folder : path
        Of the tile.
    observation : Observation
        Of the tile.
    model : ExposureModel
        Of the exposure.
    exposed : Exposed
        Its pixels.
    packed : bool
        Whether weights and flags are compressed, where they are files of their own.

    Returns
    -------
    list of pathlib.Path
        The files.
    """
    if observation.survey == "sdss":
        frame = SdssFrame(
            band=model.band,
            data=exposed.image / np.float32(NMGY_TO_NJY),
            calibration=model.extra["calibration"],
            sky=model.extra["sky"],
            wcs=model.wcs,
            tai=model.extra["tai"],
        )
        return write_frames(folder, model.extra["field"], [frame])
    if observation.survey == "csst":
        return write_level1(folder, _level1(model, exposed), packed=packed)
    raise InputError(
        f"files of survey {observation.survey!r} cannot be written",
        path=observation.name,
        expected="sdss or csst",
    )


def _level1(model: ExposureModel, exposed: Exposed) -> Level1Exposure:
    # AB_FLUX nJy are magnitude zero, and 1 e-/s is the zero point.
    rate = np.float32(10 ** (0.4 * model.extra["zero_point"]) / AB_FLUX)
    sky = float(np.median(model.sky.values)) / EXPOSURE_SECONDS
    variance = (float(np.median(model.sky.values)) + model.read_variance) / EXPOSURE_SECONDS**2
    weight = np.full(model.shape, 1.0 / variance, np.float32)
    weight[(exposed.mask & int(PixelFlag.BAD)) != 0] = 0
    flags = np.zeros(model.shape, np.uint16)
    for bit, name in enumerate(FLAG_BITS[:7]):
        flags |= np.where(exposed.mask & int(PixelFlag[name]), np.uint16(1 << bit), np.uint16(0))
    return Level1Exposure(
        image=exposed.image * rate,
        weight=weight,
        flags=flags,
        wcs=model.wcs,
        detector=model.extra["detector"],
        obsid=model.extra["obsid"],
        start=model.extra["start"],
        zero_point=model.extra["zero_point"],
        exposure_time=EXPOSURE_SECONDS,
        fwhm=model.psf.fwhm * model.pixel_scale,
        sky=sky,
    )
