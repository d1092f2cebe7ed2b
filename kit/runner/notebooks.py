"""Notebooks: what they use, and their execution by papermill in the running interpreter."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kit import params, signals
from kit.files import naming_full_disk, read_json, write_json

DIED = (
    "the kernel died, as one does that the system ends for want of memory: lower batch_size, "
    "or shuffle_shards"
)
PROGRESS = "notebooks/executed.json"  # in run_dir, until the run has come to its end
# TensorFlow's first words, which no setting silences: on a CPU they look like errors.
CHATTER = re.compile(
    r"^(WARNING: All log messages before absl|I\d{4} |E\d{4} .*failed call to cuInit"
    r"|INFO:tensorflow:Using MirroredStrategy).*\n",
    re.M,
)


def select(folder: Path, only: str | None) -> list[Path]:
    """Give the numbered notebooks in order, or those whose names begin with a prefix in `only`.

    Raises ValueError for a prefix that no notebook has, FileNotFoundError without notebooks.
    """
    found = sorted(folder.glob("0*.ipynb"))
    if not found:
        raise FileNotFoundError(f"{folder}: no notebooks; restore them from git")
    prefixes = ["0"] if only is None else [prefix.strip() for prefix in only.split(",")]
    for prefix in prefixes:
        if not prefix or not any(path.name.startswith(prefix) for path in found):
            names = ", ".join(path.stem for path in found)
            raise ValueError(f"--only {prefix!r}: no notebook begins so; there are: {names}")
    return [path for path in found if path.name.startswith(tuple(prefixes))]


def declared(notebook_path: str | Path) -> list[str]:
    """Give the names in the notebook's cell tagged `parameters`.

    Raises ValueError for a file that is no notebook, or has not exactly one such cell.
    """
    name = Path(notebook_path).name
    try:
        cells = _code(notebook_path)
    except (ValueError, KeyError):
        raise ValueError(f"{name}: not a Jupyter notebook; restore it from git") from None
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{name}: {len(tagged)} cells are tagged `parameters`; tag exactly one")
    return re.findall(r"^(\w+)\s*[:=]", "".join(tagged[0]["source"]), re.MULTILINE)


def _code(notebook):
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def uses(notebook: Path) -> list[str]:
    """Give the parameters that a notebook's code uses, in the order of params.yaml.

    They are those that its parameters cell declares, and those of each section that it names as
    `p.section`; of all sections, where it hands over `p` itself.
    """
    used = set(declared(notebook))
    code = "\n".join("".join(cell["source"]) for cell in _code(notebook))
    named = set(re.findall(r"\bp\b(?!\s*=[^=])(?:\.(\w+))?", code)) - {"table"}
    if "training" in named:
        named = named - {"training"} | set(params.TRAINING)
    for section in named if named <= set(params.SECTIONS) else params.SECTIONS:
        used |= {field.name for field in dataclasses.fields(params.SECTIONS[section])}
    return [name for name in params.read_params() if name in used]


def execute_all(
    tasks: Mapping[Path, dict], given: Mapping, run_dir: Path, root: Path, forwarder=None
) -> str:
    """Execute the notebooks in order up to the first failure; return what to say of it, or "".

    `tasks` holds the values that each uses, and `given` what is injected into all. `forwarder`
    passes signals on to the kernels (signals.Forwarder). The same run again, after it was
    interrupted or killed, goes on with the notebook in which it was.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError, strip_color

    outputs = {notebook: run_dir / "notebooks" / notebook.name for notebook in tasks}
    took = {notebook: _took(output, given) for notebook, output in outputs.items()}
    executed = executed_before(tasks, run_dir)
    for output in list(outputs.values())[executed:]:
        output.unlink(missing_ok=True)  # or the report of a failure would show an older run's
    for number, (notebook, output) in enumerate(outputs.items(), start=1):
        if forwarder and forwarder.signal:
            return ""  # it came as the notebook before was ending
        step = f"step {number} of {len(tasks)}: {title(notebook)}"
        if number <= executed:
            print(f"{step}, done before the interruption", flush=True)
            continue
        print(f"{step}{took[notebook]}", flush=True)
        started = time.monotonic()
        try:
            execute(notebook, output, given, root, forwarder)
        except PapermillExecutionError as error:
            lines = strip_color("\n".join(error.traceback)).rstrip().splitlines()
            return _failure(output, [f"{error.ename}: {error.evalue}", *lines[-12:]])
        except DeadKernelError:
            return _failure(output, [DIED])
        print(f"{step}, done in {_duration(time.monotonic() - started)}\n", flush=True)
        write_json(run_dir / PROGRESS, {"run": identity(tasks), "executed": number})
    return ""


def title(notebook: Path) -> str:
    """Give what a notebook is called for people: "training" for 02_training.ipynb."""
    return notebook.stem.partition("_")[2].replace("_", " ")


def _took(output: Path, given: Mapping) -> str:
    """Say how long the same notebook took with the same values, if it is known."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        run = json.loads(output.read_text(encoding="utf-8"))["metadata"]["papermill"]
        if run["parameters"] == given and run["exception"] is None:
            return f", about {_duration(run['duration'])}"
    return ""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def executed_before(tasks: Mapping[Path, dict], run_dir: Path) -> int:
    """Give how many of these notebooks the same run has executed before it was interrupted."""
    with contextlib.suppress(OSError, ValueError):  # none, or one that a full disk has cut off
        found = read_json(run_dir / PROGRESS, {"run": list, "executed": int}, remedy="")
        return found["executed"] if found["run"] == identity(tasks) else 0
    return 0


def identity(tasks: Mapping[Path, dict]) -> list[str]:
    """Give a hash of each notebook and the values that it uses."""
    read = [path.read_bytes() + json.dumps(used).encode() for path, used in tasks.items()]
    return [hashlib.sha256(data).hexdigest() for data in read]


def execute(notebook: Path, output: Path, given: Mapping, root: Path, forwarder=None) -> None:
    """Execute one notebook through papermill in the folder `root`, echoing its streams."""
    import papermill

    # it warns of each parameter that the cell doesn't declare; kit.params knows them all
    logging.getLogger("papermill").setLevel(logging.ERROR)
    echoes = Echo(sys.stdout), Echo(sys.stderr)
    forwarder = forwarder or signals.Forwarder()
    try:
        with naming_full_disk(output):
            papermill.execute_notebook(
                _unformatted(notebook),
                _unformatted(output),
                dict(given),
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
        text = CHATTER.sub("", text)
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
    code = [cell["metadata"]["papermill"] for cell in _code(output) if cell["source"]]
    started = sum(bool(cell["start_time"]) for cell in code)
    where = f"{output.stem} failed in cell [{started}]; executed so far: {output}"
    return "\n".join([where, *lines])
