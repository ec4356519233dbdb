"""Finding tiles in any mix of inputs, and refusing what is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imcat.errors import ConfigError, InputError
from imcat.surveys import SurveySettings, find_tiles, read_tile
from imcat.surveys import source as source_module
from imcat.surveys.sdss import FieldId
from imcat.surveys.sdss_write import write_frames


def test_any_mix_of_inputs(
    tmp_path: Path, sdss_folder: Path, make_generic: Callable[..., Path], make_level1: Callable[..., Any]
) -> None:
    toml = make_generic(tmp_path / "generic")
    make_level1(tmp_path / "csst", 7, 100000100)
    (tmp_path / "generic" / "config.toml").write_text("[detect]\nthreshold = 3\n")
    (tmp_path / "generic" / "notes.txt").write_text("no tile")
    names = ["003918-3-0213", "100000100-07", "field-1"]
    assert [s.name for s in find_tiles([tmp_path])] == names
    mixed = find_tiles([str(tmp_path / "*" / "*.toml"), sdss_folder, tmp_path / "csst", toml])
    assert [(s.name, s.survey) for s in mixed] == list(zip(names, ("sdss", "csst", "generic"), strict=True))
    assert [s.name for s in find_tiles([tmp_path], survey="csst")] == names[1:2]
    assert [s.name for s in find_tiles([tmp_path], survey="sdss")] == names[:1]
    assert [s.name for s in find_tiles([tmp_path], survey="generic")] == names[2:]


def test_nothing_found(tmp_path: Path, sdss_folder: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        find_tiles([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="the folder is empty"):
        find_tiles([tmp_path / "empty"])
    with pytest.raises(InputError, match="no file matches"):
        find_tiles([str(tmp_path / "*.fz")])
    with pytest.raises(InputError, match="nothing in it is recognised"):
        find_tiles([sdss_folder], survey="csst")
    with pytest.raises(InputError, match="no input"):
        find_tiles([])
    with pytest.raises(InputError, match="there is no survey 'hst'; expected auto, sdss"):
        find_tiles([sdss_folder], survey="hst")
    note = tmp_path / "note.txt"
    note.write_text("x")
    with pytest.raises(InputError, match="is no FITS or TOML file"):
        find_tiles([note])
    frame = next(sdss_folder.iterdir())
    with pytest.raises(InputError, match="is a FITS file; expected a TOML file"):
        find_tiles([frame], survey="generic")


def test_companions_are_no_tiles(tmp_path: Path) -> None:
    path = tmp_path / "psField-003900-6-0269.fit"
    path.write_bytes(b"SIMPLE")
    with pytest.raises(InputError, match="accompanies SDSS frames"):
        find_tiles([path])


def test_weight_file_alone(tmp_path: Path, make_level1: Callable[..., list[Path]]) -> None:
    image, weight, flags = make_level1(tmp_path, 7, 100000100)
    assert len(find_tiles([image, weight, flags])) == 1
    with pytest.raises(InputError, match="is a weight or flag file; expected its _img file"):
        find_tiles([weight], survey="csst")
    with pytest.raises(InputError):
        find_tiles([weight])


def test_a_damaged_frame_in_a_folder_fails_in_its_turn(sdss_folder: Path) -> None:
    path = sdss_folder / "frame-r-003918-3-0213.fits.bz2"
    path.write_bytes(b"BZh9 nonsense")
    (tile,) = find_tiles([sdss_folder])
    assert (tile.name, str(path) in tile.files) == ("003918-3-0213", True)
    with pytest.raises(InputError, match=r"frame-r-003918-3-0213\.fits\.bz2: the bzip2 stream"):
        read_tile(tile)
    with pytest.raises(InputError, match=r"frame-r-003918-3-0213\.fits\.bz2: the bzip2 stream"):
        find_tiles([path])  # what is named must be readable


@pytest.mark.parametrize("cut", [0, 100, 3000])
def test_a_damaged_exposure_in_a_folder_costs_no_other(
    tmp_path: Path, make_level1: Callable[..., list[Path]], cut: int
) -> None:
    make_level1(tmp_path, 7, 100000100)
    image, *_ = make_level1(tmp_path, 9, 100000101)
    image.write_bytes(image.read_bytes()[:cut])
    good, bad = find_tiles([tmp_path])
    assert (good.name, good.damage) == ("100000100-07", "")
    assert read_tile(good).name == good.name
    assert bad.name == "100000101-09"
    with pytest.raises(InputError, match=image.name):
        read_tile(bad)
    # It is there whatever the bands, and fails before any work where it is named.
    assert [t.name for t in find_tiles([tmp_path], bands=["i"])] == ["100000100-07", "100000101-09"]
    with pytest.raises(InputError, match=image.name):
        find_tiles([image])


def test_a_wrong_description_in_a_folder_costs_no_other(
    tmp_path: Path, make_generic: Callable[..., Path]
) -> None:
    make_generic(tmp_path / "a")
    second = make_generic(tmp_path / "b")
    text = second.read_text().replace("field-1", "field-2")
    wrong = second.rename(second.with_name("wrong one.toml"))
    wrong.write_text(text.replace(".fits", "-gone.fits"))
    good, bad = find_tiles([tmp_path])
    assert (good.name, bad.name) == ("field-1", "wrong-one")
    assert read_tile(good).name == "field-1"
    with pytest.raises(InputError, match=r"wrong one\.toml"):
        read_tile(bad)
    with pytest.raises(InputError, match=r"wrong one\.toml"):
        find_tiles([wrong])


def test_double_names_and_numbers(
    tmp_path: Path, make_generic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_generic(tmp_path / "a"), make_generic(tmp_path / "b")
    with pytest.raises(InputError, match="two tiles are named field-1"):
        find_tiles([first, second])
    assert len(find_tiles([first, first, str(tmp_path / "a")])) == 1
    second.write_text(second.read_text().replace("field-1", "field-2"))
    assert len(find_tiles([first, second])) == 2
    monkeypatch.setattr("imcat.surveys.generic.hashed_number", lambda name: 5)
    with pytest.raises(InputError, match="the names field-1 and field-2 lead to the same tile number"):
        find_tiles([first, second])


def test_hidden_leftovers_are_passed_over(tmp_path: Path, make_frame: Callable[..., Any]) -> None:
    write_frames(tmp_path, FieldId(94, 1, 12), [make_frame("r")], compress=False)
    (tmp_path / ".frame-g-000094-1-0012.fits.77-abcdef01.part").write_bytes(b"half")
    (source,) = find_tiles([tmp_path])
    assert len(source.files) == 1


def test_numbers_differ() -> None:
    numbers = {source_module.hashed_number(f"tile-{n}") for n in range(2000)}
    assert len(numbers) == 2000
    assert max(numbers) < 2**36


@pytest.mark.parametrize(
    "wrong", [{"ebv": -1.0}, {"csst_reference": "k"}, {"csst_min_overlap": 0.0}, {"csst_min_overlap": 1.5}]
)
def test_impossible_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SurveySettings(**wrong)


def test_images_that_a_toml_file_describes_are_not_frames_as_well(tmp_path):
    import shutil

    examples = Path(__file__).resolve().parents[2] / "examples" / "tile"
    for band in "gr":
        (source,) = examples.glob(f"frame-{band}-*.fits.bz2")
        shutil.copyfile(source, tmp_path / source.name)
        (tmp_path / f"{band}.toml").write_text(
            f'name = "own-{band}"\n[bands.{band}]\nimage = "{source.name}"\n'
            "zero_point = 22.5\nwavelength = 6000\n"
        )
    assert [tile.name for tile in find_tiles([tmp_path])] == ["own-g", "own-r"]
