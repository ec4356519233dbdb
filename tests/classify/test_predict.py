"""Columns that the classifier gives: probabilities by Bayes' rule, sets, redshifts, what is missing; its file and card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from scipy.special import softmax

from imcat.backbones.choice import BackboneSettings
from imcat.backbones.cnn import CnnSettings
from imcat.backbones.vit import VitSettings
from imcat.classify.calibration import LEVELS, MODES, Calibration
from imcat.classify.densities import Densities
from imcat.classify.network import MORPHOLOGIES, ClassifierSettings, Seeing, measured
from imcat.classify.photometry import Photometry, table_photometry
from imcat.classify.predict import KINDS, Prior, answer, classify, look, structure_of
from imcat.classify.prior import EDGES, MixByMagnitude, SkyMix
from imcat.classify.trained import FORMAT, TrainedClassifier, from_arrays, load_classifier
from imcat.errors import InputError, UsageError
from imcat.schema import Schema
from imcat.stamps import Stamps
from imcat.train.card_text import write_with_card

SMALL = VitSettings(size=16, patch=8, width=32, depth=1, heads=2)
BINS = EDGES.size - 1
WAVES = (4700.0, 6200.0, 7500.0)
Columns = dict[str, NDArray[Any]]


def untrained(backbone: BackboneSettings = SMALL, vision: int = 64) -> TrainedClassifier:
    """A small classifier that has an opinion, if not a good one."""
    torch.manual_seed(3)
    network = Seeing(
        backbone, ClassifierSettings(vision=vision, width=32, depth=1, heads=2, components=4)
    ).eval()
    kind = network.classifier.kind
    with torch.no_grad():
        # Stronger, and as often for one kind as for another.
        kind.weight.mul_(10)
        given = measured(sources())
        said = network.classifier(given, torch.zeros(60, vision), torch.zeros(60)).kind.mean(0)
        kind.bias.sub_(said - torch.tensor([0.0, 0.0, 1.5]))
    latitude = np.array([20.0, 90.0])
    share = np.broadcast_to(np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]])[:, None], (2, BINS, 3)).copy()
    sky = SkyMix(latitude, share, np.geomspace(1e-5, 1e-3, BINS))
    spectroscopic = MixByMagnitude(np.broadcast_to([0.3, 0.5, 0.2], (BINS, 3)).copy())
    return TrainedClassifier(network, sky, spectroscopic, Calibration.none(32), (3000.0, 10000.0), {})


def calibrated() -> TrainedClassifier:
    """The same with corrections that differ by magnitude, mode and kind."""
    rng, trained = np.random.default_rng(4), untrained()
    levels = np.sort(rng.random((len(MODES), 2, BINS, LEVELS.size)), axis=3)
    levels[..., 0], levels[..., -1] = 0, 1
    calibration = Calibration(
        rng.uniform(0.5, 2, (len(MODES), BINS)), rng.uniform(-3, -1, (len(MODES), BINS, 3)), levels, rng.normal(size=32),
        np.eye(32) * 0.5, np.tile(np.linspace(0.1, 3, 201), (len(MODES), 1)), rng.normal(size=(len(MODES), BINS, 3)),
        rng.uniform(0.5, 2, (len(MODES), BINS)), rng.uniform(0.5, 2, (len(MODES), BINS, 2)),
    )  # fmt: skip
    return replace(trained, calibration=calibration)


def sources(n: int = 60, seed: int = 1) -> Photometry:
    """The last but one has no magnitudes, and neither has the last, nor a stamp (`seen`)."""
    rng = np.random.default_rng(seed)
    mags = rng.uniform(16, 24, (n, 1)) + rng.normal(0, 1, (n, 3))
    mags[rng.random((n, 3)) < 0.2] = np.nan
    mags[:, 1] = np.where(np.isnan(mags).all(axis=1), 20.0, mags[:, 1])
    mags[-2:] = np.nan
    return table_photometry(WAVES, mags, np.full((n, 3), 0.05), np.full((n, 3), 0.1))


def seen(n: int = 60, seed: int = 2) -> NDArray[np.float32]:
    """Every third source lacks a stamp, and so does the last."""
    vision = np.random.default_rng(seed).normal(size=(n, 64)).astype(np.float32)
    vision[::3] = 0
    vision[-2], vision[-1] = 1, 0
    return vision


@pytest.fixture(scope="module")
def trained() -> TrainedClassifier:
    return calibrated()


@pytest.fixture(scope="module")
def columns(trained: TrainedClassifier) -> Columns:
    return classify(trained, sources(), seen())


def probabilities(columns: Columns) -> NDArray[np.float64]:
    return np.stack([columns[f"p_{k}"] for k in KINDS], axis=1)


def likelihoods(columns: Columns) -> NDArray[np.float64]:
    return np.exp(np.stack([columns[f"class_loglike_{k}"] for k in KINDS], axis=1))


NOTHING = np.arange(60) == 59
BLIND = (np.arange(60) % 3 == 0) | NOTHING


def modes(alone: str = "magnitudes, errors, dust") -> NDArray[np.int64]:
    """What there is of each of the sources, as the calibration counts it."""
    bare = np.arange(60) >= 58
    return np.where(BLIND, MODES.index(alone), np.where(bare, MODES.index("stamp"), MODES.index("both")))


class TestColumns:
    def test_the_schema_knows_them_all(self, columns: Columns) -> None:
        schema = Schema(["r"])
        assert [name for name in columns if name not in schema] == []
        for name, values in columns.items():
            assert values.shape == (60,)
            assert (values.dtype.kind == "U") == (schema[name].dtype == "str")
        # The schema's columns that classification is to fill are all there.
        wanted = {
            n for n in schema.names() if n.startswith(("p_", "class", "z_phot", "morph_", "lens_", "unlike"))
        }
        assert wanted == set(columns)

    def test_probabilities_sum_to_one_and_the_class_is_the_likeliest(self, columns: Columns) -> None:
        share = probabilities(columns)[~NOTHING]
        np.testing.assert_allclose(share.sum(axis=1), 1)
        best = [KINDS[k] for k in share.argmax(axis=1)]
        assert columns["class"][~NOTHING].tolist() == best
        assert len(set(best)) > 1
        np.testing.assert_allclose(likelihoods(columns)[~NOTHING].sum(axis=1), 1)
        for name in ("p_lens", "unlike_training", *(f"morph_{m}" for m in MORPHOLOGIES)):
            value = columns[name][np.isfinite(columns[name])]
            assert ((value >= 0) & (value <= 1)).all()

    def test_the_set_holds_what_reaches_the_threshold_whatever_the_prior(
        self, trained: TrainedClassifier, columns: Columns
    ) -> None:
        rows = np.flatnonzero(~NOTHING)
        likelihood, magnitude = np.log(likelihoods(columns)[rows]), sources().reference_magnitude()[rows]
        inside = trained.calibration.sets(likelihood, modes()[rows], magnitude)
        expected = [",".join(k for k, held in zip(KINDS, row, strict=True) if held) for row in inside] + [""]
        assert columns["class_set"].tolist() == expected
        assert len({e.count(",") for e in expected}) > 1
        flat = classify(trained, sources(), seen(), Prior("flat"))
        assert flat["class_set"].tolist() == expected
        assert not np.array_equal(flat["p_star"], columns["p_star"])

    def test_what_has_neither_magnitudes_nor_a_stamp_has_no_answer(self, columns: Columns) -> None:
        for name, values in columns.items():
            if values.dtype.kind == "U":
                assert values[59] == ""
                assert (values[:59] != "").all()
            else:
                assert np.isnan(values[59])
                if not name.startswith("morph_"):
                    assert np.isfinite(values[:59]).all()

    def test_morphology_needs_a_stamp(self, trained: TrainedClassifier, columns: Columns) -> None:
        names = [name for name in columns if name.startswith("morph_")]
        assert len(names) == len(MORPHOLOGIES) + 4
        for name in names:
            np.testing.assert_array_equal(np.isnan(columns[name]), BLIND)
        total = sum(columns[f"morph_{m}"] for m in MORPHOLOGIES)
        np.testing.assert_allclose(total[~BLIND], 1)
        assert (columns["morph_bulge_fraction_err"][~BLIND] > 0).all()
        assert (columns["morph_sersic_index"][~BLIND] > 0).all()
        without = classify(trained, sources(), None)
        assert all(np.isnan(without[name]).all() for name in names)

    def test_the_stamp_matters_only_where_there_is_one(
        self, trained: TrainedClassifier, columns: Columns
    ) -> None:
        without = classify(trained, sources(), None)
        dark = BLIND & ~NOTHING
        for name in ("p_star", "z_phot", "class_loglike_quasar", "unlike_training"):
            np.testing.assert_allclose(without[name][dark], columns[name][dark], rtol=1e-4, atol=1e-6)
            assert not np.allclose(without[name][~BLIND][:-1], columns[name][~BLIND][:-1], rtol=1e-3)

    def test_answers_do_not_depend_on_the_other_sources(
        self, trained: TrainedClassifier, columns: Columns
    ) -> None:
        rows = np.array([58, 4, 3, 17])
        few = classify(trained, sources().take(rows), seen()[rows])
        for name, values in few.items():
            if values.dtype.kind == "U":
                assert values.tolist() == columns[name][rows].tolist()
            else:
                np.testing.assert_allclose(values, columns[name][rows], rtol=2e-4, atol=1e-6)

    def test_no_sources_have_the_same_columns(self, columns: Columns) -> None:
        none = classify(untrained(), sources().take(np.zeros(0, int)))
        assert set(none) == set(columns)
        for name, values in none.items():
            assert values.shape == (0,)
            assert values.dtype.kind == columns[name].dtype.kind


class TestPrior:
    def test_probabilities_are_likelihoods_times_shares(self, trained: TrainedClassifier) -> None:
        latitude = np.linspace(-90, 90, 60)
        magnitude = sources().reference_magnitude()
        cases = {
            "flat": np.full((60, 3), 1 / 3),
            "sky": trained.sky.shares(magnitude, latitude),
            "spectroscopic": np.broadcast_to([0.3, 0.5, 0.2], (60, 3)),
        }
        found = {}
        for name, share in cases.items():
            columns = found[name] = classify(trained, sources(), seen(), Prior(name, latitude))
            joint = likelihoods(columns) * share
            expected = joint / joint.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(probabilities(columns)[~NOTHING], expected[~NOTHING], rtol=1e-10)
        # The likelihoods themselves know nothing of the sky.
        np.testing.assert_array_equal(
            likelihoods(found["flat"])[~NOTHING], likelihoods(found["sky"])[~NOTHING]
        )
        assert np.abs(probabilities(found["flat"]) - probabilities(found["sky"]))[~NOTHING].max() > 0.1
        # From flat to sky by the ratio of the shares alone.
        ratio = probabilities(found["flat"]) * cases["sky"]
        np.testing.assert_allclose(
            probabilities(found["sky"])[~NOTHING],
            (ratio / ratio.sum(axis=1, keepdims=True))[~NOTHING],
            rtol=1e-10,
        )

    def test_the_default_is_the_mean_over_the_sky(self, trained: TrainedClassifier, columns: Columns) -> None:
        same = classify(trained, sources(), seen(), Prior("sky", None))
        np.testing.assert_array_equal(probabilities(same), probabilities(columns))

    def test_the_network_is_told_of_the_spectroscopic_choice(self, trained: TrainedClassifier) -> None:
        flat = likelihoods(classify(trained, sources(), seen(), Prior("flat")))
        chosen = likelihoods(classify(trained, sources(), seen(), Prior("spectroscopic")))
        alone = BLIND & ~NOTHING
        assert not np.allclose(flat[alone], chosen[alone], rtol=1e-3)
        # Of sources with a stamp it was never told: their likelihoods are those for any prior.
        np.testing.assert_array_equal(flat[~BLIND], chosen[~BLIND])

    @pytest.mark.parametrize("name", ["flat", "spectroscopic"])
    def test_every_mode_has_its_own_correction(self, trained: TrainedClassifier, name: str) -> None:
        columns, chosen = classify(trained, sources(), seen(), Prior(name)), name == "spectroscopic"
        said = answer(trained, sources(), seen(), spectroscopic=chosen).kind.numpy().astype(float)
        mode = modes("spectroscopic") if chosen else modes()
        alone = (np.isfinite(sources().total).sum(axis=1) == 1) & BLIND & ~NOTHING
        assert alone.any()
        if chosen:
            mode[alone] = MODES.index("spectroscopic, one band")
        expected = softmax(trained.calibration.corrected(said, mode, sources().reference_magnitude()), axis=1)
        np.testing.assert_allclose(likelihoods(columns)[~NOTHING], expected[~NOTHING], rtol=1e-9)
        assert np.unique(mode).size == 3 + chosen

    def test_an_unknown_prior_is_refused(self, trained: TrainedClassifier) -> None:
        with pytest.raises(UsageError, match="no prior 'moon'; expected sky, flat or spectroscopic"):
            classify(trained, sources(), None, Prior("moon"))

    def test_shapes_have_their_own_corrections(self, trained: TrainedClassifier, columns: Columns) -> None:
        said = answer(trained, sources(), seen(), spectroscopic=False)
        looks, factor = trained.calibration.shapes(modes(), sources().reference_magnitude())
        share = softmax(said.morphology.numpy().astype(float) / looks[:, None], axis=1)
        found = np.stack([columns[f"morph_{m}"] for m in MORPHOLOGIES], axis=1)
        np.testing.assert_allclose(found[~BLIND], share[~BLIND], rtol=1e-9)
        value, error = structure_of(said)
        for k, name in enumerate(("morph_bulge_fraction", "morph_sersic_index")):
            np.testing.assert_allclose(columns[name][~BLIND], value[~BLIND, k])
            np.testing.assert_allclose(columns[f"{name}_err"][~BLIND], (error * factor)[~BLIND, k])
        assert not np.allclose(factor[~BLIND], 1, rtol=0.1)

    def test_temperature_divides_the_logits(self) -> None:
        plain = untrained()
        hot = replace(plain.calibration, temperature=np.full((len(MODES), BINS), 2.0))
        first = classify(plain, sources(), seen(), Prior("flat"))
        second = classify(replace(plain, calibration=hot), sources(), seen(), Prior("flat"))
        root = np.sqrt(likelihoods(first))
        expected = root / root.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(likelihoods(second)[~NOTHING], expected[~NOTHING], rtol=1e-9)

    def test_the_probability_of_a_lens_is_its_likelihood_times_the_odds(
        self, trained: TrainedClassifier, columns: Columns
    ) -> None:
        odds = np.exp(columns["lens_loglike"]) * trained.sky.odds(sources().reference_magnitude())
        np.testing.assert_allclose(columns["p_lens"][~NOTHING], (odds / (1 + odds))[~NOTHING])


class TestRedshift:
    def test_a_galaxy_s_median_lies_within_its_interval(self, columns: Columns) -> None:
        low, middle, high = (columns[f"z_phot_galaxy{end}"][~NOTHING] for end in ("_lower", "", "_upper"))
        assert (low > 0).all()
        assert (low <= middle).all()
        assert (middle <= high).all()
        assert (low < high).all()
        assert (columns["z_phot_quasar_lower"] < columns["z_phot_quasar_upper"])[~NOTHING].all()

    def test_it_is_that_of_the_likelier_of_both(self, columns: Columns) -> None:
        quasar = columns["p_quasar"] > columns["p_galaxy"]
        assert 5 < quasar.sum() < 55
        for end in ("", "_lower", "_upper"):
            expected = np.where(quasar, columns[f"z_phot_quasar{end}"], columns[f"z_phot_galaxy{end}"])
            np.testing.assert_array_equal(columns[f"z_phot{end}"], expected)

    def test_without_correction_it_is_that_of_the_densities(self) -> None:
        plain = untrained()
        columns = classify(plain, sources(), seen())
        said = answer(plain, sources(), seen(), spectroscopic=False)
        galaxy, quasar = (Densities.of(said.redshift[:, k].numpy()) for k in range(2))
        expected = {
            "z_phot_galaxy": galaxy.quantile(0.5), "z_phot_galaxy_lower": galaxy.quantile(0.16),
            "z_phot_galaxy_upper": galaxy.quantile(0.84), "z_phot_quasar": quasar.mode(),
            "z_phot_quasar_lower": quasar.quantile(0.16), "z_phot_quasar_upper": quasar.quantile(0.84),
        }  # fmt: skip
        for name, values in expected.items():
            np.testing.assert_allclose(columns[name][~NOTHING], values[~NOTHING], rtol=1e-5)

    def test_corrected_levels_hold_what_they_say(self, trained: TrainedClassifier, columns: Columns) -> None:
        said = answer(trained, sources(), seen(), spectroscopic=False)
        for kind, name in enumerate(("galaxy", "quasar")):
            density = Densities.of(said.redshift[:, kind].numpy())
            for end, level in (("_lower", 0.16), ("_upper", 0.84)):
                stated = density.cumulative(np.nan_to_num(columns[f"z_phot_{name}{end}"]))
                magnitude = sources().reference_magnitude()
                bins = np.searchsorted(EDGES, np.nan_to_num(magnitude, nan=20.0), side="right") - 1
                table = trained.calibration.levels[modes(), kind, bins]
                true = [np.interp(s, LEVELS, row) for s, row in zip(stated, table, strict=True)]
                again = trained.calibration.true_level(stated, kind, modes(), magnitude)
                np.testing.assert_allclose(again, true, atol=1e-12)
                np.testing.assert_allclose(np.array(true)[~NOTHING], level, atol=2e-3)


class TestLook:
    def stamps(self, n: int) -> Stamps:
        rng = np.random.default_rng(6)
        return Stamps(
            rng.normal(0, 5, (n, 3, 16, 16)).astype(np.float32), np.ones((n, 3, 16, 16), np.uint8),
            rng.uniform(1, 3, (n, 3)).astype(np.float32), np.array(WAVES), np.array([1.2, 1.1, 1.0]), 0.4,
        )  # fmt: skip

    def test_every_stamp_has_a_vector_of_its_own(self) -> None:
        plain, stamps = untrained(), self.stamps(5)
        found = look(plain, stamps)
        assert found.shape == (5, 64)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        one = Stamps(
            stamps.signal[2:3],
            stamps.valid[2:3],
            stamps.noise[2:3],
            stamps.wavelength,
            stamps.fwhm,
            stamps.pixel,
        )
        np.testing.assert_allclose(look(plain, one), found[2:3], atol=0.03)  # of bfloat16
        assert np.abs(found[1:] - found[:-1]).max(axis=1).min() > 0.05

    def test_half_precision_answers_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shipped, rng, n = load_classifier(), np.random.default_rng(12), 96
        y, x = np.indices((40, 40)) - 19.5
        width = rng.uniform(1.3, 4.0, (n, 1, 1, 1))
        peak = np.exp(rng.uniform(0, 4, (n, 1, 1, 1))) * rng.uniform(0.3, 1.5, (n, 5, 1, 1))
        signal = peak * np.exp(-(x**2 + y**2) / (2 * width**2)) + rng.normal(size=(n, 5, 40, 40))
        waves = np.array([3562.0, 4719.0, 6185.0, 7500.0, 8961.0])
        stamps = Stamps(
            signal.astype(np.float32), np.ones(signal.shape, np.uint8), np.full((n, 5), 2.0, np.float32),
            waves, np.full(5, 1.3), 0.396,
        )  # fmt: skip
        mags = rng.uniform(17, 23, (n, 1)) + rng.normal(0, 0.7, (n, 5))
        photometry = table_photometry(waves.tolist(), mags, np.full((n, 5), 0.05), np.full((n, 5), 0.1))
        found = []
        for half in (False, True):
            monkeypatch.setattr("imcat.classify.predict.half_precision_is_fast", lambda half=half: half)
            found.append(classify(shipped, photometry, look(shipped, stamps)))
        exact, less = found
        assert (exact["class"] == less["class"]).mean() > 0.97
        for name in ("p_star", "p_galaxy", "p_quasar"):
            assert np.abs(exact[name] - less[name]).max() < 0.1, name
            assert np.median(np.abs(exact[name] - less[name])) < 0.005, name

    def test_no_stamps_have_no_vectors(self) -> None:
        assert look(untrained(), self.stamps(0)).shape == (0, 64)

    def test_the_answer_from_a_stamp_alone(self) -> None:
        bare = table_photometry(WAVES, np.full((5, 3), np.nan))
        columns = classify(untrained(), bare, look(untrained(), self.stamps(5)))
        np.testing.assert_allclose(probabilities(columns).sum(axis=1), 1)
        assert np.isfinite(columns["morph_spiral"]).all()
        assert np.isfinite(columns["z_phot"]).all()


class TestFile:
    def card(self, trained: TrainedClassifier) -> dict[str, Any]:
        return {"wavelengths": list(trained.wavelengths), **trained.sizes()}

    def written(self, folder: Path, **changes: Any) -> Path:
        trained = calibrated()
        card = {**self.card(trained), **changes}
        card = {k: v for k, v in card.items() if v is not None}
        return write_with_card(folder, "classifier", save(trained.arrays()), FORMAT, card)

    def same(self, first: TrainedClassifier, second: TrainedClassifier) -> None:
        vision = seen() if first.network.vision.width == 64 else None
        one, two = (classify(t, sources(), vision, Prior("sky", np.full(60, 30.0))) for t in (first, second))
        for name, values in one.items():
            if values.dtype.kind == "U":
                assert values.tolist() == two[name].tolist()
            else:
                np.testing.assert_allclose(values, two[name], rtol=1e-4, atol=1e-5)

    def test_named_arrays_and_back(self) -> None:
        first = calibrated()
        arrays = first.arrays()
        assert {v.dtype for v in arrays.values()} == {np.dtype(np.float32)}
        heads = {name.split(".")[0] for name in arrays}
        assert heads == {"network", "sky", "spectroscopic", "calibration"}
        second = from_arrays(arrays, self.card(first))
        assert second.size == 16
        assert second.wavelengths == (3000.0, 10000.0)
        assert not second.network.training
        self.same(first, second)

    def test_a_convolutional_backbone_and_back(self) -> None:
        settings = CnnSettings("resnet18", size=32, about=8)  # with counters in its state
        first = untrained(settings, vision=520)
        second = from_arrays(first.arrays(), self.card(first))
        assert second.network.vision.settings == settings
        self.same(first, second)
        state = second.network.state_dict()
        for name, value in first.network.state_dict().items():
            assert torch.equal(state[name], value)

    def test_written_and_loaded(self, tmp_path: Path) -> None:
        self.written(tmp_path)
        loaded = load_classifier(folder=str(tmp_path))
        assert loaded.card["format"] == FORMAT
        self.same(calibrated(), loaded)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"there is no classifier\.safetensors") as caught:
            load_classifier(folder=str(tmp_path))
        assert "imcat train weights/recipes/classifier.toml" in str(caught.value)
        assert "classifier.safetensors" in str(caught.value)

    def test_a_damaged_file_is_refused(self, tmp_path: Path) -> None:
        self.written(tmp_path)
        path = tmp_path / "classifier.safetensors"
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
        with pytest.raises(InputError, match="checksum differs"):
            load_classifier(folder=str(tmp_path))

    def test_another_version_is_refused(self, tmp_path: Path) -> None:
        self.written(tmp_path, format=FORMAT + 1)
        with pytest.raises(InputError, match=f"weights of format {FORMAT + 1}"):
            load_classifier(folder=str(tmp_path))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"classifier": {"vision": 64, "width": 64, "depth": 1, "heads": 2, "components": 4}},
                "state_dict",
            ),
            ({"vit": {"size": 16, "patch": 8, "width": 64, "depth": 1, "heads": 2}}, "state_dict"),
            ({"classifier": {"wide": 64}}, "wide"),
            ({"classifier": None}, "classifier"),
            ({"wavelengths": None}, "wavelengths"),
            ({"wavelengths": ["blue", "red"]}, "blue"),
        ],
    )
    def test_a_card_of_something_else_is_refused(
        self, tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        self.written(tmp_path, **changes)
        with pytest.raises(InputError, match=r"not those of a classifier \(.*" + message):
            load_classifier(folder=str(tmp_path))

    def test_a_file_that_lacks_the_priors_is_refused(self, tmp_path: Path) -> None:
        trained = calibrated()
        arrays = {k: v for k, v in trained.arrays().items() if k != "sky.share"}
        write_with_card(tmp_path, "classifier", save(arrays), FORMAT, self.card(trained))
        with pytest.raises(InputError, match=r"not those of a classifier \('sky.share'\)"):
            load_classifier(folder=str(tmp_path))
