"""What the classifier is trained on: simulated sources with stamps, and real tables with spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imcat.classify.network import MORPHOLOGIES, Measured, measured
from imcat.classify.photometry import Photometry, catalogue_photometry, table_photometry
from imcat.classify.prior import MixByMagnitude
from imcat.simulate.sources import Kind
from imcat.surveys.extinction import band_extinction
from imcat.train.source_samples import SourceSample
from imcat.train.spectroscopic import SpectroscopicTable
from imcat.train.stamp_sets import StampSet

__all__ = ["Labels", "LabelledSet", "TableSet", "drop", "simulated_sets", "table_set", "without_fits"]

_FITTED = (
    "psf_flux",
    "model_flux",
    "_chi2",
    "fracdev",
    "spread_model",
    "model_radius",
)  # parts of the names of columns
_KINDS = {kind.name.lower(): int(kind) for kind in Kind}
_MORPHOLOGY = {
    "point": "point_like", "smooth": "smooth", "disc": "disc", "spiral": "spiral", "barred": "barred",
    "edge_on": "edge_on", "ring": "disc", "irregular": "irregular", "merger": "merging",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Labels:
    """Truth of n sources.

    Attributes
    ----------
    kind : int64 Tensor
        `Kind`; -1: unknown.
    known : int64 Tensor
        Kind by which a redshift is learned.
    mix : float Tensor ``[n, 3]``
        Logarithm of the share that each kind has in the sample at the source's magnitude.
    redshift : float Tensor
        NaN where unknown.
    lens : float Tensor
        1, 0, or NaN where unknown.
    lens_mix : float Tensor
        Logarithm of the odds of a lens in the sample.
    morphology : int64 Tensor
        Index in `MORPHOLOGIES`; -1: unknown.
    structure : float Tensor ``[n, 2]``
        Bulge fraction, logarithm of the Sérsic index; NaN where unknown.
    """

    kind: Tensor
    known: Tensor
    mix: Tensor
    redshift: Tensor
    lens: Tensor
    lens_mix: Tensor
    morphology: Tensor
    structure: Tensor

    def take(self, rows: Tensor) -> Labels:
        """Some of them."""
        return Labels(**{k: v[rows] for k, v in vars(self).items()})


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Simulated sources with the same bands."""

    stamps: StampSet
    photometry: Photometry
    measured: Measured
    labels: Labels
    magnitude: NDArray[np.float64]
    true_magnitude: NDArray[np.float64]
    mix: MixByMagnitude

    def __len__(self) -> int:
        return len(self.stamps)


@dataclass(frozen=True, eq=False)
class TableSet:
    """Rows of a real table."""

    name: str
    photometry: Photometry
    measured: Measured
    labels: Labels
    mix: MixByMagnitude

    def __len__(self) -> int:
        return len(self.photometry)


def simulated_sets(samples: Sequence[SourceSample], reference: str = "r") -> list[LabelledSet]:
    """Sets of the samples, one for each list of bands; those without measured columns apart.

    Parameters
    ----------
    samples : sequence of SourceSample
        Simulated.
    reference : str
        Band of the truth's magnitudes.
    """
    groups: dict[tuple[Any, ...], list[SourceSample]] = {}
    for sample in samples:
        groups.setdefault((sample.bands, bool(sample.columns)), []).append(sample)
    return [_simulated(group, reference) for group in groups.values()]


def _simulated(samples: list[SourceSample], reference: str) -> LabelledSet:
    parts = [_photometry(sample, reference) for sample in samples]
    photometry = concatenate(parts)
    truth = {name: np.concatenate([s.truth[name] for s in samples]) for name in samples[0].truth}
    kind = np.array([_KINDS[v] for v in truth["type"].tolist()], np.int64)
    n = len(kind)
    true_magnitude = np.asarray(truth[f"{reference}_mag"], float)
    magnitude = photometry.reference_magnitude() if samples[0].columns else true_magnitude
    mix = MixByMagnitude.of_sample(magnitude, kind)
    lens = truth["is_lens"].astype(np.float32)
    odds = float(lens.mean()) / max(1e-9, 1 - float(lens.mean()))
    # What was not drawn cannot be seen: a spiral too faint for its arms is a disc.
    shown = truth["detailed"] | np.isin(truth["morphology"], ("point", "smooth", "disc", "edge_on"))
    name = np.where(shown, truth["morphology"], "disc")
    morphology = np.array([MORPHOLOGIES.index(_MORPHOLOGY[v]) for v in name.tolist()], np.int64)
    galaxy = kind == Kind.GALAXY
    structure = np.full((n, 2), np.nan, np.float32)
    structure[galaxy, 0] = np.clip(truth["bulge_fraction"][galaxy], 0.005, 0.995)
    structure[galaxy, 1] = np.log(effective_index(truth["bulge_fraction"][galaxy]))
    labels = Labels(
        kind=torch.from_numpy(kind),
        known=torch.from_numpy(kind),
        mix=torch.from_numpy(np.log(mix.shares(magnitude))).float(),
        redshift=torch.from_numpy(np.where(kind == Kind.STAR, np.nan, truth["z_true"]).astype(np.float32)),
        lens=torch.from_numpy(lens),
        lens_mix=torch.full((n,), float(np.log(max(odds, 1e-9)))),
        morphology=torch.from_numpy(morphology),
        structure=torch.from_numpy(structure),
    )
    return LabelledSet(
        StampSet.gather(samples)[0], photometry, measured(photometry), labels, magnitude,
        true_magnitude, mix,
    )  # fmt: skip


