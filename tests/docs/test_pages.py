"""The documentation: what is generated is complete, and the examples on its pages run."""

from __future__ import annotations

import doctest
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from docutils.core import publish_doctree

import imcat
from imcat.config import Config
from imcat.flags import PIXEL_FLAGS, SOURCE_FLAGS
from imcat.schema import COLUMNS
from imcat.surveys.generic import BAND_KEYS, KEYS

ROOT = Path(imcat.__file__).parents[1]
DOCS = ROOT / "docs"


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    module = _load("imcat_generated", DOCS / "_ext" / "imcat_generated.py")
    return {name: function() for name, function in module.GENERATORS.items()}


def test_pages_ask_for_what_there_is(generated: dict[str, str]) -> None:
    asked = {
        name
        for page in DOCS.glob("*.rst")
        for name in re.findall(r"imcat-generated:: (\S+)", page.read_text())
    }
    assert asked == set(generated)


def test_every_flag_column_setting_and_command_is_described(generated: dict[str, str]) -> None:
    for info in SOURCE_FLAGS:
        assert f"``{info.name}``" in generated["source-flags"]
    for info in PIXEL_FLAGS:
        assert f"``{info.name}``" in generated["pixel-flags"]
    for column in COLUMNS:
        assert f"``{column.name}``" in generated["columns"]
    for setting in Config.describe():
        assert f"``{setting.name}``" in generated["settings"]
    for command in ("run", "export", "query", "evaluate"):
        assert f"imcat {command}\n-----" in generated["commands"]
    assert "--resume" in generated["commands"]
    assert "\x1b" not in generated["commands"]


@pytest.mark.parametrize("name", ["source-flags", "pixel-flags", "columns", "settings", "benchmarks"])
def test_generated_text_is_sound_markup(generated: dict[str, str], name: str) -> None:
    settings = {"report_level": 2, "halt_level": 2, "_disable_config": True}
    publish_doctree(generated[name], settings_overrides=settings)  # a warning raises


def test_every_keyword_of_a_generic_tile_is_described() -> None:
    text = (DOCS / "formats.rst").read_text(encoding="utf-8")
    for name in (*BAND_KEYS, *KEYS[:2]):
        assert f"``{name}``" in text or f"\n   {name} = " in text


@pytest.mark.parametrize("page", sorted(p.name for p in DOCS.glob("*.rst") if ">>>" in p.read_text()))
def test_examples_on_a_page_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=options)
    assert result.attempted > 0
    assert result.failed == 0


def test_numbers_in_the_readme_are_those_of_the_results() -> None:
    module = _load("readme_numbers", DOCS / "readme_numbers.py")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert module.fill(text) == text, "run: python docs/readme_numbers.py"
