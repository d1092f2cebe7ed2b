"""Mutants of the kit's core, each tried on the fast tests of its file: `make mutants`.

A mutant is a file with one change: a comparison turned round, + for -, a constant changed, `not` or
a returned value dropped, a condition always true or false. One that the tests do not notice is a
survivor. runs/mutants.jsonl holds the verdicts so far; a second run tries only what it lacks, so
delete it after a change of code or tests.

    python tests/mutation/mutate.py [SECONDS] [FILE ...]
"""

import ast
import collections
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import hypothesis
import keras  # noqa: F401  imported once, for all mutants: each is tried in a fork
import pytest

ROOT = Path(__file__).parents[2]
VERDICTS = ROOT / "runs" / "mutants.jsonl"
EACH, SEED, LIMIT = 8, 0, 300  # mutants of a file; of their choice; seconds for one mutant's tests
ROOMS = {
    "pipeline": ("preprocessing", "operations", "augment", "mixing", "order", "dataset"),
    "model": ("resnet", "summary"),
    "training": (
        *("step", "trainer", "losses", "optimizers", "schedule", "callbacks", "ema", "layers"),
        *("nonfinite", "run_state", "backup"),
    ),
    "evaluation": ("scores", "calibration", "comparison"),
}
TESTS = {f"{room}/{name}": [name] for room, names in ROOMS.items() for name in names} | {
    "evaluation/scores": ["scores", "one_vs_rest"],
    "training/step": [
        "step",
        "backup.py::test_a_loss_that_is_not_finite_stops_and_names_the_images",
    ],
    "training/trainer": [  # the quickest first
        "trainer.py::test_operations_are_deterministic_only_if_asked",
        "trainer.py::test_what_is_left_is_cut_where_the_size_changes",
        "trainer.py::test_the_saved_model_says_what_it_was_trained_with",
        "trainer.py::test_history_holds_each_epoch",
        "backup.py::test_a_finished_run_of_more_epochs_ends_bit_for_bit_as_one_that_had_them",
        "ema.py::test_the_average_is_what_is_saved",
        "backup.py::test_a_run_stopped_thrice_ends_bit_for_bit_as_one_never_stopped",
    ],
    "training/optimizers": ["optimizers", "trainer"],
    "training/layers": [
        "layers",
        "fine_tuning.py::test_the_layers_up_to_a_part_are_frozen",
        "drop_path",
    ],
    "training/nonfinite": [
        "step.py::test_the_first_step_that_is_not_finite_is_kept",
        "step.py::test_from_a_step_that_is_not_finite_on_nothing_changes",
        "backup.py::test_a_loss_that_is_not_finite_stops_and_names_the_images",
    ],
}
TURNED = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq}
TURNED |= {ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot}
TURNED |= {ast.IsNot: ast.Is}
STRICT = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
EXCHANGED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
EXCHANGED |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult}


def changed(node):
    """List what may stand in the node's place."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=ends):
            kinds = [table[type(op)] for table in (TURNED, STRICT) if type(op) in table]
            return [ast.Compare(left, [kind()], ends) for kind in kinds]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in EXCHANGED:
            return [ast.BinOp(left, EXCHANGED[type(op)](), right)]
        case ast.BoolOp(op=op, values=values):
            return [ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)]
        case ast.Constant(value=bool(value)):
            return [ast.Constant(not value)]
        case ast.Constant(value=int(value) | float(value)):
            return [ast.Constant(value + 1 if isinstance(value, int) else 2 * value or 1.0)]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return [operand]
        case ast.Return(value=value) if value:
            return [ast.Return(None)]
        case ast.If() | ast.IfExp():
            return [type(node)(ast.Constant(b), node.body, node.orelse) for b in (True, False)]
    return []


def sites(file):
    """List (name, number of the node, number of the change) of each mutant of a file.

    A name holds no line: it stays when lines are added above.
    """
    found, seen = [], collections.Counter()
    for number, node in enumerate(ast.walk(ast.parse(original(file)))):
        for which, other in enumerate(changed(node)):
            before, after = (" ".join(ast.unparse(n).split())[:60] for n in (node, other))
            name = f"{file}.py {before} -> {after}"
            seen[name] += 1
            found.append((f"{name} #{seen[name]}", number, which))
    return found


def mutant(file, number, which):
    """Give the source of a file with that change."""
    tree = ast.parse(original(file))
    node = list(ast.walk(tree))[number]
    other = ast.copy_location(changed(node)[which], node)
    return ast.unparse(ast.fix_missing_locations(Replace(node, other).visit(tree)))


def line(file, number, _):
    return list(ast.walk(ast.parse(original(file))))[number].lineno


def original(file):
    return (ROOT / "kit" / f"{file}.py").read_text(encoding="utf-8")


class Replace(ast.NodeTransformer):
    def __init__(self, node, other):
        self.node, self.other = node, other

    def visit(self, node):
        return self.other if node is self.node else self.generic_visit(node)


def attempt(file, source):
    """Run the tests of a file in a fork, with this source in its place; give the verdict."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os._exit(run(file, source))
    until, ended = time.monotonic() + LIMIT, (0, 0)
    try:
        while ended == (0, 0) and time.monotonic() < until:
            time.sleep(0.05)
            ended = os.waitpid(child, os.WNOHANG)
    finally:  # also where this run is ended amid a mutant that trains forever
        if ended == (0, 0):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if ended == (0, 0):
        return "took too long"
    return "survived" if ended[1] == 0 else "noticed"


def run(file, source):
    name = f"kit.{file.replace('/', '.')}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{Path(file).name}.py")  # AutoGraph reads the source of what it maps
        path.write_text(source, encoding="utf-8")

        class Finder:
            @staticmethod
            def find_spec(wanted, *_):
                found = wanted == name
                return importlib.util.spec_from_file_location(name, path) if found else None

        sys.meta_path.insert(0, Finder)
        hypothesis.settings.register_profile("mutants", database=None, derandomize=True)
        hypothesis.settings.load_profile("mutants")
        tests = [t if "::" in t else f"{t}.py" for t in TESTS[file]]
        tests = [str(ROOT / "tests" / f"test_{test}") for test in tests]
        options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:randomly"]
        return int(pytest.main([*options, *tests]))


def main(seconds="1e9", *files):
    """Try what has no verdict yet, as long as the seconds last; print the survivors."""
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    until = time.monotonic() + float(seconds)
    VERDICTS.parent.mkdir(exist_ok=True)
    known = dict(map(json.loads, VERDICTS.open())) if VERDICTS.exists() else {}
    counts = dict.fromkeys(("noticed", "took too long", "survived", "not tried"), 0)
    for file in files or TESTS:
        found = sites(file)
        chosen = random.Random(f"{SEED} {file}").sample(found, min(EACH, len(found)))
        for name, *change in [*chosen, (f"{file}.py itself",)]:
            if not change and "survived" in [known.get(one) for one, *_ in chosen]:
                continue  # so the tests pass without a change
            if name not in known and time.monotonic() < until:
                known[name] = attempt(file, mutant(file, *change) if change else original(file))
                with VERDICTS.open("a") as verdicts:
                    verdicts.write(json.dumps([name, known[name]]) + "\n")
            verdict = known.get(name, "not tried")
            if not change:
                if verdict in ("noticed", "took too long"):
                    print(f"without a change the tests of {file}.py fail")
                continue
            counts[verdict] += 1
            if verdict == "survived":
                print(f"survived: line {line(file, *change)} of {name}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
