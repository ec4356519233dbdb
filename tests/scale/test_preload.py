"""The practice tile goes through every step, or it would load nothing."""

from __future__ import annotations

from imcat.config import Config
from imcat.pipeline import process_tile
from imcat.scale.executor import _PRELOAD
from imcat.scale.preload import practice_tile


def test_the_practice_tile_is_measured_in_both_bands() -> None:
    result = process_tile(practice_tile(), Config(), threads=1)
    assert result.counts["sources"] > 40  # 36 stars, and a neighbour to a third of them
    assert {"g_kron_flux", "r_kron_flux"} <= set(result.catalogue.columns)
    assert result.catalogue["r_kron_flux"].max() > 0


def test_workers_are_forked_after_it() -> None:
    assert "imcat.scale.preload" in _PRELOAD
