"""The settings of all rooms gathered: one TOML file in, one canonical form out.

Each room has a frozen dataclass of settings, which is one table of the file.
Reading, writing and hashing look at the dataclasses' fields only, so a new
setting needs no code here. What does not change a catalogue (workers,
scheduler, progress) is no part of a configuration.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from imcat.align.settings import AlignSettings
from imcat.classify.settings import ClassifySettings
from imcat.detect.network_settings import NetworkSettings
from imcat.detect.settings import DetectSettings
from imcat.errors import ConfigError
from imcat.measure.model_settings import ModelSettings
from imcat.measure.settings import MeasureSettings
from imcat.noise.settings import NoiseSettings
from imcat.psf.settings import StarPsfSettings
from imcat.simulate.settings import InjectSettings, SimulateSettings
from imcat.surveys.settings import SurveySettings

__all__ = ["Config", "SettingInfo", "build_settings", "describe_simulate_settings", "read_simulate_settings"]

_DETECTORS = ("threshold", "network")
_T = TypeVar("_T")


@dataclass(frozen=True)
class SettingInfo:
    """One setting, as the documentation lists it.

    Attributes
    ----------
    table : str
        Table of the TOML file; empty for the top level.
    name : str
        Keyword in that table.
    type : str
        What the value must be, in words.
    default : str
        Default as TOML; empty where the setting is absent by default.
    description : str
        Text of the docstring.
    """

    table: str
    name: str
    type: str
    default: str
    description: str


@dataclass(frozen=True)
class Config:
    """Everything that decides what a catalogue holds, input files and weights aside.

    Attributes
    ----------
    bands : tuple of str, optional
        Bands to use, in any order; absent takes all that a tile has.
    detector : str
        Engine that finds the sources: ``network`` or ``threshold``.
    min_score : float, optional
        Sources with a smaller `detection_score` are left out, 0 to 1; absent takes what the engine aims at, a
        list of which 95 % is real.
    fit_models : bool
        Whether PSF and galaxy models are fitted.
    classify_sources : bool
        Whether sources are classified.
    compare_engines : bool
        Whether the report shows what only one of the two detection engines found; without a report, neither runs twice.
    surveys : SurveySettings
        How files become tiles.
    noise : NoiseSettings
        Background and noise.
    align : AlignSettings
        Bands on a common grid.
    detect : DetectSettings
        Finding sources by threshold.
    network : NetworkSettings
        Finding sources with the network.
    measure : MeasureSettings
        Measuring them.
    psf : StarPsfSettings
        The PSF from stars.
    models : ModelSettings
        PSF and galaxy models.
    classify : ClassifySettings
        Classes, morphology and redshifts.
    inject : InjectSettings
        Simulated sources that ``--inject`` adds to a second look at each tile.
    """

    bands: tuple[str, ...] | None = None
    detector: str = "network"
    min_score: float | None = None
    fit_models: bool = True
    classify_sources: bool = True
    compare_engines: bool = True
    surveys: SurveySettings = field(default_factory=SurveySettings)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    align: AlignSettings = field(default_factory=AlignSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    psf: StarPsfSettings = field(default_factory=StarPsfSettings)
    models: ModelSettings = field(default_factory=ModelSettings)
    classify: ClassifySettings = field(default_factory=ClassifySettings)
    inject: InjectSettings = field(default_factory=InjectSettings)

    def __post_init__(self) -> None:
        if self.bands is not None:
            # Bands are lower case everywhere inside, and their order changes nothing: neither may
            # change the hash.
            bands = tuple(sorted(band.strip().lower() for band in self.bands))
            if not bands or not all(bands):
                raise ConfigError("bands is empty; expected names of bands, or leave it out to use all")
            if len(set(bands)) != len(bands):
                raise ConfigError(f"bands names a band twice: {', '.join(bands)}")
            object.__setattr__(self, "bands", bands)
        if self.detector not in _DETECTORS:
            raise ConfigError(f"detector is {self.detector!r}; expected one of {', '.join(_DETECTORS)}")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score is {self.min_score}; expected a probability, 0 to 1")

    @classmethod
    def from_toml(cls, path: str | Path) -> Config:
        """Read a configuration file; what it does not name keeps its default.

        Parameters
        ----------
        path : path
            A TOML file.

        Raises
        ------
        ConfigError
            If the file cannot be read, is no TOML, names an unknown keyword or
            holds a value of a wrong type or out of range. The message names
            file, table and keyword, and the nearest valid keyword.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file; expected a TOML file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); expected a TOML file") from None
        return cls.from_text(text, origin=str(path))

    @classmethod
    def from_text(cls, text: str, origin: str = "configuration") -> Config:
        """Read a configuration from TOML text.

        Parameters
        ----------
        text : str
            The TOML.
        origin : str, optional
            What messages call it, usually the file.

        Raises
        ------
        ConfigError
            As for `from_toml`.
        """
        try:
            return build_settings(cls, tomllib.loads(text), ())
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{origin}: not valid TOML: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None

    def replace(self, **changes: Any) -> Config:
        """A copy with some settings changed.

        Parameters
        ----------
        **changes
            Values of fields; a table may be given as a mapping of the
            keywords to change.

        Raises
        ------
        ConfigError
            If a keyword is unknown or a value is wrong.

        Examples
        --------
        >>> Config().replace(min_score=0.2, noise={"mesh_size": 64}).noise.mesh_size
        64
        """
        return _change(self, changes, ())

    def to_toml(self) -> str:
        """The canonical form: every setting, in the order of declaration.

        Two configurations that mean the same have the same canonical form.
        """
        return "\n".join(_table_lines(self, ())) + "\n"

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    @classmethod
    def describe(cls) -> list[SettingInfo]:
        """Every setting with its default and its description, in the order of the file."""
        return _describe(cls, ())


