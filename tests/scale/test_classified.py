"""`imcat classify`: a table of magnitudes in, the same table with classes and redshifts out."""

from __future__ import annotations

from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from astropy.table import MaskedColumn, Table
from astropy.units import Unit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imcat.backbones.vit import VitSettings
from imcat.catalogue.fields import AB_FLUX
from imcat.classify.calibration import Calibration
from imcat.classify.network import ClassifierSettings, Seeing, measured
from imcat.classify.photometry import table_photometry
from imcat.classify.predict import KINDS, Prior, classify
from imcat.classify.prior import EDGES, MixByMagnitude, SkyMix
from imcat.classify.trained import TrainedClassifier
from imcat.errors import ConfigError, InputError, UsageError
from imcat.scale.classified import ClassifySummary, run_classify
from imcat.schema import Schema
from imcat.simulate.filters import FilterSet
from imcat.surveys.extinction import band_extinction

BINS = EDGES.size - 1
SDSS = FilterSet.named("sdss")
WAVES = dict(zip(SDSS.names, SDSS.wavelengths.tolist(), strict=True))
ADDED = [
    *(f"p_{k}" for k in KINDS), "class", *(f"class_loglike_{k}" for k in KINDS), "class_set",
    *(f"{z}{end}" for z in ("z_phot_galaxy", "z_phot_quasar", "z_phot") for end in ("", "_lower", "_upper")),
    "unlike_training",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> TrainedClassifier:
    """A small classifier that has learned nothing, and gives other sources other answers."""
    torch.manual_seed(5)
    network = Seeing(
        VitSettings(size=16, patch=8, width=32, depth=1, heads=2),
        ClassifierSettings(vision=64, width=32, depth=1, heads=2, components=4),
    ).eval()
    kind, rows = network.classifier.kind, table(60)
    given = measured(
        table_photometry([WAVES[b] for b in "gri"], np.stack([rows[f"{b}_mag"] for b in "gri"], 1))
    )
    with torch.no_grad():
        # Stronger, and as often for one kind as for another.
        kind.weight.mul_(10)
        kind.bias.sub_(network.classifier(given, torch.zeros(60, 64), torch.zeros(60)).kind.mean(0))
    share = np.broadcast_to(np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])[:, None], (2, BINS, 3)).copy()
    sky = SkyMix(np.array([20.0, 90.0]), share, np.full(BINS, 1e-4))
    mix = MixByMagnitude(np.broadcast_to([0.3, 0.5, 0.2], (BINS, 3)).copy())
    return TrainedClassifier(network, sky, mix, Calibration.none(32), (3000.0, 10000.0), {})


