"""Are generated stamps as real ones, all of them, and none of them a copy: tests on the numbers of `imcat.augment.looks`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imcat.augment.looks import Looks
from imcat.evaluate.two_sample import area_under_curve

__all__ = ["nearest_distances", "precision_recall", "standardised", "two_sample_area"]

Float64 = NDArray[np.float64]

_NEIGHBOURS = 5
_FOLDS = 5


def standardised(real: Looks, *others: Looks) -> list[Float64]:
    """Numbers in units of the real ones' scatter about their median, gaps filled with the median, outliers clipped."""
    middle = np.nanmedian(real.values, axis=0)
    scale = 1.4826 * np.nanmedian(np.abs(real.values - middle), axis=0)
    out = []
    for looks in (real, *others):
        values = (looks.values - middle) / np.maximum(scale, 1e-6)
        out.append(np.clip(np.nan_to_num(values, nan=0.0), -6, 6))
    return out


def two_sample_area(real: Looks, made: Looks, seed: int = 0) -> tuple[float, float]:
    """Area under the curve of trees that are to tell generated from real, and its error.

    Half means that they cannot. Cross-validated in folds; the error is that of Hanley and McNeil (1982, Radiology 143, 29).

    Raises
    ------
    DependencyError
        If scikit-learn is not installed (extra ``evaluate``).
    """
    from imcat.evaluate.two_sample import area_error, require_trees

    require_trees()
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.concatenate([real.values, made.values])
    label = np.concatenate([np.zeros(len(real), int), np.ones(len(made), int)])
    fold = np.random.default_rng(seed).permutation(len(label)) % _FOLDS
    score = np.zeros(len(label))
    for k in range(_FOLDS):
        trees = HistGradientBoostingClassifier(
            max_iter=60, max_leaf_nodes=8, min_samples_leaf=8, learning_rate=0.1, random_state=0
        )
        trees.fit(x[fold != k], label[fold != k])
        score[fold == k] = trees.predict_proba(x[fold == k])[:, 1]
    area = area_under_curve(score, label)
    return area, area_error(area, min(len(real), len(made)))


def precision_recall(real: Float64, made: Float64) -> tuple[float, float]:
    """Share of the generated that lie among the real, and of the real that lie among the generated.

    Among: within the distance of the fifth neighbour of one of them (Kynkäänniemi et al. 2019, arXiv:1904.06991), so that a
    generator that makes few kinds of galaxies has a low recall.

    Parameters
    ----------
    real, made : float64 arrays ``[n, numbers]``
        Of `standardised`.
    """
    return _among(made, real), _among(real, made)


def _among(points: Float64, others: Float64) -> float:
    from scipy.spatial import cKDTree

    radius = cKDTree(others).query(others, _NEIGHBOURS + 1)[0][:, -1]
    inside = 0
    for start in range(0, len(points), 512):
        part = points[start : start + 512]
        distance = np.sqrt(((part[:, None] - others[None]) ** 2).sum(2))
        inside += int((distance <= radius[None]).any(1).sum())
    return inside / len(points)


def nearest_distances(stamps: Float64, training: Float64) -> Float64:
    """Distance of each stamp to the most similar one of the training set, ``[n]``.

    Parameters
    ----------
    stamps, training : float arrays ``[n, pixels]``
        Compressed pixels, each scaled to unit length; the distance is that of two unit vectors.
    """
    a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-9) for v in (stamps, training))
    return np.asarray(np.sqrt(np.clip(2 - 2 * (a @ b.T).max(axis=1), 0, None)))
