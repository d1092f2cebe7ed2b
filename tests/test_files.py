"""Files appear whole: a failed write leaves what was there."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit import ROOT, locks
from kit.files import (
    hash_file,
    naming_full_disk,
    plain_path,
    read_json,
    replacing,
    temporary_beside,
    write_json,
)


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


def test_a_link_with_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    """Even one that somebody could foresee."""
    (tmp_path / "precious").write_text("old")
    monkeypatch.setattr("kit.files.token_hex", lambda count: "known")
    (tmp_path / f".a.{locks.mark()}known.txt").symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "precious").read_text() == "old"


WRITE = """
import sys, time
from kit.files import replacing, replacing_folder
with replacing(f"{sys.argv[1]}/a.txt"), replacing_folder(f"{sys.argv[1]}/b") as folder:
    (folder / "half").touch()
    with replacing(f"{sys.argv[1]}/deeper/c.txt"):
        print(flush=True)
        time.sleep(60)
"""


def test_what_a_killed_writer_left_goes_with_the_next_write_and_nothing_else_does(tmp_path):
    command = [sys.executable, "-c", WRITE, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        left = set(tmp_path.rglob(".*"))
        elsewhere = f".a.{int(locks.mark()[:8], 16) ^ 1:08x}{'0' * 32}.txt"  # of another host
        others = {tmp_path / name for name in (elsewhere, f".a.{'0' * 32}.txt", ".a.txt", "a.b")}
        for path in others:
            path.touch()
        write_json(tmp_path / "d.json", {})
        assert len(left) == 3 and left <= set(tmp_path.rglob(".*"))  # its writer is alive
        writer.kill()
    write_json(tmp_path / "d.json", {})
    deeper = {path for path in left if path.parent.name == "deeper"}
    assert set(tmp_path.rglob("*")) == others | deeper | {tmp_path / "d.json", tmp_path / "deeper"}


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    for name in ("a" * 251 + ".csv", "\u6f22" * 83 + ".npz", "." + "b" * 254):
        with replacing(tmp_path / name) as temporary:
            temporary.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"


def test_files_are_for_those_whom_the_umask_lets_read(tmp_path):
    (tmp_path / "plain").touch()
    assert temporary_beside(tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError("HDF5: can't write (errno = 28, error message = 'No space left on device')"),
    ],
)
def test_a_full_disk_names_the_file_and_the_remedy_once(tmp_path, error):
    path = tmp_path / "a.keras"
    refused = pytest.raises(OSError, match="a.keras cannot be written .*: make room, and")
    with refused as caught, naming_full_disk("outer"), replacing(path):
        raise error
    assert "\n" not in str(caught.value) and "outer" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a [1]", "*", "a?", "b\\c", "plain"])
def test_a_plain_path_leads_to_the_same_file(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file").write_text("here")
    with plain_path(folder / "file") as path:
        assert not set(path) & set("*?[]\\")
        assert Path(path).read_text() == "here"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "[" * 9999, '{"a": ' + "9" * 5000 + "}", '{"a": true}', "\xff"]
)
def test_json_of_another_form_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.json cannot be read \(.+\): delete it$") as caught:
        read_json(tmp_path / "a.json", {"a": int}, remedy="delete it")
    assert str(caught.value).isprintable()
