"""One contract for every backbone: any bands, any order, finite, the same in any batch, saved and loaded."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from imcat.backbones.beit import MaskedTokens, Tokenizer
from imcat.backbones.blocks import Block
from imcat.backbones.choice import (
    BACKBONES,
    Backbone,
    BackboneSettings,
    build_backbone,
    named_backbone,
    to_card,
)
from imcat.backbones.cnn import CnnSettings
from imcat.backbones.files import BACKBONE_FORMAT, load_backbone
from imcat.backbones.mae import MaskedAutoencoder
from imcat.backbones.orient import upright
from imcat.backbones.vit import VitSettings, patches
from imcat.errors import ConfigError, InputError
from imcat.stamps import CONDITIONS
from imcat.train.card_text import card_text

SMALL = VitSettings(size=32, patch=8, width=32, depth=2, heads=2)


def stamps(n: int, bands: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    values = torch.randn(n, bands, 32, 32, generator=chance)
    conditions = torch.randn(n, bands, CONDITIONS, generator=chance) * 0.3
    return values, torch.ones_like(values), conditions


#: All there are, at the size of these stamps.
KINDS: dict[str, BackboneSettings] = {name: replace(own, size=32) for name, own in BACKBONES.items()} | {
    "small": SMALL
}


@pytest.fixture(params=KINDS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(1)
    return build_backbone(KINDS[request.param]).eval()


@pytest.mark.parametrize("bands", [1, 2, 5, 7])
@torch.inference_mode()
def test_any_number_of_bands_in_any_order(backbone: Backbone, bands: int) -> None:
    values, valid, conditions = stamps(3, bands)
    out = backbone(values, valid, conditions)
    assert out.shape == (3, backbone.width)
    assert torch.isfinite(out).all()
    order = torch.randperm(bands, generator=torch.Generator().manual_seed(3))
    again = backbone(values[:, order], valid[:, order], conditions[:, order])
    assert torch.allclose(out, again, atol=1e-5)


@torch.inference_mode()
def test_a_band_without_data_is_as_if_absent(backbone: Backbone) -> None:
    values, valid, conditions = stamps(3, 4)
    few = backbone(values[:, :3], valid[:, :3], conditions[:, :3])
    valid[:, 3] = 0
    values[:, 3] = 1e6
    assert torch.allclose(backbone(values, valid, conditions), few, atol=1e-4)


@torch.inference_mode()
def test_the_answer_does_not_depend_on_the_batch(backbone: Backbone) -> None:
    values, valid, conditions = stamps(6, 5)
    whole = backbone(values, valid, conditions)
    single = torch.cat(
        [backbone(values[k : k + 1], valid[k : k + 1], conditions[k : k + 1]) for k in range(6)]
    )
    assert torch.allclose(whole, single, atol=1e-5)


@torch.inference_mode()
def test_masked_pixels_carry_no_information(backbone: Backbone) -> None:
    values, valid, conditions = stamps(2, 3)
    valid[:, :, 5:9, 4:12] = 0
    first = backbone(values, valid, conditions)
    values[valid == 0] = 99.0
    assert torch.equal(backbone(values, valid, conditions), first)
    # ... and what is not masked does.
    assert not torch.allclose(backbone(values + valid, valid, conditions), first, atol=1e-3)


@torch.inference_mode()
def test_the_wavelength_matters(backbone: Backbone) -> None:
    values, valid, conditions = stamps(2, 3)
    first = backbone(values, valid, conditions)
    conditions[:, 0, 0] += 0.5
    assert not torch.allclose(backbone(values, valid, conditions), first, atol=1e-4)


def test_patches_keep_every_pixel() -> None:
    image = torch.arange(2 * 3 * 32 * 32, dtype=torch.float32).reshape(2, 3, 32, 32)
    cut = patches(image, 8)
    assert cut.shape == (2, 16, 3, 64)
    assert torch.equal(cut[1, 5, 2].reshape(8, 8), image[1, 2, 8:16, 8:16])


def test_saved_and_loaded(backbone: Backbone, tmp_path: Path) -> None:
    def card(table: dict[str, Any], data: bytes) -> str:
        return card_text({"format": BACKBONE_FORMAT, "sha256": hashlib.sha256(data).hexdigest(), **table})

    data = save({k: v.contiguous() for k, v in backbone.state_dict().items()})
    (tmp_path / "backbone.safetensors").write_bytes(data)
    (tmp_path / "backbone.toml").write_text(card(to_card(backbone.settings), data))
    loaded = load_backbone("backbone", str(tmp_path))
    given = stamps(2, 5)
    with torch.inference_mode():
        assert torch.equal(loaded(*given), backbone(*given))
    (tmp_path / "backbone.toml").write_text(card(to_card(VitSettings(width=64)), data))
    with pytest.raises(InputError, match="not those of a backbone"):
        load_backbone("backbone", str(tmp_path))


def test_a_backbone_has_a_name() -> None:
    assert named_backbone("vit") == VitSettings()
    assert named_backbone("resnet34") == CnnSettings("resnet34")
    with pytest.raises(ConfigError, match="timm has no network 'resnet3'"):
        build_backbone(named_backbone("resnet3"))


def test_the_block_is_that_of_timm() -> None:
    torch.manual_seed(2)
    own, theirs = Block(32, 4), timm.models.vision_transformer.Block(32, 4, qkv_bias=True)
    theirs.load_state_dict(own.state_dict())
    given = torch.randn(3, 7, 32)
    assert torch.allclose(own(given), theirs(given), atol=1e-6)


def slopes(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images that a few visible patches tell: a slope each."""
    x = torch.linspace(-1, 1, 32)
    slope = torch.randn(n, 1, 1, 1, generator=torch.Generator().manual_seed(5))
    values = (slope * x[None, None, None, :]).expand(n, 2, 32, 32).contiguous()
    conditions = torch.zeros(n, 2, CONDITIONS)
    conditions[:, 1, 0] = 0.4
    return values, torch.ones_like(values), conditions