def read_simulate_settings(path: str | Path | None) -> SimulateSettings:
    """The table ``[simulate]`` of a TOML file.

    It is no part of `Config`: no setting of it changes a catalogue.

    Parameters
    ----------
    path : path, optional
        Without one, the defaults.

    Raises
    ------
    ConfigError
        As for `Config.from_toml`.
    """
    if path is None:
        return SimulateSettings()
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        _refuse_unknown(_SimulateFile, tables, ())
        return build_settings(_SimulateFile, tables, ()).simulate
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); expected a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def describe_simulate_settings() -> list[SettingInfo]:
    """Every setting of the simulator with its default and its description."""
    return _describe(SimulateSettings, ("simulate",))


@dataclass(frozen=True)
class _SimulateFile:
    """A file of settings for the simulator."""

    simulate: SimulateSettings = field(default_factory=SimulateSettings)


# Reading ------------------------------------------------------------------


def build_settings(cls: type[_T], values: Mapping[str, Any], path: tuple[str, ...]) -> _T:
    """Make a settings dataclass from a TOML table.

    Parameters
    ----------
    cls : type
        The dataclass.
    values : mapping
        Of its fields, as TOML has them.
    path : tuple of str
        Name of the table, for messages.

    Raises
    ------
    ConfigError
        If a value is unknown, of another type, or refused by the dataclass.
    """
    return cls(**_converted(cls, values, path))


def _change(settings: _T, changes: Mapping[str, Any], path: tuple[str, ...]) -> _T:
    """Copy a settings dataclass with the keywords of a mapping changed."""
    hints = _hints(type(settings))
    _refuse_unknown(type(settings), changes, path)
    merged: dict[str, Any] = {}
    for name, value in changes.items():
        if dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping):
            merged[name] = _change(getattr(settings, name), value, (*path, name))
        else:
            merged[name] = _convert(hints[name], value, (*path, name))
    return dataclasses.replace(settings, **merged)  # type: ignore[type-var]


