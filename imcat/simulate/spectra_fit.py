"""The recipe of ``weights/spectra.safetensors``: template spectra and SDSS filter curves from packages.

``python -m imcat.simulate.spectra_fit -o weights`` builds the file and its card from the packages
frankenz (galaxies of Brown et al. 2014), Barak (stars of Pickles 1998 and of SDSS, quasar composites) and
speclite (filters of Doi et al. 2010); with ``--check`` the real tables are compared to the templates
(`imcat.simulate.spectra_check`) and the numbers go to the card. The same packages give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.files import atomic_path
from imcat.errors import DependencyError, InputError
from imcat.simulate.spectra_file import FORMAT_VERSION, GRID_STEP, grid_wavelengths

__all__ = ["build", "main"]

Float64 = NDArray[np.float64]

_BARAK = "Barak-0.3.2"
_FLOOR = 25.0  # mag below the mean of the optical: no flux
_OPTICAL = (5000.0, 7000.0)  # Å, where a template has the magnitude 0
_SDSS_STARS = ("starM8", "starL1", "starWD", "starBWD")
# Which star continues them: of the same molecules, or without a Balmer jump.
_CONTINUED = {"starM8": "M5V", "starL1": "M5V", "starWD": "O5V", "starBWD": "O5V"}
# Steps between M dwarfs: the warmer, the cooler, the share of the cooler in the logarithm of flux.
_BETWEEN = (
    ("M0V", "M2V", 0.5),
    ("M2V", "M4V", 0.33),
    ("M2V", "M4V", 0.67),
    ("M5V", "M8V", 0.33),
    ("M5V", "M8V", 0.67),
)
_METAL_POOR = ("F5V", "F6V", "F8V", "G0V", "G2V", "G5V", "G8V", "K0V")
_POORER = 2.0  # power of the step from solar to half solar metallicity
# Bins fainter than this share of a star's brightest are noise: the UV of cool stars.
_NOISE = 3e-6

# Quasars. Composites join where both are good and free of strong lines (Å).
_JOIN_UV, _JOIN_RED = (1290.0, 1330.0), (6800.0, 7400.0)
# Free of lines: the continuum of Vanden Berk et al. (2001, AJ 122, 549, section 4.1) in the optical and, in the
# far ultraviolet, of Shull, Stevans & Danforth (2012, ApJ 752, 162).
_CONTINUUM_WINDOWS = ((560.0, 580.0), (1090.0, 1105.0), (1350.0, 1370.0), (4200.0, 4230.0), (7000.0, 7400.0))
# The spread of real quasars about the composite: slopes (power of frequency; the dispersion is 0.3, Richards
# et al. 2003, AJ 126, 1131), strength of the lines, dust like that of the Small Magellanic Cloud.
_SLOPES = (-0.35, -0.15, 0.05, 0.25)
_LINES = (0.6, 1.0, 1.6)
_REDDENING = (0.04, 0.08, 0.14, 0.25)
_HOSTS = ("NGC_4552", "NGC_3521")  # an elliptical and a spiral galaxy around the nucleus
_HOST_SHARE = (0.3, 0.6)  # of the light at 5100 Å


def build(barak: Path) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]], dict[str, Any]]:
    """Templates, their names, and the facts of the card.

    Parameters
    ----------
    barak : path
        The unpacked source package Barak.
    """
    galaxies = dict(_galaxies())
    stars = dict(_stars(barak))
    quasars = dict(_quasars(barak, {name: galaxies[f"brown-{name}"] for name in _HOSTS}))
    arrays: dict[str, NDArray[Any]] = {}
    names: dict[str, list[str]] = {}
    for kind, spectra in (("star", stars), ("galaxy", galaxies), ("quasar", quasars)):
        names[kind] = list(spectra)
        arrays[f"template.{kind}"] = np.array([_magnitudes(s) for s in spectra.values()], np.float16)
    for band in "ugriz":
        arrays[f"filter.{band}"] = _sdss_curve(band)
    return arrays, names, {f"n_{kind}": len(listed) for kind, listed in names.items()}


def _magnitudes(f_nu: Float64) -> Float64:
    """``-2.5 log10 f_nu`` with 0 in the optical, on the grid."""
    out: Float64 = -2.5 * np.log10(np.maximum(_scaled(f_nu), 10 ** (-0.4 * _FLOOR)))
    return out


def _bin(wavelength: Float64, f_lambda: Float64) -> Float64:
    """f_nu averaged over the bins of the grid; NaN where the spectrum does not cover a bin."""
    grid = grid_wavelengths()
    edges = np.append(grid * np.exp(-GRID_STEP / 2), grid[-1] * np.exp(GRID_STEP / 2))
    good = np.isfinite(f_lambda)
    wavelength, f_lambda = wavelength[good], f_lambda[good]
    knots = np.union1d(edges, wavelength)
    f_nu = np.interp(knots, wavelength, f_lambda) * knots**2
    area = np.concatenate([[0.0], np.cumsum(np.diff(np.log(knots)) * (f_nu[1:] + f_nu[:-1]) / 2)])
    mean: Float64 = np.diff(np.interp(edges, knots, area)) / GRID_STEP
    mean[(edges[:-1] < wavelength[0]) | (edges[1:] > wavelength[-1])] = np.nan
    return mean


def _galaxies() -> Iterator[tuple[str, Float64]]:
    """The 129 nearby galaxies of Brown et al. (2014), from early to late types."""
    try:
        import frankenz
    except ImportError:
        raise DependencyError("frankenz", "dev", "the recipe of the galaxy spectra") from None

    folder = Path(str(frankenz.__file__)).parent / "seds"
    for line in (folder / "BROWN.list").read_text().splitlines():
        name, path = line.split()[1], line.split()[3]
        f_nu = _bin(*np.loadtxt(folder / path, unpack=True))
        yield f"brown-{name}", _fill_ends(f_nu, np.isfinite(f_nu) & (f_nu > 0), _flat)


def _stars(barak: Path) -> Iterator[tuple[str, Float64]]:
    """Dwarfs, subgiants and giants of Pickles (1998), and what he lacks.

    Lacking are: late M and L dwarfs and white dwarfs (SDSS), steps between M dwarfs, whose colours change
    fast, and the metal-poor dwarfs of the halo. Supergiants, bright giants and M giants are left out: those of
    the Milky Way are brighter than any image of a deep survey can show.
    """
    from astropy.io import fits

    folder = barak / "barak" / "data" / "templates"
    pickles = {}
    for path in sorted((folder / "pickles").glob("*.fits")):
        if re.search(r"\dI{1,2}$|^M\d+III$", path.stem):
            continue
        table = fits.getdata(path)
        f_nu = _bin(table["wa"].astype(np.float64), table["fl"].astype(np.float64))
        pickles[path.stem] = _fill_ends(f_nu, f_nu > _NOISE * np.nanmax(f_nu), _wien)
    sdss = {}
    for name in _SDSS_STARS:
        table = fits.getdata(folder / "sdss" / f"{name}.fits")
        f_nu = _bin(table["wa"].astype(np.float64), table["fl"].astype(np.float64))
        sdss[name] = _continue_with(f_nu, pickles[_CONTINUED[name]], cool=_CONTINUED[name].startswith("M"))
    yield from ((f"pickles-{name}", spectrum) for name, spectrum in pickles.items())
    yield from ((f"sdss-{name}", spectrum) for name, spectrum in sdss.items())
    cool = {name: pickles[name] for name in ("M0V", "M2V", "M4V", "M5V")} | {"M8V": sdss["starM8"]}
    for warm, cold, share in _BETWEEN:
        between = (1 - share) * np.log(_scaled(cool[warm])) + share * np.log(_scaled(cool[cold]))
        yield f"between-{warm}-{cold}-{share:.2f}", np.exp(between)
    poor = _metal_poor(pickles["wF5V"], pickles["F5V"])
    yield from ((f"poor-{name}", pickles[name] * poor) for name in _METAL_POOR)


def _metal_poor(weak: Float64, solar: Float64) -> Float64:
    """Factor that turns a dwarf of solar metallicity into one of the halo.

    What the lines take away from a star of half the solar metallicity and do not, squared, in the ultraviolet.
    """
    wave = grid_wavelengths()
    gain = np.clip(2.5 * np.log10(_scaled(weak) / _scaled(solar)), -0.1, 0.6)
    lines = (wave > 2000) & (wave < 4300)  # both spectra are well measured here
    gain[wave <= 2000] = np.median(gain[(wave > 2000) & (wave < 2600)])
    gain[wave >= 4300] = 0.0
    gain[lines] = np.convolve(np.pad(gain[lines], 2, mode="edge"), np.full(5, 0.2), mode="valid")
    out: Float64 = 10 ** (0.4 * _POORER * gain)
    return out


def _scaled(f_nu: Float64) -> Float64:
    """A spectrum with the mean 1 in the optical."""
    wave = grid_wavelengths()
    out: Float64 = f_nu / f_nu[(wave > _OPTICAL[0]) & (wave < _OPTICAL[1])].mean()
    return out


def _flat(wave: Float64, log_f: Float64, to: Float64) -> Float64:
    """Constant beyond the end."""
    nearest = np.argmin(np.abs(wave - to.mean()))
    return np.full(len(to), log_f[nearest])


def _wien(wave: Float64, log_f: Float64, to: Float64) -> Float64:
    """Logarithm of flux linear in 1 / wavelength, as of a black body far from its peak."""
    end = np.argmin(np.abs(wave - to.mean()))
    near = np.abs(np.log(wave / wave[end])) < np.log(1.25)
    slope, _ = np.polyfit(1 / wave[near], log_f[near], 1)
    blue = to.mean() < wave[end]
    slope = min(slope, 0.0) if blue else slope  # no rise into the ultraviolet
    out: Float64 = log_f[near].mean() + slope * (1 / to - (1 / wave[near]).mean())
    return out


def _fill_ends(
    f_nu: Float64, good: NDArray[np.bool_], law: Callable[[Float64, Float64, Float64], Float64]
) -> Float64:
    """Spectrum without gaps: beyond the last good bins of both ends by a law, single bins interpolated."""
    wave = grid_wavelengths()
    optical = (wave > _OPTICAL[0]) & (wave < _OPTICAL[1])
    bad_blue = np.flatnonzero(~good & (wave < wave[optical][0]))
    bad_red = np.flatnonzero(~good & (wave > wave[optical][-1]))
    first = bad_blue[-1] + 1 if len(bad_blue) else 0
    last = bad_red[0] if len(bad_red) else len(wave)
    log_f = np.empty(len(wave))
    log_f[first:last] = np.log(f_nu[first:last])
    inside = wave[first:last], log_f[first:last]
    if first:
        log_f[:first] = law(*inside, wave[:first])
    if last < len(wave):
        log_f[last:] = law(*inside, wave[last:])
    return np.exp(np.clip(log_f, -700, 700))


def _continue_with(f_nu: Float64, reference: Float64, *, cool: bool) -> Float64:
    """An SDSS spectrum (3820-9200 Å) continued by another star's.

    Times ``exp(a + b / λ)`` fitted where both are known, the ratio of two black bodies far from their
    peaks; for cool stars, which are noise there, by a constant factor blueward of 6500 Å.
    """
    wave = grid_wavelengths()
    valid = (wave > (6500.0 if cool else 3850.0)) & (wave < 9150) & np.isfinite(f_nu)
    ratio = np.log(f_nu[valid] / reference[valid])
    slope, _ = np.polyfit(1 / wave[valid], ratio, 1)
    first, last = np.flatnonzero(valid)[[0, -1]]
    end = slice(-8, None)  # bins that set the level at an end
    out = reference.copy()
    out[last:] *= np.exp(ratio[end].mean() + slope * (1 / wave[last:] - np.mean(1 / wave[valid][end])))
    tilt = 0.0 if cool else slope
    out[:first] *= np.exp(ratio[:8].mean() + tilt * (1 / wave[:first] - np.mean(1 / wave[valid][:8])))
    out[valid] = f_nu[valid]
    return out


def _quasars(barak: Path, hosts: dict[str, Float64]) -> Iterator[tuple[str, Float64]]:
    """Variants of a composite that is free of absorption by the intergalactic medium.

    Far ultraviolet: Shull et al. (2012); to 7000 Å the SDSS composite; beyond, the mean AGN of Assef et al.
    (2010). The lines, the iron and Balmer continua are what lies above straight lines between windows.
    """
    import astropy.units as u
    from astropy.io import fits
    from dust_extinction.averages import G03_SMCBar

    folder = barak / "barak" / "data" / "templates"
    wave = grid_wavelengths()

    def read(name: str) -> Float64:
        table = fits.getdata(folder / name)
        return _bin(table["wa"].astype(np.float64), table["fl"].astype(np.float64))

    composite = _join(read("qso/Shull_composite.fits"), read("qso/dr1QSOspec.fits"), _JOIN_UV)
    composite = _join(composite, read("Assef10/AGN.fits"), _JOIN_RED)
    centres = [np.sqrt(a * b) for a, b in _CONTINUUM_WINDOWS]
    levels = [np.log(composite[(wave > a) & (wave < b)].mean()) for a, b in _CONTINUUM_WINDOWS]
    continuum = np.exp(np.interp(np.log(wave), np.log(centres), levels))
    red = wave > centres[-1]
    continuum[red] = composite[red]
    excess = composite - continuum
    for slope in _SLOPES:
        tilt = (wave / 2500.0) ** -slope
        for strength in _LINES:
            yield f"quasar-slope{slope:+.2f}-lines{strength:.1f}", (continuum + strength * excess) * tilt
    law = G03_SMCBar()
    in_range = np.clip(wave, 1001.0, None) * u.AA
    for ebv in _REDDENING:
        yield f"quasar-smc{ebv:.2f}", composite * np.asarray(law.extinguish(in_range, Ebv=ebv))
    at = np.argmin(np.abs(wave - 5100.0))
    for name, host in hosts.items():
        for share in _HOST_SHARE:
            mixed = composite / composite[at] * (1 - share) + host / host[at] * share
            yield f"quasar-host-{name}-{share:.1f}", mixed


def _join(blue: Float64, red: Float64, window: tuple[float, float]) -> Float64:
    """Two spectra scaled to each other in a window and joined in its middle; the red one gives the level."""
    wave = grid_wavelengths()
    both = (wave > window[0]) & (wave < window[1])
    out = red.copy()
    before = wave < np.sqrt(window[0] * window[1])
    out[before] = blue[before] * (red[both].mean() / blue[both].mean())
    # A composite that starts after the grid's first point: constant.
    missing = np.flatnonzero(~np.isfinite(out))
    out[missing] = np.interp(missing, np.flatnonzero(np.isfinite(out)), out[np.isfinite(out)])
    return out


def _sdss_curve(band: str) -> NDArray[np.float32]:
    """Wavelength and response of Doi et al. (2010, AJ 139, 1628), table 4, ``[2, n]``."""
    try:
        from speclite import filters
    except ImportError:
        raise DependencyError("speclite", "dev", "the recipe of the SDSS filter curves") from None

    curve = filters.load_filter(f"sdss2010-{band}")
    return np.array([curve.wavelength, curve.response], np.float32)


@contextmanager
def _barak_source(folder: Path | None) -> Iterator[Path]:
    """The unpacked source package; it cannot be installed with a Python of today, its data can be read."""
    if folder is not None:
        if not (folder / "barak" / "data" / "templates").is_dir():
            raise InputError("no templates in there", path=folder, expected=f"the unpacked package {_BARAK}")
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        name, version = _BARAK.split("-")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        done = subprocess.run([*command, "-d", place, f"{name}=={version}"], capture_output=True, text=True)
        archive = Path(place) / f"{_BARAK}.tar.gz"
        if done.returncode or not archive.exists():
            raise InputError(
                f"the package {_BARAK} cannot be downloaded",
                hint="unpack its source archive and give the folder with --barak",
            )
        with tarfile.open(archive) as tar:
            tar.extractall(place, filter="data")
        yield Path(place) / _BARAK


_CARD = """\
# Card of spectra.safetensors: template spectra of stars, galaxies and quasars, and the SDSS filters.
name = "spectra"
format = {version}
sha256 = "{sha256}"
recipe = "python -m imcat.simulate.spectra_fit -o weights --check"
packages = {packages}
grid = "wavelengths 560 to 25600 Å at rest, resolving power 250; AB magnitude per unit frequency, zero at 5000-7000 Å"
n_star = {n_star}
n_galaxy = {n_galaxy}
n_quasar = {n_quasar}

