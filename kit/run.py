"""python -m kit run: execute the notebooks in order, with checked parameters, and keep a record.

The folder `run_dir` then holds the executed notebooks, report.html, params.json (every resolved
value) and environment.json (what they ran on). The notebooks themselves stay as they are.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kit import ROOT, params, record
from kit.training import checks


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Run the command line: 0 when all went well, 1 when a notebook failed, 2 for bad input."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # the notebooks keep what is said on stderr
    try:
        values = params.load(recipe=options.recipe, overrides=dict(options.parameters))
        tasks = plan(values, select(root / "notebooks", options.only))
        environment = record.environment(root)
        check_training(tasks, environment["devices"])
        run_dir = prepare(values, tasks, root)
        record.write_json(run_dir / "environment.json", environment)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        failure = execute_all(tasks, run_dir, root)
    except KeyboardInterrupt:
        print(f"\ninterrupted; what was executed is in {run_dir / 'notebooks'}", file=sys.stderr)
        return 130
    record.write_report(run_dir)
    if failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    print("\n" + "\n".join(record.summary(run_dir)), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kit")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute the notebooks with parameters")
    run.add_argument("--recipe", help="a name in kit/recipes, or a YAML file of parameters")
    run.add_argument("--only", metavar="02,03", help="only the notebooks that begin so")
    run.add_argument(
        *("-p", "--parameter"),
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="one parameter of params.yaml; can be given again",
    )
    return parser


def select(notebooks_dir: Path, only: str | None) -> list[Path]:
    """Give the numbered notebooks in order, or those whose names begin with a prefix in `only`.

    Raises ValueError for a prefix that no notebook has, FileNotFoundError without notebooks.
    """
    notebooks = sorted(notebooks_dir.glob("0*.ipynb"))
    if not notebooks:
        raise FileNotFoundError(f"{notebooks_dir}: no notebooks; restore them from git")
    if only is None:
        return notebooks
    prefixes = [prefix.strip() for prefix in only.split(",")]
    for prefix in prefixes:
        if not prefix or not any(path.name.startswith(prefix) for path in notebooks):
            names = ", ".join(path.stem for path in notebooks)
            raise ValueError(f"--only {prefix!r}: no notebook begins so; there are: {names}")
    return [path for path in notebooks if path.name.startswith(tuple(prefixes))]


def plan(values: dict, notebooks: Sequence[Path]) -> dict[Path, dict]:
    """Give for each notebook the values of the parameters that it declares, in its own types.

    Raises ValueError when a notebook declares a name that params.yaml lacks, or a type that the
    value does not have (somebody edited params.yaml itself).
    """
    tasks = {}
    for notebook in notebooks:
        declared = params.declared(notebook)
        for name in declared:
            if name not in values:
                raise ValueError(f"{notebook.name}: {name} is not in params.yaml; add it there")
        tasks[notebook] = {
            name: params.convert(name, values[name], like) for name, like in declared.items()
        }
    return tasks


def check_training(tasks: dict[Path, dict], devices: Sequence[str]) -> None:
    """Raise ValueError for parameters that would fail a training which hours of work precede."""
    gpus = sum(device.startswith("GPU") for device in devices)
    for parameters in tasks.values():
        if "replicas" in parameters:
            replicas = parameters["replicas"] or gpus or 1
            checks.check_batch(batch_size=parameters["batch_size"], replicas=replicas)
            checks.check_precision(precision=parameters["precision"], replicas=replicas)
            checks.check_sizes(
                image_size=parameters["image_size"], resize_side=parameters["resize_side"]
            )


def prepare(values: dict, tasks: dict[Path, dict], root: Path) -> Path:
    """Make the run's folder with params.json in it, and return its path.

    A run of some notebooks over an earlier run's folder leaves the values of the others as that
    run wrote them. Raises ValueError for a folder that holds the kit, OSError for one that cannot
    be made.
    """
    run_dir = root / values["run_dir"]
    if run_dir.resolve() in (root.resolve(), *root.resolve().parents):
        raise ValueError(
            f"run_dir: {values['run_dir']!r} holds the kit itself; write for example runs/mine"
        )
    (run_dir / "notebooks").mkdir(parents=True, exist_ok=True)
    path = run_dir / "params.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    used = {name for parameters in tasks.values() for name in parameters}
    kept = {name: earlier[name] for name in values if name in earlier and name not in used}
    record.write_json(path, values | kept)
    return run_dir


def execute_all(tasks: dict[Path, dict], run_dir: Path, root: Path) -> str:
    """Execute the notebooks in order up to the first failure; return what to say of it, or ""."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError, strip_color

    outputs = {notebook: run_dir / "notebooks" / notebook.name for notebook in tasks}
    for output in outputs.values():
        output.unlink(missing_ok=True)  # or the report of a failure would show an older run's
    for notebook, output in outputs.items():
        print(f"== {notebook.stem}", flush=True)
        started = time.monotonic()
        try:
            execute(notebook, output, tasks[notebook], root)
        except PapermillExecutionError as error:
            lines = strip_color("\n".join(error.traceback)).rstrip().splitlines()
            return _failure(output, lines[-12:])
        except DeadKernelError:
            return _failure(output, ["the kernel died; was it out of memory? lower batch_size"])
        print(f"== {notebook.stem}: done in {time.monotonic() - started:.0f} s", flush=True)
    return ""


def execute(notebook: Path, output: Path, parameters: dict, root: Path) -> None:
    """Execute one notebook through papermill in the folder `root`, echoing its streams."""
    import papermill

    echoes = Echo(sys.stdout), Echo(sys.stderr)
    try:
        papermill.execute_notebook(
            _unformatted(notebook),
            _unformatted(output),
            parameters,
            cwd=root,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_own_kernel(),
            progress_bar=False,
            coalesce_streams=True,  # a progress bar redrawn 3,000 times is one output
            stdout_file=echoes[0],
            stderr_file=echoes[1],
        )
    finally:
        for echo in echoes:
            echo.end()


def _unformatted(path: Path) -> str:
    """Give the path as papermill's str.format will leave it."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _own_kernel() -> type:
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
        text = record.CHATTER.sub("", text)
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
