"""The overview figure of a tile: what it looks like, what was found, the background, the counts.

The pipeline keeps a `Preview`, a few small arrays, so that the figure can be
drawn later and elsewhere, when no pixels are in memory any more.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue import Catalogue, atomic_path
from imcat.catalogue.names import pogson_magnitude
from imcat.errors import InputError
from imcat.evaluate.disagreement import Disagreement
from imcat.evaluate.lists import fit_chip_map
from imcat.flags import SourceFlag

__all__ = ["Preview", "bin_plane", "draw_overview", "make_preview"]

_COUNTED = 5.0  # signal-to-noise ratio of a Kron flux in the number counts

Float32 = NDArray[np.float32]

#: Ellipses are drawn with the Kron radius, else with this many times the rms axes.
_RMS_AXES_DRAWN = 3.0

#: Which flags share a colour in the figure, most serious first, and the colour.
_GROUPS: tuple[tuple[str, int, str], ...] = (
    ("saturated", int(SourceFlag.SATURATED), "#ff5252"),
    (
        "edge, bad pixels, not measured",
        int(SourceFlag.EDGE | SourceFlag.BAD_PIXEL | SourceFlag.OUTSIDE | SourceFlag.NOT_MEASURED
            | SourceFlag.TRUNCATED | SourceFlag.COSMIC_RAY),
        "#ff9f1c",
    ),
    ("moving", int(SourceFlag.MOVING), "#ff6bd6"),
    ("blended or close to a neighbour", int(SourceFlag.BLENDED | SourceFlag.NEIGHBOUR), "#ffe14d"),
)  # fmt: skip
_CLEAN = ("clean", "#5ef38c")


@dataclass(frozen=True, eq=False)
class Preview:
    """What the overview figure needs of a tile's images.

    Attributes
    ----------
    tile : str
        Name of the tile.
    factor : int
        Pixels of the reference grid per pixel of `rgb`, in each axis.
    bands : tuple of str
        Bands of red, green and blue.
    rgb : float32 array, shape (3, y, x)
        Means over factor × factor pixels, background subtracted, nJy per pixel.
    rgb_noise : float32 array, shape (3,)
        Noise of a pixel of `rgb`, nJy.
    background : float32 array, shape (my, mx)
        Background of the reference band on a coarse grid that spans the image, nJy per pixel.
    background_band : str
        The reference band.
    shape : (int, int)
        Rows and columns of the reference image.
    cd : float64 array, shape (2, 2)
        East and north (rows, arcsec) per pixel in x and y (columns); NaN where it is to be
        taken from the catalogue.
    disagreement : Disagreement or None
        Sources that only one engine found.
    """

    tile: str
    factor: int
    bands: tuple[str, str, str]
    rgb: Float32
    rgb_noise: Float32
    background: Float32
    background_band: str
    shape: tuple[int, int]
    cd: NDArray[np.float64]
    disagreement: Disagreement | None = None

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file, the same bytes for the same preview.

        Parameters
        ----------
        path : path
            Replaced when it is there.
        """
        odd: dict[str, Any] = {} if self.disagreement is None else self.disagreement.arrays()
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                tile=np.array(self.tile),
                factor=np.array(self.factor),
                bands=np.array(self.bands),
                rgb=self.rgb,
                rgb_noise=self.rgb_noise,
                background=self.background,
                background_band=np.array(self.background_band),
                shape=np.array(self.shape),
                cd=self.cd,
                **odd,
            )

    @classmethod
    def load(cls, path: str | Path) -> Preview:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If the file is missing or damaged.
        """
        try:
            with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                red, green, blue = (str(b) for b in stored["bands"])
                return cls(
                    tile=str(stored["tile"]),
                    factor=int(stored["factor"]),
                    bands=(red, green, blue),
                    rgb=stored["rgb"],
                    rgb_noise=stored["rgb_noise"],
                    background=stored["background"],
                    background_band=str(stored["background_band"]),
                    shape=(int(stored["shape"][0]), int(stored["shape"][1])),
                    cd=stored["cd"],
                    disagreement=Disagreement.from_arrays(stored) if "engines" in stored else None,
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"it cannot be read ({error})", path=path, expected="a preview written by a run"
            ) from None


def make_preview(
    tile_name: str,
    planes: Mapping[str, NDArray[Any]],
    noise: Mapping[str, float],
    background: NDArray[Any],
    *,
    factor: int = 1,
    shape: tuple[int, int] | None = None,
    background_band: str = "",
    cd: NDArray[np.float64] | None = None,
    shifts: Mapping[str, tuple[float, float]] | None = None,
) -> Preview:
    """Put small images together to a preview.

    Parameters
    ----------
    tile_name : str
        Name of the tile.
    planes : mapping of str to array, shape (y, x)
        Images of one to three bands, red first, background subtracted, already binned: means
        over `factor` × `factor` pixels, nJy per pixel (`bin_plane`). Values that are not finite
        count as zero. The first one's size is the picture's; others are cut or filled to it.
    noise : mapping of str to float
        Noise of a pixel before the binning, nJy.
    background : array, shape (my, mx)
        Background of the reference band, coarse or full; nJy per pixel.
    factor : int
        Binning of the planes.
    shape : (int, int), optional
        Rows and columns of the reference image; by default those of the picture times `factor`.
    background_band : str
        The reference band.
    cd : float64 array, shape (2, 2), optional
        East and north (rows, arcsec) per pixel in x and y (columns), for the directions in the
        figure; where it is not given the positions of the catalogue tell it.
    shifts : mapping of str to (float, float), optional
        For bands on a grid of their own: column and row there, before the binning, of the first
        pixel of the reference grid. They are undone to the nearest pixel of the picture.

    Raises
    ------
    InputError
        If there is no plane.
    """
    names = list(planes)
    if not names:
        raise InputError(f"the preview of {tile_name} has no plane", expected="one to three")
    red, green, blue = (names[0], names[len(names) // 2], names[-1])
    size = planes[red].shape
    placed = {
        name: _placed(plane, (size[0], size[1]), (shifts or {}).get(name, (0.0, 0.0)), factor)
        for name, plane in planes.items()
    }
    return Preview(
        tile=tile_name,
        factor=factor,
        bands=(red, green, blue),
        rgb=np.stack([placed[name] for name in (red, green, blue)]),
        rgb_noise=np.array([noise[name] / factor for name in (red, green, blue)], dtype=np.float32),
        background=np.asarray(background, dtype=np.float32),
        background_band=background_band,
        shape=shape or (size[0] * factor, size[1] * factor),
        cd=np.full((2, 2), np.nan) if cd is None else np.asarray(cd, dtype=np.float64),
    )


def bin_plane(plane: NDArray[Any], factor: int) -> Float32:
    """Average an image over `factor` × `factor` pixels; rows and columns that are left over are dropped.

    Examples
    --------
    >>> bin_plane(np.arange(10.0).reshape(2, 5), 2).tolist()
    [[3.0, 5.0]]
    """
    rows, columns = plane.shape[0] // factor * factor, plane.shape[1] // factor * factor
    clean = np.where(np.isfinite(plane), plane, 0)[:rows, :columns]
    blocks = clean.reshape(rows // factor, factor, columns // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def _placed(plane: NDArray[Any], size: tuple[int, int], shift: tuple[float, float], factor: int) -> Float32:
    """Lay a binned plane on the picture; what comes from outside is zero."""
    right, up = round(shift[0] / factor), round(shift[1] / factor)
    source = plane[max(up, 0) :, max(right, 0) :]
    top, left = min(max(-up, 0), size[0]), min(max(-right, 0), size[1])
    source = source[: size[0] - top, : size[1] - left]
    out = np.zeros(size, dtype=np.float32)
    out[top : top + source.shape[0], left : left + source.shape[1]] = np.where(np.isfinite(source), source, 0)
    return out


def draw_overview(path: str | Path, catalogue: Catalogue, preview: Preview) -> None:
    """Draw the overview figure of a tile.

    Parameters
    ----------
    path : path
        A PNG file, replaced when it is there.
    catalogue : Catalogue
        The tile's sources.
    preview : Preview
        The tile's images.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 11), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        2,
        2,
        gridspec_kw={
            "left": 0.055,
            "right": 0.965,
            "top": 0.925,
            "bottom": 0.06,
            "wspace": 0.24,
            "hspace": 0.2,
        },
    )
    preview = _oriented(preview, catalogue)
    picture = _colour_picture(preview)
    window = _richest_window(catalogue, preview.shape)
    figure.suptitle(
        f"{preview.tile}: {len(catalogue)} sources in {', '.join(catalogue.schema.bands)}",
        x=0.055,
        ha="left",
        fontsize=15,
        fontweight="bold",
    )
    _draw_field(axes[0, 0], picture, preview, window)
    _draw_detections(axes[0, 1], picture, catalogue, preview, window)
    _draw_background(figure, axes[1, 0], preview)
    _draw_counts(axes[1, 1], catalogue)
    with atomic_path(path) as temporary:
        # Without a version in the file the same figure has the same bytes.
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _oriented(preview: Preview, catalogue: Catalogue) -> Preview:
    """Take the directions of the sky from the catalogue where the preview does not have them."""
    if np.isfinite(preview.cd).all():
        return preview
    chip = fit_chip_map(catalogue["ra"], catalogue["dec"], catalogue["x"], catalogue["y"])
    # With next to nothing in the catalogue there is nothing to draw in the right direction.
    cd = np.diag([-1.0, 1.0]) if chip is None else np.linalg.inv(chip.coefficients[1:3].T / 60)
    return replace(preview, cd=np.asarray(cd, dtype=np.float64))


