"""The generator of galaxies: conditions and random numbers in, light out, as Gaussians on the sky before any PSF.

What it makes are the components that `imcat.render` draws, not pixels: a bulge, a disc, and patches of light whose
places, sizes, shapes and colours are free. So a generated galaxy can be drawn with any PSF, on any pixels, in any
bands; its fluxes are those asked for by construction, and training compares it with real stamps behind their own PSF and
noise. (Adversarial training through a known measurement: AmbientGAN, Bora et al. 2018, ICLR.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from imcat.augment.conditions import NUMBERS, Conditions
from imcat.render.components import Components
from imcat.render.profiles import sersic_mixture
from imcat.render.stamps import SkyGaussians

__all__ = ["LightGenerator", "LightSettings", "components_of", "half_light_scale"]

_BULGE, _DISC = 4.0, 1.0  # Sérsic indices of the smooth part
_LARGEST = 2.5  # half-light radii: how far from the middle patches may lie
_WIDEST, _NARROWEST = 0.8, 0.03  # half-light radii: of patches
_TINT = 2.0  # largest exponent of wavelength by which a part's colour differs
_BULGE_SIZE = 0.4  # of the galaxy's, before the network changes it
_OUT = 7  # numbers of a patch


@dataclass(frozen=True)
class LightSettings:
    """Size of the generator.

    Attributes
    ----------
    latent : int
        Random numbers of a galaxy.
    width, depth : int
        Of the network.
    patches : int
        Patches of light of a galaxy.
    """

    latent: int = 32
    width: int = 192
    depth: int = 3
    patches: int = 24


class LightGenerator(nn.Module):
    """Conditions and random numbers to Gaussians.

    Parameters
    ----------
    settings : LightSettings
        Its size.
    """

    def __init__(self, settings: LightSettings) -> None:
        super().__init__()
        s = self.settings = settings
        layers: list[nn.Module] = [nn.Linear(NUMBERS + s.latent, s.width), nn.GELU()]
        for _ in range(s.depth - 1):
            layers += [nn.Linear(s.width, s.width), nn.LayerNorm(s.width), nn.GELU()]
        self.body = nn.Sequential(*layers)
        # Numbers of the whole: share in patches, bulge's share, size and tint, disc's tint.
        self.whole = nn.Linear(s.width, 5)
        self.parts = nn.Linear(s.width, s.patches * _OUT)
        nn.init.normal_(self.whole.weight, std=0.01)
        nn.init.zeros_(self.whole.bias)
        # What random numbers are drawn from: standard normal ones, unless training found others behind its stamps.
        self.register_buffer("middle", torch.zeros(s.latent))
        self.register_buffer("root", torch.eye(s.latent))
        for name, index in (("bulge", _BULGE), ("disc", _DISC)):
            mixture = sersic_mixture(index)
            self.register_buffer(f"{name}_weights", torch.tensor(mixture.weights, dtype=torch.float32))
            self.register_buffer(f"{name}_variances", torch.tensor(mixture.variances, dtype=torch.float32))

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Random numbers of n galaxies, on the generator's device."""
        middle: Tensor = self.middle  # type: ignore[assignment]
        root: Tensor = self.root  # type: ignore[assignment]
        return middle + torch.randn(n, self.settings.latent, generator=generator).to(root.device) @ root.T

    def forward(self, asked: Conditions, latent: Tensor, vector: Tensor | None = None) -> SkyGaussians:
        """Light of n galaxies.

        Parameters
        ----------
        asked : Conditions
            What is asked for.
        latent : Tensor ``[n, latent]``
            Of `draw`.
        vector : Tensor, optional
            `Conditions.vector` of them, where it is known already.

        Returns
        -------
        SkyGaussians
            Fluxes sum to `asked.flux` in every band.
        """
        place = latent.device
        vector = asked.vector().to(place) if vector is None else vector
        hidden = self.body(torch.cat([vector, latent], dim=1))
        whole, parts = self.whole(hidden), self.parts(hidden).reshape(len(hidden), -1, _OUT)
        smooth = self._smooth(asked, whole, place)
        weights, tint, x, y, xx, xy, yy = (
            torch.cat(pair, dim=1) for pair in zip(smooth, self._patches(whole, parts), strict=True)
        )
        # A part's spectrum is that of the galaxy times a power of wavelength; in every band they share the flux asked for.
        waves = asked.waves.to(place)
        share = weights[..., None] * torch.exp((tint[..., None] * waves).clamp(-4, 4))
        share = share / share.sum(dim=1, keepdim=True)
        flux = share * torch.from_numpy(asked.flux).to(place, torch.float32)[:, None, :]
        return _on_the_sky(asked, flux, (x, y, xx, xy, yy))

    def _smooth(self, asked: Conditions, whole: Tensor, place: torch.device) -> tuple[Tensor, ...]:
        """Bulge and disc in units of the half-light radius, the major axis along x."""
        n = len(whole)
        fraction = torch.from_numpy(asked.bulge_fraction).to(place, torch.float32).clamp(0.02, 0.98)
        fraction = torch.sigmoid(torch.logit(fraction) + whole[:, 1])
        free = 1 - _share(whole)
        size = _BULGE_SIZE * torch.exp(whole[:, 2].clamp(-1, 1))
        # A galaxy that is all bulge has its size.
        size = size + (1 - size) * fraction**2
        bulge_w: Tensor = self.bulge_weights  # type: ignore[assignment]
        disc_w: Tensor = self.disc_weights  # type: ignore[assignment]
        bulge_v: Tensor = self.bulge_variances  # type: ignore[assignment]
        disc_v: Tensor = self.disc_variances  # type: ignore[assignment]
        weights = torch.cat(
            [(free * fraction)[:, None] * bulge_w, (free * (1 - fraction))[:, None] * disc_w], 1
        )
        tint = torch.cat(
            [
                (0.5 + whole[:, 3:4].clamp(-1, 1)).expand(n, len(bulge_w)),
                whole[:, 4:5].clamp(-1, 1).expand(n, len(disc_w)),
            ],
            1,
        )
        variance = torch.cat([size[:, None] ** 2 * bulge_v, disc_v.expand(n, -1)], 1)
        zero = torch.zeros_like(variance)
        return weights, tint, zero, zero, variance, zero, variance

    def _patches(self, whole: Tensor, parts: Tensor) -> tuple[Tensor, ...]:
        """Patches in units of the half-light radius, the major axis along x, the minor axis stretched to the same length."""
        weights = torch.softmax(parts[..., 0], 1) * _share(whole)[:, None]
        x, y = _LARGEST * torch.tanh(parts[..., 1] / 2), _LARGEST * torch.tanh(parts[..., 2] / 2)
        ratio = math.log(_WIDEST / _NARROWEST)
        size = _NARROWEST * torch.exp(ratio * torch.sigmoid(parts[..., 3] - 0.5))
        # Stretch along any direction, with an axis ratio down to 1 : 4.
        e1, e2 = torch.tanh(parts[..., 4] / 2), torch.tanh(parts[..., 5] / 2)
        norm = torch.sqrt(1 + e1**2 + e2**2)
        length = 0.88 * torch.tanh(torch.sqrt(e1**2 + e2**2 + 1e-6)) / torch.sqrt(e1**2 + e2**2 + 1e-6)
        variance = size**2 * norm
        xx, yy = variance * (1 + length * e1), variance * (1 - length * e1)
        return weights, _TINT * torch.tanh(parts[..., 6] - 0.5), x, y, xx, variance * length * e2, yy


