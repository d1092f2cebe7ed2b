"""Files appear whole: a failed write leaves what was there."""

import json
import math

import pytest

from kit.files import hash_file, replacing, write_json


def test_json_is_read_back_with_a_line_for_each_key(tmp_path):
    values = {"name": "Hähne", "path": "caf\udce9", "matrix": [[1, 2], [3, 4]], "none": None}
    write_json(tmp_path / "deeper/a.json", values)
    text = (tmp_path / "deeper/a.json").read_text(encoding="utf-8")
    assert json.loads(text) == values
    assert len(text.splitlines()) == len(values) + 2
    assert "Hähne" in text


def test_number_that_json_does_not_have_is_refused_and_the_old_file_stays(tmp_path):
    write_json(tmp_path / "a.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": math.nan})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.0}


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "old"}


def test_hash_is_sha_256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")  # the example of FIPS 180-4
    assert hash_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