def _colour_picture(preview: Preview) -> NDArray[np.uint8]:
    """Colour picture after Lupton et al. (2004, PASP 116, 133), bands in units of their noise.

    Equal noise in all three keeps the sky grey and comes close to the weights that SDSS uses.
    """
    from astropy.visualization import make_lupton_rgb

    noise = np.where(preview.rgb_noise > 0, preview.rgb_noise, 1)
    red, green, blue = preview.rgb / noise[:, None, None]
    return np.asarray(make_lupton_rgb(red, green, blue, minimum=-0.5, stretch=11, Q=8), dtype=np.uint8)


def _extent(shape: tuple[int, int]) -> tuple[float, float, float, float]:
    return (-0.5, shape[1] - 0.5, -0.5, shape[0] - 0.5)


def _picture_extent(preview: Preview) -> tuple[float, float, float, float]:
    rows, columns = preview.rgb.shape[1:]
    return (-0.5, columns * preview.factor - 0.5, -0.5, rows * preview.factor - 0.5)


def _richest_window(catalogue: Catalogue, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of the ninth of the image, off its edges, with most sources."""
    high, wide = shape[0] / 3, shape[1] / 3
    if len(catalogue) == 0:
        return (wide, 2 * wide, high, 2 * high)
    x, y = catalogue["x"], catalogue["y"]
    best, most = (wide, 2 * wide, high, 2 * high), -1
    for bottom in np.linspace(0, shape[0] - high, 7):
        for left in np.linspace(0, shape[1] - wide, 7):
            inside = (x >= left) & (x < left + wide) & (y >= bottom) & (y < bottom + high)
            if int(inside.sum()) > most:
                best, most = (
                    (float(left), float(left + wide), float(bottom), float(bottom + high)),
                    int(inside.sum()),
                )
    return best


def _draw_field(axes: Any, picture: NDArray[np.uint8], preview: Preview, window: Sequence[float]) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(picture, origin="lower", extent=_picture_extent(preview), interpolation="nearest")
    left, right, bottom, top = window
    box = Rectangle((left, bottom), right - left, top - bottom, fill=False, edgecolor="white", linewidth=1)
    axes.add_patch(box)
    _label_pixels(axes, preview.shape)
    _draw_compass(axes, preview)
    axes.set_title(f"Colour: {', '.join(preview.bands)} as red, green, blue", loc="left", fontsize=11)


def _draw_detections(
    axes: Any,
    picture: NDArray[np.uint8],
    catalogue: Catalogue,
    preview: Preview,
    window: tuple[float, float, float, float],
) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    left, right, bottom, top = window
    axes.imshow(picture, origin="lower", extent=_picture_extent(preview), interpolation="nearest")
    x, y = catalogue["x"], catalogue["y"]
    shown = np.flatnonzero((x >= left) & (x < right) & (y >= bottom) & (y < top))
    outlines = _ellipses(catalogue, preview.cd, shown)
    label, colour = _groups(catalogue["flags"][shown])
    axes.add_collection(LineCollection(list(outlines), colors=colour, linewidths=1.1))
    names = [(name, shade) for name, _, shade in _GROUPS] + [_CLEAN]
    handles = [
        Line2D([], [], color=shade, linewidth=2, label=f"{name} ({label.count(name)})")
        for name, shade in names
        if name in label
    ]
    if handles:
        axes.legend(
            handles=handles,
            loc="lower left",
            fontsize=8,
            framealpha=0.75,
            facecolor="black",
            labelcolor="white",
        )
    _label_pixels(axes, preview.shape)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    what = "Kron ellipses" if "kron_radius" in catalogue else f"{_RMS_AXES_DRAWN:g} rms axes"
    axes.set_title(f"{len(shown)} detections in the box, {what}", loc="left", fontsize=11)


def _ellipses(catalogue: Catalogue, cd: NDArray[np.float64], rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Outlines of sources in pixels, shape (n, points, 2); a circle of 1 arcsec where sizes are missing."""
    major = np.asarray(catalogue["semi_major"], dtype=np.float64)[rows]
    minor = np.asarray(catalogue["semi_minor"], dtype=np.float64)[rows]
    angle = np.radians(np.nan_to_num(np.asarray(catalogue["position_angle"], dtype=np.float64)[rows]))
    ratio = np.where(major > 0, minor / np.where(major > 0, major, 1), 1)
    length = _RMS_AXES_DRAWN * major
    if "kron_radius" in catalogue:
        kron = np.asarray(catalogue["kron_radius"], dtype=np.float64)[rows]
        length = np.where(kron > 0, kron, length)
    length = np.where(np.isfinite(length) & (length > 0), length, 1.0)
    ratio = np.where(np.isfinite(ratio), ratio, 1.0)
    turn = np.linspace(0, 2 * np.pi, 33)
    along, across = length[:, None] * np.cos(turn), (length * ratio)[:, None] * np.sin(turn)
    # East of north: the major axis points to (sin, cos) in (east, north).
    east = along * np.sin(angle)[:, None] + across * np.cos(angle)[:, None]
    north = along * np.cos(angle)[:, None] - across * np.sin(angle)[:, None]
    offsets = np.stack([east, north], axis=-1) @ np.linalg.inv(cd).T
    centres = np.stack([catalogue["x"][rows], catalogue["y"][rows]], axis=-1)
    return np.asarray(centres[:, None, :] + offsets)


def _groups(flags: NDArray[Any]) -> tuple[list[str], list[str]]:
    """Name and colour of each source by its most serious flag."""
    names, colours = [], []
    for value in flags.tolist():
        name, colour = next(((n, c) for n, bits, c in _GROUPS if value & bits), _CLEAN)
        names.append(name)
        colours.append(colour)
    return names, colours


def _draw_background(figure: Any, axes: Any, preview: Preview) -> None:
    values = preview.background[np.isfinite(preview.background)]
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 1.0)
    image = axes.imshow(
        preview.background,
        origin="lower",
        extent=_extent(preview.shape),
        cmap="viridis",
        vmin=low,
        vmax=max(high, low + np.finfo(np.float32).eps),
        interpolation="nearest",
    )
    bar = figure.colorbar(image, ax=axes, fraction=0.034, pad=0.02)
    bar.set_label("nJy per pixel")
    bar.formatter.set_useOffset(False)
    _label_pixels(axes, preview.shape)
    axes.set_title(
        f"Background in {preview.background_band or 'the reference band'}", loc="left", fontsize=11
    )


