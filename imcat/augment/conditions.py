"""What is asked of a generated galaxy: fluxes, size, shape, bulge, redshift, morphology."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imcat.errors import InputError
from imcat.simulate.sources import Morphology

__all__ = ["NUMBERS", "Conditions", "Ranges"]

Float64 = NDArray[np.float64]

#: Length of `Conditions.vector`.
NUMBERS = 8 + len(Morphology)
_MIDDLE = np.log(6200.0)  # Å
_AB = 31.4  # nJy


@dataclass(frozen=True, eq=False)
class Conditions:
    """What is asked of n galaxies.

    Attributes
    ----------
    flux : float64 array ``[n, bands]``
        Total, nJy.
    wavelength : float64 array ``[bands]``
        Effective, Å.
    radius : float64 array ``[n]``
        Half-light radius along the major axis, arcsec, before any PSF.
    axis_ratio, position_angle : float64 arrays ``[n]``
        Minor over major axis; degrees east of north.
    bulge_fraction : float64 array ``[n]``
        Share of the bulge, 0 to 1.
    redshift : float64 array ``[n]``
        NaN where it is not known.
    morphology : int8 array ``[n]``
        `imcat.simulate.sources.Morphology`; -1 where it is not known.
    """

    flux: Float64
    wavelength: Float64
    radius: Float64
    axis_ratio: Float64
    position_angle: Float64
    bulge_fraction: Float64
    redshift: Float64
    morphology: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.radius)

    def take(self, which: NDArray[Any]) -> Conditions:
        """Some of them, by index or by mask."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return Conditions(**{k: v if k == "wavelength" else v[which] for k, v in columns.items()})

    @property
    def reference(self) -> int:
        """The band nearest to 6200 Å, whose magnitude is that of the ranges."""
        return int(np.argmin(np.abs(np.log(self.wavelength) - _MIDDLE)))

    @property
    def magnitude(self) -> Float64:
        """AB magnitude in `reference`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(_AB - 2.5 * np.log10(self.flux[:, self.reference]), float)

    @property
    def waves(self) -> Tensor:
        """Logarithms of wavelength over 6200 Å, ``[bands]``."""
        return torch.from_numpy((np.log(self.wavelength) - _MIDDLE).astype(np.float32))

    def vector(self) -> Tensor:
        """As a network takes them, ``[n, NUMBERS]``: nothing of the angle, since a galaxy is drawn along its major axis."""
        with np.errstate(divide="ignore", invalid="ignore"):
            log = np.log(np.clip(self.flux, 1e-3, None))
        u = np.log(self.wavelength) - _MIDDLE
        # Level and slope of the spectrum describe the colours of any set of bands.
        slope = ((log - log.mean(axis=1, keepdims=True)) @ (u - u.mean())) / max(
            float(((u - u.mean()) ** 2).sum()), 1e-6
        )
        known = np.isfinite(self.redshift)
        kind = np.zeros((len(self), len(Morphology)))
        told = self.morphology >= 0
        kind[told, self.morphology[told]] = 1
        columns = [
            (self.magnitude - 19) / 3, slope / 2, np.log(np.clip(self.radius, 0.02, None)), self.axis_ratio,
            self.bulge_fraction, np.where(known, np.nan_to_num(self.redshift), 0.0), known.astype(float), told.astype(float),
        ]  # fmt: skip
        return torch.from_numpy(np.concatenate([np.stack(columns, 1), kind], axis=1).astype(np.float32))


@dataclass(frozen=True)
class Ranges:
    """Conditions that a generator was trained on.

    Attributes
    ----------
    magnitude, radius, axis_ratio : (float, float)
        Of the reference band, AB; arcsec; minor over major.
    wavelength : (float, float)
        Å.
    morphologies : tuple of str
        Names in lower case; empty where it knew none.
    redshift : (float, float) or ()
        Empty where it knew none.
    """

    magnitude: tuple[float, float]
    radius: tuple[float, float]
    axis_ratio: tuple[float, float]
    wavelength: tuple[float, float]
    morphologies: tuple[str, ...] = ()
    redshift: tuple[float, ...] = ()

    def check(self, asked: Conditions) -> None:
        """Refuse what lies outside.

        Raises
        ------
        InputError
            With the first value outside, and the range.
        """
        for name, values in (
            ("magnitude", asked.magnitude), ("radius", asked.radius), ("axis_ratio", asked.axis_ratio),
            ("wavelength", asked.wavelength),
        ):  # fmt: skip
            low, high = getattr(self, name)
            fine = (values >= low) & (values <= high)
            if not fine.all():
                k = int(np.argmin(fine))
                raise InputError(
                    f"{name.replace('_', ' ')} {values[k]:.4g} was asked for",
                    expected=f"{low:.4g} to {high:.4g}, which the generator was trained on",
                )
        fine = (asked.bulge_fraction >= 0) & (asked.bulge_fraction <= 1)
        if not fine.all():
            raise InputError(
                f"bulge fraction {asked.bulge_fraction[np.argmin(fine)]:.4g} was asked for", expected="0 to 1"
            )
        fine = self.knows_redshift(asked.redshift) | np.isnan(asked.redshift)
        if not fine.all():
            raise InputError(
                f"redshift {asked.redshift[np.argmin(fine)]:.4g} was asked for",
                expected="{:.4g} to {:.4g}, which the generator was trained on, or NaN".format(*self.redshift)
                if self.redshift
                else "NaN: the generator was trained without",
            )
        names = {Morphology(m).name.lower() for m in np.unique(asked.morphology) if m >= 0}
        unknown = sorted(names - set(self.morphologies))
        if unknown:
            raise InputError(
                f"morphology {unknown[0]} was asked for",
                expected=f"one of {', '.join(self.morphologies) or 'none: it was trained without'}",
            )

    def knows_redshift(self, redshift: Float64) -> NDArray[np.bool_]:
        """Which redshifts the generator was trained on, bool ``[n]``."""
        low, high = self.redshift or (np.inf, -np.inf)
        with np.errstate(invalid="ignore"):
            return np.asarray((redshift >= low) & (redshift <= high))

    def inside(self, asked: Conditions) -> NDArray[np.bool_]:
        """Which rows lie inside, bool ``[n]``; bands outside leave none."""
        out = np.ones(len(asked), bool)
        for name in ("magnitude", "radius", "axis_ratio"):
            low, high = getattr(self, name)
            values = getattr(asked, name)
            out &= (values >= low) & (values <= high)
        out &= (asked.bulge_fraction >= 0) & (asked.bulge_fraction <= 1)
        out &= self.knows_redshift(asked.redshift) | np.isnan(asked.redshift)
        waves = (asked.wavelength >= self.wavelength[0]) & (asked.wavelength <= self.wavelength[1])
        known = {int(Morphology[m.upper()]) for m in self.morphologies} | {-1}
        return out & np.isin(asked.morphology, sorted(known)) & bool(waves.all())
