"""The generator of sky: seamless at any size, the same from the same seed, trained to the statistics of what it sees."""

from __future__ import annotations

import numpy as np
import torch

from imcat.augment import sky as sky_module
from imcat.augment.conditions import NUMBERS
from imcat.augment.judge import JudgeSettings, StampJudge, moved_alike, slope_penalty
from imcat.augment.sky import SkyGenerator, SkyJudge, SkySettings

SMALL = SkySettings(bands=2, width=8, depth=2)


def generator() -> SkyGenerator:
    torch.manual_seed(1)
    return SkyGenerator(SMALL).eval()


def test_pieces_make_the_image_that_is_made_at_once(monkeypatch: object) -> None:
    made = generator()
    whole = made.sky(90, 70, seed=4)
    canvas = made.canvas(90, 70, 1, torch.Generator().manual_seed(4))
    with torch.no_grad():
        once = made(canvas)[0].numpy()
    monkeypatch.setattr(sky_module, "_TILE", 32)  # type: ignore[attr-defined]
    pieces = made.sky(90, 70, seed=4)
    assert whole.shape == (2, 90, 70)
    np.testing.assert_allclose(whole, once, atol=1e-5)
    np.testing.assert_allclose(pieces, once, atol=1e-5)


def test_the_seed_decides_every_pixel() -> None:
    made = generator()
    assert np.array_equal(made.sky(40, 40, seed=1), made.sky(40, 40, seed=1))
    assert np.abs(made.sky(40, 40, seed=1) - made.sky(40, 40, seed=2)).max() > 0.5


def test_every_pixel_has_noise_of_its_own() -> None:
    image = generator().sky(128, 128, seed=3)[0]
    image = image - image.mean()
    assert abs(float((image[:, 1:] * image[:, :-1]).mean() / image.var())) < 0.3
    assert 0.5 < image.std() < 2


def test_judges_tell_noise_from_light_after_some_steps() -> None:
    torch.manual_seed(2)
    judge = StampJudge(JudgeSettings(bands=2, width=8, depth=2))
    optimiser = torch.optim.Adam(judge.parameters(), 3e-3)
    chance = torch.Generator().manual_seed(1)
    v, u = torch.meshgrid(torch.arange(16.0) - 7.5, torch.arange(16.0) - 7.5, indexing="ij")
    blob = 8 * torch.exp(-0.5 * (u**2 + v**2) / 4)
    vector, valid = torch.zeros(16, NUMBERS), torch.ones(16, 2, 16, 16)
    for _ in range(60):
        empty = torch.randn(16, 2, 16, 16, generator=chance)
        full = empty + blob
        loss = torch.nn.functional.softplus(-judge(full, valid, vector)).mean()
        loss = loss + torch.nn.functional.softplus(judge(empty, valid, vector)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fresh = torch.randn(16, 2, 16, 16, generator=chance)
    assert float((judge(fresh + blob, valid, vector) > judge(fresh, valid, vector)).float().mean()) > 0.9
    assert float(slope_penalty(judge, fresh, valid, vector).detach()) > 0


def test_stamps_of_a_batch_move_alike_and_with_their_gaps() -> None:
    signal = torch.zeros(3, 2, 16, 16)
    signal[:, :, 5, 9] = 1
    valid = (signal > 0).float()
    chance = torch.Generator().manual_seed(7)
    places = set()
    for _ in range(20):
        moved, known = moved_alike(signal, valid, chance)
        assert torch.equal(moved, known)
        assert float(moved.sum()) == 6
        assert torch.equal(moved[0], moved[2])
        places.add(int(moved[0, 0].argmax()))
    assert len(places) > 10


def test_a_judge_of_sky_answers_patches_of_any_size() -> None:
    judge = SkyJudge(SMALL, width=8)
    for side in (40, 64):
        assert judge(torch.randn(3, 2, side, side), torch.ones(3, 2, side, side)).shape == (3,)
