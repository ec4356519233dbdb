"""Injected sources that came back, and what only one engine found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imcat.catalogue import Catalogue
from imcat.catalogue.fields import AB_FLUX
from imcat.evaluate.disagreement import Disagreement, compare_lists, draw_disagreement
from imcat.evaluate.injection import recovery


def _flux(magnitude: np.ndarray) -> np.ndarray:
    return (AB_FLUX * 10 ** (-0.4 * np.asarray(magnitude))).astype(np.float32)


@pytest.mark.parametrize("models", [True, False])
def test_completeness_bias_and_scatter_by_kind_and_magnitude(
    make_list: Callable[..., Catalogue], models: bool
) -> None:
    # Eight stars of 20.2 of which six are found, 0.1 too bright with a spread; two galaxies, none found.
    x, y = np.arange(10) * 20.0 + 10, np.full(10, 50.0)
    magnitude = np.array([20.2] * 8 + [21.7] * 2)
    off = np.array([-0.3, -0.1, -0.1, -0.1, 0.1, -0.2])
    catalogue = make_list(x[:6] + 0.5, y[:6], _flux(20.2 + off), models)
    before = make_list(np.array([x[9], 500.0]), np.array([y[9], 50.0]), _flux([20, 20]), models)
    kinds = {"star": np.arange(10) < 8, "galaxy": np.arange(10) >= 8, "quasar": np.zeros(10, bool)}
    result = recovery(catalogue, before, kinds, x, y, magnitude, reference="r", fwhm=3.0)
    assert (result["injected"], result["on_sources"]) == (10, 1)
    star, galaxy = result["bins"]
    assert (star["kind"], star["low"], star["high"], star["number"], star["found"]) == (
        "star",
        20,
        20.5,
        8,
        6,
    )
    assert star["flux"] == ("psf" if models else "kron")
    assert star["completeness"] == 0.75
    assert star["lower"] < 0.75 < star["upper"]
    assert star["bias"] == pytest.approx(-0.1, abs=1e-3)
    assert star["scatter"] == pytest.approx(1.4826 * 0.05, abs=1e-3)
    # One galaxy fell on a source of the tile; the other was not found.
    assert (galaxy["number"], galaxy["found"], galaxy["bias"]) == (1, 0, None)


def test_an_empty_catalogue_finds_nothing(make_list: Callable[..., Catalogue]) -> None:
    nothing = make_list(np.empty(0), np.empty(0), np.empty(0, np.float32), True)
    one = np.array([30.0])
    kinds = {"star": np.array([True])}
    (only,) = recovery(nothing, nothing, kinds, one, one, np.array([20.1]), reference="r", fwhm=3.0)["bins"]
    assert (only["completeness"], only["bias"]) == (0.0, None)


def test_what_only_one_list_has() -> None:
    first, second = compare_lists([10, 50, 90], [10, 10, 10], [11, 91, 70], [10, 10, 10], 3.0)
    assert first.tolist() == [False, True, False]
    assert second.tolist() == [False, False, True]


def test_a_disagreement_survives_a_file_and_is_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    odd = Disagreement(
        ("network", "threshold"), 40, (3, 1), np.array([True, True, True, False]), rng.uniform(0, 90, 4),
        rng.uniform(0, 90, 4), rng.uniform(3, 9, 4), rng.normal(0, 1, (4, 3, 41, 41)).astype(np.float32), 0.25,
    )  # fmt: skip
    with (tmp_path / "odd.npz").open("wb") as stream:
        np.savez(stream, **odd.arrays())  # type: ignore[arg-type]
    with np.load(tmp_path / "odd.npz") as stored:
        again = Disagreement.from_arrays(stored)
    assert again.counts() == {"both_engines": 40, "only_network": 3, "only_threshold": 1} == odd.counts()
    np.testing.assert_array_equal(again.stamps, odd.stamps)
    for name in ("a.png", "b.png"):
        draw_disagreement(tmp_path / name, "t", again)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def make_list() -> Callable[..., Catalogue]:
    """A function that makes a catalogue of places and r fluxes."""
    from imcat.schema import Schema

    schema = Schema(["g", "r"], [3.0])

    def make(x: np.ndarray, y: np.ndarray, flux: np.ndarray, models: bool) -> Catalogue:
        n = len(x)
        columns = {}
        for name in schema.required:
            dtype = schema[name].dtype
            columns[name] = np.full(n, "t") if dtype == "str" else np.zeros(n, dtype)
        columns.update(source_id=np.arange(n), x=np.asarray(x, float), y=np.asarray(y, float))
        columns["r_kron_flux"] = flux
        if models:
            columns["r_psf_flux"] = columns["r_cmodel_flux"] = flux
            columns["r_kron_flux"] = flux * np.float32(2)
        return Catalogue.build(columns, schema, {"tile": "t"})

    return make
