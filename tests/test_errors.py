"""Errors: their texts, and their way between processes."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from imcat import errors
from imcat.errors import (
    ConfigError,
    DependencyError,
    ImcatError,
    InputError,
    OutputError,
    QueryError,
    SchemaError,
    UsageError,
)

PLAIN = [ImcatError, ConfigError, UsageError, OutputError, QueryError, SchemaError]
EXAMPLES = [
    *(kind("the text") for kind in PLAIN),
    InputError("it is truncated"),
    InputError("it is truncated", path="a.fits", hdu="SCI", expected="2 MB", hint="copy it again"),
    DependencyError("duckdb", "all", "imcat query"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_errors_travel_between_processes(error: ImcatError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(error, protocol))
        assert type(back) is type(error)
        assert str(back) == str(error)
        assert vars(back) == vars(error)
    assert str(copy.deepcopy(error)) == str(error)


def test_every_error_is_among_the_examples() -> None:
    declared = {
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
    }
    assert declared == {type(error) for error in EXAMPLES}
    assert {kind.__name__ for kind in declared} == set(errors.__all__)
    assert all(issubclass(kind, ImcatError) for kind in declared)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_text_is_one_line(error: ImcatError) -> None:
    assert str(error)
    assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({}, "cut short"),
        ({"path": "a.fits"}, "a.fits: cut short"),
        ({"path": "a.fits", "hdu": 0}, "a.fits[0]: cut short"),
        ({"path": "a.fits", "hdu": "SCI"}, "a.fits[SCI]: cut short"),
        ({"expected": "2 MB"}, "cut short; expected 2 MB"),
        ({"hint": "copy it again"}, "cut short; copy it again"),
        (
            {"path": "a.fits", "hdu": 1, "expected": "2 MB", "hint": "copy it again"},
            "a.fits[1]: cut short; expected 2 MB; copy it again",
        ),
    ],
)
def test_text_of_an_input_error(keywords: dict[str, str | int], text: str) -> None:
    assert str(InputError("cut short", **keywords)) == text  # type: ignore[arg-type]


def test_line_breaks_of_others_do_not_break_the_line() -> None:
    error = InputError("wcslib says:\n   ERROR 5\n\tin file", path="a.fits", hint="look\nthere")
    assert str(error) == "a.fits: wcslib says: ERROR 5 in file; look there"


def test_kinds_that_inherit_survive_too() -> None:
    back = pickle.loads(pickle.dumps(_Special("x", path="b.fits")))
    assert type(back) is _Special
    assert str(back) == "b.fits: x"


class _Special(InputError):
    """An error of a reader."""


def test_missing_package_says_how_to_get_it() -> None:
    assert str(DependencyError("duckdb", "all", "imcat query")) == (
        "imcat query needs the package duckdb, which is not installed; install it with: pip install 'imcat[all]'"
    )
