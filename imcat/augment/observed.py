"""Stamps as a telescope took them, with all that is known of how: what a generator's light is put through to compare.

A generator is never shown what a galaxy looks like above the atmosphere. Its light goes through the PSF, the pixels, the
photon noise and a piece of empty sky of the same exposure as each real stamp (AmbientGAN, Bora et al. 2018, ICLR), and
pixels that neighbours spoil are hidden from both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imcat.augment.conditions import Conditions
from imcat.catalogue.files import atomic_path
from imcat.render.stamps import SkyGaussians, StampPsf, render_stamps

__all__ = ["ObservedStamps", "Seen", "join_psfs", "observe"]

_MIRRORS = 8


@dataclass(frozen=True, eq=False)
class Seen:
    """A batch of `ObservedStamps` as tensors on a device; the fields are those of the same name there."""

    signal: Tensor
    valid: Tensor
    noise: Tensor
    gain: Tensor
    x: Tensor
    y: Tensor
    jacobian: Tensor
    psf: StampPsf
    blank: Tensor
    asked: Conditions
    vector: Tensor

    def __len__(self) -> int:
        return len(self.signal)


@dataclass(frozen=True, eq=False)
class ObservedStamps:
    """Stamps of n galaxies in native pixels.

    Attributes
    ----------
    signal : float16 array ``[n, bands, y, x]``
        Sky-subtracted pixels in units of the noise.
    valid : bool array ``[n, bands, y, x]``
        Where there are data, and no neighbour.
    noise : float32 array ``[n, bands]``
        Of a pixel of blank sky, nJy.
    gain : float32 array ``[n, bands]``
        Electrons for one nJy.
    x, y : float32 arrays ``[n, bands]``
        Place of the galaxy, pixels of the stamp.
    jacobian : float32 array ``[n, bands, 2, 2]``
        (dx, dy) in pixels are this matrix times (east, north) in arcsec.
    weights, covariances, centres, parts, resolved : float32 arrays ``[n, bands, k]``, ``[n, bands, k, 3]``, ``[n, bands, k, 2]`` twice, ``[n, bands, k]``
        The PSF at the galaxy (`imcat.render.stamps.StampPsf`).
    blank : float16 array ``[m, bands, y, x]``
        Empty sky of the same exposures in units of the noise.
    asked : Conditions
        What the galaxies are.
    field : int16 array ``[n]``
        Tile that each is from.
    """

    signal: NDArray[np.float16]
    valid: NDArray[np.bool_]
    noise: NDArray[np.float32]
    gain: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    jacobian: NDArray[np.float32]
    weights: NDArray[np.float32]
    covariances: NDArray[np.float32]
    centres: NDArray[np.float32]
    parts: NDArray[np.float32]
    resolved: NDArray[np.float32]
    blank: NDArray[np.float16]
    asked: Conditions
    field: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.signal)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a stamp."""
        return self.signal.shape[2], self.signal.shape[3]

    def take(self, rows: NDArray[Any]) -> ObservedStamps:
        """Some of the galaxies, by index or by mask; the empty sky stays."""
        own = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in ("blank", "asked")}
        return replace(self, asked=self.asked.take(rows), **own)

    def batch(
        self, rows: NDArray[np.int64], rng: np.random.Generator, place: torch.device | str = "cpu"
    ) -> Seen:
        """Some of the galaxies as tensors, each with a piece of empty sky, turned and mirrored at random."""

        def tensor(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(place)

        sky = self.blank[rng.integers(len(self.blank), size=len(rows))]
        turn = int(rng.integers(_MIRRORS))
        sky = np.rot90(sky, turn % 4, axes=(2, 3))
        sky = sky[..., ::-1] if turn >= 4 else sky
        psf = StampPsf(
            *(
                tensor(getattr(self, n)[rows])
                for n in ("weights", "covariances", "centres", "parts", "resolved")
            )
        )
        asked = self.asked.take(rows)
        return Seen(
            tensor(self.signal[rows]), tensor(self.valid[rows]), tensor(self.noise[rows]), tensor(self.gain[rows]),
            tensor(self.x[rows]), tensor(self.y[rows]), tensor(self.jacobian[rows]), psf, tensor(sky), asked,
            asked.vector().to(place),
        )  # fmt: skip

    @staticmethod
    def concatenate(parts: list[ObservedStamps]) -> ObservedStamps:
        """Those of several tiles in the same bands."""
        k = max(p.weights.shape[2] for p in parts)
        parts = [_padded(p, k) for p in parts]
        arrays = {
            f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(ObservedStamps) if f.name != "asked"
        }  # fmt: skip
        first = parts[0].asked
        asked = {
            f.name: np.concatenate([getattr(p.asked, f.name) for p in parts])
            for f in fields(Conditions)
            if f.name != "wavelength"
        }
        return ObservedStamps(**arrays, asked=Conditions(wavelength=first.wavelength, **asked))

    def write(self, path: Path) -> None:
        """Write to a file, aside and renamed."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "asked"}
        values |= {f"asked.{f.name}": getattr(self.asked, f.name) for f in fields(Conditions)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **values)

    @staticmethod
    def read(path: Path) -> ObservedStamps:
        """Read what `write` wrote."""
        with np.load(path) as file:
            values = dict(file)
        asked = {
            name.partition(".")[2]: values.pop(name) for name in list(values) if name.startswith("asked.")
        }
        return ObservedStamps(**values, asked=Conditions(**asked))


def _padded(stamps: ObservedStamps, k: int) -> ObservedStamps:
    """PSFs with k Gaussians; those that pad have no weight."""
    more = k - stamps.weights.shape[2]
    if not more:
        return stamps
    shape = (*stamps.weights.shape[:2], more)
    round_one = np.broadcast_to(np.array([1.0, 0.0, 1.0], np.float32), (*shape, 3))
    added: dict[str, NDArray[Any]] = {
        "weights": np.zeros(shape, np.float32), "covariances": round_one, "centres": np.zeros((*shape, 2), np.float32),
        "parts": np.zeros((*shape, 2), np.float32), "resolved": np.zeros(shape, np.float32),
    }  # fmt: skip
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(stamps, name), v], axis=2) for name, v in added.items()
    }
    return replace(stamps, **joined)


def join_psfs(psf: StampPsf, n: int) -> dict[str, Any]:
    """The PSFs of one tile as arrays for each of its n stamps, as `ObservedStamps` holds them."""
    out = {}
    for name in ("weights", "covariances", "centres", "parts", "resolved"):
        values = getattr(psf, name).numpy().astype(np.float32)
        # Covariances have an axis of stamps, of length 1 where they are alike; the others are those of all stamps.
        values = values if name == "covariances" else values[None]
        out[name] = np.broadcast_to(values, (n, *values.shape[1:])).copy()
    return out


def observe(light: SkyGaussians, seen: Seen, chance: torch.Generator | None = None) -> Tensor:
    """Light as the exposures of a batch would have shown it.

    Parameters
    ----------
    light : SkyGaussians
        Of as many galaxies.
    seen : Seen
        How each was observed.
    chance : torch.Generator, optional
        Of the photons, on the CPU.

    Returns
    -------
    Tensor ``[n, bands, y, x]``
        Pixels in units of the noise, with noise; it can be differentiated by the light.
    """
    shape = (int(seen.signal.shape[2]), int(seen.signal.shape[3]))
    drawn = render_stamps(light, seen.x, seen.y, seen.jacobian, seen.psf, shape)
    dice = torch.randn(drawn.shape, generator=chance).to(drawn.device)
    # The photon noise depends on the light, but is not what the light should be learned from.
    photons = (drawn.detach().clamp_min(0) / seen.gain[..., None, None]).sqrt()
    out: Tensor = (drawn + photons * dice) / seen.noise[..., None, None] + seen.blank
    return out
