"""Errors that speak to the person at the terminal.

Every error that imcat raises on purpose is an `ImcatError`; the command line
prints it as the one line ``error: ...``. Its text says what was found, where,
what is expected and what to do.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "ConfigError",
    "DependencyError",
    "ImcatError",
    "InputError",
    "OutputError",
    "QueryError",
    "SchemaError",
    "UsageError",
]


class ImcatError(Exception):
    """Base class of every error raised on purpose."""


class InputError(ImcatError):
    """A file that cannot be used.

    Parameters
    ----------
    found : str
        What is wrong, in a few words ("the file is truncated").
    path : path, optional
        The file.
    hdu : int or str, optional
        The header-data unit inside the file.
    expected : str, optional
        What would have been right.
    hint : str, optional
        What to do about it.
    """

    def __init__(
        self,
        found: str,
        *,
        path: str | Path | None = None,
        hdu: int | str | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.found = found
        self.path = None if path is None else str(path)
        self.hdu = hdu
        self.expected = expected
        self.hint = hint
        super().__init__(found)

    def __str__(self) -> str:
        where = self.path or ""
        if self.hdu is not None:
            where += f"[{self.hdu}]"
        text = f"{where}: {self.found}" if where else self.found
        if self.expected:
            text += f"; expected {self.expected}"
        if self.hint:
            text += f"; {self.hint}"
        return " ".join(text.split())

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling of
        # exceptions, and these cross process boundaries.
        state = {"path": self.path, "hdu": self.hdu, "expected": self.expected, "hint": self.hint}
        return (_rebuild_input_error, (type(self), self.found, state))


def _rebuild_input_error(cls: type[InputError], found: str, state: dict[str, str]) -> InputError:
    return cls(found, **state)  # type: ignore[arg-type]


class ConfigError(ImcatError):
    """A configuration that names an unknown or impossible setting."""


class UsageError(ImcatError):
    """A command line that asks for something impossible."""


class OutputError(ImcatError):
    """An output that cannot be written, or belongs to another run."""


class QueryError(ImcatError):
    """A query that the database refuses."""


class SchemaError(ImcatError):
    """A table that does not follow the schema."""


class DependencyError(ImcatError):
    """An optional package is missing.

    Parameters
    ----------
    package : str
        Name of the package that could not be imported.
    extra : str
        The extra of imcat that brings it.
    purpose : str
        What it is needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra, self.purpose = package, extra, purpose
        super().__init__(package, extra, purpose)

    def __str__(self) -> str:
        return (
            f"{self.purpose} needs the package {self.package}, which is not installed; "
            f"install it with: pip install 'imcat[{self.extra}]'"
        )
