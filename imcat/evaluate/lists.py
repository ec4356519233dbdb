"""A catalogue, tile by tile, with truth laid onto its pixels.

A catalogue file carries positions on the sky and on the chip of every source,
so the mapping from sky to pixels is fitted from its own rows; nothing else of
the images is needed to evaluate it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.errors import InputError
from imcat.evaluate.truth import Truth, read_columns
from imcat.schema import COLUMNS

__all__ = ["ChipMap", "TileList", "fit_chip_map", "place_truth", "read_tile_lists"]

Float = NDArray[np.float64]

_NEEDED = ("ra", "dec", "x", "y")


@dataclass(frozen=True, eq=False)
class ChipMap:
    """Sky to pixels of one tile: a gnomonic projection and a polynomial.

    Attributes
    ----------
    ra, dec : float
        Tangent point, degrees.
    order : int
        Order of the polynomial.
    coefficients : float64 array, shape (k, 2)
        Of the monomials of the tangent plane's coordinates (arcmin), for x and y.
    pixel_scale : float
        arcsec per pixel.
    residual : float
        Largest residual of the fit, pixels.
    """

    ra: float
    dec: float
    order: int
    coefficients: Float
    pixel_scale: float
    residual: float

    def __call__(self, ra: ArrayLike, dec: ArrayLike) -> tuple[Float, Float]:
        """Pixels of sky positions (degrees); NaN on the far side of the sky."""
        xi, eta = _gnomonic(ra, dec, self.ra, self.dec)
        pixels = _monomials(xi, eta, self.order) @ self.coefficients
        return pixels[:, 0], pixels[:, 1]


@dataclass(frozen=True, eq=False)
class TileList:
    """Rows of one tile.

    Attributes
    ----------
    name : str
        The tile.
    columns : dict of str to array
        Columns of the catalogue.
    bands : tuple of str
        In order of wavelength where the file says so.
    reference : str
        Band of x and y; empty where the file does not say.
    survey : str
        Empty where the file does not say.
    psf_fwhm : dict of str to float
        arcsec, where the file says.
    chip : ChipMap or None
        None for fewer than three rows.
    shape : (int, int)
        Rows and columns of the reference image.
    """

    name: str
    columns: Mapping[str, NDArray[Any]]
    bands: tuple[str, ...]
    reference: str
    survey: str
    chip: ChipMap | None
    shape: tuple[int, int]
    psf_fwhm: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["x"])

    def number(self, name: str) -> Float:
        """Give a column as float64, NaN everywhere where the catalogue has no such column."""
        if name not in self.columns:
            return np.full(len(self), np.nan)
        return np.asarray(self.columns[name], dtype=np.float64)


def read_tile_lists(path: str | Path) -> list[TileList]:
    """Read a run's folder or a catalogue file.

    Parameters
    ----------
    path : path
        A folder written by ``imcat run``, or one catalogue in any format of ``imcat export``
        with imcat's own names.

    Raises
    ------
    InputError
        If it is neither.
    """
    path = Path(path)
    if path.is_dir():
        folder = path / "sources" if (path / "sources").is_dir() else path
        files = sorted(f for f in folder.glob("*.parquet") if not f.name.startswith("."))
        if not files:
            raise InputError("the folder holds no catalogue", path=path, expected="sources/*.parquet")
        ledger = _ledger(path)
        return [tile for file in files for tile in _lists_of_file(file, ledger)]
    return _lists_of_file(path, {})


def _lists_of_file(path: Path, ledger: Mapping[str, Any]) -> list[TileList]:
    columns, meta = _read(path)
    absent = [name for name in _NEEDED if name not in columns]
    if absent:
        raise InputError(
            f"the catalogue has no column {', '.join(absent)}",
            path=path,
            expected="the names of imcat (export without --names)",
        )
    bands = tuple(meta.get("bands") or ()) or _bands_of(columns)
    tiles = (
        np.asarray(columns["tile"]).astype(str)
        if "tile" in columns
        else np.full(len(columns["x"]), path.stem)
    )
    lists = []
    for name in dict.fromkeys(tiles.tolist()):
        rows = tiles == name
        part = {key: np.asarray(values)[rows] for key, values in columns.items()}
        chip = fit_chip_map(part["ra"], part["dec"], part["x"], part["y"])
        entry = ledger.get(name, {})
        about = {**meta, **meta.get("tiles", {}).get(name, {})}
        widths = about.get("psf_fwhm")
        lists.append(
            TileList(
                name=name,
                columns=part,
                bands=bands,
                reference=str(about.get("reference") or ""),
                survey=str(about.get("survey") or ""),
                chip=chip,
                shape=_shape(part, chip, entry.get("footprint")),
                psf_fwhm={b: float(w) for b, w in widths.items() if w} if isinstance(widths, dict) else {},
            )
        )
    return lists


def _read(path: Path) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    """Columns of a catalogue file, and what it says about itself where imcat wrote it."""
    if path.suffix == ".parquet":
        from imcat.catalogue import read_parquet

        try:
            catalogue = read_parquet(path)
        except InputError:
            # Not one of imcat's own source files: a plain table may still do.
            return read_columns(path), {}
        return catalogue.columns, dict(catalogue.meta)
    return read_columns(path), {}


def _bands_of(columns: Mapping[str, Any]) -> tuple[str, ...]:
    """Bands of a file that does not list them: those that have a column every catalogue has.

    Only here a name is taken apart, against the template that the schema declares.
    """
    template = next(c.name for c in COLUMNS if c.required and c.name.startswith("{b}") and c.unit == "nJy")
    ending = template.removeprefix("{b}")
    return tuple(name.removesuffix(ending) for name in columns if name.endswith(ending))


def _ledger(folder: Path) -> Mapping[str, Any]:
    path = folder / "run.json"
    if not path.is_file():
        return {}
    try:
        tiles = json.loads(path.read_text(encoding="utf-8"))["tiles"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"it cannot be read ({error})", path=path, expected="the ledger of a run") from None
    return tiles if isinstance(tiles, dict) else {}


def _shape(
    columns: Mapping[str, NDArray[Any]], chip: ChipMap | None, footprint: Sequence[Sequence[float]] | None
) -> tuple[int, int]:
    """Rows and columns of the image: from its corners on the sky, else as far as sources reach."""
    if chip is not None and footprint:
        corners = np.asarray(footprint, dtype=np.float64)
        x, y = chip(corners[:, 0], corners[:, 1])
        return round(float(y.max() + 0.5)), round(float(x.max() + 0.5))
    if len(columns["x"]) == 0:
        return (0, 0)
    return int(np.ceil(np.nanmax(columns["y"]) + 1)), int(np.ceil(np.nanmax(columns["x"]) + 1))


def fit_chip_map(ra: ArrayLike, dec: ArrayLike, x: ArrayLike, y: ArrayLike) -> ChipMap | None:
    """Fit the mapping from sky to pixels.

    Parameters
    ----------
    ra, dec : array, shape (n,)
        ICRS, degrees.
    x, y : array, shape (n,)
        Pixels.

    Returns
    -------
    ChipMap or None
        Linear for fewer than 30 sources, else cubic, which follows the distortion of
        wide-field cameras; None for fewer than three.
    """
    sky = [np.asarray(v, dtype=np.float64) for v in (ra, dec)]
    pixels = np.column_stack([np.asarray(v, dtype=np.float64) for v in (x, y)])
    good = np.isfinite(sky[0]) & np.isfinite(sky[1]) & np.isfinite(pixels).all(axis=1)
    if good.sum() < 3:
        return None
    alpha, delta = np.radians(sky[0][good]), np.radians(sky[1][good])
    vector = np.array(
        [
            np.mean(np.cos(delta) * np.cos(alpha)),
            np.mean(np.cos(delta) * np.sin(alpha)),
            np.mean(np.sin(delta)),
        ]
    )
    ra0 = float(np.degrees(np.arctan2(vector[1], vector[0])))
    dec0 = float(np.degrees(np.arctan2(vector[2], np.hypot(vector[0], vector[1]))))
    xi, eta = _gnomonic(sky[0][good], sky[1][good], ra0, dec0)
    order = 3 if good.sum() >= 30 else 1
    design = _monomials(xi, eta, order)
    coefficients, _, rank, _ = np.linalg.lstsq(design, pixels[good], rcond=None)
    if rank < 3:
        return None
    residual = float(np.max(np.abs(design @ coefficients - pixels[good])))
    jacobian = coefficients[1:3]  # pixels per arcmin
    scale = 60 / np.sqrt(abs(float(np.linalg.det(jacobian))))
    return ChipMap(ra0, dec0, order, np.asarray(coefficients, dtype=np.float64), float(scale), residual)


def place_truth(tile: TileList, truths: Sequence[Truth]) -> tuple[Truth, Float, Float] | None:
    """Find the truth of one tile, and its pixels on the tile's chip.

    Parameters
    ----------
    tile : TileList
        The tile.
    truths : sequence of Truth
        All tables; the one that lies beside the tile's files is taken, else the one with the
        most sources on the chip.

    Returns
    -------
    truth, x, y : Truth, float64 array, float64 array
        None where no table has a source on the chip.
    """
    named = [truth for truth in truths if truth.belongs_to(tile.name)]
    best: tuple[Truth, Float, Float] | None = None
    most = 0
    for truth in named or truths:
        if truth.ra is not None and truth.dec is not None and tile.chip is not None:
            x, y = tile.chip(truth.ra, truth.dec)
        elif truth.x is not None and truth.y is not None:
            x, y = truth.x, truth.y
        else:
            continue
        with np.errstate(invalid="ignore"):
            count = int(((x > -0.5) & (y > -0.5) & (x < tile.shape[1]) & (y < tile.shape[0])).sum())
        if count > most:
            best, most = (truth, x, y), count
    return best


def _gnomonic(ra: ArrayLike, dec: ArrayLike, ra0: float, dec0: float) -> tuple[Float, Float]:
    """Project to standard coordinates in arcmin (Calabretta & Greisen 2002, A&A 395, 1077, equation 54)."""
    alpha = np.radians(np.asarray(ra, dtype=np.float64) - ra0)
    delta, delta0 = np.radians(np.asarray(dec, dtype=np.float64)), np.radians(dec0)
    cosine = np.sin(delta0) * np.sin(delta) + np.cos(delta0) * np.cos(delta) * np.cos(alpha)
    cosine = np.where(cosine > 0.1, cosine, np.nan)
    xi = np.cos(delta) * np.sin(alpha) / cosine
    eta = (np.cos(delta0) * np.sin(delta) - np.sin(delta0) * np.cos(delta) * np.cos(alpha)) / cosine
    return np.degrees(xi) * 60, np.degrees(eta) * 60


def _monomials(xi: Float, eta: Float, order: int) -> Float:
    """Columns 1, xi, eta, then those of higher order, shape (n, k)."""
    powers = [(i - j, j) for i in range(order + 1) for j in range(i + 1)]
    return np.column_stack([xi**i * eta**j for i, j in powers])
