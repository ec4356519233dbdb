"""Weights that come with imcat: files, their cards, the check that one belongs to the other, and how they are multiplied.

Weights lie in the package ``imcat.weights``: ``NAME.safetensors`` and its card ``NAME.toml``, which
holds the version of the format and the SHA-256 of the file.
"""

from __future__ import annotations

import hashlib
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from imcat.errors import InputError

__all__ = ["half_precision_is_fast", "read_weights", "weights_folder"]


def weights_folder() -> Any:
    """Where weights lie: a path, or what `importlib.resources` has in its place."""
    try:
        return files("imcat.weights")
    except ModuleNotFoundError:  # run from a source tree that was not installed
        return Path(__file__).resolve().parents[1] / "weights"


def read_weights(
    name: str, version: int, recipe: str, folder: str | Path | None = None
) -> tuple[bytes, dict[str, Any]]:
    """Read a file of weights and its card.

    Parameters
    ----------
    name : str
        Of the model, without an ending.
    version : int
        Of the format that the caller understands.
    recipe : str
        Command that makes the file again, for messages.
    folder : path, optional
        Where both lie; default: those that come with imcat.

    Returns
    -------
    data : bytes
        The file.
    card : dict
        What its card says.

    Raises
    ------
    InputError
        If one of them is absent or damaged, of another version, or not the one the card describes.
    """
    place = weights_folder() if folder is None else Path(folder)
    path = place.joinpath(f"{name}.safetensors")
    card_path = place.joinpath(f"{name}.toml")
    hint = f"{'install imcat again, or ' if folder is None else ''}make them with: {recipe}"
    missing = [own.name for own in (path, card_path) if not own.is_file()]
    if missing:
        both = f"{name}.safetensors and {name}.toml there"
        raise InputError(f"there is no {missing[0]}", path=str(place), expected=both, hint=hint)
    try:
        data = path.read_bytes()
        card = tomllib.loads(card_path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the weights cannot be read: {error}", path=str(path), hint=hint) from None
    except ValueError as error:
        raise InputError(f"the card is no TOML: {error}", path=str(card_path), hint=hint) from None
    if card.get("format") != version:
        raise InputError(
            f"weights of format {card.get('format')!r}", path=str(path), expected=f"{version}", hint=hint
        )
    if hashlib.sha256(data).hexdigest() != card.get("sha256"):
        raise InputError(
            "the checksum differs from that of the card",
            path=str(path),
            expected=f"sha256 {card.get('sha256')}",
            hint=hint,
        )
    return data, card


def half_precision_is_fast() -> bool:
    """Whether this processor multiplies in bfloat16 by instructions of its own.

    Without them torch converts number by number, which is ten times slower than single precision. Answers in both
    differ by less than the networks' own errors.
    """
    import torch

    if torch.cuda.is_available():
        return True
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # an older torch lacks them
    return any(bool(getattr(torch.cpu, name, bool)()) for name in tests)
