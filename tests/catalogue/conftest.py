"""Catalogues made up for the tests of files, names and queries."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imcat.catalogue import Catalogue, write_parquet
from imcat.schema import Schema

WAVELENGTHS = {"nuv": 2550.0, "u": 3551.0, "g": 4686.0, "r": 6166.0, "i": 7480.0, "z": 8932.0, "y": 9600.0}


def _values(column: Any, rows: int, rng: np.random.Generator) -> Any:
    makers = {
        "int64": lambda: rng.integers(0, 2**62, rows),
        "int32": lambda: rng.integers(0, 8192, rows).astype(np.int32),
        "float64": lambda: rng.uniform(0, 300, rows),
        "float32": lambda: rng.lognormal(3, 2, rows).astype(np.float32),
        "bool": lambda: rng.random(rows) < 0.7,
        "str": lambda: rng.choice(["threshold", 'a, "b"', ""], rows),
    }
    return makers[column.dtype]()


@pytest.fixture(scope="session")
def make_catalogue() -> Callable[..., Catalogue]:
    """A function that makes a catalogue with every column and every kind of missing value."""

    def make(
        bands: Sequence[str] = ("g", "r"),
        rows: int = 40,
        seed: int = 1,
        tile: str = "000042-3-0007",
        apertures: Sequence[float] = (3.0, 7.43),
        required_only: bool = False,
        **replaced: Any,
    ) -> Catalogue:
        rng = np.random.default_rng(seed)
        wavelengths = {b: WAVELENGTHS[b] for b in bands}
        schema = Schema(wavelengths, apertures)
        columns = {c.name: _values(c, rows, rng) for c in schema if c.required or not required_only}
        for column in schema:
            if column.name not in columns:
                continue
            if column.ucd.startswith("stat.probability"):
                columns[column.name] = rng.random(rows).astype(np.float32)
            if column.dtype == "float32" and not column.required and rows:
                columns[column.name][rng.random(rows) < 0.2] = np.nan
        columns["source_id"] = (1 << 59) + (np.int64(seed) << 23) + np.arange(rows)
        columns["dec"] = rng.uniform(-90, 90, rows)
        columns["tile"] = np.full(rows, tile)
        columns["position_source"] = rng.choice(["windowed", "detection"], rows)
        if "class" in columns:
            columns["class"] = rng.choice(["star", "galaxy", "quasar", ""], rows)
        meta = {
            "tile": tile,
            "survey": "sdss",
            "reference": bands[-1],
            "bands": wavelengths,
            "apertures": list(apertures),
            "pixel_scale": 0.396,
            "detector": "threshold",
            "config_hash": "0123456789abcdef" * 4,
            "version": "0.1.0",
            "variance_ratio": dict.fromkeys(bands, 1.01),
            "noise_correlation": dict.fromkeys(bands),
            "psf_fwhm": dict.fromkeys(bands, 1.2),
            "variance_source": dict.fromkeys(bands, "calibration"),
        }
        return Catalogue.build({**columns, **replaced}, schema, meta)

    return make


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the folder of a run from catalogues and footprints."""

    def make(catalogues: Sequence[Catalogue], footprints: dict[str, dict[str, Any]] | None = None) -> Path:
        folder = tmp_path / "run"
        (folder / "sources").mkdir(parents=True)
        for catalogue in catalogues:
            write_parquet(catalogue, folder / "sources" / f"{catalogue.meta['tile']}.parquet")
        (folder / "run.json").write_text(json.dumps({"tiles": footprints or {}}))
        return folder

    return make


@pytest.fixture(scope="session")
def stilts() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that calls STILTS."""
    program = shutil.which("stilts")
    if program is None:
        pytest.skip("stilts is not installed (Debian package stilts)")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)

    return call
