"""Detection with the network: windows, peaks of its heat map, footprints, and a list of sources."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from imcat.detect.extract import WindowSources, describe
from imcat.detect.network import STRIDE, DetectionNet
from imcat.detect.network_input import NetworkInput, WindowReader, compress
from imcat.detect.network_settings import NetworkSettings
from imcat.detect.settings import DetectSettings
from imcat.detect.threshold import Detections, merge_windows
from imcat.errors import InputError
from imcat.registry import read_weights
from imcat.window import Window, tile_windows

__all__ = ["FORMAT", "TrainedNetwork", "detect_network", "load_network"]

Float64 = NDArray[np.float64]

#: Version of the format of the weights.
FORMAT = 1
_RECIPE = "imcat train weights/recipes/detection.toml"


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """The network with what is needed to read its answers.

    Attributes
    ----------
    network : DetectionNet
        With its weights.
    heat, probability : float64 arrays
        The calibration: heat of a peak, and the probability that it is real.
    wavelengths : (float, float)
        Trained on, Å.
    card : dict
        What the card says.
    """

    network: DetectionNet
    heat: Float64
    probability: Float64
    wavelengths: tuple[float, float]
    card: dict[str, Any]

    def score(self, heat: Float64) -> Float64:
        """Probability that peaks of this heat are real."""
        return np.interp(heat, self.heat, self.probability)


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
            network, np.array(card["calibration_heat"], float), np.array(card["calibration_probability"], float),
            (float(card["wavelengths"][0]), float(card["wavelengths"][1])), card,
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

    def search(core: Window) -> tuple[WindowSources, Float64]:
        window = core.grow(settings.overlap, shape)
        seen = reader(window)
        heat, x, y = peaks(answer(trained.network, seen, reader.bands.conditions(), settings), seen, settings)
        return _sources(seen, core, shape, heat, x, y, reader.bands.main_fwhm, settings)

    cores = tile_windows(shape, settings.window_size)
    results = list(pool.map(search, cores) if pool is not None else map(search, cores))
    found = merge_windows([part for part, _ in results], shape, DetectSettings())
    heat = np.concatenate([heat for _, heat in results])
    peak = np.concatenate([part.peak for part, _ in results])
    return replace(found, score=trained.score(heat[np.argsort(peak, kind="stable")]))


def answer(
    network: DetectionNet, seen: NetworkInput, conditions: NDArray[np.float32], settings: NetworkSettings
) -> NDArray[np.float32]:
    """What the network says of a window, ``[OUTPUTS, y, x]``."""
    rows, columns = seen.maps.shape[1:]
    high, wide = -rows % STRIDE, -columns % STRIDE
    maps = np.pad(compress(seen.maps), ((0, 0), (0, high), (0, wide)))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=settings.half_precision):
        out = network(torch.from_numpy(maps)[None], torch.from_numpy(conditions)[None])
    return np.ascontiguousarray(out[0, :, :rows, :columns].float().numpy())


def peaks(
    out: NDArray[np.float32], seen: NetworkInput, settings: NetworkSettings
) -> tuple[Float64, Float64, Float64]:
    """Heat and place of the peaks of a window, pixels of the window."""
    from scipy.ndimage import maximum_filter

    heat = 1 / (1 + np.exp(-out[0].astype(np.float32)))
    heat[seen.maps[-3] <= 0] = 0.0  # no data, no source
    top = (heat >= settings.min_heat) & (heat == maximum_filter(heat, 3))
    row, column = np.nonzero(top)
    x = column + np.clip(out[1][top], -1.0, 1.0)
    y = row + np.clip(out[2][top], -1.0, 1.0)
    return heat[top].astype(float), x.astype(float), y.astype(float)


def _apart(heat: Float64, x: Float64, y: Float64, distance: float) -> NDArray[np.bool_]:
    """Which peaks have no stronger one nearer than a distance."""
    from scipy.spatial import cKDTree

    kept = np.ones(heat.size, bool)
    if heat.size > 1 and distance > 0:
        pairs = cKDTree(np.stack([x, y], axis=1)).query_pairs(distance, output_type="ndarray")
        weaker = np.where(heat[pairs[:, 0]] < heat[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
        kept[weaker] = False
    return kept


def _sources(
    seen: NetworkInput,
    core: Window,
    shape: tuple[int, int],
    heat: Float64,
    x: Float64,
    y: Float64,
    fwhm: float,
    settings: NetworkSettings,
) -> tuple[WindowSources, Float64]:
    """Footprints around the peaks, and the sources of the core with their heat."""
    from skimage.segmentation import watershed

    kept = _apart(heat, x, y, settings.separation * fwhm)
    heat, x, y = heat[kept], x[kept], y[kept]
    combined = seen.combined
    rows, columns = combined.snr.shape
    at_y = np.clip(np.rint(y), 0, rows - 1).astype(np.int64)
    at_x = np.clip(np.rint(x), 0, columns - 1).astype(np.int64)
    # Two peaks whose places round to one pixel are one source.
    at, first = np.unique(at_y * columns + at_x, return_index=True)
    heat, x, y = heat[first], x[first], y[first]
    markers = np.zeros(rows * columns, np.int32)
    markers[at] = np.arange(1, at.size + 1)
    markers = markers.reshape(rows, columns)
    within = (combined.snr >= settings.footprint_snr) | (markers > 0)
    labels = watershed(-combined.snr, markers, mask=within).astype(np.int32)
    part = describe(labels, at.size, combined, core, shape, -np.inf, at)
    # Places are the network's, not those of the footprints' light.
    window = combined.window
    tile_peak = (at // columns + window.y0) * shape[1] + at % columns + window.x0
    order = np.argsort(tile_peak, kind="stable")
    row = order[np.searchsorted(tile_peak[order], part.peak)] if at.size else np.empty(0, np.int64)
    placed = replace(part, x=x[row] + window.x0, y=y[row] + window.y0)
    return placed, heat[row]