def _share(whole: Tensor) -> Tensor:
    """Share of the light in patches: a tenth before the network learns."""
    return 0.8 * torch.sigmoid(whole[:, 0] - 2.0)


def _on_the_sky(asked: Conditions, flux: Tensor, shape: tuple[Tensor, ...]) -> SkyGaussians:
    """From units of the half-light radius along the major axis to arcsec east and north."""
    place = flux.device
    x, y, xx, xy, yy = shape

    def column(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(place)[:, None]

    radius, ratio = column(asked.radius), column(asked.axis_ratio)
    angle = torch.deg2rad(column(asked.position_angle))
    s, c = torch.sin(angle), torch.cos(angle)
    u, v = x * radius, y * radius * ratio  # along and across the major axis
    uu, uv, vv = xx * radius**2, xy * radius**2 * ratio, yy * (radius * ratio) ** 2
    # The major axis points to (sin, cos) of (east, north), the minor one to (-cos, sin).
    return SkyGaussians(
        flux, u * s - v * c, u * c + v * s, uu * s * s - 2 * uv * s * c + vv * c * c,
        uu * s * c + uv * (s * s - c * c) - vv * s * c, uu * c * c + 2 * uv * s * c + vv * s * s,
    )  # fmt: skip


@torch.no_grad()
def half_light_scale(light: SkyGaussians, asked: Conditions, band: int) -> Tensor:
    """Factor on all lengths that gives each galaxy the half-light radius asked for, ``[n]``.

    Light within ellipses of the galaxy's axis ratio is counted with every Gaussian at rings around the middle; the
    radius that holds half of it is found by interpolation.
    """
    place = light.flux.device

    def column(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(place)[:, None]

    radius, ratio, angle = (
        column(asked.radius),
        column(asked.axis_ratio),
        torch.deg2rad(column(asked.position_angle)),
    )
    s, c = torch.sin(angle), torch.cos(angle)
    x, y = (light.xi * s + light.eta * c) / radius, (-light.xi * c + light.eta * s) / (radius * ratio)
    xx = (light.xx * s * s + 2 * light.xy * s * c + light.yy * c * c) / radius**2
    yy = (light.xx * c * c - 2 * light.xy * s * c + light.yy * s * s) / (radius * ratio) ** 2
    # In these units ellipses are circles. A Gaussian off the middle by d has its light within r as a noncentral chi-square,
    # for which the normal approximation of Sankaran (1963, Biometrika 50, 199) holds to a per cent or so.
    variance = (0.5 * (xx + yy)).clamp_min(1e-6)
    distance = (x**2 + y**2) / variance
    weight = light.flux[..., band] / light.flux[..., band].sum(1, keepdim=True)
    steps = torch.exp(torch.linspace(math.log(0.1), math.log(6.0), 96, device=place))
    inside = _within(steps[None, None, :] ** 2 / variance[..., None], distance[..., None])
    total = (weight[..., None] * inside).sum(1)
    first = (total >= 0.5).float().argmax(1).clamp_min(1)
    rows = torch.arange(len(first), device=place)
    low, high = total[rows, first - 1], total[rows, first]
    part = ((0.5 - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    found = steps[first - 1] + part * (steps[first] - steps[first - 1])
    return 1 / found


def _within(r2: Tensor, noncentral: Tensor) -> Tensor:
    """Share of a round Gaussian within a circle: noncentral chi-square with two degrees of freedom."""
    k, p = 2.0, noncentral
    h = 1 - 2 * (k + p) * (k + 3 * p) / (3 * (k + 2 * p) ** 2)
    q = (k + 2 * p) / (k + p) ** 2
    m = (h - 1) * (1 - 3 * h)
    mean = 1 + h * q * (h - 1 - 0.5 * (2 - h) * m * q)
    width = h * torch.sqrt(2 * q) * (1 + 0.5 * m * q)
    z = ((r2 / (k + p)).clamp_min(1e-12) ** h - mean) / width
    exact = 1 - torch.exp(-0.5 * r2)  # for Gaussians in the middle
    return torch.where(p < 1e-3, exact, 0.5 * (1 + torch.erf(z / math.sqrt(2))))


@torch.no_grad()
def components_of(light: SkyGaussians, asked: Conditions) -> Components:
    """Light as the components of galaxies 0 to n − 1, with the half-light radii asked for."""
    scale = half_light_scale(light, asked, asked.reference)[:, None]
    n, g = light.xi.shape
    source = np.repeat(np.arange(n, dtype=np.int64), g)

    def flat(values: Tensor) -> np.ndarray:
        return values.double().cpu().numpy().reshape(n * g, *values.shape[2:])

    # Fluxes sum to what was asked in double precision.
    share = light.flux.double()
    exact = share / share.sum(1, keepdim=True) * torch.from_numpy(asked.flux).to(share)[:, None, :]
    return Components(
        source, flat(exact), flat(light.xi * scale), flat(light.eta * scale),
        *(flat(v * scale**2) for v in (light.xx, light.xy, light.yy)),
    )  # fmt: skip