[[origin]]
what = "galaxies: 129 spectra of nearby galaxies, 0.1-2.5 µm"
paper = "Brown et al. 2014, ApJS 212, 18"
package = "frankenz"
licence = "package: MIT; the atlas is published without a licence of its own"

[[origin]]
what = "stars: 58 dwarfs, subgiants and giants, 1150 Å to 2.5 µm; 5 M dwarfs between them; 8 metal-poor variants"
paper = "Pickles 1998, PASP 110, 863 (UVKLIB)"
package = "Barak"
licence = "package: BSD-3-Clause; the library is published without a licence of its own"

[[origin]]
what = "stars: M8 and L1 dwarf, two white dwarfs, 3820-9200 Å; continued by those of Pickles"
paper = "Sloan Digital Sky Survey, spectral templates of public data releases"
package = "Barak"
licence = "package: BSD-3-Clause; SDSS data are public domain for use with acknowledgement"

[[origin]]
what = "quasars: composites, varied in slope, strength of lines, dust and host galaxy"
paper = "Shull, Stevans & Danforth 2012, ApJ 752, 162; SDSS DR1 composite (Vanden Berk et al. 2001, AJ 122, 549); Assef et al. 2010, ApJ 713, 970"
package = "Barak"
licence = "package: BSD-3-Clause; the composites are published without a licence of their own"

