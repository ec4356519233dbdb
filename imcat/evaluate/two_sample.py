"""Can real cutouts be told from those of twins? Two fixed classifiers, trained on some pairs, tested on another.

Gradient-boosted trees look at summary features, a small convolutional network at pixels. Fields differ
from one another in seeing by more than any twin should differ from its tile: what says wide in one field
says narrow in another. So what describes profiles is given to the trees relative to the median star of
both sides of the pair, and the network normalises its channels within a pair; neither looks at labels for
that. Without it a PSF 25 % too wide goes unseen in a field of good seeing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.errors import DependencyError
from imcat.evaluate.cutout_features import PROFILE_FAMILIES, Features
from imcat.evaluate.cutouts import KINDS, Cutouts

__all__ = [
    "Outcome",
    "Sample",
    "area_under_curve",
    "area_error",
    "folds_of",
    "pair_up",
    "require_trees",
    "run_test",
    "tree_scores",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

#: A classifier: training samples and the one to judge in, a score per cutout of the latter out.
Classifier = Callable[[Sequence["Sample"], "Sample"], Float64]

# The trees; fixed once, so that reports of different twins can be compared.
_TREES = {
    "max_iter": 120,
    "learning_rate": 0.08,
    "max_leaf_nodes": 12,
    "min_samples_leaf": 10,
    "l2_regularization": 1.0,
    "max_bins": 64,
    "early_stopping": False,
    "random_state": 0,
}
_SEED = 1  # of the shuffles that show what matters


@dataclass(frozen=True, eq=False)
class Sample:
    """Cutouts of both sides of one pair, as many of one side as of the other.

    Attributes
    ----------
    name : str
        The tile.
    pixels : float32 array [n, band, y, x]
        arcsinh of pixels in units of the band's noise.
    kind : int64 array [n]
        Index in `imcat.evaluate.cutouts.KINDS`.
    label : int64 array [n]
        0 real, 1 twin.
    upper : bool array [n]
        Whether it lies in the upper half of the tile.
    features : Features
        Of each cutout, with those relative to the pair.
    """

    name: str
    pixels: Float32
    kind: Int64
    label: Int64
    upper: NDArray[np.bool_]
    features: Features

    def __len__(self) -> int:
        return int(self.label.size)

    def select(self, rows: NDArray[np.bool_]) -> Sample:
        """Some of the cutouts."""
        table = self.features
        features = Features(table.values[rows], table.names, table.families)
        return Sample(
            self.name, self.pixels[rows], self.kind[rows], self.label[rows], self.upper[rows], features
        )

    def of_kind(self, name: str) -> Sample:
        """The cutouts of one kind."""
        return self.select(self.kind == KINDS.index(name))


@dataclass(frozen=True)
class Outcome:
    """How well a classifier told the sides apart.

    Attributes
    ----------
    auc : dict of str to float
        Mean over the folds of the area under the curve, for ``all`` and by kind.
    error : dict of str to float
        1 sigma error of the mean, from the number of cutouts.
    folds : dict of str to list of float
        Each fold's.
    tested : list of str
        What each fold was tested on.
    """

    auc: dict[str, float]
    error: dict[str, float]
    folds: dict[str, list[float]]
    tested: list[str]


def pair_up(
    name: str,
    real: tuple[Cutouts, Features],
    other: tuple[Cutouts, Features],
) -> Sample:
    """Lay the cutouts of both sides together, the same number of each kind.

    Parameters
    ----------
    name : str
        The tile.
    real, other : (Cutouts, Features)
        Both sides; within a kind their order is random already.
    """
    rows: list[list[Int64]] = [[], []]
    for code in range(len(KINDS)):
        found = [np.flatnonzero(side[0].kind == code) for side in (real, other)]
        number = min(part.size for part in found)
        for part, kept in zip(found, rows, strict=True):
            kept.append(part[:number])
    first, second = (np.concatenate(kept) for kept in rows)
    kind = np.concatenate([real[0].kind[first], other[0].kind[second]])
    values = np.concatenate([real[1].values[first], other[1].values[second]])
    features = _relative(Features(values, real[1].names, real[1].families), kind)
    pixels = np.concatenate([real[0].pixels[first], other[0].pixels[second]])
    return Sample(
        name,
        np.arcsinh(pixels, out=pixels),
        kind,
        np.repeat([0, 1], [first.size, second.size]).astype(np.int64),
        np.concatenate([real[0].upper[first], other[0].upper[second]]),
        features,
    )


def _relative(features: Features, kind: Int64) -> Features:
    """Features with those of profiles relative to the pair's stars, and with the kind."""
    profile = features.family(*PROFILE_FAMILIES)
    stars = features.values[kind == KINDS.index("star")][:, profile]
    level = np.zeros(profile.size, np.float32)
    known = np.isfinite(stars).any(axis=0) if len(stars) else np.zeros(profile.size, bool)
    if known.any():
        level[known] = np.nanmedian(stars[:, known], axis=0)
    values = features.values.copy()
    values[:, profile] -= level
    return Features(
        np.column_stack([values, kind.astype(np.float32)]),
        (*features.names, "kind"),
        (*features.families, "kind"),
    )


