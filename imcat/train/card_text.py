"""Cards as text."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["card_text"]


def card_text(values: dict[str, Any]) -> str:
    """A card in TOML: plain values first, then dictionaries as tables, and lists of dictionaries as arrays of tables."""
    plain, tables = [], []
    for name, value in values.items():
        if isinstance(value, dict):
            tables.append(_table(f"[{name}]", value))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [_table(f"[[{name}]]", item) for item in value]
        else:
            plain.append(f"{name} = {json.dumps(value)}")
    return "\n".join(plain + tables) + "\n"


def _table(head: str, values: dict[str, Any]) -> str:
    return "\n".join(["", head, *(f"{name} = {json.dumps(value)}" for name, value in values.items())])
