"""Structure of galaxies: arms, bars, rings, clumps, companions and dust, as many small Gaussians.

Everything is in units of the half-light radius of the part that the light is taken from, on axes
(u, v) along its major and minor axis: in the plane of the disc, or on the sky for what has no plane.
Arrays are ``[galaxies, pieces]``. Distributions are those of the papers named beside them; where a
range has no source it was chosen so that noiseless pictures look like Galaxy Zoo's examples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imcat.render.profiles import EXPONENTIAL, sersic_mixture
from imcat.simulate.sources import Morphology

__all__ = ["Pieces", "bar", "clumps", "companion", "dusty", "ring", "spiral_arms", "structure_of"]

Float64 = NDArray[np.float64]
Generator = np.random.Generator

#: Largest share of a part's light that structure takes from it, in any band.
_MOST = 0.8
# Half-light radius of an exponential disc in scale lengths: root of (1 + x) exp(-x) = 1/2.
_SCALE = 1.6783469900166605
# What a lane of dust takes from g is 10 % more than from r, for an optical depth that goes with wavelength to the
# power of -0.7 (Charlot & Fall 2000, ApJ 539, 718) and is about 1; it is held to 1.25 times that of r.
_DUST, _DARKER = -0.35, 1.25
# Colours: exponent of wavelength in the ratio of a piece's light to that of the disc. -0.5 makes g-r 0.15 mag bluer.
_ARM, _KNOT, _BAR, _RING, _CLUMP = -0.5, -1.3, 0.45, -0.35, -0.7


@dataclass(frozen=True, eq=False)
class Pieces:
    """Gaussians that share in the light of one part of a galaxy.

    Attributes
    ----------
    u, v : float64 array, ``[n, p]``
        Centres.
    uu, uv, vv : float64 array, ``[n, p]``
        Covariances.
    share : float64 array, ``[n, p]``
        Of the part's light in r; negative for dust.
    tilt : float64 array, ``[n, p]``
        Exponent of wavelength in the ratio of the piece's light to the part's.
    whole : bool
        Whether the pieces are all of the part, so that nothing of it remains; their shares are then relative.
    """

    u: Float64
    v: Float64
    uu: Float64
    uv: Float64
    vv: Float64
    share: Float64
    tilt: Float64
    whole: bool = False

    @staticmethod
    def join(*parts: Pieces) -> Pieces:
        """Pieces of several kinds in the same galaxies."""
        columns = zip(*((p.u, p.v, p.uu, p.uv, p.vv, p.share, p.tilt) for p in parts), strict=True)
        u, v, uu, uv, vv, share, tilt = (np.concatenate(column, 1) for column in columns)
        return Pieces(u, v, uu, uv, vv, share, tilt)

    def shares(self, ratio: Float64) -> Float64:
        """Share of the part's light in each band, ``[n, p, bands]``; their sum is 1 for the whole, else at most 0.8.

        Parameters
        ----------
        ratio : float64 array, ``[bands]``
            Wavelength of each band over that of r.
        """
        colour = ratio ** self.tilt[:, :, None]
        # Dust cannot take more light than there is: see `dusty`.
        share = self.share[:, :, None] * np.where(
            self.share[:, :, None] < 0, np.minimum(colour, _DARKER), colour
        )
        total = np.maximum(share.sum(1, keepdims=True), 1e-12)
        shares: Float64 = share / total if self.whole else share * np.minimum(1.0, _MOST / total)
        return shares


def structure_of(rng: Generator, kind: Morphology, n: int) -> Pieces | None:
    """What galaxies of a morphology show beside bulge and disc, in the plane of the disc.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    kind : Morphology
        Of all of them; mergers and edge-on galaxies, which have no plane to draw in, are made by `companion`
        and `dusty`.
    n : int
        Number of galaxies.

    Returns
    -------
    Pieces or None
        None for those without structure.
    """
    if kind == Morphology.SPIRAL:
        return spiral_arms(rng, n)
    if kind == Morphology.RING:
        return ring(rng, n)
    if kind == Morphology.IRREGULAR:
        return clumps(rng, n)
    if kind == Morphology.BARRED:
        # Half-length of bars: mean 1.4 scale lengths in early, 0.6 in late types (Erwin 2005, MNRAS 364, 283).
        length = np.clip(rng.lognormal(np.log(1.0), 0.35, n), 0.5, 1.8) / _SCALE
        angle = rng.uniform(0, np.pi, n)
        arms = spiral_arms(rng, n, start=length, phase=angle, pieces=60)
        return Pieces.join(bar(rng, length, angle), arms)
    return None


def spiral_arms(
    rng: Generator, n: int, start: Float64 | None = None, phase: Float64 | None = None, pieces: int = 84
) -> Pieces:
    """Logarithmic arms with knots of young stars.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n : int
        Number of galaxies.
    start, phase : float64 array, ``[n]``, optional
        Where the first of two arms begins: radius, and angle from the major axis in radians (the ends of a bar).
        Default: drawn, with 2 to 4 arms.
    pieces : int
        Gaussians for all arms of a galaxy together.
    """
    barred = start is not None
    # Two arms are by far the most common (Willett et al. 2013, MNRAS 435, 2835; Hart et al. 2016, MNRAS 461, 3663).
    number = np.full(n, 2) if barred else rng.choice([2, 3, 4], n, p=[0.65, 0.2, 0.15])
    # Pitch angles of SDSS spirals lie between 7 and 35 degrees, most between 10 and 25, and differ by
    # some degrees between and along the arms of one (Savchenko & Reshetnikov 2013, MNRAS 436, 1074).
    pitch = np.deg2rad(np.clip(rng.normal(19.0, 6.0, n), 9.0, 35.0))
    inner = rng.uniform(0.25, 0.45, n) if start is None else start
    first = rng.uniform(0, 2 * np.pi, n) if phase is None else phase
    outer = np.maximum(rng.uniform(1.7, 2.6, n), 1.8 * inner)
    # Tight arms would wind more often than they can be told apart.
    turn = np.minimum(np.log(outer / inner) / np.tan(pitch), rng.uniform(3.6, 5.6, n) / np.sqrt(number / 2))
    winding = np.log(outer / inner) / turn

    index = np.arange(pieces)[None, :]
    arm = index % number[:, None]
    along = (index // number[:, None] + 0.5) / np.ceil(pieces / number)[:, None]
    wobble = _by_arm(rng.normal(0, 0.12, (n, 4)), arm) + _by_arm(rng.normal(0, 0.10, (n, 4)), arm) * np.sin(
        2 * np.pi * (along + _by_arm(rng.uniform(0, 1, (n, 4)), arm))
    )
    if barred:
        wobble = wobble * along  # arms begin at the ends of the bar
    theta = turn[:, None] * along
    radius = inner[:, None] * np.exp(winding[:, None] * theta)
    angle = first[:, None] + 2 * np.pi * arm / number[:, None] + theta + wobble
    # Widths grow with radius in most galaxies (Savchenko et al. 2020, MNRAS 493, 390).
    width = rng.uniform(0.085, 0.16, n)[:, None] * (0.35 + radius) * np.sqrt(2 / number)[:, None]
    step = radius * turn[:, None] / np.ceil(pieces / number)[:, None] / np.cos(np.arctan(winding))[:, None]
    # Ends fade; the light between follows the disc, and the arms of one galaxy differ.
    fade = np.minimum(1, along / 0.12) * np.minimum(1, (1 - along) / 0.35)
    light = np.exp(-_SCALE * 0.75 * radius) * width * step * fade
    light *= rng.lognormal(0, 0.35, (n, pieces)) * _by_arm(rng.lognormal(0, 0.18, (n, 4)), arm)
    # Arms hold some tens of per cent of the light (Savchenko et al. 2020).
    held = np.clip(rng.lognormal(np.log(0.34), 0.25, n), 0.18, 0.55) * (0.75 if barred else 1.0)
    direction = rng.choice([-1.0, 1.0], n)[:, None]
    across = rng.normal(0, 0.35, (n, pieces)) * width
    u, v = (radius + across) * np.cos(angle), (radius + across) * np.sin(angle)
    heading = angle + np.pi / 2 - np.arctan(winding)[:, None]
    arms = _pieces(u, v, heading, np.maximum(0.75 * step, width), width, _to(light, held), _ARM)
    knots = _knots(rng, arms, width, share=rng.uniform(0.02, 0.07, n))
    return _mirrored(Pieces.join(arms, knots), first, direction)


def bar(rng: Generator, length: Float64, angle: Float64) -> Pieces:
    """Bars: elongated, red, of even brightness along most of their length.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    length, angle : float64 array, ``[n]``
        Half-length, and direction in the plane from the major axis (radians).
    """
    n = len(length)
    place = np.linspace(-0.8, 0.8, 9)[None, :]
    # Axis ratios of bars are 0.2 to 0.5, they hold 10 % of a galaxy's light (Gadotti 2011, MNRAS 415, 3308).
    thick = rng.uniform(0.085, 0.16, n)[:, None] * length[:, None] * np.ones_like(place)
    held = np.clip(rng.lognormal(np.log(0.17), 0.35, n), 0.08, 0.32)
    light = np.ones((n, 1)) * (1 - 0.45 * np.abs(place))
    along = place * length[:, None]
    return _pieces(
        along * np.cos(angle)[:, None],
        along * np.sin(angle)[:, None],
        angle[:, None] * np.ones_like(place),
        0.14 * length[:, None] * np.ones_like(place),
        thick,
        _to(light, held),
        _BAR,
    )


def ring(rng: Generator, n: int, pieces: int = 36) -> Pieces:
    """A ring, in some with a second one outside it, and often a bar within.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n : int
        Number of galaxies.
    pieces : int
        Gaussians for each ring.
    """
    radius = rng.uniform(0.75, 1.4, n)
    # Outer rings lie at 2.2 times the radius of inner ones (Athanassoula et al. 1982, A&A 107, 101).
    outer = radius * rng.normal(2.2, 0.1, n)
    second = np.where(rng.random(n) < 0.3, rng.uniform(0.06, 0.12, n), 0.0)
    first = _circle(rng, radius, rng.uniform(0.3, 0.5, n), pieces)
    angle = rng.uniform(0, np.pi, n)
    within = bar(rng, 0.85 * radius, angle)
    barred = (rng.random(n) < 0.5)[:, None].astype(np.float64)
    return Pieces.join(first, _circle(rng, outer, second, pieces), _scaled(within, 0.6 * barred))


def clumps(rng: Generator, n: int, pieces: int = 34) -> Pieces:
    """Irregular galaxies: bright knots strewn over one side of a lopsided body.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n : int
        Number of galaxies.
    pieces : int
        Most knots of a galaxy.
    """
    toward = rng.uniform(0, 2 * np.pi, n)
    shift = rng.uniform(0.25, 0.75, n)
    body_u, body_v = shift * np.cos(toward), shift * np.sin(toward)
    # Half of the knots belong to a few associations, the rest follow the body.
    groups = rng.normal(0, 0.75, (n, 4, 2)) + np.stack([body_u, body_v], 1)[:, None, :] * 0.8
    member = rng.integers(0, 4, (n, pieces))
    rows = np.arange(n)[:, None]
    loose = rng.random((n, pieces)) < 0.5
    spread = np.where(loose, 0.75, 0.20)
    u = np.where(loose, body_u[:, None], groups[rows, member, 0]) + spread * rng.normal(0, 1, (n, pieces))
    v = np.where(loose, body_v[:, None], groups[rows, member, 1]) + spread * rng.normal(0, 1, (n, pieces))
    width = np.clip(rng.lognormal(np.log(0.10), 0.45, (n, pieces)), 0.04, 0.3)
    # Luminosities of HII regions follow a power law of slope -2 (Kennicutt et al. 1989, ApJ 337, 761), cut above.
    light = np.minimum(1 / np.maximum(rng.random((n, pieces)), 0.02), 25.0)
    light *= np.arange(pieces)[None, :] < rng.integers(10, pieces + 1, n)[:, None]
    stretch = rng.uniform(1.0, 2.0, (n, pieces))
    knots = _pieces(
        u,
        v,
        rng.uniform(0, np.pi, (n, pieces)),
        width * stretch,
        width,
        _to(light, rng.uniform(0.25, 0.45, n)),
        _CLUMP,
    )
    along = rng.uniform(0, np.pi, (n, 3))
    off = np.array([0.6, 1.0, 1.4])[None, :]
    size = np.array([0.45, 0.6, 0.8])[None, :] * rng.uniform(0.8, 1.2, (n, 3))
    body = _pieces(
        off * body_u[:, None],
        off * body_v[:, None],
        along,
        size,
        size * rng.uniform(0.45, 0.9, (n, 3)),
        _to(np.ones((n, 3)), rng.uniform(0.25, 0.4, n)),
        0.5 * _CLUMP,
    )
    return Pieces.join(body, knots)


def companion(rng: Generator, n: int, tail: int = 22) -> Pieces:
    """Mergers: a second galaxy, tails along arcs from both, and shells on one side.

    Shares are of the light of the whole galaxy, and places on the sky.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n : int
        Number of galaxies.
    tail : int
        Gaussians for each of two tails.
    """
    # Flux ratios up to 1:3, those that Galaxy Zoo's mergers have (Darg et al. 2010, MNRAS 401, 1043).
    ratio = rng.uniform(1 / 3, 1.0, n)
    held = 0.85 * ratio / (1 + ratio)
    distance = rng.uniform(0.9, 2.3, n)
    toward = rng.uniform(0, 2 * np.pi, n)
    u0, v0 = distance * np.cos(toward), distance * np.sin(toward)
    size = np.sqrt(ratio) * rng.uniform(0.55, 1.0, n)
    flat, heading = rng.uniform(0.35, 0.95, n)[:, None], rng.uniform(0, np.pi, n)[:, None]
    disc = sersic_mixture(EXPONENTIAL)
    variance = np.square(size)[:, None] * np.concatenate([disc.variances, [0.004, 0.03]])[None, :]
    nucleus = rng.uniform(0.05, 0.25, n)[:, None]
    weights = np.concatenate([disc.weights * (1 - nucleus), nucleus * np.array([0.4, 0.6])], 1)
    sigma, same = np.sqrt(variance), np.ones_like(variance)
    second = _pieces(
        u0[:, None] * same, v0[:, None] * same, heading * same, sigma, sigma * flat, _to(weights, held),
        rng.normal(0, 0.4, n)[:, None] * same,
    )  # fmt: skip
    spin = rng.choice([-1.0, 1.0], n)
    loss = rng.uniform(0.05, 0.15, (n, 2)) * np.where(rng.random((n, 2)) < 0.75, 1.0, 0.15)
    own = _tail(rng, np.zeros(n), np.zeros(n), toward + np.pi + rng.normal(0, 0.4, n), spin, loss[:, 0], tail)
    far = _tail(rng, u0, v0, toward + rng.normal(0, 0.4, n), spin, loss[:, 1], tail)
    # A bridge between the two, and shells: arcs of a third of a turn at two or three radii (Malin & Carter 1983).
    step = np.linspace(0.15, 0.85, 6)[None, :]
    bridge = _pieces(
        step * u0[:, None], step * v0[:, None], toward[:, None] * np.ones_like(step),
        0.14 * distance[:, None] * np.ones_like(step), 0.13 * np.ones((n, 6)),
        _to(np.ones((n, 6)), rng.uniform(0.02, 0.06, n)), -0.2,
    )  # fmt: skip
    shells = _shells(rng, toward, np.where(rng.random(n) < 0.3, rng.uniform(0.03, 0.06, n), 0.0))
    return Pieces.join(second, own, far, bridge, shells)


def dusty(
    weights: Float64,
    variances: Float64,
    axis_ratio: Float64,
    lane: Float64,
    depth: Float64,
    offset: Float64,
    evenness: float,
) -> Pieces:
    """A part of an edge-on galaxy behind a lane of dust: all of its light, and what the dust takes.

    Each Gaussian of the part has its own negative one, narrower along both axes and of less than its height, so that
    the surface brightness stays positive everywhere. The pieces are the whole part.

    Parameters
    ----------
    weights, variances : float64 array, ``[n, k]``
        Mixture of the part.
    axis_ratio : float64 array, ``[n]``
        Of the part.
    lane : float64 array, ``[n]``
        Half-thickness of the lane (one sigma), in units of the half-light radius.
    depth : float64 array, ``[n]``
        Share of the light in r that is lost in the middle of the lane, at most 0.75.
    offset : float64 array, ``[n]``
        Of the lane along the minor axis, in units of its half-thickness, -1 to 1: the galaxy is not quite edge-on.
    evenness : float
        1: the part has one thickness over its length, as discs have (van der Kruit & Searle 1981, A&A 95, 105);
        0: it has one axis ratio, as bulges have.
    """
    mean = np.exp(
        np.sum(weights * np.log(np.maximum(variances, 1e-12)), 1, keepdims=True)
        / np.maximum(weights.sum(1, keepdims=True), 1e-12)  # a part may be absent
    )
    even = np.minimum(mean / variances, 1 / np.square(axis_ratio)[:, None]) ** evenness
    thick = variances * np.square(axis_ratio)[:, None] * even
    narrow = np.minimum(np.square(lane)[:, None], 0.45 * thick)
    # What is thinner than the lane, the heart of a bulge, lies behind it as a whole.
    weights = weights * (1 - depth[:, None] * (1 - narrow / np.square(lane)[:, None]))
    # Dust lies further in than the stars of the disc's rim, its sharp edge is where the lane ends.
    long = 0.8 * variances
    shift = offset[:, None] * np.sqrt(narrow)
    # The most that keeps A exp(-v²/2T) above A d exp(-(v-s)²/2N) everywhere: d = exp(-s²/2(T-N)).
    bound = np.exp(-0.5 * np.square(shift) / (thick - narrow))
    height = depth[:, None] * 0.95 * bound
    lost = -weights * height * np.sqrt(long / variances * narrow / thick)
    zero = np.zeros_like(variances)
    light = Pieces(zero, zero, variances, zero, thick, weights, zero)
    dark = Pieces(zero, shift, long, zero, narrow, lost, zero + _DUST)
    joined = Pieces.join(light, dark)
    return replace(joined, whole=True)


def _pieces(
    u: Float64,
    v: Float64,
    heading: Float64,
    along: Float64,
    across: Float64,
    share: Float64,
    tilt: Float64 | float,
) -> Pieces:
    """Elongated Gaussians: standard deviations along and across a heading (radians from the u axis)."""
    sine, cosine = np.sin(heading), np.cos(heading)
    a, b = np.square(along), np.square(across)
    return Pieces(
        u, v, a * cosine**2 + b * sine**2, (a - b) * sine * cosine, a * sine**2 + b * cosine**2, share,
        np.broadcast_to(np.asarray(tilt, np.float64), share.shape),
    )  # fmt: skip


def _knots(rng: Generator, arms: Pieces, width: Float64, share: Float64, number: int = 18) -> Pieces:
    """HII regions and young clusters, small and blue, strewn along arms."""
    n, p = arms.u.shape
    which = rng.integers(0, p, (n, number))
    rows = np.arange(n)[:, None]
    wide = width[rows, which]
    u = arms.u[rows, which] + rng.normal(0, 0.9, (n, number)) * wide
    v = arms.v[rows, which] + rng.normal(0, 0.9, (n, number)) * wide
    size = np.clip(rng.lognormal(np.log(0.042), 0.3, (n, number)), 0.02, 0.09)
    light = np.minimum(1 / np.maximum(rng.random((n, number)), 0.02), 12.0) * arms.share[rows, which]
    return _pieces(u, v, np.zeros_like(u), size, size, _to(light, share), _KNOT)


def _circle(rng: Generator, radius: Float64, held: Float64, pieces: int) -> Pieces:
    """A patchy ring in the plane, somewhat longer than wide."""
    n = len(radius)
    angle = 2 * np.pi * (np.arange(pieces)[None, :] + rng.random((n, 1))) / pieces
    wide = rng.uniform(0.10, 0.20, n)[:, None] * radius[:, None] * np.ones_like(angle)
    squeeze = rng.uniform(0.85, 1.0, n)[:, None]
    distance = radius[:, None] * (1 + rng.normal(0, 0.02, (n, pieces)))
    along = 0.7 * 2 * np.pi * radius[:, None] / pieces * np.ones_like(angle)
    # Two brighter sides, as crowding of orbits at the ends of a bar makes them, and patches.
    light = rng.lognormal(0, 0.25, (n, pieces)) * (1 + rng.uniform(0, 0.4, (n, 1)) * np.cos(2 * angle))
    turn = rng.uniform(0, np.pi, n)[:, None]
    x, y = distance * np.cos(angle), squeeze * distance * np.sin(angle)
    u, v = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    return _pieces(u, v, angle + turn + np.pi / 2, np.maximum(along, wide), wide, _to(light, held), _RING)


def _tail(
    rng: Generator, u0: Float64, v0: Float64, toward: Float64, spin: Float64, held: Float64, pieces: int
) -> Pieces:
    """A tail that leaves a galaxy and bends away, wider and fainter outwards (Toomre & Toomre 1972, ApJ 178, 623)."""
    n = len(u0)
    reach, bend = rng.uniform(1.6, 4.0, n)[:, None], (spin * rng.uniform(0.8, 2.2, n))[:, None]
    along = (np.arange(pieces)[None, :] + 0.5) / pieces
    heading = toward[:, None] + bend * along
    # The curve whose direction turns evenly along its length.
    u = u0[:, None] + reach * (np.sin(heading) - np.sin(toward)[:, None]) / bend
    v = v0[:, None] - reach * (np.cos(heading) - np.cos(toward)[:, None]) / bend
    wide = rng.uniform(0.12, 0.22, n)[:, None] * (0.7 + 1.3 * along)
    light = (1 - 0.9 * along) * np.minimum(1, 0.4 + 3 * along) * rng.lognormal(0, 0.3, (n, pieces))
    return _pieces(u, v, heading, 1.1 * reach / pieces * np.ones_like(u), wide, _to(light, held), _ARM)


def _shells(rng: Generator, toward: Float64, held: Float64, pieces: int = 10) -> Pieces:
    """Two arcs on opposite sides, at different radii."""
    n = len(toward)
    side = (np.arange(2 * pieces) // pieces)[None, :]
    open_ = rng.uniform(0.5, 1.1, (n, 2))
    radius = np.stack([rng.uniform(1.4, 2.0, n), rng.uniform(2.0, 2.8, n)], 1)
    place = (np.arange(2 * pieces) % pieces + 0.5) / pieces * 2 - 1
    rows = np.arange(n)[:, None]
    angle = toward[:, None] + np.pi * side + open_[rows, side] * place[None, :]
    far = radius[rows, side]
    light = (1 - place[None, :] ** 2) * np.ones_like(angle)
    along = 1.4 * far * open_[rows, side] / pieces
    return _pieces(
        far * np.cos(angle), far * np.sin(angle), angle + np.pi / 2, along, 0.09 * far, _to(light, held), 0.1
    )


def _mirrored(pieces: Pieces, about: Float64, direction: Float64) -> Pieces:
    """Half of the galaxies wind the other way: mirrored about the line at an angle from the u axis."""
    c, s = np.cos(2 * about)[:, None], np.sin(2 * about)[:, None]
    flip = direction < 0
    u, v = c * pieces.u + s * pieces.v, s * pieces.u - c * pieces.v
    a, b, d = pieces.uu, pieces.uv, pieces.vv
    uu = c * c * a + 2 * c * s * b + s * s * d
    vv = s * s * a - 2 * c * s * b + c * c * d
    uv = c * s * a + (s * s - c * c) * b - c * s * d
    return Pieces(
        np.where(flip, u, pieces.u), np.where(flip, v, pieces.v), np.where(flip, uu, a), np.where(flip, uv, b),
        np.where(flip, vv, d), pieces.share, pieces.tilt,
    )  # fmt: skip


def _scaled(pieces: Pieces, factor: Float64) -> Pieces:
    """The same pieces with another share of the light."""
    return Pieces(pieces.u, pieces.v, pieces.uu, pieces.uv, pieces.vv, pieces.share * factor, pieces.tilt)


def _to(light: Float64, held: Float64) -> Float64:
    """Light scaled to a sum, galaxy by galaxy."""
    scaled: Float64 = light * (held / light.sum(1))[:, None]
    return scaled


def _by_arm(values: Float64, arm: NDArray[np.int64]) -> Float64:
    """The value of each piece's arm, from ``[n, arms]``."""
    picked: Float64 = np.take_along_axis(values, arm, 1)
    return picked
