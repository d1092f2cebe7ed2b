"""Handlers of SIGTERM and Ctrl-C, so that a training is saved before the process ends."""

import contextlib
import os
import signal
import threading

PREEMPTED = 75  # exit code: EX_TEMPFAIL, "try again later", of sysexits.h
SAVE_SECONDS = 120  # for a kernel to save and end; schedulers themselves wait for 30 to 90


class Preempted(Exception):
    """SIGTERM came, and the training is saved: the same command resumes it."""


@contextlib.contextmanager
def handled_by(handler):
    """Handle SIGTERM and SIGINT with `handler` within the block, which gets the handler.

    Only a process's main thread can set handlers: in another one nothing changes.
    """
    numbers = []
    if threading.current_thread() is threading.main_thread():
        numbers = [signal.SIGTERM, signal.SIGINT]
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield handler
    finally:
        for number, earlier in zip(numbers, before, strict=True):
            signal.signal(number, earlier)


class Interruption:
    """A handler that records the signal, so that a training can stop after the current step.

    `signal` is None until one comes: SIGTERM (a preemption) or SIGINT (Ctrl-C, Jupyter's Stop). A
    second SIGTERM changes nothing; a second SIGINT ends at once, without a save.
    """

    def __init__(self):
        self.signal = None

    def __call__(self, number, frame):
        if number == self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def error(self, text):
        """Return the exception to end with."""
        if self.signal == signal.SIGINT:
            return KeyboardInterrupt(text)
        return Preempted(f"SIGTERM: {text}")


class Forwarder:
    """A handler that asks a notebook's kernel to end, whichever `signal` came.

    A training in it saves first; anything else ends at once. A kernel that is there SAVE_SECONDS
    later is killed. Raises KeyboardInterrupt when no kernel runs, and for a second Ctrl-C.
    """

    def __init__(self):
        self.signal = None
        self.kernel = None  # its process
        self.timer = None

    def __call__(self, number, frame):
        again = number == self.signal == signal.SIGINT
        self.signal = number
        if self.kernel is None or again:
            raise KeyboardInterrupt
        self._send(signal.SIGTERM)
        if self.timer is None:
            self.timer = threading.Timer(SAVE_SECONDS, self._send, [signal.SIGKILL])
            self.timer.daemon = True
            self.timer.start()

    def release(self):
        """Forget the kernel: it has ended."""
        self.kernel = None
        if self.timer:
            self.timer.cancel()

    def _send(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.kernel, number)
