"""A notebook that only looks: at the training of another process, until it ends."""

import subprocess
import sys
import time

import IPython.display
import pytest

from kit import ROOT, locks
from kit.runner import watch
from kit.training import run_state

OTHER = """
import sys, time
from kit import locks
locks.keep(sys.argv[1], "another training")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Give a process that holds the lock of a training in tmp_path."""
    command = [sys.executable, "-c", OTHER, str(tmp_path / run_state.LOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.readline()
        yield process
        process.kill()


class Screen:
    """The displays of a notebook, in order, and what each last showed."""

    def __init__(self):
        self.shown = []

    def display(self, *arguments, **options):
        self.shown.append(None)
        place = len(self.shown) - 1

        class Handle:
            def update(_, content, **options):
                self.shown[place] = content

        return Handle()


@pytest.fixture
def screen(monkeypatch):
    found = Screen()
    monkeypatch.setattr(IPython.display, "display", found.display)
    monkeypatch.setattr(watch, "is_interactive", lambda: True)
    monkeypatch.setattr(watch, "REDRAW_SECONDS", 0.05)
    return found


def write_history(run_dir, epochs):
    rows = [f"{epoch},1.{epoch},0.5,1.0,0.{epoch}" for epoch in range(epochs)]
    text = "\n".join(["epoch,loss,top1,val_loss,val_top1", *rows])
    (run_dir / "history.csv").write_text(text + "\n")


def test_curves_are_shown_until_the_other_training_ends_and_nothing_is_written(
    other, screen, tmp_path, monkeypatch
):
    seen = []

    def tick(seconds):  # an epoch ends; after the third the other process does
        seen.append(screen.shown[0]["text/plain"])
        write_history(tmp_path, len(seen))
        if len(seen) == 3:
            other.kill()
            other.wait()

    monkeypatch.setattr(time, "sleep", tick)
    with pytest.raises(watch.Watched, match="nothing was trained on this page"):
        watch.another_training(tmp_path)
    assert [f"; {epochs} epochs are done" in line for epochs, line in enumerate(seen)] == [True] * 3
    assert all(f"process {other.pid} of " in line for line in seen)
    assert seen[2].endswith("validation 10.0%. Stop ends the watching alone.")
    loss, accuracy = (figure.axes[0] for figure in screen.shown[1:])
    assert list(loss.lines[0].get_ydata()) == [1.0, 1.1]
    assert len(accuracy.lines) == 2
    assert {path.name for path in tmp_path.iterdir()} <= {"history.csv", run_state.LOCK}


def test_stop_ends_the_watching_and_not_the_training(other, screen, tmp_path, monkeypatch):
    def stop(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    with pytest.raises(watch.Watched) as caught:
        watch.another_training(tmp_path)
    assert caught.value._render_traceback_() == [str(caught.value)]  # what IPython shows
    assert other.poll() is None
    assert locks.owner(tmp_path / run_state.LOCK)


def test_nobody_else_trains_so_the_page_does(screen, tmp_path):
    watch.another_training(tmp_path)
    locks.keep(tmp_path / run_state.LOCK, "this process")
    watch.another_training(tmp_path)  # as a second run of the notebook's cells
    locks.release(tmp_path / run_state.LOCK)
    assert screen.shown == []


def test_in_batch_nothing_is_watched_and_the_second_training_is_refused(
    other, screen, tmp_path, monkeypatch
):
    monkeypatch.setattr(watch, "is_interactive", lambda: False)
    watch.another_training(tmp_path)
    refused = pytest.raises(locks.InUse, match=f"being trained in by process {other.pid} of ")
    with refused, run_state.alone(tmp_path):
        raise AssertionError("not reached")