@pytest.fixture(autouse=True)
def _loaded(trained: TrainedClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imcat.scale.classified.load_classifier", lambda: trained)


def table(n: int = 6, seed: int = 1) -> Table:
    rng = np.random.default_rng(seed)
    rows = Table(
        {
            "name": [f"source {k}" for k in range(n)],
            "ra": rng.uniform(0, 360, n),
            "dec": rng.uniform(-90, 90, n),
        }
    )
    for band in "gri":
        rows[f"{band}_mag"] = rng.uniform(17, 22, n)
        rows[f"{band}_mag_err"] = rng.uniform(0.01, 0.2, n)
    rows["note"] = np.arange(n) * 10
    return rows


def run(
    rows: Table, folder: Path, name: str = "out.ecsv", **options: str | None
) -> tuple[Table, ClassifySummary]:
    """Classify a table, and read what came of it."""
    rows.write(folder / "in.ecsv", overwrite=True)
    summary = run_classify(folder / "in.ecsv", folder / name, **options)
    return Table.read(folder / name), summary


def plain(column: MaskedColumn) -> NDArray[np.float64]:
    return np.ma.filled(np.ma.asarray(column, dtype=float), np.nan)


def text(column: MaskedColumn) -> list[str]:
    """Texts of any format: bytes in some, and what is empty masked."""
    values = np.ma.filled(np.ma.asarray(column).astype(object), "")
    return [(v.decode() if isinstance(v, bytes) else str(v)).strip() for v in values]


def shares(found: Table) -> NDArray[np.float64]:
    return np.stack([plain(found[f"p_{k}"]) for k in KINDS], axis=1)


class TestTable:
    @pytest.mark.parametrize("ending", ["csv", "fits", "parquet", "ecsv", "vot"])
    def test_rows_their_order_and_other_columns_stay(self, tmp_path: Path, ending: str) -> None:
        rows = table()
        first, _ = run(rows, tmp_path)
        rows.write(tmp_path / f"in.{ending}", format="votable" if ending == "vot" else None, overwrite=True)
        summary = run_classify(tmp_path / f"in.{ending}", tmp_path / f"out.{ending}")
        assert (summary.rows, summary.classified, summary.bands) == (6, 6, ("g", "r", "i"))
        found = Table.read(tmp_path / f"out.{ending}")
        assert found.colnames == rows.colnames + ADDED
        assert text(found["name"]) == rows["name"].tolist()
        for name in ("ra", "dec", "r_mag", "note"):
            np.testing.assert_allclose(plain(found[name]), rows[name], rtol=1e-12)
        for name in ADDED:
            if name in ("class", "class_set"):
                assert text(found[name]) == text(first[name])
            else:
                np.testing.assert_allclose(plain(found[name]), plain(first[name]), rtol=1e-5)

    def test_answers_are_those_of_the_classifier(self, tmp_path: Path, trained: TrainedClassifier) -> None:
        rows = table()
        found, _ = run(rows, tmp_path, prior="flat")
        mags = np.stack([rows[f"{b}_mag"] for b in "gri"], 1)
        errors = np.stack([rows[f"{b}_mag_err"] for b in "gri"], 1)
        photometry = table_photometry([WAVES[b] for b in "gri"], mags, errors)
        expected = classify(trained, photometry, None, Prior("flat"))
        for name in ADDED:
            if name in ("class", "class_set"):
                assert text(found[name]) == expected[name].tolist()
            else:
                np.testing.assert_allclose(plain(found[name]), expected[name], rtol=1e-5)
        np.testing.assert_allclose(shares(found).sum(axis=1), 1, rtol=1e-6)
        assert len(set(text(found["class"]))) > 1

    def test_new_columns_have_types_and_descriptions(self, tmp_path: Path) -> None:
        found, _ = run(table(), tmp_path)
        schema = Schema(["r"])
        for name in ADDED:
            assert found[name].description == schema[name].description
            if schema[name].dtype != "str":
                assert found[name].dtype == np.float32

    def test_a_second_time_replaces_the_columns(self, tmp_path: Path) -> None:
        first, _ = run(table(), tmp_path)
        first["p_star"] = 7.0
        second, _ = run(first, tmp_path)
        assert second.colnames == first.colnames
        np.testing.assert_allclose(shares(second).sum(axis=1), 1, rtol=1e-6)

    def test_a_column_of_the_users_with_such_a_name_is_kept(self, tmp_path: Path) -> None:
        rows = table()
        rows["class"] = [f"truth {k}" for k in range(len(rows))]
        found, summary = run(rows, tmp_path)
        assert list(found["input_class"]) == list(rows["class"])
        assert set(text(found["class"])) <= set(KINDS)
        assert any("kept as input_class" in w for w in summary.warnings)

    def test_what_the_format_cannot_hold_is_refused_before_anything_is_done(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = table()
        rows["several"] = np.zeros((len(rows), 3))
        monkeypatch.setattr("imcat.scale.classified.load_classifier", lambda: pytest.fail("work was done"))
        with pytest.raises(UsageError, match="column several cannot be written"):
            run(rows, tmp_path, "out.csv")
        assert not (tmp_path / "out.csv").exists()

    def test_no_rows_have_the_same_columns(self, tmp_path: Path) -> None:
        found, summary = run(table()[:0], tmp_path)
        assert (summary.rows, summary.classified, len(found)) == (0, 0, 0)
        assert sorted(found.colnames) == sorted(table().colnames + ADDED)


class TestMissing:
    @pytest.mark.parametrize("mark", [99.0, -9999.0, np.nan, 0.0, -99.0, np.inf])
    def test_marks_of_missing_magnitudes_are_not_classified(self, tmp_path: Path, mark: float) -> None:
        rows = table()
        for band in "gri":
            rows[f"{band}_mag"][2] = mark
        rows["r_mag"][4] = mark
        found, summary = run(rows, tmp_path)
        assert (summary.rows, summary.classified) == (6, 5)
        assert text(found["class"])[2] == text(found["class_set"])[2] == ""
        for name in ADDED:
            if name not in ("class", "class_set"):
                assert np.flatnonzero(np.isnan(plain(found[name]))).tolist() == [2]
        # What one band lacks is as if the band were not there.
        few = rows["ra", "dec", "g_mag", "g_mag_err", "i_mag", "i_mag_err"][4:5]
        np.testing.assert_allclose(shares(run(few, tmp_path)[0])[0], shares(found)[4], atol=1e-5)

    def test_masked_magnitudes_are_not_classified(self, tmp_path: Path) -> None:
        rows = table()
        for band in "gri":
            rows[f"{band}_mag"] = MaskedColumn(rows[f"{band}_mag"], mask=np.arange(6) == 3)
        found, summary = run(rows, tmp_path)
        assert summary.classified == 5
        assert np.isnan(shares(found)[3]).all()

    def test_errors_that_are_marks_are_unknown(self, tmp_path: Path) -> None:
        rows = table()
        none = rows.copy()
        none.remove_columns([f"{b}_mag_err" for b in "gri"])
        for band in "gri":
            rows[f"{band}_mag_err"] = [-1.0, 0.0, 99.0, np.nan, np.inf, -9999.0]
        np.testing.assert_allclose(shares(run(rows, tmp_path)[0]), shares(run(none, tmp_path)[0]), atol=1e-6)

    @given(
        mags=hnp.arrays(
            np.float64, (5, 3),
            elements=st.one_of(st.floats(10, 30), st.sampled_from([99.0, -9999.0, np.nan, np.inf, 0.0])),
        ),
        ebv=hnp.arrays(np.float64, 5, elements=st.floats(0, 2)),
    )  # fmt: skip
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_table_is_answered_row_by_row(
        self, tmp_path: Path, mags: NDArray[np.float64], ebv: NDArray[np.float64]
    ) -> None:
        rows = Table({"g_mag": mags[:, 0], "r_mag": mags[:, 1], "i_mag": mags[:, 2], "ebv": ebv})
        rows.write(tmp_path / "in.fits", overwrite=True)
        summary = run_classify(tmp_path / "in.fits", tmp_path / "out.fits", prior="flat")
        found = Table.read(tmp_path / "out.fits")
        known = ((mags >= 5) & (mags <= 35)).any(axis=1)
        assert summary.classified == known.sum()
        share = shares(found)
        np.testing.assert_array_equal(np.isfinite(share).all(axis=1), known)
        np.testing.assert_allclose(share[known].sum(axis=1), 1, rtol=1e-5)
        label = [
            KINDS[k] if there else "" for k, there in zip(np.nan_to_num(share).argmax(1), known, strict=True)
        ]
        assert text(found["class"]) == label
        np.testing.assert_array_equal(found["ebv"], ebv)


class TestDust:
    def test_ebv_is_taken_off_by_the_coefficients_of_the_survey(
        self, tmp_path: Path, trained: TrainedClassifier
    ) -> None:
        rows = table()
        rows["ebv"] = np.linspace(0, 0.5, 6)
        found, _ = run(rows, tmp_path, prior="flat")
        unit = band_extinction("sdss", {b: WAVES[b] for b in "gri"}, 1.0)
        dust = np.stack([unit[b] * rows["ebv"] for b in "gri"], 1)
        mags = np.stack([rows[f"{b}_mag"] for b in "gri"], 1)
        errors = np.stack([rows[f"{b}_mag_err"] for b in "gri"], 1)
        photometry = table_photometry([WAVES[b] for b in "gri"], mags, errors, dust)
        expected = classify(trained, photometry, None, Prior("flat"))
        np.testing.assert_allclose(plain(found["p_star"]), expected["p_star"], rtol=1e-5)
        del rows["ebv"]
        assert np.abs(shares(run(rows, tmp_path, prior="flat")[0]) - shares(found)).max() > 0.005

    def test_extinction_of_a_catalogue_is_used(self, tmp_path: Path) -> None:
        rows = table()
        rows["ebv"] = 0.2
        first, _ = run(rows, tmp_path)
        del rows["ebv"]
        unit = band_extinction("sdss", {b: WAVES[b] for b in "gri"}, 1.0)
        for band in "gri":
            rows[f"{band}_extinction"] = 0.2 * unit[band]
        np.testing.assert_allclose(shares(run(rows, tmp_path)[0]), shares(first), atol=1e-6)


class TestFilters:
    def test_a_file_names_the_bands_of_another_camera(self, tmp_path: Path) -> None:
        first, _ = run(table(), tmp_path)
        rows = table()
        for band in "gri":
            rows.rename_column(f"{band}_mag", f"{band}_odd_mag")
            rows.rename_column(f"{band}_mag_err", f"{band}_odd_mag_err")
        path = tmp_path / "filters.toml"
        path.write_text("\n".join(f"{b}_odd = {WAVES[b]!r}" for b in "gri"))
        found, summary = run(rows, tmp_path, filters=str(path))
        assert summary.bands == ("g_odd", "r_odd", "i_odd")
        np.testing.assert_allclose(shares(found), shares(first), atol=1e-6)
        path.write_text("[filters]\n" + path.read_text())
        np.testing.assert_allclose(
            shares(run(rows, tmp_path, filters=str(path))[0]), shares(first), atol=1e-6
        )

    def test_other_wavelengths_are_another_answer(self, tmp_path: Path) -> None:
        path = tmp_path / "filters.toml"
        path.write_text("g = 3600\nr = 4400.5\ni = 5500\n")
        found, _ = run(table(), tmp_path, filters=str(path))
        assert np.abs(shares(found) - shares(run(table(), tmp_path)[0])).max() > 0.01

    def test_bands_that_only_csst_has_choose_csst(self, tmp_path: Path) -> None:
        rows = table()
        rows["y_mag"] = 18.0
        found, summary = run(rows, tmp_path)
        assert summary.bands == ("g", "r", "i", "y")
        np.testing.assert_allclose(shares(run(rows, tmp_path, filters="csst")[0]), shares(found))
        assert run(rows, tmp_path, filters="sdss")[1].bands == ("g", "r", "i")

    def test_bands_beyond_the_training_are_left_out(self, tmp_path: Path) -> None:
        rows, path = table(), tmp_path / "filters.toml"
        rows["k_mag"] = 16.0
        path.write_text("\n".join(f"{b} = {WAVES[b]!r}" for b in "gri") + "\nk = 21900\n")
        found, summary = run(rows, tmp_path, filters=str(path))
        assert summary.bands == ("g", "r", "i")
        assert summary.warnings == ("band k at 21900 angstrom lies outside 3000 to 10000: it is not used",)
        np.testing.assert_allclose(shares(found), shares(run(table(), tmp_path)[0]), atol=1e-6)
        path.write_text("k = 21900")
        with pytest.raises(InputError, match="no band lies where the classifier was trained"):
            run(rows, tmp_path, filters=str(path))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, r"cannot be read \(.*expected sdss, csst or a TOML file"),
            ("r = = 3", "cannot be read"),
            ("r = 'red'", "expected lines such as r = 6166, effective wavelengths in angstrom"),
            ("r = 0.62", "expected lines such as r = 6166"),
            ("", "expected lines such as r = 6166"),
        ],
    )
    def test_unknown_filters_are_refused(self, tmp_path: Path, content: str | None, message: str) -> None:
        path = tmp_path / "filters.toml"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match=message) as caught:
            run(table(), tmp_path, filters=str(path))
        assert f"--filters {path}" in str(caught.value)
        assert not (tmp_path / "out.ecsv").exists()

    def test_a_table_of_unknown_bands_is_refused(self, tmp_path: Path) -> None:
        rows = Table({"id": [1], "b_mag": [18.0], "v_mag": [17.0]})
        with pytest.raises(
            InputError, match=r"no magnitudes of u, g, r, i, z \(it has id, b_mag, v_mag\)"
        ) as caught:
            run(rows, tmp_path)
        assert "--filters names the bands of other cameras" in str(caught.value)


