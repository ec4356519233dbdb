"""How well the template spectra agree with real colours, and whether what follows from them is sane.

Nothing is fitted to these tables, so no rows are set aside. Printed, and written to the card, by
``python -m imcat.simulate.spectra_fit --check``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.files import atomic_path
from imcat.simulate.filters import FilterSet
from imcat.simulate.population_tables import data_folder, quasars, redshifts
from imcat.simulate.sources import Kind
from imcat.simulate.spectra import SpectralLibrary

__all__ = ["Metrics", "check", "metrics_table", "write_metrics"]

Float64 = NDArray[np.float64]
#: Numbers by name, in groups.
Metrics = dict[str, dict[str, float]]

_COLOURS = ("u-g", "g-r", "r-i", "i-z")
_MEAN_EBV = 0.03  # of the SDSS footprint; the table of stars is as observed
_KNOWN_WITHIN = 0.2  # mag: sources whose magnitudes are known better than this say something


def check(folder: Path | None = None) -> Metrics:
    """Compare with the tables of the data folder.

    Parameters
    ----------
    folder : path, optional
        Of the library; default: the one that comes with imcat.
    """
    library = SpectralLibrary.load(folder)
    rng = np.random.default_rng(1)
    out: Metrics = {}
    for name, kind, mag, redshift in _samples():
        template = library.choose(np.full(len(mag), kind), mag, redshift, rng)
        out[f"warp {name}"] = _warp(library, kind, template, redshift, mag)
        out[f"csst {name}"] = _csst(library, kind, template, redshift, mag)
    out.update(_catsim(folder, rng))
    out["speed"] = _speed(library, rng)
    return out


def metrics_table(metrics: Metrics) -> str:
    """The numbers as lines of text."""
    lines = []
    for group, values in metrics.items():
        lines.append(
            f"{group:28s} " + "  ".join(f"{key} {round(value, 3) + 0.0:g}" for key, value in values.items())
        )
    return "\n".join(lines)


def write_metrics(metrics: Metrics, card: Path) -> None:
    """Put the numbers into a card, in place of those that stand there."""
    text = card.read_text(encoding="utf-8")
    text = re.sub(r"\n\[metrics\.[\s\S]*", "\n", text).rstrip() + "\n"
    for group, values in metrics.items():
        if group == "speed":  # of the machine, not of the model
            continue
        text += f'\n[metrics."{group}"]\n'
        text += "".join(f'"{key}" = {round(value, 3) + 0.0}\n' for key, value in values.items())
    with atomic_path(card) as path:
        path.write_text(text, encoding="utf-8")


def _samples() -> Iterator[tuple[str, Kind, Float64, Float64]]:
    """Name, kind, magnitudes and redshifts of well measured sources of the real tables."""
    data = data_folder()
    mag = _sdss17_stars(data)
    for low, high in ((0.0, 17.0), (17.0, 18.0), (18.0, 19.0), (19.0, 20.0)):
        rows = (mag[:, 2] > low) & (mag[:, 2] <= high) & (mag[:, 0] < 21)
        yield f"star r {low:g}-{high:g}", Kind.STAR, mag[rows], np.zeros(rows.sum())
    for table in redshifts(data):
        if table.name not in ("main", "sdss17", "boss"):
            continue
        for low, high in ((0.0, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 0.8)):
            rows = _known(table.mag, table.error) & (table.redshift > low) & (table.redshift <= high)
            if rows.sum() >= 100:
                name = f"galaxy {table.name} z {low:g}-{high:g}"
                yield name, Kind.GALAXY, table.mag[rows], table.redshift[rows]
    table = quasars(data)[0]
    for low, high in itertools.pairwise((0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.5)):
        rows = (
            _known(table.mag, table.error, blue=low < 3) & (table.redshift > low) & (table.redshift <= high)
        )
        yield f"quasar z {low:g}-{high:g}", Kind.QUASAR, table.mag[rows], table.redshift[rows]


def _sdss17_stars(data: Path) -> Float64:
    import pyarrow.parquet as pq

    table = pq.read_table(data / "populations" / "sdss17_ugriz_class_z.parquet")
    rows = np.asarray(table["class"].to_pylist()) == "STAR"
    mag = np.stack([table[b].to_numpy() for b in "ugriz"], 1)[rows]
    corrected: Float64 = mag - FilterSet.named("sdss").extinction(_MEAN_EBV)
    return corrected


def _known(mag: Float64, error: Float64, blue: bool = True) -> NDArray[np.bool_]:
    """Sources with all magnitudes, well enough measured; `blue`: u too, which high redshifts lack."""
    first = 0 if blue else 1
    with np.errstate(invalid="ignore"):
        good = error[:, first:] < _KNOWN_WITHIN
    known: NDArray[np.bool_] = np.all(np.hstack([good, np.isfinite(mag)]), axis=1)
    return known


def _warp(
    library: SpectralLibrary, kind: Kind, template: NDArray[np.int32], redshift: Float64, mag: Float64
) -> dict[str, float]:
    """Template minus real colour: the median, and the size that 68 % and 95 % of sources stay below."""
    difference = library.template_magnitudes(kind, template, redshift, library.anchors) - mag
    out: dict[str, float] = {"n": float(len(mag))}
    for i, colour in enumerate(_COLOURS):
        residual = difference[:, i] - difference[:, i + 1]
        out[f"{colour} median"] = float(np.median(residual))
        out[f"{colour} 68%"], out[f"{colour} 95%"] = map(float, np.percentile(np.abs(residual), [68, 95]))
    return out


def _csst(
    library: SpectralLibrary, kind: Kind, template: NDArray[np.int32], redshift: Float64, mag: Float64
) -> dict[str, float]:
    """Medians and the middle 90 % of CSST colours and of CSST minus SDSS magnitudes."""
    csst = FilterSet.named("csst")
    values = library.magnitudes(np.full(len(mag), kind), template, redshift, mag, csst)
    band = {name: values[:, i] for i, name in enumerate(csst.names)}
    pairs = {
        "nuv-u": band["nuv"] - band["u"],
        "z-y": band["z"] - band["y"],
        "g-g_sdss": band["g"] - mag[:, 1],
        "r-r_sdss": band["r"] - mag[:, 2],
        "i-i_sdss": band["i"] - mag[:, 3],
    }
    out: dict[str, float] = {}
    for name, value in pairs.items():
        low, middle, high = np.percentile(value, [5, 50, 95])
        out |= {f"{name} 5%": float(low), name: float(middle), f"{name} 95%": float(high)}
    return out


def _catsim(folder: Path | None, rng: np.random.Generator) -> Metrics:
    """CatSim's y magnitudes from its ugriz through the LSST filters: an independent truth, if a simulated one."""
    from astropy.table import Table
    from speclite import filters

    curves = {}
    for band in "ugrizy":
        curve = filters.load_filter(f"lsst2016-{band}")
        curves[band] = (curve.wavelength, curve.response)
    anchors = FilterSet.from_curves({b: curves[b] for b in "ugriz"})
    library = SpectralLibrary.load(folder, anchors)
    target = FilterSet.from_curves({"y": curves["y"]})
    out: Metrics = {}
    for kind, name in ((Kind.STAR, "stars"), (Kind.GALAXY, "galaxies")):
        table = Table.read(data_folder() / "populations" / f"lsst_catsim_{name}.fits")
        mag = np.stack([np.asarray(table[f"{b}_ab"], np.float64) for b in "ugriz"], 1)
        true = np.asarray(table["y_ab"], np.float64)
        redshift = np.asarray(table["redshift"], np.float64) if kind is Kind.GALAXY else np.zeros(len(mag))
        rows = (
            np.isfinite(mag).all(1) & (mag < 40).all(1) & np.isfinite(true) & (redshift >= 0) & (redshift < 6)
        )
        mag, true, redshift = mag[rows], true[rows], redshift[rows]
        kinds = np.full(len(mag), kind)
        template = library.choose(kinds, mag, redshift, rng)
        error = library.magnitudes(kinds, template, redshift, mag, target)[:, 0] - true
        plain = mag[:, 4] - true  # what a spectrum that is flat beyond z would give
        out[f"catsim y {name}"] = {
            "n": float(len(mag)),
            "median": float(np.median(error)),
            "68%": float(np.percentile(np.abs(error - np.median(error)), 68)),
            "95%": float(np.percentile(np.abs(error), 95)),
            "z-y median": float(np.median(plain)),
            "z-y 95%": float(np.percentile(np.abs(plain), 95)),
        }
    return out


def _speed(library: SpectralLibrary, rng: np.random.Generator, n: int = 10_000) -> dict[str, float]:
    """Seconds for 10,000 sources, the filters' grids computed before."""
    csst = FilterSet.named("csst")
    kind = rng.choice([0, 1, 1, 1, 2], n)
    redshift = np.where(kind > 0, rng.uniform(0, 2, n), 0.0)
    mag = rng.uniform(17, 24, n)[:, None] + np.array([1.5, 0.6, 0.0, -0.2, -0.4])
    library.magnitudes(kind[:3], np.zeros(3, np.int32), redshift[:3], mag[:3], csst)
    start = perf_counter()
    template = library.choose(kind, mag, redshift, rng)
    middle = perf_counter()
    library.magnitudes(kind, template, redshift, mag, csst, 0.05)
    return {"choose 10000 (s)": middle - start, "magnitudes 10000 x 7 (s)": perf_counter() - middle}
