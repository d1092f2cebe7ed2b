"""The curves of a training that another process runs, in a notebook that only looks."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from kit import locks, plots
from kit.evaluation.model_card import read_history
from kit.notebook import is_interactive
from kit.training import run_state

REDRAW_SECONDS = 10
CURVES = ("loss", "accuracy")


class Watched(Exception):
    """Somebody else has trained here: what follows in the notebook must not train again."""

    def _render_traceback_(self):
        return [str(self)]  # IPython shows this line in place of a traceback


def another_training(run_dir):
    """Show the curves of the training that another process runs in `run_dir`, until it ends.

    They are drawn anew every ten seconds; nothing is written. Returns at once when nobody trains
    there, and in batch, where a second training is refused as it starts. Raises Watched at the end,
    or when the cell is stopped, so that the cells below don't train as well.
    """
    if not is_interactive() or not owner_of(run_dir):
        return
    from IPython.display import display

    shown = [display("", display_id=True) for _ in range(1 + len(CURVES))]
    with suppress(KeyboardInterrupt):
        while owner := owner_of(run_dir):
            draw(run_dir, owner, shown)
            time.sleep(REDRAW_SECONDS)
    raise Watched(
        f"{run_dir}: nothing was trained on this page. The other training has ended, or is watched "
        "no longer; run this cell again to look at it"
    )


def owner_of(run_dir):
    """Name the other process that trains in `run_dir`; "" when none does."""
    owner = locks.owner(Path(run_dir, run_state.LOCK))
    own = f"process {os.getpid()} of {socket.gethostname()} "
    return "" if owner.startswith(own) else owner


def draw(run_dir, owner, shown):
    """Update the displays: a line on who trains and how far, and the curves so far."""
    rows = read_history(run_dir)
    text = f"{owner} trains in {run_dir}; {len(rows)} epochs are done"
    if rows and "val_top1" in rows[-1]:
        text += f", validation {float(rows[-1]['val_top1']):.1%}"
    shown[0].update({"text/plain": f"{text}. Stop ends the watching alone."}, raw=True)
    for display, quantity in zip(shown[1:], CURVES, strict=True):
        if rows:
            display.update(plots.curves(rows, quantity))
