"""The wheel: made from an exported tree without git, it carries code, weights' package and instrument data."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import imcat

ROOT = Path(imcat.__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    tree = tmp_path_factory.mktemp("export")
    skip = shutil.ignore_patterns("__pycache__", "_build", "*.egg-info")
    for part in ("imcat", "weights"):
        shutil.copytree(ROOT / part, tree / part, ignore=skip)
    for part in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, tree)
    # setuptools is there already, so nothing is fetched.
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tree / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_carries_every_module_and_data_file(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "imcat").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {f"imcat/{path.relative_to(ROOT)}" for path in (ROOT / "weights").iterdir() if path.is_file()}
    assert "imcat/surveys/data/csst/throughput/NUV.fil" in wanted
    assert "imcat/surveys/data/csst/LICENSE" in wanted
    assert wanted - names == set()
    assert {name.split("/")[0] for name in names} == {"imcat", f"imcat-{imcat.__version__}.dist-info"}


def test_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    info = f"imcat-{imcat.__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "\nLicense-Expression: BSD-3-Clause\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "imcat = imcat.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    extras = set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.M))
    assert extras == {"scale", "simulate", "evaluate", "inspect", "docs", "dev", "all"}