def area_under_curve(score: ArrayLike, label: ArrayLike) -> float:
    """Area under the receiver operating characteristic, by ranks; ties count half.

    Parameters
    ----------
    score : array [n]
        Higher for the second class.
    label : array [n]
        0 or 1.

    Returns
    -------
    float
        NaN where one class is missing.

    Examples
    --------
    >>> area_under_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    from scipy.stats import rankdata

    positive = np.asarray(label) == 1
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    total = float(rankdata(np.asarray(score))[positive].sum())
    return (total - n1 * (n1 + 1) / 2) / (n1 * n0)


def area_error(auc: float, number: int) -> float:
    """1 sigma error of an area, for as many cutouts of each side (Hanley & McNeil 1982, Radiology 143, 29)."""
    if number < 1 or not np.isfinite(auc):
        return float("nan")
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (number - 1) * (one - auc**2) + (number - 1) * (two - auc**2)) / number**2
    return float(np.sqrt(max(variance, 0.0)))


def folds_of(samples: Sequence[Sample]) -> list[tuple[list[Sample], Sample]]:
    """Training samples and test sample of each fold.

    Each pair is tested once, with the others as training; a single pair is split into the lower and the
    upper half of the tile.
    """
    if len(samples) == 1:
        [only] = samples
        halves = [only.select(~only.upper), only.select(only.upper)]
        return [([halves[0]], halves[1]), ([halves[1]], halves[0])]
    return [([s for s in samples if s is not test], test) for test in samples]


def run_test(
    samples: Sequence[Sample], classifier: Classifier, workers: int = 2
) -> tuple[Outcome, list[Float64]]:
    """Train and test on each fold.

    Parameters
    ----------
    samples : sequence of Sample
        One per pair.
    classifier : callable
        `tree_scores` or `imcat.evaluate.cutout_network.network_scores`; it uses one thread.
    workers : int
        Folds done side by side; their number changes no score.

    Returns
    -------
    outcome : Outcome
        Areas under the curve.
    scores : list of float64 array
        Of the cutouts that each fold was tested on.
    """
    kinds = {"all": None, **{name: code for code, name in enumerate(KINDS)}}
    areas: dict[str, list[float]] = {name: [] for name in kinds}
    errors: dict[str, list[float]] = {name: [] for name in kinds}
    folds = folds_of(samples)
    with ThreadPoolExecutor(workers) as pool:
        scores = list(pool.map(lambda fold: classifier(*fold), folds))
    for score, (_, test) in zip(scores, folds, strict=True):
        for name, code in kinds.items():
            rows = np.ones(len(test), bool) if code is None else test.kind == code
            areas[name].append(area_under_curve(score[rows], test.label[rows]))
            errors[name].append(area_error(areas[name][-1], int((test.label[rows] == 1).sum())))
    outcome = Outcome(
        auc={name: _mean(values) for name, values in areas.items()},
        error={name: _mean_error(values) for name, values in errors.items()},
        folds=areas,
        tested=[test.name for _, test in folds],
    )
    return outcome, scores


def _mean(values: Sequence[float]) -> float:
    good = [v for v in values if np.isfinite(v)]
    return float(np.mean(good)) if good else float("nan")


def _mean_error(values: Sequence[float]) -> float:
    good = [v for v in values if np.isfinite(v)]
    return float(np.sqrt(np.sum(np.square(good))) / len(good)) if good else float("nan")


# Gradient-boosted trees ----------------------------------------------------


def require_trees() -> None:
    """Refuse early where scikit-learn is not installed.

    Raises
    ------
    DependencyError
        Which says how to install it.
    """
    if find_spec("sklearn") is None:
        raise DependencyError("scikit-learn", "evaluate", "the realism test")


def tree_scores(
    training: Sequence[Sample],
    test: Sample,
    *,
    families: Sequence[str] | None = None,
    importance: dict[str, list[float]] | None = None,
) -> Float64:
    """Scores of the test cutouts by gradient-boosted trees.

    Parameters
    ----------
    training : sequence of Sample
        Pairs to learn from.
    test : Sample
        The pair to judge.
    families : sequence of str, optional
        Use features of these families only.
    importance : dict, optional
        Filled by family and by feature with the loss in area when it is permuted among the test
        cutouts of a kind (appended to the list under its name).

    Raises
    ------
    DependencyError
        Without scikit-learn.
    """
    require_trees()
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    table = test.features
    used = np.arange(len(table.names)) if families is None else table.family(*families)
    values = np.concatenate([sample.features.values[:, used] for sample in training])
    labels = np.concatenate([sample.label for sample in training])
    with threadpool_limits(1):  # folds run side by side
        trees = HistGradientBoostingClassifier(**_TREES).fit(values, labels)

    def score(rows: Float32) -> Float64:
        return np.asarray(trees.decision_function(rows), np.float64)

    judged = table.values[:, used]
    with threadpool_limits(1):
        result = score(judged)
        if importance is not None:
            chosen = Features(
                judged, tuple(table.names[j] for j in used), tuple(table.families[j] for j in used)
            )
            _permute(chosen, test, score, importance)
    return result


def _permute(
    table: Features,
    test: Sample,
    score: Callable[[Float32], Float64],
    importance: dict[str, list[float]],
) -> None:
    """Loss in area under the curve when a family, or one feature, is shuffled within each kind."""
    rng = np.random.default_rng(_SEED)
    values = table.values
    base = area_under_curve(score(values), test.label)
    order = np.arange(len(values))
    for code in range(len(KINDS)):
        rows = np.flatnonzero(test.kind == code)
        order[rows] = rng.permutation(rows)
    groups = {f"family: {name}": table.family(name) for name in dict.fromkeys(table.families)}
    groups |= {name: np.array([j]) for j, name in enumerate(table.names)}
    for name, columns in groups.items():
        shuffled = values.copy()
        shuffled[:, columns] = values[order][:, columns]
        importance.setdefault(name, []).append(base - area_under_curve(score(shuffled), test.label))
