"""The committed notebooks: executed, thin, with known parameters, free of a machine's traces."""

import ast
import io
import json
import re
import sys
import tokenize
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from kit import ROOT, params

PATHS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)

MACHINE = re.compile(
    r"(?<![\w.:/])/(home|root|Users|tmp|var|opt|mnt|usr|srv|private|content|workspace)/"
    r"|\b[A-Z]:\\\w|" + re.escape(str(ROOT))
)


def code_cells(path: Path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def is_parameters(cell: dict) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def tree(cell: dict) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(source(cell)))


def ignores_output(cell: dict) -> bool:
    marks = [*cell["metadata"].get("tags", []), *re.findall(r"(?m)^\s*#\s*(\S+)", source(cell))]
    return any(re.match(r"nbval[-_](ignore[-_]output|skip)", mark.lower()) for mark in marks)


def words(path: Path) -> list[str]:
    """Return every text that a reader sees: sources, and outputs that are no images."""
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        found.append(source(cell))
        for output in cell.get("outputs", []):
            data = output.get("data", {}).items()
            parts = [output.get("text", ""), *output.get("traceback", [])]
            parts += [part for kind, part in data if not kind.startswith("image/")]
            found += ["".join(part) if isinstance(part, list) else str(part) for part in parts]
    return found


def test_there_is_a_notebook_for_each_stage():
    stages = ["01_data_prep", "02_training", "03_evaluation", "04_inference", "05_throughput"]
    assert [path.stem for path in PATHS] == stages


@each
def test_every_cell_was_run_once_and_in_order(path):
    counts = [cell["execution_count"] for cell in code_cells(path)]  # nbval skips null ones
    assert counts == list(range(1, len(counts) + 1))


@each
def test_no_cell_ended_in_an_error(path):
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]


@each
def test_each_parameter_is_one_annotated_line_with_a_comment(path):
    """None stands for the recipe's value; the annotation is the type of params.yaml's."""
    expected = params.read_params() | {"recipe": ""}
    (cell,) = filter(is_parameters, code_cells(path))
    lines = source(cell).splitlines()
    assert len(lines) <= 16
    for line in lines:
        (statement,) = ast.parse(line).body
        name, value = statement.target.id, ast.literal_eval(statement.value)
        assert statement.annotation.id == type(expected[name]).__name__, line
        assert value == ("demo" if name == "recipe" else None), line
        tokens = tokenize.generate_tokens(io.StringIO(line).readline)
        assert [token.string for token in tokens if token.type == tokenize.COMMENT], line


@each
def test_the_parameters_are_loaded_before_they_are_used(path):
    cells = code_cells(path)
    (place,) = (number for number, cell in enumerate(cells) if is_parameters(cell))
    before = "\n".join(source(cell) for cell in cells[place + 1 : place + 4])
    loading = r"p = params\.load_notebook\(globals\(\)\)\n(.*\n)?p\.table\(\)$"
    assert re.search(loading, before, re.MULTILINE)


@each
def test_a_notebook_calls_and_does_not_define(path):
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for cell in code_cells(path):
        assert not [node for node in ast.walk(tree(cell)) if isinstance(node, definitions)]


@each
def test_what_a_notebook_imports_is_declared(path):
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = text.partition("\ndependencies = [")[2].partition("\n]")[0]
    declared = set(re.findall(r'(?m)^    "([\w-]+)', needed))
    nodes = [node for cell in code_cells(path) for node in ast.walk(tree(cell))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    brought = {"numpy", "IPython"}  # by TensorFlow and by JupyterLab, which are nothing without
    assert packages - brought - {"kit"} <= declared


@each
def test_cells_are_short(path):
    """At most 12 lines, besides the imports."""
    for cell in filter(lambda cell: not is_parameters(cell), code_cells(path)):
        lines = [line for line in source(cell).splitlines() if line]
        assert sum(not line.startswith(("import ", "from ")) for line in lines) <= 12, source(cell)


@each
def test_at_least_half_of_the_cells_have_their_output_compared(path):
    cells = code_cells(path)
    assert 2 * sum(map(ignores_output, cells)) <= len(cells)


@each
def test_nothing_names_a_place_on_somebodys_machine(path):
    found = [match.group() for text in words(path) for match in MACHINE.finditer(text)]
    assert found == []
