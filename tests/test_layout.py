"""The rules that hold the package together: who imports whom, what is exported, what is left unloaded."""

from __future__ import annotations

import ast
import configparser
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import imcat

ROOT = Path(imcat.__file__).parents[1]

# A room imports rooms above it, never below.
ROOMS = (
    "errors", "flags", "schema", "window", "processes", "registry", "catalogue", "psf", "tile", "surveys", "align", "noise",
    "render", "detect", "measure", "simulate", "stamps", "backbones", "classify", "evaluate", "augment",
    "config", "prepared", "products", "engines", "checks", "classes", "tile_catalogue", "pipeline", "train", "scale", "inspect", "cli_options",
    "cli_making", "cli",
)  # fmt: skip

# What a reader of the repository sees; environments and build products are not part of it.
_PARTS = (
    "imcat", "weights", "docs", "examples", "tests", "benchmarks", ".ci", ".gitignore", "CHANGELOG.md", "CITATION.cff",
    "LICENSE", "Makefile", "README.md", "pyproject.toml", "setup.cfg",
)  # fmt: skip
_PRODUCTS = {"__pycache__", "_build", "build"}


def _files(*parts: str) -> Iterator[Path]:
    for part in parts:
        start = ROOT / part
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            if path.is_file() and not _PRODUCTS & set(path.relative_to(ROOT).parts):
                yield path


def _modules() -> list[str]:
    return [
        m.name for m in pkgutil.walk_packages(imcat.__path__, "imcat.") if not m.name.endswith("__main__")
    ]


def _imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports anywhere, inside functions and for types too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            names.add(node.module or "")
            if node.module == "imcat":
                names |= {f"imcat.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("imcat.")} & set(ROOMS)


def _room(path: Path) -> str:
    return path.relative_to(ROOT / "imcat").parts[0].removesuffix(".py")


def test_every_module_belongs_to_a_room() -> None:
    rooms = {_room(path) for path in _files("imcat") if path.suffix == ".py"}
    assert rooms - {"__init__", "__main__"} <= set(ROOMS)


def test_rooms_import_only_rooms_above() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports imcat.{other}"
        for path in _files("imcat")
        if path.suffix == ".py" and _room(path) in ROOMS
        for other in sorted(_imported_rooms(path))
        if ROOMS.index(other) > ROOMS.index(_room(path))
    ]
    assert wrong == []


@pytest.mark.parametrize("name", _modules())
def test_what_a_module_exports_is_there(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", None)
    if exported is None:
        # Only a package without code may be without a list.
        assert all(
            isinstance(n, ast.Expr) for n in ast.parse(Path(module.__file__ or "").read_text()).body
        ), name
        return
    assert [n for n in exported if not hasattr(module, n)] == []
    assert len(set(exported)) == len(exported)


@pytest.mark.parametrize("name", ["imcat", "imcat.pipeline", "imcat.cli"])
def test_importing_loads_nothing_heavy(name: str) -> None:
    code = f"import sys, {name}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"torch", "torchvision", "timm", "matplotlib", "dask", "duckdb", "pandas", "photutils", "skimage"}
    assert heavy & set(loaded.stdout.split()) == set()


def test_packages_are_listed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    found = {
        "imcat." + ".".join(p.parent.relative_to(ROOT / "imcat").parts)
        for p in _files("imcat")
        if p.name == "__init__.py"
    }
    assert listed == sorted({name.rstrip(".") for name in found} | {"imcat.weights"})
    assert setup["metadata"]["version"] == imcat.__version__


def test_every_room_is_typed_and_not_too_long() -> None:
    assert (ROOT / "imcat" / "py.typed").is_file()
    long = {
        p.name: n
        for p in _files("imcat")
        if p.suffix == ".py" and (n := len(p.read_text().splitlines())) > 600
    }
    assert long == {}


def test_no_path_of_one_machine_is_written_down() -> None:
    absolute = re.compile(r"(?<![\w.])/(?:work|opt|root|home|Users|tmp)/\w")
    wrong = []
    for path in _files(*_PARTS):
        if path.suffix in {".npy", ".bz2", ".png", ".parquet", ".safetensors"}:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if absolute.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert wrong == []
