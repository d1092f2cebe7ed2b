import os
import signal
import subprocess
import sys
import threading

import pytest

from kit import signals


def send(number):
    os.kill(os.getpid(), number)


def test_a_signal_is_noted_and_the_process_goes_on():
    before = signal.getsignal(signal.SIGTERM)
    with signals.handled_by(signals.Interruption()) as interruption:
        assert interruption.signal is None
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert interruption.signal == signal.SIGTERM
        assert isinstance(interruption.error("saved"), signals.Preempted)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_ctrl_c_ends_at_once():
    with signals.handled_by(signals.Interruption()) as interruption:
        send(signal.SIGINT)
        assert isinstance(interruption.error("saved"), KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_outside_the_main_thread_nothing_is_taken():
    found = []

    def look():
        with signals.handled_by(signals.Interruption()):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_without_a_kernel_there_is_nothing_to_wait_for():
    with signals.handled_by(signals.Forwarder()) as forwarder, pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)
    assert forwarder.signal == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_kernel_is_asked_to_end_and_killed_when_it_does_not(number, monkeypatch):
    monkeypatch.setattr(signals, "SAVE_SECONDS", 0.3)
    deaf = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))"
    wait = "print(flush=True); signal.pause(); signal.pause()"
    program = [sys.executable, "-c", f"{deaf}; {wait}"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as kernel:
        kernel.stdout.readline()  # it listens by now
        with signals.handled_by(signals.Forwarder()) as forwarder:
            forwarder.kernel = kernel.pid
            send(number)
            said = kernel.stdout.read()
    assert said == "asked\n"
    assert kernel.returncode == -signal.SIGKILL
