"""Fluxes in any filter from template spectra that reproduce the SDSS magnitudes.

A source is a kind, a template, a redshift and its magnitudes in the anchor filters, SDSS ugriz. Its
spectrum is the template, redshifted and absorbed by the intergalactic medium, times a smooth warp: linear
in logarithmic wavelength between the anchor bands' pivots, constant beyond them, so high that the five
magnitudes come out exactly. What the templates do not know (metallicity, an unusual slope) is so taken
from the magnitudes, and what the magnitudes do not know (breaks, lines, the far ends) from the templates.

Magnitudes that go in are on the system of the anchors (for SDSS not quite AB), those that come out on the
system of the filters asked for; templates are AB. `FilterSet.ab_offset` leads from one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcat.errors import InputError
from imcat.simulate.filters import FilterSet
from imcat.simulate.intergalactic import transmission
from imcat.simulate.sources import Kind
from imcat.simulate.spectra_file import GRID_SIZE, GRID_STEP, grid_wavelengths, read_spectra

__all__ = ["MAX_REDSHIFT", "SpectralLibrary"]

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

# Redshifts of the grid of synthetic magnitudes: every third step of the wavelength grid in ln(1 + z), so
# that a spectrum is moved by whole grid points.
_SHIFT = 3
_NODES = 176
#: Highest redshift of a source.
MAX_REDSHIFT = float(np.expm1(GRID_STEP * _SHIFT * (_NODES - 1)))

# Magnitude errors with which a template is compared to a source: how well templates know real colours
# (the residuals on the model's card) ...
_MISMATCH = np.array([0.08, 0.03, 0.03, 0.03, 0.04])
# ... and how well the faint magnitudes are known from which populations are made: S/N 5 at the limits of
# SDSS (95 % completeness of point sources, Abazajian et al. 2004, AJ 128, 502) and 2 mag deeper on the
# coadds of Stripe 82 (Annis et al. 2014, ApJ 794, 120).
_LIMIT = np.array([22.0, 22.2, 22.2, 21.3, 20.5]) + 2.0
_CHUNK = 4096  # sources compared at once: some 20 MB
_FAINTEST = 40.0  # mag below the template's zero: stands for no light at all (below the Lyman limit)


@dataclass(frozen=True, eq=False)
class SpectralLibrary:
    """Template spectra of stars, galaxies and quasars.

    Attributes
    ----------
    templates : dict of Kind to float32 array, ``[t, grid]``
        See `imcat.simulate.spectra_file.SpectraFile`.
    names : dict of Kind to tuple of str
        Name of each template.
    anchors : FilterSet
        The filters of the magnitudes that sources have.

    Examples
    --------
    >>> library = SpectralLibrary.load()
    >>> sun = library.names[Kind.STAR].index("pickles-G2V")
    >>> mag = np.array([[19.43, 18.0, 17.56, 17.44, 17.41]])
    >>> csst = FilterSet.named("csst")
    >>> [round(float(m), 1) for m in library.magnitudes([Kind.STAR], [sun], [0.0], mag, csst)[0, 1:4]]
    [19.4, 18.0, 17.6]
    """

    templates: dict[Kind, Float32]
    names: dict[Kind, tuple[str, ...]]
    anchors: FilterSet
    _grids: dict[tuple[Kind, bytes], Float64] = field(default_factory=dict, repr=False)

    @staticmethod
    def load(folder: str | Path | None = None, anchors: FilterSet | None = None) -> SpectralLibrary:
        """The library that comes with imcat, or another one built by its recipe.

        Parameters
        ----------
        folder : path, optional
            Where ``spectra.safetensors`` and its card lie.
        anchors : FilterSet, optional
            Filters of the sources' magnitudes; default: SDSS.
        """
        content = read_spectra(folder)
        return SpectralLibrary(
            templates={kind: content.templates[kind.name.lower()] for kind in Kind},
            names={kind: content.names[kind.name.lower()] for kind in Kind},
            anchors=FilterSet.named("sdss") if anchors is None else anchors,
        )

    def choose(
        self, kind: ArrayLike, mag: ArrayLike, redshift: ArrayLike, rng: np.random.Generator
    ) -> NDArray[np.int32]:
        """A template for each source, drawn from those that have its colours.

        A template is drawn with the probability ``exp(-χ²/2)`` of its colours at the source's redshift,
        so that sources of the same colours differ in their spectra as much as the colours allow.

        Parameters
        ----------
        kind : int array, ``[n]``
            `Kind`.
        mag : float array, ``[n, anchors]``
            System magnitudes without dust of the Milky Way.
        redshift : float array, ``[n]``
            Not used for stars.
        rng : Generator
            Random numbers.

        Returns
        -------
        int32 array, ``[n]``
            Index among the templates of the kind.

        Raises
        ------
        InputError
            For a kind that is none, a magnitude that is not finite, a redshift outside 0 to `MAX_REDSHIFT`.
        """
        kinds, mags, node = self._check(kind, mag, redshift)
        out = np.zeros(len(kinds), np.int32)
        for one in Kind:
            rows = np.flatnonzero(kinds == one)
            if len(rows):
                grid = self._grid(one, self.anchors)
                nearest = np.rint(node[rows]).astype(np.intp) if one is not Kind.STAR else None
                out[rows] = self._draw(mags[rows], grid, nearest, rng)
        return out

    def magnitudes(
        self,
        kind: ArrayLike,
        template: ArrayLike,
        redshift: ArrayLike,
        mag: ArrayLike,
        filters: FilterSet,
        ebv: ArrayLike = 0.0,
    ) -> Float64:
        """Magnitudes in other filters.

        Parameters
        ----------
        kind, template : int array, ``[n]``
            `Kind` and index among its templates (`choose`).
        redshift : float array, ``[n]``
            Not used for stars.
        mag : float array, ``[n, anchors]``
            System magnitudes without dust of the Milky Way.
        filters : FilterSet
            Where to.
        ebv : float or float array ``[n]``
            E(B-V) of the Milky Way in front of the sources.

        Returns
        -------
        float64 array, ``[n, bands]``
            On the system of the filters; in the anchor filters and without dust exactly `mag`.

        Raises
        ------
        InputError
            As `choose`; for a template that does not exist.
        """
        kinds, mags, node = self._check(kind, mag, redshift)
        dust = filters.extinction(ebv)
        if filters.key == self.anchors.key:
            return mags + dust
        which = np.asarray(template, np.intp)
        out = np.empty((len(kinds), len(filters)))
        spread = _interpolation(self.anchors.wavelengths, filters.wavelengths)
        for one in Kind:
            rows = np.flatnonzero(kinds == one)
            if not len(rows):
                continue
            chosen = which[rows]
            if chosen.min() < 0 or chosen.max() >= len(self.names[one]):
                raise InputError(
                    f"there is no {one.name.lower()} template {chosen.min()} to {chosen.max()}",
                    expected=f"0 to {len(self.names[one]) - 1}",
                )
            anchor = _look_up(self._grid(one, self.anchors), chosen, node[rows])
            target = _look_up(self._grid(one, filters), chosen, node[rows])
            warp = mags[rows] + self.anchors.ab_offset - anchor  # system magnitudes meet AB templates
            out[rows] = target + warp @ spread - filters.ab_offset  # ... and leave for the filters' system
        return out + dust

    def template_magnitudes(
        self, kind: Kind, template: ArrayLike, redshift: ArrayLike, filters: FilterSet
    ) -> Float64:
        """Magnitudes of bare templates of one kind, without a warp, with an arbitrary zero for each.

        Parameters
        ----------
        kind : Kind
            Of all of them.
        template : int array, ``[n]``
            Index among the templates of the kind.
        redshift : float array, ``[n]``
            Not used for stars.
        filters : FilterSet
            Where to.

        Returns
        -------
        float64 array, ``[n, bands]``
            On the system of the filters.
        """
        which = np.asarray(template, np.intp)
        z = np.zeros(len(which)) if kind is Kind.STAR else np.asarray(redshift, np.float64)
        system: Float64 = _look_up(self._grid(kind, filters), which, _node(z)) - filters.ab_offset
        return system

    def _check(
        self, kind: ArrayLike, mag: ArrayLike, redshift: ArrayLike
    ) -> tuple[NDArray[np.int8], Float64, Float64]:
        """Sources as arrays, the redshift as place on the grid."""
        kinds = np.asarray(kind, np.int8)
        mags = np.asarray(mag, np.float64)
        z = np.asarray(redshift, np.float64)
        if mags.shape != (len(kinds), len(self.anchors)) or z.shape != kinds.shape:
            raise InputError(
                f"{kinds.shape} kinds, {z.shape} redshifts and {mags.shape} magnitudes",
                expected=f"n, n and (n, {len(self.anchors)})",
            )
        if not np.isin(kinds, list(Kind)).all():
            raise InputError(
                "a kind of source that is none", expected=", ".join(f"{k.value} ({k.name})" for k in Kind)
            )
        if not np.isfinite(mags).all():
            raise InputError("a source with a magnitude that is not finite", expected="all anchor bands")
        # A star's redshift, a velocity, is not used and need not be known.
        z = np.where(kinds == Kind.STAR, 0.0, z)
        if not np.all((z >= 0) & (z <= MAX_REDSHIFT)):
            bad = z[~((z >= 0) & (z <= MAX_REDSHIFT))][0]
            raise InputError(f"a source of redshift {bad:g}", expected=f"0 to {MAX_REDSHIFT:.2f}")
        return kinds, mags, _node(z)

    def _draw(
        self, mag: Float64, grid: Float64, node: NDArray[np.intp] | None, rng: np.random.Generator
    ) -> NDArray[np.int32]:
        """Templates of sources of one kind; node: nearest redshift of the grid, None for the only one."""
        middle = len(self.anchors) // 2  # colours against one band, so that single precision is enough
        by_node = (
            (grid - grid[:, :, [middle]]).transpose(1, 0, 2).astype(np.float32)
        )  # [node, template, anchor]
        ab = mag + self.anchors.ab_offset
        ab -= ab[:, [middle]]
        weight = 1 / self._errors(mag) ** 2
        out = np.empty(len(mag), np.int32)
        for start in range(0, len(mag), _CHUNK):
            part = slice(start, start + _CHUNK)
            w = weight[part].astype(np.float32)
            model = by_node[:1] if node is None else by_node[node[part]]  # [m or 1, template, anchor]
            # The level is free: taking the weighted mean difference away leaves the colours.
            difference = model - ab[part, None, :].astype(np.float32)
            mean = np.einsum("mta,ma->mt", difference, w) / w.sum(1)[:, None]
            chi2 = np.einsum("mta,mta,ma->mt", difference, difference, w) - mean**2 * w.sum(1)[:, None]
            # The largest of log p plus Gumbel noise is a draw from p.
            out[part] = np.argmax(rng.gumbel(size=chi2.shape).astype(np.float32) - chi2 / 2, axis=1)
        return out

    def _errors(self, mag: Float64) -> Float64:
        if self.anchors.survey != "sdss":
            return np.full(mag.shape, _MISMATCH[1])
        errors: Float64 = np.hypot(_MISMATCH, 0.2 * 10 ** (0.4 * (mag - _LIMIT)))
        return errors

    def _grid(self, kind: Kind, filters: FilterSet) -> Float64:
        """Synthetic AB magnitudes, ``[template, redshift, band]``; kept once computed."""
        key = (kind, filters.key)
        if key not in self._grids:
            self._grids[key] = _synthesise(self.templates[kind], filters, 1 if kind is Kind.STAR else _NODES)
        return self._grids[key]


def _synthesise(templates: Float32, filters: FilterSet, nodes: int) -> Float64:
    """Synthetic AB magnitudes on the grid of redshifts, ``[template, redshift, band]``."""
    observed = grid_wavelengths()
    flux = 10 ** (-0.4 * templates.astype(np.float64))
    out = np.empty((len(templates), nodes, len(filters)))
    for k in range(nodes):
        moved = np.clip(np.arange(GRID_SIZE) - _SHIFT * k, 0, None)
        passed = transmission(float(np.expm1(GRID_STEP * _SHIFT * k)), observed) if k else 1.0
        out[:, k] = flux[:, moved] @ (filters.weights * passed).T
    mag: Float64 = -2.5 * np.log10(np.maximum(out, 10 ** (-0.4 * _FAINTEST)))
    return mag


def _node(redshift: Float64) -> Float64:
    """Place of a redshift on the grid."""
    node: Float64 = np.log1p(redshift) / (GRID_STEP * _SHIFT)
    return node


def _look_up(grid: Float64, template: NDArray[np.intp], node: Float64) -> Float64:
    """Values of a grid between its redshifts, ``[n, band]``."""
    low = np.minimum(node.astype(np.intp), grid.shape[1] - 1)
    high = np.minimum(low + 1, grid.shape[1] - 1)
    share = (node - low)[:, None]
    value: Float64 = grid[template, low] * (1 - share) + grid[template, high] * share
    return value


def _interpolation(knots: Float64, wanted: Float64) -> Float64:
    """Matrix ``[knots, wanted]`` of linear interpolation in logarithmic wavelength, constant beyond the ends."""
    order = np.argsort(knots)
    out = np.empty((len(knots), len(wanted)))
    for j, row in enumerate(order):
        unit = np.zeros(len(knots))
        unit[j] = 1.0
        out[row] = np.interp(np.log(wanted), np.log(knots[order]), unit)
    return out
