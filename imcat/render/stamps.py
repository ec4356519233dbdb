"""Sources drawn on batches of small images in torch, to fit and to train with.

The same Gaussians as in `imcat.render.draw`, which is quicker where no derivative is needed; here they are
computed on every pixel. Results can be differentiated by fluxes, positions, radii, axis ratios, angles and
Sérsic indices, and are computed on the device and in the precision of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from imcat.psf.mixture import PsfMixture, resolved_variance, subpixel_offsets
from imcat.render.components import Components, ellipse_covariance, map_covariance
from imcat.render.draw import MERGE_VARIANCE
from imcat.render.profiles import COMPONENTS, NODES, STEP, hermite, sersic_table, variance_limits

__all__ = ["SkyGaussians", "StampPsf", "render_stamps", "sersic_gaussians", "stamp_gaussians"]

#: Pixels times Gaussians that are computed at once.
_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class SkyGaussians:
    """Gaussians on the sky before the PSF, the same number in every stamp.

    Attributes
    ----------
    flux : Tensor, ``[n, g, bands]``
        nJy; 0 where a stamp has fewer.
    xi, eta : Tensor, ``[n, g]``
        Offset from the stamp's position, arcsec east and north.
    xx, xy, yy : Tensor, ``[n, g]``
        Covariance on the axes (xi, eta), arcsec²; 0 for a point.
    """

    flux: Tensor
    xi: Tensor
    eta: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @staticmethod
    def concatenate(parts: Sequence[SkyGaussians]) -> SkyGaussians:
        """Gaussians of several lists in the same stamps."""
        names = ("flux", "xi", "eta", "xx", "xy", "yy")
        return SkyGaussians(*(torch.cat([getattr(p, name) for p in parts], dim=1) for name in names))


@dataclass(frozen=True, eq=False)
class StampPsf:
    """Effective PSFs of the bands of stamps: every mixture with the same number of Gaussians.

    Attributes
    ----------
    weights : Tensor, ``[bands, k]`` or ``[n, bands, k]``
        Share of the flux; 0 where a band has fewer. Like those that follow for all stamps, or for each.
    covariances : Tensor, ``[n, bands, k, 3]``
        xx, xy, yy in pixels², pixel included; n may be 1 for all stamps.
    centres : Tensor, ``[..., bands, k, 2]``
        x and y from the position of the source, pixels.
    parts : Tensor, ``[..., bands, k, 2]``
        Which part of a pixel it stands for: x and y of its centre, pixels.
    resolved : Tensor, ``[..., bands, k]``
        Variance that the parts take from that of the pixel, pixels².
    """

    weights: Tensor
    covariances: Tensor
    centres: Tensor
    parts: Tensor
    resolved: Tensor

    @staticmethod
    def stack(
        psfs: Sequence[PsfMixture],
        x: ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> StampPsf:
        """PSFs of some bands, at the centre of their images or at the places of the stamps.

        Parameters
        ----------
        psfs : sequence of PsfMixture
            One a band.
        x, y : array, ``[n]`` or ``[n, bands]``, optional
            Where in the image of each band, pixels.
        dtype, device
            As of the sources.
        """
        every = [_expand(psf, b, x, y) for b, psf in enumerate(psfs)]
        n, bands = every[0][1].shape[0], len(every)
        k = max(len(weights) for weights, *_ in every)
        # What pads is a round Gaussian without weight.
        weights, covariances = np.zeros((bands, k)), np.tile([1.0, 0.0, 1.0], (n, bands, k, 1))
        centres, parts, resolved = np.zeros((bands, k, 2)), np.zeros((bands, k, 2)), np.zeros((bands, k))
        for b, (w, c, *rest) in enumerate(every):
            weights[b, : len(w)], covariances[:, b, : len(w)] = w, c
            for array, values in zip((centres, parts, resolved), rest, strict=True):
                array[b, : len(w)] = values
        columns = (weights, covariances, centres, parts, resolved)
        return StampPsf(*(torch.as_tensor(a, dtype=dtype, device=device) for a in columns))


def _expand(
    psf: PsfMixture, band: int, x: ArrayLike | None, y: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gaussians of a PSF, those narrow enough to need it once for each part of a pixel."""
    if x is None or y is None:
        rows, columns = psf.shape or (1, 1)
        covariances = psf.at(np.array([(columns - 1) / 2]), np.array([(rows - 1) / 2]))
    else:
        at = [np.asarray(v, np.float64) for v in (x, y)]
        covariances = psf.at(*(v if v.ndim == 1 else v[:, band] for v in at))
    xx, xy, yy = np.moveaxis(covariances, -1, 0)
    minor = 0.5 * (xx + yy) - np.hypot(0.5 * (xx - yy), xy)
    m = psf.subpixels
    offsets = subpixel_offsets(m)
    all_parts = np.array([(px, py) for py in offsets for px in offsets])
    split = (minor < MERGE_VARIANCE).any(axis=0) & (m > 1)
    which = np.concatenate([np.full(m * m if s else 1, j) for j, s in enumerate(split)])
    parts = np.concatenate([all_parts if s else np.zeros((1, 2)) for s in split])
    share = np.where(split[which], 1 / m**2, 1.0)
    resolved = np.where(split[which], resolved_variance(m), 0.0)
    return psf.weights[which] * share, covariances[:, which], psf.centres[which], parts, resolved


