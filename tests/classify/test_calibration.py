"""Calibration, redshift densities and priors against samples whose truth is known, and against scipy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import log_softmax, softmax
from scipy.stats import kstest, norm

from imcat.classify.calibration import (
    COVERAGE,
    LEVELS,
    MODES,
    Calibration,
    bare_modes,
    distances,
    fit_errors,
    fit_levels,
    fit_looks,
    fit_scale,
    fit_sets,
    log_odds,
    novelty_model,
    sharp_modes,
)
from imcat.classify.densities import Densities
from imcat.classify.prior import EDGES, MixByMagnitude, SkyMix

MIDDLE = 0.5 * (EDGES[1:] + EDGES[:-1])


def single(mean: float, width: float) -> Densities:
    return Densities(np.ones((1, 1)), np.array([[mean]]), np.array([[width]]))


def several(n: int = 12, components: int = 5, seed: int = 3) -> Densities:
    """Mixtures of any shape between redshifts of 0 and 6."""
    rng = np.random.default_rng(seed)
    return Densities(
        rng.dirichlet(np.ones(components), n),
        rng.uniform(0.0, 1.7, (n, components)),
        rng.uniform(0.01, 0.2, (n, components)),
    )


class TestDensities:
    def test_cumulative_is_the_integral_of_the_density(self) -> None:
        density, z = several(), np.linspace(0.05, 5.0, 12)

        def mixture(u: float, k: int) -> float:
            return float((density.weight[k] * norm.pdf(u, density.mean[k], density.width[k])).sum())

        found = density.cumulative(z)
        for k in range(len(density)):
            # The density is one of redshifts: what the Gaussians have below zero is not there.
            points = sorted(set(np.clip(density.mean[k], 0, 3)))
            below = quad(mixture, 0, np.log1p(z[k]), args=(k,), points=points, limit=200)[0]
            whole = quad(mixture, 0, 3.5, args=(k,), points=points, limit=200)[0]
            assert found[k] == pytest.approx(below / whole, abs=1e-6)

    def test_cumulative_begins_at_zero_and_ends_at_one(self) -> None:
        density = several()
        for z, expected in ((-0.5, 0.0), (0.0, 0.0), (100.0, 1.0)):
            np.testing.assert_allclose(density.cumulative(np.full(12, z)), expected, atol=1e-12)

    @pytest.mark.parametrize("level", [0.01, 0.16, 0.5, 0.84, 0.99])
    def test_quantile_undoes_the_cumulative(self, level: float) -> None:
        density = several(200)
        z = density.quantile(level)
        # In ln(1 + z) to 1e-5, of densities of up to 40.
        np.testing.assert_allclose(density.cumulative(z), level, atol=5e-4)
        np.testing.assert_array_equal(density.quantile(np.full(200, level)), z)

    def test_quantiles_of_a_gaussian(self) -> None:
        density = single(0.6, 0.05)
        for level in (0.1, 0.5, 0.9):
            expected = np.expm1(norm.ppf(level, 0.6, 0.05))
            assert density.quantile(level)[0] == pytest.approx(expected, abs=3e-5)

    def test_each_source_has_its_own_level(self) -> None:
        density = Densities(np.ones((3, 1)), np.full((3, 1), 0.6), np.full((3, 1), 0.05))
        expected = np.expm1(norm.ppf([0.2, 0.5, 0.7], 0.6, 0.05))
        np.testing.assert_allclose(density.quantile(np.array([0.2, 0.5, 0.7])), expected, atol=3e-5)

    def test_quantiles_stay_above_zero_where_the_gaussian_does_not(self) -> None:
        density = single(-0.05, 0.1)
        z = np.array([float(density.quantile(level)[0]) for level in np.linspace(0, 1, 21)])
        assert (z >= 0).all()
        assert (np.diff(z) > 0).all()
        # A truncated Gaussian.
        median = np.expm1(norm.ppf(norm.cdf(0.5) + 0.5 * norm.sf(0.5), -0.05, 0.1))
        assert z[10] == pytest.approx(median, abs=3e-5)

    @pytest.mark.parametrize(("mean", "width"), [(0.3, 0.1), (0.7013, 0.01), (1.234, 0.002), (2.0, 0.3)])
    def test_the_mode_of_a_gaussian_is_its_mean(self, mean: float, width: float) -> None:
        assert single(mean, width).mode()[0] == pytest.approx(np.expm1(mean), rel=1e-3)

    def test_the_mode_of_two_is_the_higher_peak(self) -> None:
        # The first has more weight, the second is higher: 0.6 / 0.2 < 0.4 / 0.05.
        weight, width = np.array([[0.6, 0.4], [0.9, 0.1]]), np.array([[0.2, 0.05], [0.05, 0.05]])
        density = Densities(weight, np.array([[0.4, 1.2], [0.4, 1.2]]), width)
        np.testing.assert_allclose(density.mode(), np.expm1([1.2, 0.4]), atol=2e-3)

    def test_the_mode_is_where_the_density_is_highest(self) -> None:
        density, grid = several(40), np.linspace(0, np.log1p(7.5), 10001)
        value = (
            density.weight[..., None]
            * norm.pdf(grid[None, None], density.mean[..., None], density.width[..., None])
        ).sum(axis=1)
        highest = value.max(axis=1)
        found = np.array(
            [np.interp(np.log1p(z), grid, row) for z, row in zip(density.mode(), value, strict=True)]
        )
        assert (found > 0.998 * highest).all()

    def test_a_density_that_falls_from_zero_on_has_its_mode_there(self) -> None:
        assert single(-0.2, 0.1).mode()[0] == pytest.approx(0, abs=1e-9)

    def test_many_sources_are_those_of_few(self) -> None:
        # More than the pieces they are worked in.
        many, few = several(5000), several(5000)
        rows = np.array([0, 2047, 2048, 4095, 4096, 4999])
        few = Densities(few.weight[rows], few.mean[rows], few.width[rows])
        np.testing.assert_array_equal(many.mode()[rows], few.mode())
        np.testing.assert_array_equal(many.quantile(0.5)[rows], few.quantile(0.5))


def drawn(
    rng: np.random.Generator, n: int, strength: float = 1.5
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """True log-likelihoods, log shares of a sample, and kinds that follow from both."""
    likelihood = log_softmax(rng.normal(0, strength, (n, 3)), axis=1)
    mix = np.log(np.broadcast_to([0.5, 0.3, 0.2], (n, 3)))
    probability = softmax(likelihood + mix, axis=1)
    kind = (rng.random(n)[:, None] > probability.cumsum(axis=1)).sum(axis=1)
    return likelihood, mix, kind


class TestTemperature:
    @pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
    def test_it_is_the_factor_by_which_the_logits_are_wrong(self, factor: float) -> None:
        rng = np.random.default_rng(4)
        likelihood, mix, kind = drawn(rng, 12000)
        found, _ = fit_scale(factor * likelihood, mix, kind, rng.uniform(18, 22, 12000))
        inside = (MIDDLE > 18) & (MIDDLE < 22)
        np.testing.assert_allclose(found[inside], factor, rtol=0.15)
        assert np.exp(np.log(found[inside]).mean()) == pytest.approx(factor, rel=0.04)
        # Where there is nothing to learn from, nothing is changed.
        np.testing.assert_array_equal(found[np.abs(MIDDLE - 20) > 4], 1.0)

    def test_offsets_take_back_what_was_added_to_a_class(self) -> None:
        rng = np.random.default_rng(8)
        likelihood, mix, kind = drawn(rng, 20000)
        magnitude = rng.choice([16.25, 22.25], 20000)
        wrong = np.where(magnitude[:, None] < 20, [0.8, -0.5, -0.3], [0.0, 0.6, -0.6])
        temperature, offset = fit_scale(1.5 * (likelihood + wrong), mix, kind, magnitude)
        np.testing.assert_allclose(offset.sum(axis=1), 0, atol=1e-9)
        for at in (16.25, 22.25):
            k = np.abs(MIDDLE - at).argmin()
            assert temperature[k] == pytest.approx(1.5, rel=0.06)
            np.testing.assert_allclose(offset[k], -wrong[magnitude == at][0], atol=0.06)
        np.testing.assert_array_equal(offset[np.abs(MIDDLE - 19.25).argmin()], 0)
        _, none = fit_scale(1.5 * (likelihood + wrong), mix, kind, magnitude, offsets=False)
        np.testing.assert_array_equal(none, 0)

    def test_it_may_depend_on_the_magnitude(self) -> None:
        rng = np.random.default_rng(5)
        likelihood, mix, kind = drawn(rng, 12000)
        magnitude = rng.choice([16.25, 22.25], 12000)
        factor = np.where(magnitude < 20, 0.6, 1.8)
        found, _ = fit_scale(factor[:, None] * likelihood, mix, kind, magnitude)
        assert found[np.abs(MIDDLE - 16.25).argmin()] == pytest.approx(0.6, rel=0.1)
        assert found[np.abs(MIDDLE - 22.25).argmin()] == pytest.approx(1.8, rel=0.1)

    def test_few_sources_do_not_move_it(self) -> None:
        likelihood, mix, kind = drawn(np.random.default_rng(6), 99)
        temperature, offset = fit_scale(3 * likelihood, mix, kind, np.full(99, 20.0))
        np.testing.assert_array_equal(temperature, 1.0)
        np.testing.assert_array_equal(offset, 0.0)


class TestSets:
    def test_log_odds_are_those_of_probabilities(self) -> None:
        likelihood = np.random.default_rng(2).normal(0, 4, (50, 3))
        share = softmax(likelihood, axis=1)
        np.testing.assert_allclose(log_odds(likelihood), np.log(share / (1 - share)), atol=1e-9)
        # They still differ where probabilities no longer do.
        sure = log_odds(np.array([[60.0, 0, 0], [61.0, 0, 0]]))
        assert sure[1, 0] - sure[0, 0] == pytest.approx(1.0)

    @pytest.mark.parametrize("wrong", [0.4, 1.0, 2.5])
    @pytest.mark.parametrize("mix", [(1.0, 1.0, 1.0), (6.0, 3.0, 1.0)])
    def test_nine_in_ten_of_every_class_are_held_whatever_the_mix(
        self, wrong: float, mix: tuple[float, float, float]
    ) -> None:
        rng = np.random.default_rng(7)
        likelihood, _, kind = drawn(rng, 30000)
        fit, check = np.arange(12000), np.arange(12000, 30000)
        # Of what is checked, classes are as common as `mix` says.
        check = check[rng.random(len(check)) < np.array(mix)[kind[check]] / max(mix)]
        magnitude = rng.uniform(19, 21, 30000)
        threshold = fit_sets(wrong * likelihood[fit], kind[fit], magnitude[fit])
        bins = np.searchsorted(EDGES, magnitude[check], side="right") - 1
        held = (
            log_odds(wrong * likelihood[check])[np.arange(len(check)), kind[check]]
            >= threshold[bins, kind[check]]
        )
        assert np.unique(bins).size == 4
        # In each bin, of each class, within four binomial errors of fit and check together; and of all.
        groups = [bins == k for k in np.unique(bins)] + [kind[check] == j for j in range(3)] + [bins > 0]
        for rows in groups:
            error = np.sqrt(COVERAGE * (1 - COVERAGE) * (1 / rows.sum() + 1 / 1000))
            assert held[rows].mean() == pytest.approx(COVERAGE, abs=4 * error)

    def test_the_rank_is_that_of_split_conformal_prediction(self) -> None:
        # Of 154 scores, which make the threshold of every bin, the 15th smallest: a tenth of 155, rounded down.
        score = np.arange(1, 155) / 1000
        likelihood = np.log(np.stack([score, 1 - score, np.full(154, 1e-12)], axis=1))
        threshold = fit_sets(np.flip(likelihood, axis=0), np.zeros(154, int), np.full(154, 20.1))
        np.testing.assert_allclose(threshold, np.log(0.015 / 0.985), atol=1e-6)

    def test_bins_with_few_sources_of_a_class_take_those_nearest(self) -> None:
        share = np.full((3000, 3), 0.2)
        share[:1500, 0], share[1500:, 0] = 0.4, 0.9
        magnitude = np.r_[np.full(1500, 18.1), np.full(1500, 23.1)]
        threshold = fit_sets(np.log(share), np.zeros(3000, int), magnitude)
        bright = MIDDLE < 20.5
        np.testing.assert_allclose(threshold[bright, 0], 0.0, atol=1e-9)
        np.testing.assert_allclose(threshold[~bright, 0], np.log(0.9 / 0.4), atol=1e-9)
        # Classes that there are none of take the threshold of all.
        np.testing.assert_allclose(threshold[:, 1:], 0.0, atol=1e-9)

    def test_too_few_sources_make_sets_of_all_classes(self) -> None:
        assert (fit_sets(np.zeros((5, 3)), np.zeros(5, int), np.full(5, 20.0)) == -np.inf).all()


class TestLevels:
    def test_skewed_probabilities_become_uniform(self) -> None:
        rng = np.random.default_rng(8)
        fit, check = rng.beta(2.0, 0.7, (2, 4000))
        levels = fit_levels(fit, np.full(4000, 20.1))
        assert kstest(check, "uniform").pvalue < 1e-10
        for row in levels[[0, 16, -1]]:
            assert kstest(np.interp(check, LEVELS, row), "uniform").statistic < 0.05
        assert (levels[:, 0] == 0).all()
        assert (levels[:, -1] == 1).all()
        assert (np.diff(levels) >= 0).all()

    def test_each_magnitude_by_itself(self) -> None:
        rng = np.random.default_rng(11)
        skewed, honest = rng.beta(2.0, 0.7, 3000), rng.random(3000)
        levels = fit_levels(np.r_[skewed, honest], np.r_[np.full(3000, 18.1), np.full(3000, 22.1)])
        near = np.abs(MIDDLE[:, None] - [18.25, 22.25]).argmin(axis=0)
        assert kstest(np.interp(skewed, LEVELS, levels[near[0]]), "uniform").statistic < 0.02
        np.testing.assert_allclose(levels[near[1]], LEVELS, atol=0.04)
        # A bin without sources takes the nearest.
        np.testing.assert_allclose(levels[0], levels[near[0]], atol=0.06)
        np.testing.assert_allclose(levels[-1], levels[near[1]], atol=0.06)

    def test_honest_probabilities_stay(self) -> None:
        rng = np.random.default_rng(9)
        levels = fit_levels(rng.random(20000), np.full(20000, np.nan))
        np.testing.assert_allclose(levels, np.tile(LEVELS, (MIDDLE.size, 1)), atol=0.06)

    def test_few_sources_do_not_move_them(self) -> None:
        levels = fit_levels(np.zeros(99), np.full(99, 20.0))
        np.testing.assert_array_equal(levels, np.tile(LEVELS, (MIDDLE.size, 1)))


ZERO = np.zeros(1, int)


class TestNovelty:
    def model(self, seen: NDArray[np.float64]) -> Calibration:
        mean, whiten = novelty_model(seen)
        plain = Calibration.none(seen.shape[1])
        distance = plain.distance.copy()
        distance[0] = distances(seen, mean, whiten)
        return replace(plain, mean=mean, whiten=whiten, distance=distance)

    def vectors(self, seed: int, n: int = 3000) -> NDArray[np.float64]:
        rng = np.random.default_rng(seed)
        mixing = np.random.default_rng(99).normal(size=(6, 6)) * [100, 10, 3, 1, 1, 0.1]
        return rng.normal(size=(n, 6)) @ mixing + 7

    def test_sources_of_the_training_s_kind_are_spread_evenly(self) -> None:
        seen = self.vectors(1)
        calibration = self.model(seen)
        for sources in (seen, self.vectors(2)):
            novelty = calibration.novelty(np.zeros(len(sources), int), sources)
            assert ((novelty >= 0) & (novelty <= 1)).all()
            assert kstest(novelty, "uniform").statistic < 0.04

    def test_what_it_never_met_is_novel_in_any_direction(self) -> None:
        seen = self.vectors(1)
        calibration, spread = self.model(seen), seen.std(axis=0)
        for axis in range(6):
            for sign in (-1, 1):
                odd = seen.mean(axis=0).copy()
                odd[axis] += sign * 1000 * spread[axis]
                assert calibration.novelty(ZERO, odd[None])[0] == 1
        assert calibration.novelty(ZERO, seen.mean(axis=0)[None])[0] == 0

    def test_each_mode_has_its_own_distances(self) -> None:
        seen = self.vectors(1)
        model = self.model(seen)
        model.distance[3] = model.distance[0] + 1.0
        first, other = (model.novelty(np.full(len(seen), k), seen) for k in (0, 3))
        assert first.mean() == pytest.approx(0.5, abs=0.02)
        assert other.mean() < 0.05
        mixed = model.novelty(np.arange(len(seen)) % 2 * 3, seen)
        np.testing.assert_array_equal(mixed[::2], first[::2])
        np.testing.assert_array_equal(mixed[1::2], other[1::2])

    def test_a_direction_without_spread_does_no_harm(self) -> None:
        seen = self.vectors(1)
        seen[:, 2] = 5.0
        novelty = self.model(seen).novelty(np.zeros(len(seen), int), seen)
        assert np.isfinite(novelty).all()
        assert novelty.mean() == pytest.approx(0.5, abs=0.02)


class TestShapes:
    def test_temperatures_are_those_by_which_the_logits_are_wrong(self) -> None:
        rng = np.random.default_rng(14)
        true = log_softmax(rng.normal(0, 1.5, (16000, 8)), axis=1)
        look = (rng.random(16000)[:, None] > np.exp(true).cumsum(axis=1)).sum(axis=1)
        magnitude = rng.choice([16.25, 22.25], 16000)
        found = fit_looks(np.where(magnitude < 20, 0.6, 1.8)[:, None] * true, look, magnitude)
        assert found[np.abs(MIDDLE - 16.25).argmin()] == pytest.approx(0.6, rel=0.06)
        assert found[np.abs(MIDDLE - 22.25).argmin()] == pytest.approx(1.8, rel=0.06)
        np.testing.assert_array_equal(found[np.abs(MIDDLE - 19.25).argmin()], 1.0)
        np.testing.assert_array_equal(fit_looks(true[:99], look[:99], magnitude[:99]), 1.0)

    def test_errors_become_standard_deviations(self) -> None:
        rng = np.random.default_rng(15)
        magnitude = rng.choice([16.25, 22.25], 16000)
        pull = rng.normal(0, np.where(magnitude < 20, 0.5, 3.0))
        found = fit_errors(pull, magnitude)
        for at, width in ((16.25, 0.5), (22.25, 3.0)):
            assert found[np.abs(MIDDLE - at).argmin()] == pytest.approx(width, rel=0.04)
            # Bins without sources take some hundred of the nearest.
            near = MIDDLE < 19 if at < 19 else MIDDLE > 19.5
            np.testing.assert_allclose(found[near], width, rtol=0.12)
        # Of unknown magnitude all are one sample, in whatever order; too few change nothing.
        unknown = fit_errors(np.sort(np.abs(pull)), np.full(16000, np.nan))
        assert (np.abs(pull) < unknown[0]).mean() == pytest.approx(0.6827, abs=0.001)
        np.testing.assert_array_equal(unknown, unknown[0])
        np.testing.assert_array_equal(fit_errors(pull[:99], magnitude[:99]), 1.0)

    def test_each_mode_and_magnitude_has_its_own(self) -> None:
        table = np.arange(float(len(MODES)))[:, None] * 100 + np.arange(MIDDLE.size)
        own = replace(Calibration.none(4), looks=table, structure=np.stack([table, -table], axis=2))
        looks, factor = own.shapes(np.array([0, 5]), np.array([MIDDLE[5] + 0.125, MIDDLE[3]]))
        np.testing.assert_allclose(looks, [5.25, 503])
        np.testing.assert_allclose(factor, [[5.25, -5.25], [503, -503]])

    def test_weights_of_before_leave_shapes_as_they_are(self) -> None:
        named = {k: v for k, v in Calibration.none(4).arrays().items() if k not in ("looks", "structure")}
        looks, factor = Calibration.from_arrays(named).shapes(np.array([0]), np.array([20.0]))
        assert (looks == 1).all()
        assert (factor == 1).all()


class TestCalibration:
    def test_without_correction_nothing_changes(self) -> None:
        plain, mode = Calibration.none(4), np.arange(len(MODES))
        for magnitude in (15.0, np.nan, 40.0):
            logit = np.arange(3.0 * len(MODES)).reshape(-1, 3)
            np.testing.assert_array_equal(plain.corrected(logit, mode, np.full(len(MODES), magnitude)), logit)
        assert plain.temperature.shape == (len(MODES), MIDDLE.size)
        # A class whose share is a tenth, were all equally common, is in.
        share = np.array([[0.11, 0.80, 0.09]] * len(MODES))
        assert plain.sets(np.log(share), mode, np.full(len(MODES), 20.0)).tolist() == [
            [True, True, False]
        ] * len(MODES)
        assert plain.levels.shape == (len(MODES), 2, MIDDLE.size, LEVELS.size)
        np.testing.assert_array_equal(plain.levels[2, 1, 7], LEVELS)

    def test_corrections_are_interpolated_and_thresholds_looked_up(self) -> None:
        plain, bins = Calibration.none(4), MIDDLE.size
        table = np.arange(float(len(MODES)))[:, None] * 100 + np.arange(bins)
        offset = table[..., None] * [-1, 0, 1]
        limit = table[..., None] + [0.0, 0.0, 1000.0]
        own = replace(plain, temperature=table, threshold=limit, offset=offset)
        mode, magnitude = np.array([0, 1, 2, 2]), np.array([MIDDLE[5], MIDDLE[5] + 0.125, 5.0, 99.0])
        expected = np.array([5, 105.25, 200, 200 + bins - 1])
        ones = np.ones((4, 3))
        np.testing.assert_allclose(
            own.corrected(expected[:, None] * ones, mode, magnitude), 1 + expected[:, None] * [-1, 0, 1]
        )
        # Of log odds just below and just above what the bin asks for.
        edge = np.array([5, 105, 200, 200 + bins - 1])
        for away, inside in ((-0.5, False), (0.5, True)):
            likelihood = np.stack([edge + away, np.zeros(4), np.full(4, -2000.0)], axis=1)
            assert own.sets(likelihood, mode, magnitude).tolist() == [[inside, False, False]] * 4
        # Where the magnitude is unknown, that of 20 is taken.
        nothing = np.array([np.nan])
        found = own.corrected(15.5 * ones[:1], mode[:1], nothing)
        np.testing.assert_allclose(found, [[-14.5, 1, 16.5]])
        for odds, inside in ((15.5, False), (16.5, True)):
            assert own.sets(np.array([[odds, 0.0, -2000.0]]), mode[:1], nothing)[0, 0] == inside

    def test_named_arrays_and_back(self) -> None:
        first = Calibration.none(4)
        again = Calibration.from_arrays(first.arrays())
        assert list(first.arrays()) == [
            "temperature", "threshold", "levels", "mean", "whiten", "distance", "offset", "looks", "structure",
        ]  # fmt: skip
        for name, values in first.arrays().items():
            np.testing.assert_array_equal(getattr(again, name), values)
        with pytest.raises(TypeError, match="whiten"):
            Calibration.from_arrays({k: v for k, v in first.arrays().items() if k != "whiten"})


class TestMix:
    def test_shares_follow_the_sample(self) -> None:
        rng = np.random.default_rng(10)
        magnitude = rng.uniform(16, 22, 60000)
        star = np.interp(magnitude, [16, 22], [0.9, 0.1])
        kind = np.where(rng.random(60000) < star, 0, np.where(rng.random(60000) < 0.75, 1, 2))
        mix = MixByMagnitude.of_sample(magnitude, kind)
        at = np.array([17.25, 19.0, 20.75])
        expected = np.interp(at, [16, 22], [0.9, 0.1])
        found = mix.shares(at)
        np.testing.assert_allclose(found[:, 0], expected, atol=0.03)
        np.testing.assert_allclose(found[:, 1], 0.75 * (1 - expected), atol=0.03)
        np.testing.assert_allclose(mix.share.sum(axis=1), 1)

    def test_they_sum_to_one_and_none_is_zero(self) -> None:
        mix = MixByMagnitude.of_sample(np.full(5000, 20.0), np.zeros(5000, int))
        found = mix.shares(np.array([3.0, 12.1, 20.0, 28.9, 50.0, np.nan]))
        np.testing.assert_allclose(found.sum(axis=1), 1)
        assert (found > 5e-5).all()
        assert (found[:, 0] > 0.99).all()

    def test_an_unknown_magnitude_has_the_mean_of_all(self) -> None:
        counts = np.ones((MIDDLE.size, 3))
        counts[: MIDDLE.size // 2, 0] = 8
        mix = MixByMagnitude.of_counts(counts)
        np.testing.assert_allclose(mix.shares(np.array([np.nan]))[0], mix.share.mean(axis=0))

    def test_empty_bins_take_the_nearest(self) -> None:
        counts = np.zeros((MIDDLE.size, 3))
        counts[10], counts[20] = [3, 1, 0], [0, 1, 1]
        share = MixByMagnitude.of_counts(counts).share
        np.testing.assert_allclose(share[:15], np.broadcast_to([0.75, 0.25, 1e-4], (15, 3)), atol=1e-4)
        np.testing.assert_allclose(share[16:, 1:], 0.5, atol=1e-4)

    def test_no_sources_say_nothing(self) -> None:
        for mix in (
            MixByMagnitude.of_sample(np.full(3, np.nan), np.zeros(3, int)),
            MixByMagnitude.of_counts(np.zeros((MIDDLE.size, 3))),
            MixByMagnitude.flat(),
        ):
            np.testing.assert_allclose(mix.shares(np.array([14.0, 20.2, np.nan])), 1 / 3)


class TestSky:
    LATITUDE = np.array([20.0, 45.0, 90.0])
    STARS = np.array([0.8, 0.5, 0.2])

    def sky(self, odds: NDArray[np.float64] | None = None) -> SkyMix:
        share = np.stack([self.STARS, 0.75 * (1 - self.STARS), 0.25 * (1 - self.STARS)], axis=1)
        layers = np.broadcast_to(share[:, None], (3, MIDDLE.size, 3)).copy()
        return SkyMix(self.LATITUDE, layers, np.full(MIDDLE.size, 1e-3) if odds is None else odds)

    def test_shares_are_linear_between_latitudes(self) -> None:
        latitude = np.array([0.0, 20.0, 30.0, -30.0, 45.0, 67.5, -90.0])
        found = self.sky().shares(np.full(7, 20.0), latitude)
        np.testing.assert_allclose(found[:, 0], [0.8, 0.8, 0.68, 0.68, 0.5, 0.35, 0.2])
        np.testing.assert_allclose(found.sum(axis=1), 1)
        np.testing.assert_allclose(found[:, 1], 3 * found[:, 2])

    def test_without_a_latitude_it_is_the_mean_over_the_sky(self) -> None:
        weight = np.cos(np.radians(self.LATITUDE))
        found = self.sky().shares(np.array([14.0, np.nan, 25.0]), None)
        np.testing.assert_allclose(found[:, 0], (weight * self.STARS).sum() / weight.sum())
        np.testing.assert_allclose(found.sum(axis=1), 1)

    def test_sources_have_their_own_magnitude_and_latitude(self) -> None:
        sky = self.sky()
        sky.share[:, MIDDLE > 20] = [0.1, 0.8, 0.1]
        found = sky.shares(np.array([15.0, 25.0]), np.array([20.0, 20.0]))
        np.testing.assert_allclose(found[:, 0], [0.8, 0.1])

    def test_odds_of_a_lens_are_interpolated_in_their_logarithm(self) -> None:
        odds = 10.0 ** -np.linspace(1, 5, MIDDLE.size)
        sky = self.sky(odds)
        found = sky.odds(np.array([MIDDLE[4], 0.5 * (MIDDLE[4] + MIDDLE[5]), 5.0, 40.0, np.nan]))
        expected = [odds[4], np.sqrt(odds[4] * odds[5]), odds[0], odds[-1], sky.odds(np.array([19.0]))[0]]
        np.testing.assert_allclose(found, expected)


def test_images_from_space_have_modes_of_their_own() -> None:
    mode = np.array([0, 1, 2, 3, 0, 1])
    fwhm = np.array([0.15, 0.15, 0.15, 0.15, 1.3, np.nan])
    found = sharp_modes(mode, fwhm)
    assert [MODES[k] for k in found] == [
        "both, sharp", "stamp, sharp", "photometry, sharp", "spectroscopic", "both", "stamp",
    ]  # fmt: skip


def test_tables_of_magnitudes_have_modes_of_their_own() -> None:
    mode = np.array([2, 2, 2, 2, 2, 3, 3, 0, 6, 2, 2])
    shapes = np.array([True, False, False, False, False, False, True, False, False, False, True])
    errors = np.array([True, False, False, True, True, True, True, True, True, True, True])
    dust = np.array([True, False, True, False, True, True, True, True, True, False, True])
    colours = np.array([True, True, True, True, True, True, False, False, False, True, True])
    ultraviolet = np.arange(11) > 7
    found = bare_modes(mode, shapes, errors, dust, colours, ultraviolet)
    assert [MODES[k] for k in found] == [
        "photometry", "magnitudes", "magnitudes, dust", "magnitudes, errors", "magnitudes, errors, dust",
        "spectroscopic", "spectroscopic, one band", "both", "photometry, sharp", "ultraviolet, errors", "photometry",
    ]  # fmt: skip
