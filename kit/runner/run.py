"""python -m kit run: execute the notebooks in order, with checked parameters, and keep a record.

The folder `run_dir` then holds the executed notebooks, report.html, params.json (every resolved
value) and environment.json (what they ran on). The notebooks themselves stay as they are.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from kit import ROOT, params, signals
from kit.evaluation import compatibility
from kit.files import write_json
from kit.inference import formats
from kit.runner import execution, report
from kit.training import cluster, run_state


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Run the command line: 0 when all went well, 1 when a notebook failed, 2 for bad input.

    75 after SIGTERM or the loss of another host, so that a scheduler starts it again, and 130 after
    Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # the notebooks keep what is said on stderr
    try:
        together = cluster.find()
        values = params.load(recipe=options.recipe, overrides=dict(options.parameters))
        tasks = plan(values, select(root / "notebooks", options.only))
        if together.number:  # the first host does all that is no training
            tasks = {path: given for path, given in tasks.items() if "replicas" in given}
        check_unfinished(tasks, root)
        environment = report.environment(root)
        check_training(tasks, environment["devices"], together.count)
        run_dir = prepare(values, tasks, root, together.number)
        write_json(run_dir / "environment.json", environment)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failure = ""
    with contextlib.suppress(KeyboardInterrupt), signals.handled_by(signals.Forwarder()) as asked:
        failure = execution.execute_all(tasks, run_dir, root, asked)
    last = failure.rpartition("\n")[2]
    preempted = last.startswith((signals.Preempted.__name__, cluster.HostLost.__name__))
    if asked.signal or preempted:
        what = last if preempted else f"what was executed is in {run_dir / 'notebooks'}"
        print(f"\ninterrupted; {what}; the same command goes on from there", file=sys.stderr)
        return 130 if asked.signal == signal.SIGINT else signals.PREEMPTED
    (run_dir / execution.LEDGER).unlink(missing_ok=True)
    report.write_report(run_dir)
    if failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    print("\n" + "\n".join(report.summary(run_dir)), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kit",
        epilog="other commands, each with its --help: doctor, data-service",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute the notebooks with parameters")
    add_parameter_options(run)
    run.add_argument("--only", metavar="02,03", help="only the notebooks that begin so")
    return parser


def add_parameter_options(parser: argparse.ArgumentParser) -> None:
    """Let a command take a recipe and single parameters, as `recipe` and `parameters`."""
    parser.add_argument("--recipe", help="a name in kit/recipes, or a YAML file of parameters")
    parser.add_argument(
        *("-p", "--parameter"),
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="one parameter of params.yaml; can be given again",
    )


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


def check_training(tasks: dict[Path, dict], devices: Sequence[str], count: int = 1) -> None:
    """Raise ValueError for parameters that would fail a training which hours of work precede.

    `devices` are those of each of `count` hosts.
    """
    gpus = sum(device.startswith("GPU") for device in devices)
    for parameters in tasks.values():
        if "replicas" in parameters:
            replicas = (parameters["replicas"] or gpus or 1) * count
            params.load(overrides=parameters).devices.check(replicas, parameters["batch_size"])
        if "test_views" in parameters:
            names = ("test_views", "test_sizes", "real_labels", "other_images", "compare_with")
            compatibility.check_settings(**{name: parameters[name] for name in names})
        if parameters.get("data_service"):
            from kit.pipeline import service

            deterministic = parameters["deterministic"]
            service.check(data_service=parameters["data_service"], deterministic=deterministic)
        if "exports" in parameters:
            names = ("exports", "calibration_images", "top_k", "latency_runs")
            formats.check_settings(**{name: parameters[name] for name in names})
        if parameters.get("photos") or parameters.get("predictions"):
            from kit.inference import batch  # as above

            if parameters["photos"]:
                batch.find_photos(ROOT / parameters["photos"])
            if parameters["predictions"]:
                batch.check_table(ROOT / parameters["predictions"])


def check_unfinished(tasks: dict[Path, dict], root: Path) -> None:
    """Raise ValueError when a training would go on in a run_dir with other parameters."""
    for parameters in tasks.values():
        if "checkpoint_minutes" in parameters:
            told = {name: value for name, value in parameters.items() if name != "replicas"}
            run_state.check(root / parameters["run_dir"], told)  # 0 replicas may be any number


def prepare(values: dict, tasks: dict[Path, dict], root: Path, host: int = 0) -> Path:
    """Make the run's folder with params.json in it, and return its path.

    A run of some notebooks over an earlier run's folder leaves the values of the others as that
    run wrote them. A `host` that is not number 0 gets a folder of its own in it. Raises ValueError
    for a folder that holds the kit, OSError for one that cannot be made.
    """
    run_dir = root / values["run_dir"]
    if run_dir.resolve() in (root.resolve(), *root.resolve().parents):
        raise ValueError(
            f"run_dir: {values['run_dir']!r} holds the kit itself; write for example runs/mine"
        )
    if host:
        run_dir /= f"host-{host}"
    (run_dir / "notebooks").mkdir(parents=True, exist_ok=True)
    path = run_dir / "params.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    used = {name for parameters in tasks.values() for name in parameters}
    kept = {name: earlier[name] for name in values if name in earlier and name not in used}
    write_json(path, values | kept)
    return run_dir