[[origin]]
what = "SDSS filters u, g, r, i, z at 1.3 airmasses"
paper = "Doi et al. 2010, AJ 139, 1628, table 4"
package = "speclite"
licence = "package: BSD-3-Clause"

[known_failures]
ultraviolet = "Below 3000 Å only the template speaks: the ultraviolet of active cool stars is too faint, that of metal-poor stars an extrapolation from half the solar metallicity."
cool_stars = "Beyond M5 and for white dwarfs the spectra beyond 9200 Å and below 6500 Å (3850 Å) follow other stars."
lines = "Lyman α emission of galaxies is absent, emission lines as in nearby galaxies; broad absorption lines of quasars are absent."
forest = "The intergalactic medium is a mean over lines of sight (Inoue et al. 2014)."
narrow = "Filters narrower than 100 Å see the resolving power of 250 and redshifts interpolated in steps of 0.012 (1 + z)."
"""


def write(folder: Path, barak: Path) -> Path:
    """Build the file and its card without metrics."""
    from importlib.metadata import version

    from safetensors.numpy import save

    arrays, names, counts = build(barak)
    data = save(arrays, metadata={"names": json.dumps(names)})
    packages = [
        f"frankenz {version('frankenz')}",
        _BARAK.replace("-", " "),
        f"speclite {version('speclite')}",
    ]
    card = _CARD.format(
        version=FORMAT_VERSION,
        sha256=hashlib.sha256(data).hexdigest(),
        packages=json.dumps(packages),
        **counts,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "spectra.safetensors") as path:
        path.write_bytes(data)
    with atomic_path(folder / "spectra.toml") as path:
        path.write_text(card, encoding="utf-8")
    return folder / "spectra.safetensors"


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m imcat.simulate.spectra_fit", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="folder to write the file and its card to")
    parser.add_argument("--barak", type=Path, help=f"folder of the unpacked package {_BARAK}")
    parser.add_argument("--check", action="store_true", help="compare with the real tables")
    options = parser.parse_args(arguments)
    if options.output is not None:
        with _barak_source(options.barak) as barak:
            path = write(options.output, barak)
        print(f"{path}: {path.stat().st_size / 1024:.0f} kB")
    if options.check:
        from imcat.simulate.spectra_check import check, metrics_table, write_metrics

        metrics = check(options.output)
        print(metrics_table(metrics))
        if options.output is not None:
            write_metrics(metrics, options.output / "spectra.toml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
