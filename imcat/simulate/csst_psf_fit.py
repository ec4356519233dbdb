"""Fit Gaussians to the packaged images of CSST's PSF: ``python -m imcat.simulate.csst_psf_fit FILE``.

The numbers are packaged, and not fitted where they are needed: the search ends after some steps, and where it ends differs with
the order in which a processor sums, by some tenths of a per cent of the light in the wings. Simulated tiles are to be the same
on all machines. The packaged numbers are those of a processor with vectors of 256 bits, as those were that all training tiles were
made on; one with wider vectors finds them with these switched off (``OPENBLAS_CORETYPE=Haswell
NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR"``, to the last digit).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from imcat.catalogue.files import atomic_path
from imcat.psf.mixture import PsfMixture, fit_mixture
from imcat.surveys.csst_constants import BANDS
from imcat.surveys.curves import psf_image

__all__ = ["fit_band", "mixture_text"]

_REACH = 24  # samples around the centre that are fitted
_COMPONENTS = 5
_HEAD = """\
# Gaussians of CSST's packaged PSFs, from core to wing: shares of the light, and covariances (xx, xy, yy) in pixels squared, the
# pixel included, for pixels in two parts along each axis. Written by: python -m imcat.simulate.csst_psf_fit FILE
"""


def fit_band(band: str) -> PsfMixture:
    """Gaussians of the PSF of one of CSST's bands."""
    image = psf_image("csst", band)
    middle = image.shape[0] // 2
    part = image[middle - _REACH : middle + _REACH, middle - _REACH : middle + _REACH]
    return fit_mixture(part, subpixels=2, components=_COMPONENTS)


def mixture_text(mixtures: Mapping[str, PsfMixture]) -> str:
    """TOML of mixtures by band, with all digits."""
    lines = [_HEAD]
    for band, psf in mixtures.items():
        rows = ", ".join(str([float(v) for v in row]) for row in psf.covariances)
        lines.append(f"[{band}]\nweights = {[float(w) for w in psf.weights]}\ncovariances = [{rows}]\n")
    return "\n".join(lines)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="that is written")
    given = parser.parse_args()
    with atomic_path(given.file) as temporary:
        temporary.write_text(mixture_text({band: fit_band(band) for band in BANDS}), encoding="utf-8")


if __name__ == "__main__":
    _main()