def without_fits(sample: SourceSample) -> SourceSample:
    """The sample as a run without PSF and model photometry would have left it."""
    kept = {k: v for k, v in sample.columns.items() if not any(part in k for part in _FITTED)}
    return replace(sample, columns=kept)


def effective_index(bulge_fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sérsic index that a bulge (4) and a disc (1) have together, by their shares: 1 for a disc, 4 for a bulge.

    A geometric mean; fits of one profile to two behave about so (compare Simard et al. 2011, ApJS 196, 11, figure 14).
    """
    return np.asarray(4.0 ** np.asarray(bulge_fraction, float))


def _photometry(sample: SourceSample, reference: str) -> Photometry:
    """Photometry of the columns, with the extinction that was simulated."""
    names = sample.bands
    if not sample.columns:
        return table_photometry(sample.wavelength.tolist(), np.full((len(sample), len(names)), np.nan))
    waves = dict(zip(names, sample.wavelength.tolist(), strict=True))
    survey = "sdss" if set(names) <= set("ugriz") else "csst"
    unit = band_extinction(survey, waves, 1.0)
    columns = dict(sample.columns)
    columns |= {f"{b}_extinction": unit[b] * sample.truth["ebv"] for b in names}
    fwhm = float(sample.fwhm[names.index(reference)]) if reference in names else float(np.median(sample.fwhm))
    return catalogue_photometry(columns, names, sample.wavelength.tolist(), reference, fwhm)


def concatenate(parts: Sequence[Photometry]) -> Photometry:
    """Photometry of several lists in the same bands."""
    names = [name for name in Photometry.__dataclass_fields__ if name != "wavelength"]
    return Photometry(
        wavelength=parts[0].wavelength, **{n: np.concatenate([getattr(p, n) for p in parts]) for n in names}
    )


def table_set(table: SpectroscopicTable) -> TableSet:
    """Rows of a table for training."""
    n = len(table)
    kind = table.kind.astype(np.int64)
    magnitude = table.photometry.reference_magnitude()
    mix = MixByMagnitude.of_sample(magnitude[kind >= 0], kind[kind >= 0])
    nothing = torch.full((n,), float("nan"))
    labels = Labels(
        torch.from_numpy(kind), torch.from_numpy(table.known.astype(np.int64)),
        torch.from_numpy(np.log(mix.shares(magnitude))).float(), torch.from_numpy(table.redshift), nothing,
        torch.zeros(n), torch.full((n,), -1), nothing[:, None].expand(n, 2),
    )  # fmt: skip
    return TableSet(table.name, table.photometry, measured(table.photometry, True), labels, mix)


def drop(
    photometry: Measured,
    rng: np.random.Generator,
    *,
    bands: float,
    kinds: float,
    errors: float,
    dust: float,
    all_of_it: float,
) -> tuple[Measured, Tensor]:
    """Photometry with some of it missing, as users have it.

    Parameters
    ----------
    photometry : Measured
        Of n sources.
    rng : numpy.random.Generator
        Source of randomness.
    bands, kinds, errors, dust, all_of_it : float
        Shares of the sources that lose some of their bands; PSF and aperture magnitudes, or sizes; the errors; the
        extinction; all.

    Returns
    -------
    photometry : Measured
        The rest.
    kept : Tensor ``[n, bands]``
        1 for bands that were kept.
    """
    n, count, _ = photometry.mags.shape
    keep = np.ones((n, count), bool)
    few = rng.random(n) < bands
    keep[few] = rng.random((int(few.sum()), count)) < rng.uniform(0.3, 0.95, int(few.sum()))[:, None]
    empty = ~keep.any(1)
    keep[empty, rng.integers(0, count, int(empty.sum()))] = True
    mags, known = photometry.mags.clone(), photometry.errors.clone()
    kept = torch.from_numpy(keep)
    mags[~kept] = float("nan")
    for kind in (1, 2):
        mags[torch.from_numpy(rng.random(n) < kinds), :, kind] = float("nan")
    extra = photometry.extra.clone()
    extra[torch.from_numpy(rng.random(n) < kinds)] = float("nan")
    # A size is not always there when the others are.
    extra[torch.from_numpy(rng.random(extra.shape) < 0.3 * kinds)] = float("nan")
    known[torch.from_numpy(rng.random(n) < errors)] = float("nan")
    extinction = photometry.extinction.clone()
    extinction[torch.from_numpy(rng.random(n) < dust)] = float("nan")
    gone = torch.from_numpy(rng.random(n) < all_of_it)
    mags[gone], extra[gone] = float("nan"), float("nan")
    return (
        Measured(mags, known, extinction, photometry.wavelength, extra, photometry.spectroscopic),
        kept.float(),
    )