class TestPrior:
    def test_without_places_the_prior_is_the_mean_over_the_sky(
        self, tmp_path: Path, trained: TrainedClassifier
    ) -> None:
        rows = table()
        rows.remove_columns(["ra", "dec"])
        found, summary = run(rows, tmp_path)
        assert summary.warnings == ("the table has no ra and dec: the prior is the mean over the sky",)
        flat, quiet = run(rows, tmp_path, prior="flat")
        assert quiet.warnings == ()
        joint = shares(flat) * trained.sky.shares(np.full(6, 20.0), None)
        np.testing.assert_allclose(shares(found), joint / joint.sum(axis=1, keepdims=True), rtol=1e-5)

    def test_with_places_it_is_that_of_the_latitude(self, tmp_path: Path, trained: TrainedClassifier) -> None:
        rows = table(3)
        # The galactic centre, the north pole of the Galaxy, and nowhere.
        rows["ra"], rows["dec"] = [266.405, 192.8595, np.nan], [-28.936, 27.1283, np.nan]
        found, summary = run(rows, tmp_path)
        assert summary.warnings == ()
        flat, _ = run(rows, tmp_path, prior="flat")
        joint = shares(flat) * trained.sky.shares(np.full(3, 20.0), np.array([0.0, 90.0, np.nan]))
        np.testing.assert_allclose(shares(found), joint / joint.sum(axis=1, keepdims=True), rtol=1e-4)

    def test_rows_without_a_place_have_the_mean_over_the_sky(self, tmp_path: Path) -> None:
        rows = table()
        mean, _ = run(rows[[c for c in rows.colnames if c not in ("ra", "dec")]], tmp_path)
        whole, _ = run(rows, tmp_path)
        rows["ra"][2] = np.nan
        found, _ = run(rows, tmp_path)
        assert shares(found)[2] == pytest.approx(shares(mean)[2], rel=1e-6)
        others = np.arange(len(rows)) != 2
        assert shares(found)[others] == pytest.approx(shares(whole)[others], rel=1e-6)
        assert np.abs(shares(whole)[2] - shares(mean)[2]).max() > 1e-3

    def test_an_unknown_prior_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            ConfigError, match=r"classify.prior is 'moon'; expected one of sky, flat, spectroscopic"
        ):
            run(table(), tmp_path, prior="moon")


