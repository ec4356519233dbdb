"""Files of weights and their cards."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from imcat.errors import InputError
from imcat.registry import half_precision_is_fast, read_weights, weights_folder


def _write(folder: Path, data: bytes, card: str) -> None:
    (folder / "m.safetensors").write_bytes(data)
    (folder / "m.toml").write_text(card, encoding="utf-8")


def test_a_file_that_its_card_describes(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    _write(tmp_path, b"weights", f'format = 3\nsha256 = "{digest}"\nnote = "x"\n')
    data, card = read_weights("m", 3, "make m", tmp_path)
    assert data == b"weights"
    assert card["note"] == "x"


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ('format = 3\nsha256 = "0"\n', "checksum"),
        ("format = 4\n", "format 4"),
        ("sha256 = 1\n", "format None"),
        ("format = = 3", "m.toml: the card is no TOML"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path: Path, card: str, message: str) -> None:
    _write(tmp_path, b"weights", card)
    with pytest.raises(InputError, match=message) as caught:
        read_weights("m", 3, "make m", tmp_path)
    assert "make m" in str(caught.value)


def test_absent_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"there is no m.safetensors; expected m.safetensors and m.toml there; make"
    ):
        read_weights("m", 3, "make m", tmp_path)
    _write(tmp_path, b"weights", "format = 3")
    (tmp_path / "m.toml").unlink()
    with pytest.raises(InputError, match=r"there is no m.toml"):
        read_weights("m", 3, "make m", tmp_path)


def test_every_file_that_comes_along_has_its_card() -> None:
    names = {p.name for p in weights_folder().iterdir()}
    models = {n.removesuffix(".safetensors") for n in names if n.endswith(".safetensors")}
    assert models
    assert all(f"{m}.toml" in names for m in models)


def test_half_precision_needs_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for name in names:
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not half_precision_is_fast()
    for name in names:
        with monkeypatch.context() as one:
            one.setattr(torch.cpu, name, lambda: True, raising=False)
            assert half_precision_is_fast()
