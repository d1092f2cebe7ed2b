"""python -m kit run: execute the notebooks in order, with checked parameters, and keep a record.

`run_dir` then holds the executed notebooks, report.html, params.json (every resolved value and
where it comes from) and environment.json (what they ran on).
"""

import contextlib
import functools
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kit import locks, params, signals
from kit.data import paths
from kit.files import read_json, write_json
from kit.runner import checks, environment, notebooks, summary
from kit.training import cluster

ASK = "--recipe: name one of {names} (python -m kit recipes tells of each), or params.yaml itself"
LOCK = ".run.lock"  # in run_dir, to the end of the process
GIVEN = "the command line"  # where a value comes from


def run(options, root: Path) -> Callable[[], int] | int:
    """Check everything that can be known before work starts; give what then runs the notebooks.

    Of a dry run, 0. Raises ValueError or OSError, with a line for each thing that is wrong.
    """
    if not options.recipe and not options.parameters:
        raise ValueError(ASK.format(names=", ".join(params.recipes())))
    together = cluster.find()
    p, tasks = plan(options, root)
    if options.dry_run:
        print("\n".join(described(p, tasks, root)))
        return 0
    if together.number:  # the first host does all that is no training
        tasks = {path: used for path, used in tasks.items() if "replicas" in used}
    found = environment.environment(root)
    checks.check_training(p, set().union(*tasks.values()), found["devices"], together.count)
    run_dir = prepare(p, tasks, root, together.number)
    write_json(run_dir / "environment.json", found)
    return functools.partial(execute, tasks, injected(options.recipe, p), run_dir, root)


def plan(options, root: Path) -> tuple[params.Parameters, dict[Path, dict]]:
    """Give the parameters, and for each notebook to execute the values that it uses.

    Raises ValueError with everything that is wrong and can be known without TensorFlow.
    """
    here, recipe, given = Path.cwd(), options.recipe, options.parameters
    values, *_ = params.resolve(recipe, given, here, GIVEN)
    chosen = notebooks.select(root / "notebooks", options.only)
    tasks = {path: {name: values[name] for name in notebooks.uses(path)} for path in chosen}
    problems = list(checks.problems(tasks, values["run_dir"], root))
    try:
        p = params.load(recipe, given, folder=here, source=GIVEN)
    except ValueError as error:
        problems = str(error).splitlines() + problems
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    return p, tasks


def injected(recipe: str | None, p: params.Parameters) -> dict:
    """Give what the notebooks are told: the recipe, and what the command line changes of it."""
    if recipe and Path(recipe).suffix and recipe != params.PARAMS.name:
        recipe = str(Path(recipe).resolve())
    given = {name: value for name, value in p.values.items() if p.sources[name] == GIVEN}
    return {"recipe": recipe or params.PARAMS.name, **given}


def described(p: params.Parameters, tasks: Mapping, root: Path) -> Iterator[str]:
    """Give lines that say what a run would do."""
    values = p.values
    yield f"notebooks: {', '.join(path.stem for path in tasks)}"
    for name in ("raw_dir", "data_dir", "run_dir"):
        missing = not paths.is_remote(values[name]) and not (root / values[name]).exists()
        yield f"{name}: {values[name]}{' (not there yet)' * missing}"
    yield "values that differ from params.yaml:"
    for name, source in p.sources.items():
        if source != params.PARAMS.name:
            yield f"  {name}: {json.dumps(values[name])} ({source})"


def prepare(p: params.Parameters, tasks: Mapping, root: Path, host: int = 0) -> Path:
    """Make the run's folder with params.json in it, and return its path.

    A run of some notebooks over an earlier run's folder leaves the values of the others as that
    run wrote them. A `host` that is not number 0 gets a folder of its own in it.
    """
    run_dir = root / p.run.run_dir / (f"host-{host}" if host else "")
    locks.keep(run_dir / LOCK, f"run_dir {run_dir} is used")
    path = run_dir / "params.json"
    earlier = read_json(path, remedy="delete it") if path.exists() else {}
    sources = earlier.get("sources", {})
    used = {name for names in tasks.values() for name in names}
    recorded = {**p.values, "sources": dict(p.sources)}
    for name in p.sources:
        if name in earlier and name not in used:
            recorded[name] = earlier[name]
            recorded["sources"][name] = sources.get(name, "an earlier run")
    (run_dir / "notebooks").mkdir(parents=True, exist_ok=True)
    write_json(path, recorded)
    return run_dir


def execute(tasks: Mapping, given: Mapping, run_dir: Path, root: Path) -> int:
    """Execute the notebooks, write the report and say how it ended: 0, or 1 when one failed.

    75 after SIGTERM or the loss of another host, so that a scheduler starts it again, and 130 after
    Ctrl-C.
    """
    failure = ""
    with contextlib.suppress(KeyboardInterrupt), signals.handled_by(signals.Forwarder()) as asked:
        failure = notebooks.execute_all(tasks, given, run_dir, root, asked)
    last = failure.rpartition("\n")[2]
    preempted = last.startswith((signals.Preempted.__name__, cluster.HostLost.__name__))
    if asked.signal or preempted:
        what = last if preempted else f"what was executed is in {run_dir / 'notebooks'}"
        print(f"\ninterrupted; {what}; the same command goes on from there", file=sys.stderr)
        return 130 if asked.signal == signal.SIGINT else signals.PREEMPTED
    (run_dir / notebooks.PROGRESS).unlink(missing_ok=True)
    from kit.runner import report  # nbconvert takes a second

    report.write_report(run_dir)
    if failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    print("\n".join(summary.lines(run_dir)), flush=True)
    return 0
