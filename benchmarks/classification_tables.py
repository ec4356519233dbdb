"""The classifier on real tables, by photometry alone, against tuned gradient-boosted trees on the same rows and split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
from common import data_dir, verdict
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binomtest, kstest, rankdata

from imcat.classify.calibration import COVERAGE, MODES, bare_modes
from imcat.classify.densities import Densities
from imcat.classify.photometry import Photometry
from imcat.classify.predict import answer, given_parts
from imcat.classify.prior import MixByMagnitude
from imcat.classify.trained import TrainedClassifier
from imcat.simulate.sources import Kind
from imcat.simulate.split import Split
from imcat.train.fine_tuning import macro_f1
from imcat.train.spectroscopic import SpectroscopicTable, read_table

CLASSES = ("sdss17", "dr7", "dr10")
REDSHIFTS = ("boss", "main", "ugriz", "quasars")
DRAWS = 2000  # of a bootstrap
TRIALS = 24  # settings of the trees that are tried
_Z_BIN, _Z_MOST, _Z_TRIALS = (
    0.1,
    5.0,
    4,
)  # of the trees that choose a bin of redshift: fifty classes take their time
_NEAR = 0.1  # of the true redshift of a quasar
_PATIENCE = 40  # rounds without a gain, after which trees stop growing
#: Magnitudes between which calibrations are judged; of CSST-like tiles about as many sources lie in each bin.
CALIBRATION_EDGES = {"sdss": (14.0, 18.0, 20.0, 21.5, 22.5, 24.0), "csst": (17.0, 22.25, 24.7, 26.5)}

Array = NDArray[Any]


def features(p: Photometry) -> Array:
    """What the trees get: every number that the classifier gets, and colours."""
    total = p.total.astype(float)
    colours = [total[:, k] - total[:, k + 1] for k in range(total.shape[1] - 1)]
    wide = [total[:, 0] - total[:, k] for k in range(2, total.shape[1])]
    more = [
        p.total_err,
        p.psf,
        p.psf - p.total,
        p.psf_err,
        p.aperture,
        p.aperture - p.total,
        p.extinction,
        p.extra,
    ]
    return np.concatenate(
        [total, *(c[:, None] for c in [*colours, *wide]), *(np.asarray(m, float) for m in more)], 1
    )


def tuned_trees(
    x: Array, y: Array, rows: Array, held: Array, seed: int, trials: int = TRIALS, **fixed: Any
) -> Any:
    """Trees whose settings did best on the validation rows, of `trials` drawn at random; stopped early."""
    rng, best, found = np.random.default_rng(seed), np.inf, None
    for _ in range(trials):
        settings = {
            "num_leaves": int(rng.choice([7, 15, 31, 63])), "learning_rate": float(rng.choice([0.03, 0.06, 0.1])),
            "min_data_in_leaf": int(rng.choice([5, 10, 20, 40])), "feature_fraction": float(rng.uniform(0.5, 1)),
            "bagging_fraction": float(rng.uniform(0.6, 1)), "bagging_freq": 1, "lambda_l2": float(10 ** rng.uniform(-3, 1)),
            "max_bin": int(rng.choice([255, 511])), "verbose": -1, "num_threads": 2, "seed": seed,
        }  # fmt: skip
        model = lightgbm.train(
            settings | fixed, lightgbm.Dataset(x[rows], y[rows]), 1500,
            valid_sets=[lightgbm.Dataset(x[held], y[held])],
            callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
        )  # fmt: skip
        score = next(iter(model.best_score["valid_0"].values()))
        if score < best:
            best, found = score, model
    return found


def modes_of(photometry: Photometry) -> Array:
    """Modes of the calibration, of a spectroscopic table."""
    return bare_modes(np.full(len(photometry), MODES.index("spectroscopic")), *given_parts(photometry))


def classifier_shares(
    trained: TrainedClassifier, table: SpectroscopicTable, mix: MixByMagnitude
) -> tuple[Array, Array]:
    """Probabilities for the mix of a table, and whether each class is in the set."""
    said = answer(trained, table.photometry, None, spectroscopic=True)
    magnitude = table.photometry.reference_magnitude()
    mode = modes_of(table.photometry)
    scaled = trained.calibration.corrected(said.kind.numpy(), mode, magnitude)
    share = np.asarray(softmax(scaled + np.log(mix.shares(magnitude)), axis=1))
    return share, trained.calibration.sets(scaled, mode, magnitude)


def redshifts(
    trained: TrainedClassifier, photometry: Photometry, kind: Kind
) -> tuple[Array, Callable[[Array], Array]]:
    """Point redshifts, as catalogues have them, and the calibrated probability of a redshift up to the one given."""
    said = answer(trained, photometry, None, spectroscopic=True)
    which = 0 if kind is Kind.GALAXY else 1
    density = Densities.of(said.redshift[:, which].numpy())
    mode, magnitude = modes_of(photometry), photometry.reference_magnitude()

    def below(z: Array) -> Array:
        return trained.calibration.true_level(density.cumulative(z), which, mode, magnitude)

    if kind is Kind.QUASAR:
        return density.mode(), below
    return density.quantile(trained.calibration.stated_level(0.5, which, mode, magnitude)), below


def crps(below: Callable[[Array], Array], z: Array) -> float:
    """Mean continuous ranked probability score, of distributions over redshift (of a single value: the mean distance)."""
    grid = np.expm1(np.linspace(0, np.log1p(7.5), 600))
    squares = np.stack([(below(np.full(len(z), at)) - (z <= at)) ** 2 for at in grid])
    return float(np.trapezoid(squares, grid, axis=0).mean())


def binned_redshifts(x: Array, z: Array, rows: Array, held: Array, test: Array) -> Array:
    """Redshifts by trees that choose a bin: the mean over the likeliest and its neighbours."""
    last = round(_Z_MOST / _Z_BIN) - 1
    which = np.clip((np.nan_to_num(z) / _Z_BIN).astype(int), 0, last)
    trees = tuned_trees(
        x, which, rows, held, 1, trials=_Z_TRIALS, objective="multiclass", num_class=last + 1, metric="multi_logloss",
    )  # fmt: skip
    share = np.asarray(trees.predict(x[test]))
    best = share.argmax(1)
    near = best[:, None] + np.arange(-1, 2)
    inside = (near >= 0) & (near <= last)
    weight = np.take_along_axis(share, np.clip(near, 0, last), 1) * inside
    return np.asarray((weight * (near + 0.5)).sum(1) / weight.sum(1) * _Z_BIN)


def nmad(dz: Array) -> float:
    """Robust scatter."""
    return float(1.4826 * np.median(np.abs(dz - np.median(dz))))


def paired(
    first: Array, second: Array, score: Callable[[Array], float], seed: int = 1, group: Array | None = None
) -> list[float]:
    """95 % interval of the difference of a score of two lists over the same rows, by bootstrap over rows or groups of them."""
    rng, n = np.random.default_rng(seed), len(first)
    if group is None:
        draws = (rng.integers(0, n, n) for _ in range(DRAWS))
    else:
        _, place = np.unique(group, return_inverse=True)
        members = [np.flatnonzero(place == k) for k in range(int(place.max()) + 1)]
        k = len(members)
        draws = (np.concatenate([members[j] for j in rng.integers(0, k, k)]) for _ in range(DRAWS))
    return [
        float(q) for q in np.quantile([score(first[d]) - score(second[d]) for d in draws], (0.025, 0.975))
    ]


def auc(score: Array, true: Array) -> float:
    """Probability that one that is true has the higher score, ties counted half; NaN where all are alike."""
    many, others = int(true.sum()), int((~true).sum())
    if not many or not others:
        return float("nan")
    return float((rankdata(score)[true].sum() - many * (many + 1) / 2) / (many * others))


def of_classes(share: Array, truth: Array) -> dict[str, float]:
    """Precision, recall and area under the curve of each class that there is."""
    said, found = share.argmax(1), {}
    for kind in Kind:
        if not (truth == kind).any():
            continue
        name, both = kind.name.lower(), float(((truth == kind) & (said == kind)).sum())
        found |= {
            f"{name} precision": both / max(int((said == kind).sum()), 1),
            f"{name} recall": both / int((truth == kind).sum()),
            f"{name} AUC": auc(share[:, kind], truth == kind),
        }
    return found


def class_table(trained: TrainedClassifier, name: str) -> dict[str, Any]:
    """Classes of a table's test rows."""
    table = read_table(name, data_dir())
    rows, held, test = (np.flatnonzero(table.split == s) for s in Split)
    kind = table.kind.astype(int)
    mag = table.photometry.reference_magnitude()
    mix = MixByMagnitude.of_sample(mag[rows], kind[rows])
    shares, sets = classifier_shares(trained, table.take(test), mix)
    x = features(table.photometry)
    present = np.unique(kind)
    trees = tuned_trees(
        x, np.searchsorted(present, kind), rows, held, 1, objective="multiclass", num_class=len(present),
        metric="multi_logloss",
    )  # fmt: skip
    theirs = present[np.asarray(trees.predict(x[test])).argmax(1)]
    truth, ours = kind[test], shares.argmax(1)
    right, also = ours == truth, theirs == truth
    gained, lost = int((right & ~also).sum()), int((also & ~right).sum())
    inside = sets[np.arange(len(test)), truth]
    found = {
        "test": len(test), "accuracy": float(right.mean()), "macro_f1": macro_f1(truth, ours, 3),
        "trees_accuracy": float(also.mean()), "trees_macro_f1": macro_f1(truth, theirs, 3),
        "difference": paired(right.astype(float), also.astype(float), lambda v: float(v.mean())),
        "p": float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0,
        "mean_set": float(sets.sum(1).mean()), "coverage": float(inside.mean()), "coverage_error": float(np.sqrt(COVERAGE * (1 - COVERAGE) / len(test))),
        "calibration_error": calibration_error(shares, truth), "mix": "that of the table's train rows by magnitude",
        **of_classes(shares, truth),
        "confusion": [[int(((truth == a) & (ours == b)).sum()) for b in range(3)] for a in range(3)],
    }  # fmt: skip
    low, high = found["difference"]
    print(
        f"   {name:8s} {len(test):5d} rows  accuracy {found['accuracy']:.4f} macro-F1 {found['macro_f1']:.4f}   trees "
        f"{found['trees_accuracy']:.4f} {found['trees_macro_f1']:.4f}   difference {100 * low:+.2f} to {100 * high:+.2f} "
        f"points, p = {found['p']:.3g}   sets hold {found['coverage']:.3f}   calibration {found['calibration_error']:.4f}"
    )
    return found


