"""Metrics, reports and the overview figure: how good a catalogue is, and what it looks like."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imcat.evaluate.overview import Preview, draw_overview, make_preview
    from imcat.evaluate.report import evaluate_catalogue
    from imcat.evaluate.truth import Truth, read_truth

__all__ = ["Preview", "Truth", "draw_overview", "evaluate_catalogue", "make_preview", "read_truth"]

# A run needs the preview only, and must start fast: the rest is imported when asked for.
_HOME = {
    "Preview": "overview",
    "draw_overview": "overview",
    "make_preview": "overview",
    "evaluate_catalogue": "report",
    "Truth": "truth",
    "read_truth": "truth",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"imcat.evaluate.{_HOME[name]}"), name)