def _draw_counts(axes: Any, catalogue: Catalogue) -> None:
    from matplotlib import colormaps

    bands = catalogue.schema.bands
    shades = colormaps["turbo"](np.linspace(0.12, 0.92, max(len(bands), 1)))
    for band, shade in zip(bands, shades, strict=True):
        flux = np.asarray(catalogue[f"{band}_kron_flux"], dtype=np.float64)
        error = np.asarray(catalogue[f"{band}_kron_flux_err"], dtype=np.float64)
        # Half of all noise is positive: only what is seen in a band counts there.
        with np.errstate(invalid="ignore"):
            magnitude = pogson_magnitude(np.where(flux > _COUNTED * error, flux, np.nan))
        magnitude = magnitude[np.isfinite(magnitude)]
        if magnitude.size == 0:
            continue
        low, high = np.floor(magnitude.min() * 2) / 2, np.floor(magnitude.max() * 2) / 2 + 0.5
        edges = np.linspace(low, high, round((high - low) * 2) + 1)
        number = np.histogram(magnitude, edges)[0]
        axes.stairs(number, edges, color=shade, linewidth=1.6, label=f"{band} ({magnitude.size})")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_xlabel("Kron magnitude (AB)")
    axes.set_ylabel("sources per 0.5 mag")
    axes.grid(alpha=0.3)
    if axes.patches:
        axes.legend(title=f"S/N above {_COUNTED:g} in", fontsize=9, title_fontsize=9, loc="upper left")
    axes.set_title("Number counts", loc="left", fontsize=11)


