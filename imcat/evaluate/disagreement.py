"""Where two engines disagree about a tile: sources that only one of them found, with stamps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.catalogue import atomic_path
from imcat.evaluate.detection import match_lists

__all__ = ["Disagreement", "compare_lists", "draw_disagreement"]

Float32 = NDArray[np.float32]

#: Stamps of each engine's own sources in the figure: the most significant ones.
SHOWN = 18
_COLUMNS = 6
_MATCH, _LEAST = 1.0, 2.0  # radius of a match: in units of the PSF's FWHM, and at least, pixels


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Sources of a tile that one engine found and the other did not.

    Attributes
    ----------
    engines : (str, str)
        The one that the catalogue's rows come from, and the other.
    both : int
        Sources that both found.
    only : (int, int)
        Sources that only the one, and only the other found.
    first : bool array ``[n]``
        Of those shown, which are the first engine's.
    x, y : float64 arrays ``[n]``
        Reference pixels.
    snr : float64 array ``[n]``
        In the filtered sum of the bands.
    stamps : float32 array ``[n, 3, y, x]``
        Red, green and blue around them, in units of the noise of a pixel.
    seconds : float
        What the comparison took.
    """

    engines: tuple[str, str]
    both: int
    only: tuple[int, int]
    first: NDArray[np.bool_]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    snr: NDArray[np.float64]
    stamps: Float32
    seconds: float

    def counts(self) -> dict[str, int]:
        """Numbers for ledger and report."""
        return {
            "both_engines": self.both,
            f"only_{self.engines[0]}": self.only[0],
            f"only_{self.engines[1]}": self.only[1],
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as arrays, for a file; `from_arrays` reads them."""
        return {
            "engines": np.array(self.engines),
            "numbers": np.array([self.both, *self.only]),
            "first": self.first,
            "odd_x": self.x,
            "odd_y": self.y,
            "odd_snr": self.snr,
            "stamps": self.stamps,
            "seconds": np.array(self.seconds),
        }

    @classmethod
    def from_arrays(cls, stored: Mapping[str, NDArray[Any]]) -> Disagreement:
        """What `arrays` made."""
        names, numbers = [str(v) for v in stored["engines"]], [int(v) for v in stored["numbers"]]
        return cls(
            (names[0], names[1]), numbers[0], (numbers[1], numbers[2]), stored["first"], stored["odd_x"],
            stored["odd_y"], stored["odd_snr"], stored["stamps"], float(stored["seconds"]),
        )  # fmt: skip


def compare_lists(
    x: ArrayLike, y: ArrayLike, other_x: ArrayLike, other_y: ArrayLike, fwhm: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which sources of each of two lists the other does not have.

    Parameters
    ----------
    x, y, other_x, other_y : array ``[n]``, ``[m]``
        Pixels.
    fwhm : float
        Of the PSF, pixels: sources closer than this are the same.
    """
    pairs = match_lists(x, y, other_x, other_y, max(_MATCH * fwhm, _LEAST))
    return ~pairs.used(np.size(x)), ~pairs.found(np.size(other_x))


def draw_disagreement(path: str | Path, tile: str, odd: Disagreement) -> None:
    """Draw the stamps of what one engine found alone.

    Parameters
    ----------
    path : path
        A PNG file, replaced when it is there.
    tile : str
        Its name.
    odd : Disagreement
        From a run.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-SHOWN // _COLUMNS)
    figure = Figure(figsize=(15, 8.2), dpi=90, facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{tile}: {odd.both} sources found by both engines, {odd.only[0]} by {odd.engines[0]} alone, "
        f"{odd.only[1]} by {odd.engines[1]} alone",
        x=0.02, ha="left", fontsize=14, fontweight="bold",
    )  # fmt: skip
    halves: Any = figure.subfigures(1, 2, wspace=0.03)
    for half, name, own in zip(halves, odd.engines, (odd.first, ~odd.first), strict=True):
        half.suptitle(f"{name} alone: the most significant", y=0.915, fontsize=11)
        axes = half.subplots(
            rows, _COLUMNS, gridspec_kw={"left": 0.02, "right": 0.98, "top": 0.86, "bottom": 0.02,
                                         "wspace": 0.06, "hspace": 0.22},
        )  # fmt: skip
        shown = np.flatnonzero(own)
        for k, place in enumerate(axes.flat):
            place.set_axis_off()
            if k < shown.size:
                _draw_stamp(place, odd, int(shown[k]))
    with atomic_path(path) as temporary:
        # Without a version in the file the same figure has the same bytes.
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _draw_stamp(axes: Any, odd: Disagreement, k: int) -> None:
    from astropy.visualization import make_lupton_rgb

    red, green, blue = odd.stamps[k]
    picture = make_lupton_rgb(red, green, blue, minimum=-1.0, stretch=8, Q=6)
    axes.imshow(picture, origin="lower", interpolation="nearest")
    middle, reach = (picture.shape[0] - 1) / 2, picture.shape[0] / 6
    for sign in (-1, 1):
        axes.plot(
            [middle + sign * 0.6 * reach, middle + sign * 1.4 * reach], [middle] * 2, color="white", lw=1
        )
    axes.set_title(f"{odd.x[k]:.0f}, {odd.y[k]:.0f}  S/N {odd.snr[k]:.1f}", fontsize=7.5, pad=2)
