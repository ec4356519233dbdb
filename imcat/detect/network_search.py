"""Detection with the network: windows, peaks of its heat map, footprints, and a list of sources."""

from __future__ import annotations

import copy
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imcat.detect.extract import WindowSources, describe
from imcat.detect.network import STRIDE, DetectionNet
from imcat.detect.network_input import SHARE, NetworkInput, WindowReader, compress
from imcat.detect.network_peaks import Candidates, find_candidates
from imcat.detect.network_settings import NetworkSettings
from imcat.detect.settings import DetectSettings
from imcat.detect.threshold import Detections, merge_windows
from imcat.errors import InputError
from imcat.registry import half_precision_is_fast, read_weights
from imcat.window import Window, tile_windows

__all__ = [
    "FORMAT",
    "Boxes",
    "TrainedNetwork",
    "answer",
    "detect_network",
    "find_boxes",
    "load_network",
    "ready",
]

Float64 = NDArray[np.float64]

#: Version of the format of the weights.
FORMAT = 2
_RECIPE = "imcat train weights/recipes/detection.toml"


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """The network with what is needed to read its answers.

    Attributes
    ----------
    network : DetectionNet
        With its weights.
    logit, probability : float64 arrays
        The calibration: what the network says of a peak, and the probability that it is real.
    working_point : float
        Score above which a list is as pure as a run aims at by default.
    wavelengths : (float, float)
        Trained on, Å.
    card : dict
        What the card says.
    """

    network: DetectionNet
    logit: Float64
    probability: Float64
    working_point: float
    wavelengths: tuple[float, float]
    card: dict[str, Any]

    def score(self, logit: Float64) -> Float64:
        """Probability that candidates are real."""
        return np.interp(logit, self.logit, self.probability)


def load_network(name: str = "detection", folder: str | None = None) -> TrainedNetwork:
    """Load weights that come with imcat, or those of a folder.

    Raises
    ------
    InputError
        If they are absent, damaged, of another version, or not those of their card.
    """
    from safetensors.torch import load

    data, card = read_weights(name, FORMAT, _RECIPE, folder)
    try:
        network = DetectionNet(int(card["width"]))
        network.load_state_dict(load(data))
        network.eval()
        return TrainedNetwork(
            network, np.array(card["calibration_logit"], float), np.array(card["calibration_probability"], float),
            float(card["working_point"]), (float(card["wavelengths"][0]), float(card["wavelengths"][1])), card,
        )  # fmt: skip
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the weights are not those of a detection network ({str(error).splitlines()[0]})",
            path=f"{name}.safetensors",
            expected="a file and a card that imcat train wrote",
        ) from None


def detect_network(
    reader: WindowReader,
    trained: TrainedNetwork,
    settings: NetworkSettings,
    pool: Executor | None = None,
) -> Detections:
    """Find the sources of a tile.

    Parameters
    ----------
    reader : WindowReader
        Makes the network's input of any window; it is calibrated here.
    trained : TrainedNetwork
        The network.
    settings : NetworkSettings
        Windows, smallest heat, footprints.
    pool : Executor, optional
        Threads for the windows; their number does not change the result.
    """
    reader.calibrate()
    shape = reader.shape
    # Windows run side by side; torch's own threads would only be in their way.
    torch.set_num_threads(1)
    network = ready(trained.network, settings)

    def search(core: Window) -> tuple[WindowSources, Float64, Float64]:
        seen, found, score = _look(network, reader, trained, core, settings)
        part, row = _sources(seen, core, shape, found, settings)
        return part, score[row], found.error[row]

    cores = tile_windows(shape, settings.window_size)
    results = list(pool.map(search, cores) if pool is not None else map(search, cores))
    parts, scores, errors = zip(*results, strict=True)
    found = merge_windows(parts, shape, DetectSettings())
    order = np.argsort(np.concatenate([part.peak for part in parts]), kind="stable")
    return replace(found, score=np.concatenate(scores)[order], error=np.concatenate(errors)[order])


@dataclass(frozen=True, eq=False)
class Boxes:
    """What the network says of a tile's sources, without their footprints; arrays ``[n]``.

    Attributes
    ----------
    x, y : float64
        Reference pixels.
    error : float64
        One-sigma error of each coordinate, pixels.
    half_width : float64
        Of the box around a source: twice its half-light radius behind the PSF, pixels.
    score : float64
        Probability of being real.
    """

    x: Float64
    y: Float64
    error: Float64
    half_width: Float64
    score: Float64


