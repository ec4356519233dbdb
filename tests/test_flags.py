"""Flag bits and their tables."""

from __future__ import annotations

from enum import IntFlag

import pytest

from imcat.flags import BAD_PIXEL_BITS, PIXEL_FLAGS, SOURCE_FLAGS, FlagInfo, PixelFlag, SourceFlag, decode

TABLES = [(PixelFlag, PIXEL_FLAGS), (SourceFlag, SOURCE_FLAGS)]


@pytest.mark.parametrize(("bits", "table"), TABLES)
def test_every_bit_is_explained_once_in_order(bits: type[IntFlag], table: tuple[FlagInfo, ...]) -> None:
    assert [(info.name, info.value) for info in table] == [(bit.name, bit.value) for bit in bits]
    assert [info.value for info in table] == [1 << k for k in range(len(table))]
    assert len({info.description for info in table}) == len(table)
    assert all(info.description.endswith(".") and "\n" not in info.description for info in table)


def test_bits_fit_their_columns() -> None:
    assert sum(info.value for info in PIXEL_FLAGS) < 2**16  # uint16
    assert sum(info.value for info in SOURCE_FLAGS) < 2**31  # int32


def test_first_bits_are_those_of_csst_level_one() -> None:
    first = ["BAD", "HOT", "WARM", "SATURATED", "COSMIC_RAY"]
    assert [info.name for info in PIXEL_FLAGS[:5]] == first


def test_bad_pixels() -> None:
    assert decode(BAD_PIXEL_BITS, PIXEL_FLAGS) == ["BAD", "HOT", "COSMIC_RAY", "TRAIL", "NO_DATA"]
    assert isinstance(BAD_PIXEL_BITS, int)


@pytest.mark.parametrize(("bits", "table"), TABLES)
def test_decoding_returns_what_was_set(bits: type[IntFlag], table: tuple[FlagInfo, ...]) -> None:
    assert decode(0, table) == []
    for bit in bits:
        assert decode(int(bit), table) == [bit.name]
    assert decode(sum(bits), table) == [bit.name for bit in bits]
    some = list(bits)[1::3]
    assert decode(sum(some), table) == [bit.name for bit in some]


def test_table_of_sources_is_the_default() -> None:
    assert decode(int(SourceFlag.BLENDED | SourceFlag.SATURATED)) == ["SATURATED", "BLENDED"]
    assert decode(1 << 30) == []