def stamp_gaussians(
    components: Components,
    stamps: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> SkyGaussians:
    """Components as Gaussians of stamps: source i lies in stamp i.

    Parameters
    ----------
    components : Components
        Of as many sources as there are stamps, or fewer.
    stamps : int
        Number of stamps.
    dtype, device
        Of the result.
    """
    count = np.bincount(components.source, minlength=stamps)
    place = np.arange(len(components)) - np.repeat(np.cumsum(count) - count, count)

    def lay(values: np.ndarray) -> Tensor:
        result = np.zeros((stamps, max(int(count.max(initial=0)), 1), *values.shape[1:]))
        result[components.source, place] = values
        return torch.as_tensor(result, dtype=dtype, device=device)

    return SkyGaussians(*(lay(getattr(components, f)) for f in ("flux", "xi", "eta", "xx", "xy", "yy")))


def sersic_gaussians(
    flux: Tensor,
    radius: Tensor,
    axis_ratio: Tensor,
    position_angle: Tensor,
    index: Tensor | float,
    xi: Tensor | float = 0.0,
    eta: Tensor | float = 0.0,
) -> SkyGaussians:
    """Elliptical Sérsic profiles, one for each stamp.

    Parameters
    ----------
    flux : Tensor, ``[n, bands]``
        Total, nJy.
    radius : Tensor, ``[n]``
        Half-light radius along the major axis, arcsec; 0 for a point.
    axis_ratio, position_angle : Tensor, ``[n]``
        Minor over major axis; degrees east of north.
    index : Tensor ``[n]`` or float
        Sérsic index, 0.5 to 8.
    xi, eta : Tensor ``[n]`` or float
        Centre, arcsec east and north of the stamp's position.
    """
    weights, variances = _profiles(torch.as_tensor(index, dtype=flux.dtype, device=flux.device))
    angle = torch.deg2rad(position_angle)
    covariance = ellipse_covariance(
        radius * radius, (radius * axis_ratio) ** 2, torch.sin(angle), torch.cos(angle)
    )
    shape = (len(flux), COMPONENTS)
    xx, xy, yy = ((value[:, None] * variances).expand(shape) for value in covariance)
    east, north = (
        torch.as_tensor(v, dtype=flux.dtype, device=flux.device).reshape(-1, 1).expand(shape)
        for v in (xi, eta)
    )
    return SkyGaussians(flux[:, None, :] * weights[..., None], east, north, xx, xy, yy)


def _profiles(index: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and variances of Sérsic profiles, ``[n or 1, 8]``, as `imcat.render.profiles.sersic_mixtures`."""
    u = torch.log(index.reshape(-1))
    # A copy, since the table may not be written to and tensors cannot know.
    table = torch.as_tensor(sersic_table().copy(), dtype=u.dtype, device=u.device)
    slope = torch.gradient(table, dim=0)[0]
    place = u / STEP - NODES[0]
    left = place.detach().long().clamp(0, len(table) - 2)
    t = (place - left)[:, None]
    weights = hermite(t, table[left], table[left + 1], slope[left], slope[left + 1])
    low, high = variance_limits(u)
    steps = torch.linspace(0, 1, COMPONENTS, dtype=u.dtype, device=u.device)
    return weights, torch.exp(low[:, None] + (high - low)[:, None] * steps)


def render_stamps(
    sources: SkyGaussians,
    x: Tensor,
    y: Tensor,
    jacobian: Tensor,
    psf: StampPsf,
    shape: tuple[int, int],
) -> Tensor:
    """Draw sources on stamps.

    Parameters
    ----------
    sources : SkyGaussians
        Of n stamps.
    x, y : Tensor, ``[n]`` or ``[n, bands]``
        Position that offsets refer to, pixels of each stamp.
    jacobian : Tensor, ``[2, 2]``, ``[bands, 2, 2]`` or ``[n, bands, 2, 2]``
        (dx, dy) in pixels are this matrix times (xi, eta) in arcsec.
    psf : StampPsf
        Of the bands.
    shape : (int, int)
        Rows and columns of a stamp.

    Returns
    -------
    Tensor, ``[n, bands, rows, columns]``
        nJy per pixel.
    """
    n, _, bands = sources.flux.shape
    x, y = (v[:, None].expand(n, bands) if v.dim() == 1 else v for v in (x, y))
    matrix = jacobian.expand(n, bands, 2, 2)
    gaussians = _convolve(sources, x, y, matrix, psf)
    size = bands * gaussians[0].shape[2] * shape[0] * shape[1]
    step = max(_AT_ONCE // max(size, 1), 1)
    batches = [[a[i : i + step] for a in gaussians] for i in range(0, n, step)]
    return torch.cat([_evaluate(batch, shape) for batch in batches])


def _convolve(sources: SkyGaussians, x: Tensor, y: Tensor, matrix: Tensor, psf: StampPsf) -> list[Tensor]:
    """Flux, centre (x, y) and covariance (xx, xy, yy) of every Gaussian on every stamp, in pixels, ``[n, bands, g * k]``."""
    n, g, bands = sources.flux.shape
    # [n, bands, 1, 1] for the map, [n, 1, g, 1] for the sky, [n or 1, bands, 1, k] for the PSF
    j00, j01, j10, j11 = (matrix[:, :, i, j, None, None] for i in (0, 1) for j in (0, 1))
    xi, eta, xx, xy, yy = (
        v[:, None, :, None] for v in (sources.xi, sources.eta, sources.xx, sources.xy, sources.yy)
    )
    cxx, cxy, cyy = map_covariance(j00, j01, j10, j11, xx, xy, yy)
    pxx, pxy, pyy = (psf.covariances[:, :, None, :, i] for i in range(3))
    txx, txy, tyy = cxx + pxx, cxy + pxy, cyy + pyy
    # A wide Gaussian is drawn in one piece: its parts then all lie in the middle of the pixel.
    minor = (0.5 * (txx + tyy) - torch.hypot(0.5 * (txx - tyy), txy)).detach()
    split = (minor < MERGE_VARIANCE).to(txx.dtype)
    resolved = split * psf.resolved[..., None, :]
    cx = (
        x[:, :, None, None]
        + j00 * xi
        + j01 * eta
        + psf.centres[..., None, :, 0]
        + split * psf.parts[..., None, :, 0]
    )
    cy = (
        y[:, :, None, None]
        + j10 * xi
        + j11 * eta
        + psf.centres[..., None, :, 1]
        + split * psf.parts[..., None, :, 1]
    )
    flux = sources.flux.permute(0, 2, 1)[..., None] * psf.weights[..., None, :]
    columns = (flux, cx, cy, txx - resolved, txy, tyy - resolved)
    full = (n, bands, g, psf.weights.shape[-1])
    return [v.expand(full).reshape(n, bands, -1) for v in columns]


def _evaluate(gaussians: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
    """Sum of Gaussians at the centres of the pixels, ``[n, bands, rows, columns]``."""
    flux, cx, cy, xx, xy, yy = gaussians
    rows = torch.arange(shape[0], dtype=flux.dtype, device=flux.device)
    columns = torch.arange(shape[1], dtype=flux.dtype, device=flux.device)
    determinant = xx * yy - xy * xy
    height = flux / (2 * torch.pi * torch.sqrt(determinant))
    a, b, c = (v[..., None, None] / determinant[..., None, None] for v in (-0.5 * yy, xy, -0.5 * xx))
    u = (columns - cx[..., None])[..., None, :]
    v = (rows - cy[..., None])[..., :, None]
    value = torch.exp(a * u * u + (b * u + c * v) * v)
    return torch.einsum("nbg,nbgyx->nbyx", height, value)