def _label_pixels(axes: Any, shape: tuple[int, int]) -> None:
    left, right, bottom, top = _extent(shape)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("x (pixels)")
    axes.set_ylabel("y (pixels)")


def _draw_compass(axes: Any, preview: Preview) -> None:
    """Arrows to north and east, and a bar of one arcminute or so."""
    inverse = np.linalg.inv(preview.cd)
    rows, columns = preview.shape
    length = 0.09 * min(rows, columns)
    origin = np.array([0.90 * columns, 0.13 * rows])
    for name, sky in (("N", (0.0, 1.0)), ("E", (1.0, 0.0))):
        step = inverse @ np.array(sky)
        tip = origin + length * step / np.hypot(*step)
        axes.annotate(
            "",
            tip,
            origin,
            arrowprops={"arrowstyle": "->", "color": "white", "lw": 1.4, "shrinkA": 0, "shrinkB": 0},
        )
        place = origin + 1.3 * (tip - origin)
        axes.text(*place, name, color="white", ha="center", va="center", fontsize=9)
    scale = np.sqrt(abs(np.linalg.det(preview.cd)))
    bar = next((b for b in (300, 120, 60, 30, 10, 5, 2, 1) if b / scale < 0.25 * columns), 1)
    left = 0.04 * columns
    axes.plot(
        [left, left + bar / scale], [0.05 * rows] * 2, color="white", linewidth=2, solid_capstyle="butt"
    )
    text = f"{bar // 60}′" if bar >= 60 else f"{bar}″"
    axes.text(left + bar / scale / 2, 0.065 * rows, text, color="white", ha="center", va="bottom", fontsize=9)