def _converted(cls: type[Any], values: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    hints = _hints(cls)
    _refuse_unknown(cls, values, path)
    return {name: _convert(hints[name], value, (*path, name)) for name, value in values.items()}


def _convert(kind: Any, value: Any, path: tuple[str, ...]) -> Any:
    """Check a value against the declared type of its field; whole numbers pass as floats."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        [inner] = [a for a in arguments if a is not type(None)]
        return _convert(inner, value, path)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):
            return value
        if isinstance(value, Mapping):
            return build_settings(kind, value, path)
    elif origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], v, path) for v in value)
        if len(value) == len(arguments):
            return tuple(_convert(a, v, path) for a, v in zip(arguments, value, strict=True))
    elif origin is dict and isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _convert(arguments[1], v, (*path, key)) for key, v in value.items()}
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif kind in (int, bool, str) and type(value) is kind:  # not isinstance: True is an int
        return value
    raise ConfigError(f"{_place(path)} is {value!r}; expected {_in_words(kind)}")


def _refuse_unknown(cls: type[Any], values: Mapping[str, Any], path: tuple[str, ...]) -> None:
    names = list(_hints(cls))
    for name in values:
        if name in names:
            continue
        kind = "table" if isinstance(values[name], Mapping) else "keyword"
        where = f"in table [{'.'.join(path)}]" if path else "at the top level"
        raise ConfigError(f"unknown {kind} {name!r} {where}; {_suggest(name, names, path)}")


def _suggest(name: str, names: list[str], path: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name.lower(), names, n=1)
    elsewhere = {".".join(filter(None, (s.table, s.name))): s for s in Config.describe()}
    if not near:
        exact = [key for key, s in elsewhere.items() if s.name == name and s.table != ".".join(path)]
        close = difflib.get_close_matches(name.lower(), [s.name for s in elsewhere.values()], n=1)
        near = exact or [key for key, s in elsewhere.items() if s.name in close]
    if near:
        return f"did you mean {near[0]!r}?"
    return f"expected one of {', '.join(names)}"


# Writing ------------------------------------------------------------------


def _table_lines(settings: Any, path: tuple[str, ...]) -> list[str]:
    """Keywords first, then one table for each nested dataclass."""
    lines, tables = ([f"[{'.'.join(path)}]"] if path else []), []
    for name, kind in _hints(type(settings)).items():
        value = getattr(settings, name)
        if dataclasses.is_dataclass(value):
            tables += ["", *_table_lines(value, (*path, name))]
        elif value is not None:  # TOML has no null: an absent keyword stands for it
            lines.append(f"{_key(name)} = {_literal(kind, value)}")
    return lines + tables


def _literal(kind: Any, value: Any) -> str:
    """A value as TOML, written by its declared type so that 3 and 3.0 give the same text."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        [inner] = [a for a in arguments if a is not type(None)]
        return _literal(inner, value)
    if dataclasses.is_dataclass(value):
        hints = _hints(type(value))
        pairs = {n: (k, getattr(value, n)) for n, k in hints.items() if getattr(value, n) is not None}
        return _inline(pairs)
    if origin is dict:
        return _inline({key: (arguments[1], value[key]) for key in sorted(value)})
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return "[" + ", ".join(_literal(k, v) for k, v in zip(kinds, value, strict=True)) + "]"
    if kind is float:
        return _float(float(value))
    if kind is bool:
        return "true" if value else "false"
    if kind is str:
        return _string(value)
    return str(int(value))


def _inline(pairs: Mapping[str, tuple[Any, Any]]) -> str:
    inside = ", ".join(f"{_key(name)} = {_literal(kind, value)}" for name, (kind, value) in pairs.items())
    return "{" + (f" {inside} " if inside else "") + "}"


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def _string(text: str) -> str:
    def escape(match: re.Match[str]) -> str:
        character = match[0]
        return f"\\{character}" if character in '"\\' else f"\\u{ord(character):04X}"

    return '"' + re.sub(r'["\\\x00-\x1f\x7f]', escape, text) + '"'


# Describing ---------------------------------------------------------------


def _describe(cls: type[Any], path: tuple[str, ...]) -> list[SettingInfo]:
    texts = _attribute_texts(cls.__doc__ or "")
    defaults = cls()
    here: list[SettingInfo] = []
    nested: list[SettingInfo] = []
    for name, kind in _hints(cls).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            nested += _describe(kind, (*path, name))
            continue
        value = getattr(defaults, name)
        default = "" if value is None else _literal(kind, value)
        here.append(SettingInfo(".".join(path), name, _in_words(kind), default, texts.get(name, "")))
    return here + nested


def _attribute_texts(docstring: str) -> dict[str, str]:
    """Descriptions of the numpydoc section ``Attributes``, one paragraph for each name."""
    texts: dict[str, list[str]] = {}
    current: list[str] = []
    lines = docstring.expandtabs().splitlines()
    indent = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    inside = False
    for line in lines[:1] + [line[indent:] for line in lines[1:]]:
        if line.rstrip() in ("Attributes", "Parameters"):
            inside = True
        elif inside and (heading := re.match(r"([a-z][\w, ]*?) : ", line)):
            current = []
            texts.update({name.strip(): current for name in heading[1].split(",")})
        elif inside and line.startswith("    "):
            current.append(line.strip())
    return {name: " ".join(parts) for name, parts in texts.items()}


def _hints(cls: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _place(path: tuple[str, ...]) -> str:
    return ".".join(_key(name) for name in path)


def _in_words(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_in_words(a) for a in arguments if a is not type(None))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list, each {_in_words(arguments[0])}"
        return "a list of " + ", ".join(_in_words(a) for a in arguments)
    if origin is dict:
        return f"a table, each value {_in_words(arguments[1])}"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a string"}
    return words.get(kind, "a table")
