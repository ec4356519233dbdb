"""GalSim draws the same 500 random stars and galaxies."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


def _load() -> ModuleType:
    """What the benchmark prints and this test demands is computed in one place."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "galsim_oracle.py"
    spec = spec_from_file_location("galsim_oracle", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("camera", "number", "measured"), [("SDSS", 350, 1.0), ("CSST", 150, 0.7)])
def test_images_are_those_of_galsim(camera: str, number: int, measured: float) -> None:
    oracle = _load()
    found = oracle.compare(getattr(oracle, camera), number, seed=number)
    assert np.abs(found.flux).max() < 0.003
    assert found.pixel.max() < 0.01
    assert not found.lost.any()
    # Sources as narrow as a pixel have no adaptive moments in either image.
    assert np.isfinite(found.sigma).mean() >= measured
    for deviation in (found.sigma, found.e1, found.e2):
        assert np.nanmax(np.abs(deviation)) < 0.01
