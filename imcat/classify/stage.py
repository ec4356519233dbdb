"""The classification of a tile's sources, window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imcat.classify.photometry import catalogue_photometry, table_photometry
from imcat.classify.predict import Prior, classify, lens_binning, look
from imcat.classify.settings import ClassifySettings
from imcat.classify.trained import TrainedClassifier, load_classifier
from imcat.measure.views import Layer
from imcat.stamps import StampSettings, stamp_windows
from imcat.stamps.cut import cut_stamps
from imcat.tile import Exposure

__all__ = ["class_columns"]


@lru_cache(maxsize=1)
def _shipped() -> TrainedClassifier:
    """The classifier that comes with imcat, read once in a process."""
    return load_classifier()


def class_columns(
    layers: Sequence[Layer],
    wavelengths: Mapping[str, float],
    reference: Exposure,
    columns: Mapping[str, NDArray[Any]],
    arcsec: float,
    latitude: float,
    settings: ClassifySettings,
    warnings: list[str],
    pool: Executor | None = None,
    trained: TrainedClassifier | None = None,
) -> dict[str, NDArray[Any]]:
    """Classes, morphology and redshifts of the sources of a catalogue.

    Parameters
    ----------
    layers : sequence of Layer
        The exposures; those of one band follow each other.
    wavelengths : mapping of str to float
        Of the bands, Å.
    reference : Exposure
        Whose pixels `x` and `y` are.
    columns : mapping of str to array ``[n]``
        Of the catalogue.
    arcsec : float
        Size of a pixel of the reference image.
    latitude : float
        Galactic, of the tile, degrees.
    settings : ClassifySettings
        Prior.
    warnings : list of str
        What a user should know is added to it.
    pool : Executor, optional
        Threads for the windows; their number does not change the result.
    trained : TrainedClassifier, optional
        Default: the one that comes with imcat.
    """
    trained = trained or _shipped()
    torch.set_num_threads(1)  # windows run side by side
    low, high = trained.wavelengths
    used = {name: wave for name, wave in wavelengths.items() if low <= wave <= high}
    for name in sorted(set(wavelengths) - set(used)):
        warnings.append(
            f"band {name} at {wavelengths[name]:g} angstrom lies outside {low:g} to {high:g}, which the classifier was "
            "trained on: it is not used for classes and redshifts"
        )
    kept = [layer for layer in layers if layer.band in used]
    x, y = np.asarray(columns["x"], float), np.asarray(columns["y"], float)
    size = StampSettings(size=trained.size)
    vision = np.zeros((len(x), trained.network.vision.width), np.float32)
    binning = lens_binning(trained.size, arcsec)
    wide = np.zeros_like(vision) if binning > 1 else None

    def see(index: NDArray[np.int64]) -> None:
        stamps = cut_stamps(kept, used, reference, x[index], y[index], arcsec, size)
        vision[index] = look(trained, stamps)
        if wide is not None:
            wider = replace(size, binning=binning)
            wide[index] = look(trained, cut_stamps(kept, used, reference, x[index], y[index], arcsec, wider))

    windows = stamp_windows(reference.shape, x, y) if kept else []
    list(pool.map(see, windows) if pool is not None else map(see, windows))
    first = next((layer for layer in kept if layer.exposure is reference), None)
    band = first.band if first is not None else next(iter(used), "")
    width = float(np.median([layer.psf_sigma for layer in kept if layer.band == band] or [np.nan])) * 2.3548
    if used:
        photometry = catalogue_photometry(columns, list(used), list(used.values()), band, width)
    else:
        photometry = table_photometry([float(np.mean(trained.wavelengths))], np.full((len(x), 1), np.nan))
    return classify(trained, photometry, vision, Prior(settings.prior, np.full(len(x), latitude)), wide)