class TestFluxes:
    def catalogue(self, kind: str) -> Table:
        rows = table()
        out = rows["name", "ra", "dec"]
        for band in "gri":
            flux = AB_FLUX * 10 ** (-0.4 * np.asarray(rows[f"{band}_mag"]))
            out[f"{band}_{kind}_flux"] = flux
            out[f"{band}_{kind}_flux_err"] = flux * np.asarray(rows[f"{band}_mag_err"]) / 1.0857
        return out

    @pytest.mark.parametrize("kind", ["cmodel", "model", "kron"])
    def test_fluxes_of_a_catalogue_are_magnitudes(self, tmp_path: Path, kind: str) -> None:
        rows = table()
        for band in "gri":
            rows[f"{band}_mag_err"] = 0.01
        first, _ = run(rows, tmp_path)
        fluxes = self.catalogue(kind)
        for band in "gri":
            fluxes[f"{band}_{kind}_flux_err"] = fluxes[f"{band}_{kind}_flux"] * 0.01 / 1.0857
        found, summary = run(fluxes, tmp_path)
        assert (summary.classified, summary.bands) == (6, ("g", "r", "i"))
        np.testing.assert_allclose(shares(found), shares(first), atol=2e-4)

    def test_units_of_fluxes_are_minded(self, tmp_path: Path) -> None:
        rows = table()
        for band in "gri":
            rows[f"{band}_model_flux"] = AB_FLUX * 10 ** (-0.4 * rows[f"{band}_mag"])
            rows[f"{band}_model_flux_err"] = 0.05 * rows[f"{band}_model_flux"]
            rows.remove_columns([f"{band}_mag", f"{band}_mag_err"])
        plain_units, _ = run(rows, tmp_path)
        for name in [c for c in rows.colnames if "flux" in c]:
            rows[name] = rows[name] / 1000
            rows[name].unit = "uJy"
        found, _ = run(rows, tmp_path)
        assert shares(found) == pytest.approx(shares(plain_units), rel=1e-4)
        for unit in ("s", Unit("counts of ours", parse_strict="silent")):
            rows["g_model_flux"].unit = unit
            with pytest.raises(InputError, match=f"g_model_flux is in {unit}"):
                run(rows, tmp_path)

    def test_bands_with_fluxes_only_count_beside_magnitudes(self, tmp_path: Path) -> None:
        rows = table()
        wanted, _ = run(rows, tmp_path)
        rows["i_model_flux"] = AB_FLUX * 10 ** (-0.4 * rows["i_mag"])
        rows["i_model_flux_err"] = rows["i_mag_err"] * rows["i_model_flux"] * np.log(10) / 2.5
        rows.remove_columns(["i_mag", "i_mag_err"])
        found, _ = run(rows, tmp_path)
        assert shares(found) == pytest.approx(shares(wanted), rel=1e-4)

    def test_negative_fluxes_are_classified(self, tmp_path: Path) -> None:
        fluxes = self.catalogue("model")
        for band in "gri":
            fluxes[f"{band}_model_flux"][1] = -3 * fluxes[f"{band}_model_flux_err"][1]
        found, summary = run(fluxes, tmp_path)
        assert summary.classified == 6
        assert np.isfinite(shares(found)).all()

    def test_sizes_and_other_magnitudes_count(self, tmp_path: Path) -> None:
        first = shares(run(table(), tmp_path)[0])
        for name in ("r_psf_mag", "half_light_radius", "petrosian_radius", "petrosian_r50", "model_radius"):
            rows = table()
            rows[name] = 19.0 if name.endswith("mag") else 2.0
            found = shares(run(rows, tmp_path)[0])
            assert np.abs(found - first).max() > 1e-4
            # ... unless they are marks.
            rows[name] = -9999.0
            np.testing.assert_allclose(shares(run(rows, tmp_path)[0]), first, atol=1e-6)


class TestFiles:
    def test_an_ending_that_no_format_has_is_refused(self, tmp_path: Path) -> None:
        table().write(tmp_path / "in.ecsv")
        with pytest.raises(UsageError, match=r"ending '.xyz' is unknown; expected one of .fits"):
            run_classify(tmp_path / "in.ecsv", tmp_path / "out.xyz")

    def test_what_is_no_table_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            run_classify(tmp_path / "none.csv", tmp_path / "out.csv")
        (tmp_path / "in.fits").write_text("not a table")
        with pytest.raises(InputError, match="the table cannot be read"):
            run_classify(tmp_path / "in.fits", tmp_path / "out.csv")

    def test_a_column_of_words_is_refused(self, tmp_path: Path) -> None:
        rows = table()
        rows.replace_column("r_mag", ["bright"] * 6)
        with pytest.raises(InputError, match="column r_mag holds no numbers"):
            run(rows, tmp_path)
        assert not (tmp_path / "out.ecsv").exists()
