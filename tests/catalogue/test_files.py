import pytest

from imcat.catalogue import atomic_path, is_leftover


def test_replaces_the_file_when_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def write_half(path):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")


def test_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_half(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_leftovers_are_recognised(tmp_path):
    with atomic_path(tmp_path / "x.parquet") as temporary:
        assert is_leftover(temporary)
        assert temporary.suffix != ".parquet"
    assert not is_leftover("x.parquet")
    assert not is_leftover(".hidden.part")