def find_boxes(
    reader: WindowReader, trained: TrainedNetwork, settings: NetworkSettings, pool: Executor | None = None
) -> Boxes:
    """Boxes of a tile's sources, for pipelines that have footprints of their own.

    Parameters
    ----------
    reader, trained, settings, pool
        As for `detect_network`.
    """
    reader.calibrate()
    torch.set_num_threads(1)
    network = ready(trained.network, settings)

    def search(core: Window) -> list[Float64]:
        seen, found, score = _look(network, reader, trained, core, settings)
        window = seen.combined.window
        row, column = found.row + window.y0, found.column + window.x0
        mine = (row >= core.y0) & (row < core.y1) & (column >= core.x0) & (column < core.x1)
        values = (found.x + window.x0, found.y + window.y0, found.error, 2 * found.radius, score)
        return [value[mine] for value in values]

    cores = tile_windows(reader.shape, settings.window_size)
    results = list(pool.map(search, cores) if pool is not None else map(search, cores))
    return Boxes(*(np.concatenate(parts) for parts in zip(*results, strict=True)))


def _look(
    network: DetectionNet,
    reader: WindowReader,
    trained: TrainedNetwork,
    core: Window,
    settings: NetworkSettings,
) -> tuple[NetworkInput, Candidates, Float64]:
    """The window around a core, the candidates in it, and their scores."""
    seen = reader(core.grow(settings.overlap, reader.shape))
    out = answer(network, seen, reader.bands.conditions())
    usable = seen.maps[SHARE] > 0
    found = find_candidates(out, reader.bands.main_fwhm, settings.min_heat, settings.separation, usable)
    score = trained.score(found.logit)
    kept = score >= settings.least_score
    return seen, found.select(kept), score[kept]


def ready(network: DetectionNet, settings: NetworkSettings) -> DetectionNet:
    """A copy of the network as it works fastest: on a GPU where there is one, in half precision if asked and fast."""
    copied = copy.deepcopy(network)
    half = settings.half_precision and half_precision_is_fast()
    copied.to(
        device="cuda" if torch.cuda.is_available() else "cpu", dtype=torch.bfloat16 if half else torch.float32
    )
    return copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def answer(network: DetectionNet, seen: NetworkInput, conditions: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network says of a window, ``[OUTPUTS, y, x]``."""
    rows, columns = seen.maps.shape[1:]
    high, wide = -rows % STRIDE, -columns % STRIDE
    maps = torch.from_numpy(np.pad(compress(seen.maps), ((0, 0), (0, high), (0, wide))))[None]
    like = next(network.parameters())
    with torch.inference_mode():
        given = maps.to(like.device, like.dtype, memory_format=torch.channels_last)
        out = network(given, torch.from_numpy(conditions)[None].to(like.device, like.dtype))
    return np.ascontiguousarray(out[0, :, :rows, :columns].float().cpu().numpy())


def _sources(
    seen: NetworkInput, core: Window, shape: tuple[int, int], found: Candidates, settings: NetworkSettings
) -> tuple[WindowSources, NDArray[np.int64]]:
    """Footprints around the candidates, the sources of the core, and which candidate each is."""
    from skimage.segmentation import watershed

    combined = seen.combined
    rows, columns = combined.snr.shape
    at = found.row * columns + found.column
    markers = np.zeros(rows * columns, np.int32)
    markers[at] = np.arange(1, at.size + 1)
    markers = markers.reshape(rows, columns)
    within = (combined.snr >= settings.footprint_snr) | (markers > 0)
    labels = watershed(-combined.snr, markers, mask=within).astype(np.int32)
    part = describe(labels, at.size, combined, core, shape, -np.inf, at)
    # Places are the network's, not those of the footprints' light.
    window = combined.window
    tile_peak = (found.row + window.y0) * shape[1] + found.column + window.x0
    order = np.argsort(tile_peak, kind="stable")
    row = order[np.searchsorted(tile_peak[order], part.peak)] if at.size else np.empty(0, np.int64)
    return replace(part, x=found.x[row] + window.x0, y=found.y[row] + window.y0), row