def calibration_error(shares: Array, truth: Array, bins: int = 15) -> float:
    """Mean difference between the probability of the likeliest class and how often it is right, in equal bins."""
    top, right = shares.max(1), shares.argmax(1) == truth
    which = np.minimum((top * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    gap = np.abs(np.bincount(which, top, bins) - np.bincount(which, right, bins))
    return float(gap[count > 0].sum() / len(top))


def error_by_group(values: Array, group: Array) -> float:
    """Standard error of a mean whose values come in groups that share their conditions (ratio estimator of clusters)."""
    _, group = np.unique(group, return_inverse=True)
    k = int(group.max()) + 1
    apart = np.bincount(group, values - values.mean(), k)
    return float(np.sqrt(k / max(k - 1, 1) * (apart**2).sum()) / len(values))


def redshift_table(trained: TrainedClassifier, name: str) -> dict[str, Any]:
    """Redshifts of a table's test rows."""
    table = read_table(name, data_dir())
    kind = Kind.QUASAR if name == "quasars" else Kind.GALAXY
    z = table.redshift.astype(float)
    known = np.isfinite(z)
    rows, held, test = (np.flatnonzero((table.split == s) & known) for s in Split)
    point, below = redshifts(trained, table.photometry.take(test), kind)
    x = features(table.photometry)
    objective = {"objective": "regression_l1", "metric": "l1"}
    trees = tuned_trees(x, np.log1p(z), rows, held, 1, **objective)
    other, more = np.expm1(np.asarray(trees.predict(x[test]))), {}
    if kind is Kind.QUASAR:
        # One number for two peaks lies between them: trees that choose a bin are the fairer baseline.
        off = (other - z[test]) / (1 + z[test])
        more = {
            "regression_trees_within_0.1": float((np.abs(other - z[test]) < _NEAR).mean()),
            "regression_trees_nmad": nmad(off),
            "regression_trees_mean_distance": float(np.abs(other - z[test]).mean()),
        }
        other = binned_redshifts(x, z, rows, held, test)
    pit = below(z[test])
    ours, theirs = (point - z[test]) / (1 + z[test]), (other - z[test]) / (1 + z[test])
    found: dict[str, Any] = {
        "test": len(test), "coverage": float(((pit > 0.05) & (pit < 0.95)).mean()),
        "coverage_error": float(np.sqrt(COVERAGE * (1 - COVERAGE) / len(test))),
        "pit_ks": float(kstest(pit, "uniform").statistic), "pit_p": float(kstest(pit, "uniform").pvalue),
        "pit": [int(c) for c in np.histogram(pit, 20, (0, 1))[0]],
        "crps": crps(below, z[test]), "trees_mean_distance": float(np.abs(other - z[test]).mean()), **more,
        "z": [float(v) for v in z[test][:3000]], "z_phot": [round(float(v), 4) for v in point[:3000]],
    }  # fmt: skip
    for label, dz in (("", ours), ("trees_", theirs)):
        found |= {
            f"{label}nmad": nmad(dz),
            f"{label}bias": float(np.median(dz)),
            f"{label}beyond_0.05": float((np.abs(dz) > 0.05).mean()),
            f"{label}beyond_0.15": float((np.abs(dz) > 0.15).mean()),
        }
    if kind is Kind.QUASAR:
        near, near_trees = np.abs(point - z[test]) < _NEAR, np.abs(other - z[test]) < _NEAR
        found |= {"within_0.1": float(near.mean()), "trees_within_0.1": float(near_trees.mean())}
        found["difference"] = paired(near.astype(float), near_trees.astype(float), lambda v: float(v.mean()))
        found["better"] = found["within_0.1"] > max(
            found["trees_within_0.1"], found["regression_trees_within_0.1"]
        )
    else:
        found["difference"] = paired(ours, theirs, nmad)
        found["better"] = found["nmad"] < found["trees_nmad"]
    score = (
        f"within 0.1: {found['within_0.1']:.4f} ({found['trees_within_0.1']:.4f})   "
        if kind is Kind.QUASAR
        else ""
    )
    print(
        f"   {name:8s} {len(test):5d} rows  NMAD {found['nmad']:.4f} (trees {found['trees_nmad']:.4f})   beyond 0.15: "
        f"{found['beyond_0.15']:.4f} ({found['trees_beyond_0.15']:.4f})   {score}difference {found['difference'][0]:+.4f} to "
        f"{found['difference'][1]:+.4f}   PIT KS {found['pit_ks']:.4f} p {found['pit_p']:.3f}   90 % hold "
        f"{found['coverage']:.3f}"
    )
    return found


def _coverage(name: str, found: dict[str, Any], what: str = "sets") -> dict[str, Any]:
    """Whether sets or intervals hold what they state, within one per cent or, of few rows, two standard errors."""
    away, allowed = abs(found["coverage"] - COVERAGE), max(0.01, 2 * found["coverage_error"])
    return verdict(
        f"{name}: coverage of {what}", found["coverage"], f"0.90 +- {allowed:.3f}", away <= allowed
    )


def real_tables(trained: TrainedClassifier) -> dict[str, Any]:
    """All tables, with what was aimed at."""
    print("\n   classes of real tables, photometry alone, mix of each table")
    out: dict[str, Any] = {name: class_table(trained, name) for name in CLASSES}
    print("\n   redshifts of real tables, photometry alone")
    out |= {name: redshift_table(trained, name) for name in REDSHIFTS}
    out["verdicts"] = [
        verdict(
            "sdss17: not below the trees by more than 0.5 points", 100 * out["sdss17"]["difference"][0], "> -0.5",
            out["sdss17"]["difference"][0] > -0.005,
        ),
        *(
            verdict(
                f"{n}: above the trees, p", out[n]["p"], "< 0.05",
                out[n]["p"] < 0.05 and out[n]["accuracy"] > out[n]["trees_accuracy"],
            )
            for n in ("dr7", "dr10")
        ),
        *(verdict(f"{n}: redshifts better than the trees'", out[n]["nmad"], f"< {out[n]['trees_nmad']:.4f}", out[n]["better"])
          for n in ("boss", "main", "ugriz")),
        verdict(
            "quasars within 0.1", out["quasars"]["within_0.1"], f"> {out['quasars']['trees_within_0.1']:.4f}",
            out["quasars"]["better"],
        ),
        verdict("quasars: PIT KS", out["quasars"]["pit_ks"], "<= 0.02", out["quasars"]["pit_ks"] <= 0.02),
        *(_coverage(n, out[n]) for n in CLASSES),
        *(_coverage(n, out[n], "90 % redshift intervals") for n in REDSHIFTS),
        *(verdict(f"{n}: PIT p", out[n]["pit_p"], "> 0.01", out[n]["pit_p"] > 0.01) for n in ("boss", "main", "ugriz")),
    ]  # fmt: skip
    return out
