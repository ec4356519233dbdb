"""The configuration: one TOML file in, one canonical form out."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imcat.config import Config
from imcat.errors import ConfigError


def test_an_empty_file_gives_the_defaults() -> None:
    assert Config.from_text("") == Config()


def test_the_canonical_form_reads_back(tmp_path: Path) -> None:
    config = Config().replace(
        bands=("r", "g"),
        min_score=0.25,
        surveys={"ebv": 0.1},
        detect={"sed_weights": {"r": 1, "g": 0.5}},
        measure={"apertures": [3, 1.5], "neighbours": "none"},
    )
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert Config.from_toml(path) == config
    assert Config.from_toml(path).to_toml() == config.to_toml()


def test_equal_settings_have_equal_hashes_however_they_are_written() -> None:
    a = Config.from_text('bands = ["g", "r"]\n[detect]\nmin_snr = 5\nsed_weights = {g = 1, r = 2}\n')
    b = Config.from_text('bands = ["r", "g"]\n[detect]\nsed_weights = {r = 2.0, g = 1.0}\nmin_snr = 5.0\n')
    assert a.hash == b.hash
    assert a.hash != Config().hash
    assert Config(surveys=Config().surveys, min_score=1).hash == Config(min_score=1.0).hash


def test_every_setting_changes_the_hash() -> None:
    assert Config().hash != Config().replace(align={"node_spacing": 65}).hash
    assert Config().hash != Config().replace(surveys={"ebv": 0.0}).hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[detect]\ntreshold = 3",
            r"unknown keyword 'treshold' in table \[detect\]; did you mean 'threshold'\?",
        ),
        ("[detekt]\nthreshold = 3", r"unknown table 'detekt' at the top level; did you mean 'detect'\?"),
        ("threshold = 3", r"unknown keyword 'threshold' at the top level; did you mean 'detect.threshold'\?"),
        ("[measure]\nmesh_size = 64", r"did you mean 'noise.mesh_size'\?"),
        ("[align]\nqqqq = 1", r"unknown keyword 'qqqq' in table \[align\]; expected one of node_spacing"),
        ("[detect]\nthreshold = 'high'", r"detect.threshold is 'high'; expected a number"),
        ("[detect]\nmin_area = 4.5", r"detect.min_area is 4.5; expected a whole number"),
        ("[detect]\nmin_area = true", r"detect.min_area is True; expected a whole number"),
        ("[detect]\nthreshold = true", r"detect.threshold is True; expected a number"),
        ("[detect]\nclean = 1", r"detect.clean is 1; expected true or false"),
        ("[detect]\nsed_weights = {g = 'a'}", r"detect.sed_weights.g is 'a'; expected a number"),
        ("[measure]\napertures = 3", r"measure.apertures is 3; expected a list, each a number"),
        ("detect = 3", r"detect is 3; expected a table"),
        ("bands = []", r"bands is empty"),
        ("bands = ['r', 'r']", r"names a band twice: r, r"),
        ("bands = 'r'", r"bands is 'r'; expected a list, each a string"),
        ("detector = 'magic'", r"detector is 'magic'; expected one of threshold, network"),
        ("min_score = 2", r"min_score is 2.0; expected a probability"),
        ("[detect]\nthreshold = -1", r"detect.threshold is -1.0; expected a positive number"),
        ("a = [", r"not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Config.from_toml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        Config.from_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.from_toml(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.from_toml(tmp_path / "binary.toml")


def test_replace_checks_like_reading() -> None:
    with pytest.raises(ConfigError, match="did you mean 'min_score'"):
        Config().replace(min_scores=0.1)
    with pytest.raises(ConfigError, match="expected a whole number"):
        Config().replace(noise={"mesh_size": "large"})
    assert Config().replace(bands=None).bands is None


def _classes(cls: type) -> typing.Iterator[type]:
    yield cls
    for kind in typing.get_type_hints(cls).values():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from _classes(kind)


def test_every_setting_can_be_written_and_is_described() -> None:
    infos = Config.describe()
    assert {
        "",
        "surveys",
        "noise",
        "align",
        "detect",
        "network",
        "measure",
        "psf",
        "models",
        "classify",
        "inject",
    } == {info.table for info in infos}
    assert [f"{i.table}.{i.name}" for i in infos if not i.description] == []
    written = tomllib.loads(Config().to_toml())
    for info in infos:
        table = written[info.table] if info.table else written
        assert (info.name in table) == bool(info.default)
    shared = {i.name: i.description for i in infos if i.table == "measure"}
    assert shared["annulus_inner"] == shared["annulus_outer"]


@pytest.mark.parametrize("cls", list(_classes(Config)), ids=lambda cls: cls.__name__)
def test_an_absent_keyword_stands_for_none(cls: type) -> None:
    # TOML has no null, so a setting that may be None must have it as its default.
    for field, hint in typing.get_type_hints(cls).items():
        if type(None) in typing.get_args(hint):
            assert getattr(cls(), field) is None


@given(
    bands=st.none() | st.lists(st.from_regex(r"[a-z]\w*", fullmatch=True), min_size=1, unique_by=str.lower),
    score=st.floats(0, 1),
    weights=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0, 1e300)),
    size=st.integers(64, 10**15),
    apertures=st.lists(st.floats(1e-300, 1e300), min_size=1, unique=True),
)
def test_any_configuration_survives_the_round_trip(
    bands: list[str] | None, score: float, weights: dict[str, float], size: int, apertures: list[float]
) -> None:
    config = Config().replace(
        bands=bands,
        min_score=score,
        detect={"sed_weights": weights, "window_size": size},
        measure={"apertures": apertures},
    )
    again = Config.from_text(config.to_toml())
    assert again == config
    assert again.hash == config.hash


@given(st.text())
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    refusals = []
    try:
        Config.from_text(text)
    except ConfigError as error:
        refusals.append(str(error))
    assert all(line.startswith("configuration: ") and "\n" not in line for line in refusals)
