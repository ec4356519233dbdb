"""Parts of the documentation that are generated from the package when it is built.

The directive ``.. imcat-generated:: NAME`` puts in the reStructuredText that the function registered under NAME
returns, so a page can never fall behind the code. Each function is plain text in, plain text out, and is tested alone.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))
from bench_results import Result, number, read_results

__all__ = ["GENERATORS", "setup"]

ROOT = Path(__file__).resolve().parents[2]
_WIDEST = 12  # columns of a table of results
GENERATORS: dict[str, Callable[[], str]] = {}


def generator(name: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Register a function under the name by which pages call it."""

    def register(function: Callable[[], str]) -> Callable[[], str]:
        if name in GENERATORS:
            raise ValueError(f"two generators are called {name!r}")
        GENERATORS[name] = function
        return function

    return register


def list_table(header: Sequence[str], rows: Iterable[Sequence[str]], widths: str = "auto") -> str:
    """Write a ``list-table``; empty cells are allowed."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in [header, *rows]:
        for k, cell in enumerate(row):
            lines.append(f"   {'* -' if k == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines) + "\n"


@generator("source-flags")
def source_flags() -> str:
    """Bits of the columns ``flags`` and ``{b}_flags``."""
    from imcat.flags import SOURCE_FLAGS

    return _flag_table(SOURCE_FLAGS)


@generator("pixel-flags")
def pixel_flags() -> str:
    """Bits of a mask image."""
    from imcat.flags import PIXEL_FLAGS

    return _flag_table(PIXEL_FLAGS)


def _flag_table(table: Iterable[Any]) -> str:
    return list_table(
        ["Value", "Name", "Meaning"],
        [[str(info.value), f"``{info.name}``", _text(info.description)] for info in table],
    )


@generator("columns")
def columns() -> str:
    """Every column of the schema."""
    from imcat.schema import COLUMNS

    rows = [
        [
            f"``{c.name}``",
            c.dtype,
            c.unit,
            c.ucd and f"``{c.ucd}``",
            _text(c.description),
            "yes" if c.required else "",
        ]
        for c in COLUMNS
    ]
    return list_table(["Name", "Type", "Unit", "UCD", "What it is", "Always"], rows)


@generator("settings")
def settings() -> str:
    """Every setting, a section for each table of the TOML file."""
    from imcat.config import Config

    tables: dict[str, list[Any]] = {}
    for info in Config.describe():
        tables.setdefault(info.table, []).append(info)
    parts = []
    for name, infos in tables.items():
        title = f"``[{name}]``" if name else "Top level"
        parts.append(f"{title}\n{'-' * len(title)}\n\n" + _settings_table(infos))
    return "\n".join(parts)


@generator("simulate-settings")
def simulate_settings() -> str:
    """Every setting of the simulator."""
    from imcat.config import describe_simulate_settings

    return _settings_table(describe_simulate_settings())


def _settings_table(infos: Iterable[Any]) -> str:
    rows = [
        [f"``{i.name}``", i.type, f"``{i.default}``" if i.default else "absent", _text(i.description)]
        for i in infos
    ]
    return list_table(["Keyword", "Type", "Default", "Meaning"], rows)


@generator("truth-columns")
def truth_columns() -> str:
    """Every column of a truth table."""
    from imcat.simulate.truth import TRUTH_COLUMNS

    return _truth_table(TRUTH_COLUMNS)


@generator("augmented-columns")
def augmented_columns() -> str:
    """Columns that the truth of an augmented tile has besides."""
    from imcat.augment.assembly_truth import AUGMENTED_COLUMNS

    return _truth_table(AUGMENTED_COLUMNS)


def _truth_table(columns: Iterable[Any]) -> str:
    rows = [
        [f"``{c.name}``", c.dtype, c.unit, c.ucd and f"``{c.ucd}``", _text(c.description)] for c in columns
    ]
    return list_table(["Name", "Type", "Unit", "UCD", "What it is"], rows)


@generator("cards")
def cards() -> str:
    """What the cards of the weights say, a section for each."""
    parts = []
    for path in sorted((ROOT / "weights").glob("*.toml")):
        parts.append(f"{path.stem}\n{'~' * len(path.stem)}\n\n" + _literal(path.read_text(encoding="utf-8")))
    return "\n".join(parts)


@generator("realism")
def realism() -> str:
    """The newest report on realism that was committed."""
    path = ROOT / "benchmarks" / "results" / "realism.md"
    if not path.exists():
        return "No report was committed yet.\n"
    return _literal(path.read_text(encoding="utf-8"))


@generator("commands")
def commands() -> str:
    """Take down what ``--help`` says, for the program and each of its commands."""
    overview = help_text([])
    parts = [_literal(overview)]
    for name in command_names():
        title = f"imcat {name}"
        parts.append(f"{title}\n{'-' * len(title)}\n\n" + _literal(help_text(name.split())))
    return "\n".join(parts)


def command_names() -> list[str]:
    """Names of the commands, in the order of the program's help; those of a group follow it."""
    from imcat import cli

    names = []
    for name, command in cli.COMMANDS.items():
        names += [name, *(f"{name} {below}" for below in getattr(command, "commands", ()))]
    return names


