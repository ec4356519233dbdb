"""Weights and their cards as files."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from imcat.catalogue.files import atomic_path

__all__ = ["card_text", "write_with_card"]


def write_with_card(folder: Path, name: str, data: bytes, version: int, values: dict[str, Any]) -> Path:
    """Write ``NAME.safetensors`` and its card, each aside and renamed.

    Parameters
    ----------
    folder : path
        Where both go; it is made.
    name : str
        Of the model.
    data : bytes
        The weights.
    version : int
        Of their format.
    values : dict
        What the card says beside the format and the checksum.

    Returns
    -------
    path
        Of the card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    card = {"format": version, "sha256": hashlib.sha256(data).hexdigest(), **values}
    with atomic_path(folder / f"{name}.safetensors") as temporary:
        temporary.write_bytes(data)
    with atomic_path(folder / f"{name}.toml") as temporary:
        temporary.write_text(card_text(card), encoding="utf-8")
    return folder / f"{name}.toml"


def card_text(values: dict[str, Any]) -> str:
    """A card in TOML: plain values first, then dictionaries as tables, and lists of dictionaries as arrays of tables; deeper ones inline."""
    plain, tables = [], []
    for name, value in values.items():
        if isinstance(value, dict):
            tables.append(_table(f"[{name}]", value))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [_table(f"[[{name}]]", item) for item in value]
        else:
            plain.append(f"{name} = {_value(value)}")
    return "\n".join(plain + tables) + "\n"


def _table(head: str, values: dict[str, Any]) -> str:
    return "\n".join(["", head, *(f"{name} = {_value(value)}" for name, value in values.items())])


def _value(value: Any) -> str:
    """A value as TOML writes it; JSON has other words for numbers that are none."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_value(v)}" for name, v in value.items()) + "}"
    return json.dumps(value)