def train(network: nn.Module, given: tuple[Tensor, Tensor, Tensor], steps: int) -> list[float]:
    shown, chance = torch.ones(given[0].shape[:2]), torch.Generator().manual_seed(6)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = network(*given, shown, chance).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


class TestMaskedAutoencoder:
    def test_hides_three_patches_of_four_and_learns(self) -> None:
        torch.manual_seed(0)
        network, given = MaskedAutoencoder(SMALL, width=32, depth=1), slopes(64)
        losses = train(network, given, 150)
        assert network(*given, torch.ones(64, 2)).hidden.sum(1).eq(12).all()  # of sixteen
        assert losses[0] > 0.25
        assert losses[-1] < 0.1 * losses[0]

    def test_a_withheld_band_is_painted_but_not_seen(self) -> None:
        torch.manual_seed(0)
        network = MaskedAutoencoder(SMALL, width=32, depth=1).eval()
        values, valid, conditions = stamps(4, 3)
        shown = torch.tensor([[1.0, 1.0, 0.0]]).repeat(4, 1)
        with torch.inference_mode():
            first = network(values, valid, conditions, shown, torch.Generator().manual_seed(1))
            values[:, 2] += 100
            second = network(values, valid, conditions, shown, torch.Generator().manual_seed(1))
        assert torch.allclose(first.patches, second.patches)
        assert second.loss > first.loss + 100


class TestMaskedTokens:
    def test_words_tell_patches_apart_and_hidden_ones_are_guessed(self) -> None:
        torch.manual_seed(0)
        given = slopes(64)
        tokenizer = Tokenizer(SMALL, words=16, width=32, depth=1)
        losses = train(tokenizer, given, 150)
        assert losses[-1] < 0.65 * losses[0]
        tokenizer.eval()
        words = tokenizer(*given, torch.ones(64, 2)).words
        assert words.unique().numel() > 4
        network = MaskedTokens(SMALL, tokenizer, 0.5).train()
        before = tokenizer.book.clone()
        guesses = train(network, given, 100)
        said = network(*given, torch.ones(64, 2))
        assert said.hidden.sum(1).eq(8).all()  # of sixteen
        assert guesses[-1] < 0.5 * guesses[0]
        right = (said.logits.argmax(2) == words).float()[said.hidden > 0].mean()
        common = torch.bincount(words.flatten()).max() / words.numel()
        assert right > common + 0.2
        # The tokenizer is left as it was.
        assert torch.equal(tokenizer.book, before)

    def test_words_that_nothing_uses_are_replaced(self) -> None:
        torch.manual_seed(0)
        tokenizer = Tokenizer(SMALL, words=16, width=32, depth=1).train()
        tokenizer.used[:] = 0
        before = tokenizer.book.clone()
        with torch.no_grad():
            codes = tokenizer.codes(*stamps(4, 2))
            used = tokenizer.words(codes).unique()
            tokenizer(*stamps(4, 2), torch.ones(4, 2))
        unused = torch.ones(16, dtype=torch.bool)
        unused[used] = False
        assert unused.any()
        nearest = (tokenizer.book[unused] @ codes.flatten(0, 1).T).amax(1)
        assert torch.allclose(nearest, torch.ones_like(nearest), atol=1e-5)
        assert not torch.equal(tokenizer.book[unused], before[unused])


@pytest.mark.parametrize("turn", range(8))
@torch.inference_mode()
def test_turned_and_mirrored_stamps_give_the_same_answer(backbone: Backbone, turn: int) -> None:
    values, valid, conditions = stamps(5, 3)
    valid[1, 2, :7] = 0
    out = backbone(values, valid, conditions)
    mirrored = [t.flip(3) if turn >= 4 else t for t in (values, valid)]
    moved = [t.rot90(turn % 4, (2, 3)) for t in mirrored]
    assert torch.allclose(backbone(*moved, conditions), out, atol=1e-5)


def test_in_training_stamps_are_seen_as_they_are() -> None:
    torch.manual_seed(1)
    network = build_backbone(SMALL).train()
    values, valid, conditions = stamps(5, 3)
    out = network(values, valid, conditions)
    assert not torch.allclose(network(values.flip(3), valid.flip(3), conditions), out, atol=1e-3)


def test_upright_stamps_hold_the_same_pixels() -> None:
    values, valid, _ = stamps(40, 2)
    moved, known = upright(values, valid)
    light = moved.sum(1)
    place = torch.arange(32.0) - 15.5
    x, y = (light.sum(1) * place).sum(1), (light.sum(2) * place).sum(1)
    assert bool(((x >= y) & (y >= 0)).all())
    assert torch.equal(moved.flatten(2).sort(2).values, values.flatten(2).sort(2).values)
    assert known.shape == valid.shape
