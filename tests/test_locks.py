"""One process at a time holds a lock; a killed owner's is taken over, another host's respected."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from kit import ROOT, locks

WHAT = "table /t is being written"


def start(path, program="time.sleep(60)", hold="with locks.holding(path, 'it is held'):"):
    """Start a process that holds the lock and then says so; `program` follows."""
    text = f"import os, sys, time; from kit import locks\npath = sys.argv[1]\n{hold}\n    "
    text += f"print('held', flush=True); {program}"
    child = subprocess.Popen(
        [sys.executable, "-c", text, path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    return child


def end(child):
    child.kill()
    child.wait()
    child.stdout.close()


def refused(path):
    with pytest.raises(locks.InUse) as caught, locks.holding(path, WHAT):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_second_process_is_refused_in_a_line_that_names_the_first(tmp_path):
    path = tmp_path / "deeper/.lock"
    child = start(path)
    try:
        assert f"{WHAT} by process {child.pid} of {socket.gethostname()}" in refused(path)
        assert locks.owner(path).startswith(f"process {child.pid} of")
    finally:
        end(child)


def test_nothing_is_left_of_a_lock_that_was_given_up(tmp_path):
    with locks.holding(tmp_path / ".lock", WHAT):
        assert "by process" in refused(tmp_path / ".lock")  # this one too, a second time
    assert list(tmp_path.iterdir()) == []
    assert locks.owner(tmp_path / ".lock") == ""
    end(start(tmp_path / ".kept", "pass", "if not locks.keep(path, 'kept'):"))
    locks.keep(tmp_path / ".kept", WHAT)
    locks.keep(tmp_path / ".kept", WHAT)
    assert "by process" in refused(tmp_path / ".kept")
    locks.release(tmp_path / ".kept")
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    path = tmp_path / ".lock"
    end(start(path))
    assert path.exists() and locks.owner(path) == ""
    with locks.holding(path, WHAT):
        assert json.loads(path.read_text())["process"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"host": 1}', "\x00" * 40])
def test_a_lock_that_was_cut_off_is_taken_over(tmp_path, text):
    (tmp_path / ".lock").write_text(text)
    with locks.holding(tmp_path / ".lock", WHAT):
        pass


def record(**changes):
    return {**locks._identity(), **changes}


def test_another_process_of_the_same_number_is_not_the_owner(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps(record(start="17")))
    with locks.holding(tmp_path / ".lock", WHAT):
        pass


def test_another_hosts_lock_is_respected_and_its_removal_told(tmp_path):
    path = tmp_path / ".lock"
    path.write_text(json.dumps(record(host="elsewhere", process=7)))
    assert refused(path).endswith(f"if that process is gone, delete {path}")
    assert "process 7 of elsewhere" in locks.owner(path)
    path.unlink()
    with locks.holding(path, WHAT):
        pass


def test_a_disk_without_flock_looks_for_the_process(tmp_path, monkeypatch):
    path = tmp_path / ".lock"

    def unsupported(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    path.write_text(json.dumps(record(process=os.getppid(), start=locks._start(os.getppid()))))
    assert f"process {os.getppid()} of" in refused(path)
    path.write_text(json.dumps(record(start="17")))
    with locks.holding(path, WHAT):
        assert "by process" in refused(path)


def test_a_link_is_not_followed(tmp_path):
    other = tmp_path / "precious"
    other.write_text("{}")
    (tmp_path / ".lock").symlink_to(other)
    with pytest.raises(OSError, match="cannot be made"), locks.holding(tmp_path / ".lock", WHAT):
        pass
    assert other.read_text() == "{}"


def test_a_read_only_folder_needs_no_lock(tmp_path, monkeypatch):
    def read_only(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(locks.os, "open", read_only)
    with locks.holding(tmp_path / ".lock", WHAT):
        pass


CONTENDER = """
import os, sys, time
from kit import locks
path, until = sys.argv[1], float(sys.argv[2])
while time.time() < until:
    try:
        with locks.holding(f"{path}/.lock", "it is held"):
            os.close(os.open(f"{path}/inside", os.O_CREAT | os.O_EXCL))  # fails if not alone
            os.unlink(f"{path}/inside")
    except locks.InUse:
        continue
    print("once", flush=True)
"""


def test_never_two_at_once_whoever_is_killed(tmp_path):
    """Five contend for four seconds; one of them is killed and started anew, again and again."""
    until = str(time.time() + 4)
    command = [sys.executable, "-c", CONTENDER, tmp_path, until]
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    steady = [subprocess.Popen(command, **options) for _ in range(4)]
    while time.time() < float(until):
        child = subprocess.Popen(
            [sys.executable, "-c", DOOMED, tmp_path], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        time.sleep(0.15)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    for contender in steady:
        said, wrong = contender.communicate(timeout=30)
        assert wrong == ""
        assert said.count("once") > 10
    with locks.holding(tmp_path / ".lock", WHAT):
        pass


DOOMED = """
import sys
from kit import locks
while True:
    try:
        with locks.holding(f"{sys.argv[1]}/.lock", "it is held"):
            pass
    except locks.InUse:
        pass
"""