def help_text(command: Sequence[str]) -> str:
    """Take down what the command line prints for ``--help``, without colours and 96 columns wide."""
    from imcat.cli import main

    out = io.StringIO()
    plain = {"COLUMNS": "96", "NO_COLOR": "1", "TERM": "dumb", "TERMINAL_WIDTH": "96"}
    with mock.patch.dict(os.environ, plain), contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return out.getvalue().strip("\n")


@generator("benchmarks")
def benchmarks() -> str:
    """Results of the last ``make bench`` that was committed, a section for each benchmark."""
    parts = [_benchmark(result) for result in read_results()]
    return "\n".join(parts) or "No result is committed.\n"


def _benchmark(result: Result) -> str:
    parts = [
        f"{result.title}\n{'-' * len(result.title)}\n\n``benchmarks/{result.name}.py``: {_text(result.made_with)}.\n"
    ]
    for title, rows in result.tables.items():
        quantities = list(dict.fromkeys(q for row in rows.values() for q in row))
        if len(quantities) > _WIDEST:  # a page is narrow: quantities below each other
            cells = [
                [_text(q.replace("_", " ")), *(number(row.get(q, "")) for row in rows.values())]
                for q in quantities
            ]
            parts.append(list_table([_text(title.replace("_", " ")), *map(_text, rows)], cells))
            continue
        cells = [[_text(name), *(number(row.get(q, "")) for q in quantities)] for name, row in rows.items()]
        parts.append(
            list_table(
                [_text(title.replace("_", " ")), *(_text(q.replace("_", " ")) for q in quantities)], cells
            )
        )
    if result.verdicts:
        cells = [
            [_text(v["what"]), number(v["value"]), _text(v["target"]), "yes" if v["reached"] else "**no**"]
            for v in result.verdicts
        ]
        parts.append(list_table(["Quantity", "imcat", "Target", "Reached"], cells))
    return "\n".join(parts)


@generator("changes")
def changes() -> str:
    """CHANGELOG.md, whose title the page has already."""
    lines = []
    for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()[1:]:
        if line.startswith("## "):
            lines += [line[3:], "-" * len(line[3:])]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


@generator("format-sdss")
def format_sdss() -> str:
    """How SDSS frames are read: the words of the module that reads them."""
    return _module_text("imcat.surveys.sdss")


@generator("format-csst")
def format_csst() -> str:
    """How CSST level 1 is read: the words of the module that reads it."""
    return _module_text("imcat.surveys.csst")


def _module_text(name: str) -> str:
    """Return the docstring of a module; its section titles become paragraphs in bold."""
    lines = (inspect.getdoc(importlib.import_module(name)) or "").splitlines()
    out: list[str] = []
    for k, line in enumerate(lines):
        if line and set(line) == {"-"}:
            out[-1] = f"**{lines[k - 1]}**"
            out.append("")
        else:
            out.append(line)
    return "\n".join(out) + "\n"


@generator("api")
def api() -> str:
    """Classes and functions that the packages offer, from their ``__all__``."""
    import imcat

    parts = []
    for name in sorted(
        f"imcat.{m.name}" for m in pkgutil.iter_modules(imcat.__path__) if m.name not in _NOT_API
    ):
        module = importlib.import_module(name)
        summary = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
        parts.append(f"{name}\n{'-' * len(name)}\n\n{_text(summary)}\n")
        for public in sorted(getattr(module, "__all__", [])):
            thing = getattr(module, public)
            if inspect.isclass(thing):
                parts.append(f".. autoclass:: {name}.{public}\n   :members:\n")
            elif inspect.isroutine(thing):
                parts.append(f".. autofunction:: {name}.{public}\n")
    return "\n".join(parts)


_NOT_API = {"__main__", "cli", "weights"}


def _literal(text: str) -> str:
    return ".. code-block:: text\n\n" + "".join(f"   {line}".rstrip() + "\n" for line in text.splitlines())


def _text(text: str) -> str:
    """Escape what reStructuredText would take for markup in plain prose; ``literals`` stay."""
    pieces = text.replace("\n", " ").split("``")
    for k in range(0, len(pieces), 2):
        pieces[k] = pieces[k].replace("*", "\\*").replace("|", "\\|").replace("_ ", "\\_ ").replace("`", "``")
    return "``".join(pieces)


def setup(app: Any) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    class Generated(SphinxDirective):  # type: ignore[misc]
        required_arguments = 1

        def run(self) -> list[nodes.Node]:
            return list(
                self.parse_text_to_nodes(GENERATORS[self.arguments[0]](), allow_section_headings=True)
            )

    app.add_directive("imcat-generated", Generated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":  # python docs/_ext/imcat_generated.py NAME: look at one part
    print(GENERATORS[sys.argv[1]]())
