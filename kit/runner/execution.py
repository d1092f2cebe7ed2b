"""Notebooks executed by papermill in kernels of the running interpreter, their words passed on."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kit import signals
from kit.files import write_json
from kit.runner import report

LEDGER = "notebooks/executed.json"  # in run_dir, until the run has come to its end


def execute_all(tasks: dict[Path, dict], run_dir: Path, root: Path, forwarder=None) -> str:
    """Execute the notebooks in order up to the first failure; return what to say of it, or "".

    `forwarder` passes signals on to the kernels (signals.Forwarder). The same run again, after it
    was interrupted or killed, goes on with the notebook in which it was.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError, strip_color

    outputs = {notebook: run_dir / "notebooks" / notebook.name for notebook in tasks}
    executed = executed_before(tasks, run_dir)
    for output in list(outputs.values())[executed:]:
        output.unlink(missing_ok=True)  # or the report of a failure would show an older run's
    for number, (notebook, output) in enumerate(outputs.items()):
        if forwarder and forwarder.signal:
            return ""  # it came as the notebook before was ending
        if number < executed:
            print(f"== {notebook.stem}: done before the interruption", flush=True)
            continue
        print(f"== {notebook.stem}", flush=True)
        started = time.monotonic()
        try:
            execute(notebook, output, tasks[notebook], root, forwarder)
        except PapermillExecutionError as error:
            lines = strip_color("\n".join(error.traceback)).rstrip().splitlines()
            return _failure(output, lines[-12:])
        except DeadKernelError:
            return _failure(output, ["the kernel died; was it out of memory? lower batch_size"])
        print(f"== {notebook.stem}: done in {time.monotonic() - started:.0f} s", flush=True)
        write_json(run_dir / LEDGER, {"run": identity(tasks), "executed": number + 1})
    return ""


def executed_before(tasks: dict[Path, dict], run_dir: Path) -> int:
    """Give how many of these notebooks the same run has executed before it was interrupted."""
    ledger = run_dir / LEDGER
    found = json.loads(ledger.read_text(encoding="utf-8")) if ledger.exists() else {}
    return found["executed"] if found.get("run") == identity(tasks) else 0


def identity(tasks: dict[Path, dict]) -> list[str]:
    """Give a hash of each notebook and its parameters."""
    return [
        hashlib.sha256(path.read_bytes() + json.dumps(parameters).encode()).hexdigest()
        for path, parameters in tasks.items()
    ]


def execute(notebook: Path, output: Path, parameters: dict, root: Path, forwarder=None) -> None:
    """Execute one notebook through papermill in the folder `root`, echoing its streams."""
    import papermill

    echoes = Echo(sys.stdout), Echo(sys.stderr)
    forwarder = forwarder or signals.Forwarder()
    try:
        papermill.execute_notebook(
            _unformatted(notebook),
            _unformatted(output),
            parameters,
            cwd=root,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_own_kernel(forwarder),
            progress_bar=False,
            coalesce_streams=True,  # a progress bar redrawn 3,000 times is one output
            stdout_file=echoes[0],
            stderr_file=echoes[1],
        )
    finally:
        forwarder.release()
        for echo in echoes:
            echo.end()


def _unformatted(path: Path) -> str:
    """Give the path as papermill's str.format will leave it."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _own_kernel(forwarder: signals.Forwarder) -> type:
    """Give a kernel manager that sees no kernel but the running interpreter's.

    Jupyter takes the first kernel called python3 on its search path, and one in the home folder
    may belong to another Python. With no folder to search it makes the one of sys.executable.
    The traffic is encrypted: other users of the machine can reach its ports.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from traitlets import default

    class OwnKernel(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _search_nowhere(self):
            return KernelSpecManager(parent=self, kernel_dirs=[])

        @default("transport_encryption")
        def _encrypt(self):
            return "auto"

        async def _start_silent(self, **options):
            # its stderr comes as messages; ipykernel would print all of it here a second time
            await super()._async_start_kernel(**options, stderr=subprocess.DEVNULL)
            forwarder.kernel = self.provisioner.pid

        start_kernel = _start_silent

    return OwnKernel


class Echo:
    """A stream that passes text on, a line at a time and only as it was last drawn.

    On a terminal every redraw passes. What TensorFlow says of itself as it starts does not.
    """

    def __init__(self, stream):
        self.stream = stream
        self.line = ""

    def write(self, text: str) -> None:
        text = report.CHATTER.sub("", text)
        if self.stream.isatty():
            self.stream.write(text)
            return
        *lines, rest = (self.line + text).split("\n")
        for line in lines:
            self.stream.write(_last_drawn(line) + "\n")
        self.line = _last_drawn(rest) + rest[len(rest.rstrip("\r")) :]

    def flush(self) -> None:
        self.stream.flush()

    def end(self) -> None:
        if self.line:
            self.write("\n")
            self.flush()


def _last_drawn(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]


def _failure(output: Path, lines: Sequence[str]) -> str:
    cells = json.loads(output.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code" and cell["source"]]
    started = sum(bool(cell["metadata"]["papermill"]["start_time"]) for cell in code)
    where = f"{output.stem} failed in cell [{started}]; executed so far: {output}"
    return "\n".join([where, *lines])
