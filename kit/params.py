"""Parameters: params.yaml, then a recipe, then what the command line says; nothing unknown."""

import ast
import difflib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from kit import ROOT

PARAMS = ROOT / "params.yaml"
RECIPES = Path(__file__).resolve().parent / "recipes"

KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a decimal number",
    str: "text",
    list: "a list",
    dict: "a mapping",
    type(None): "empty",
}
EXPONENT = re.compile(
    r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)"
)  # what people write, and YAML 1.1 calls text


def load(*, recipe: str | None = None, overrides: Mapping | None = None) -> dict:
    """Give every parameter of params.yaml with its resolved value.

    `recipe` is a name in kit/recipes or the path of a YAML file; `overrides` come last, as values
    or as text from a command line. Raises ValueError for an unknown name or a wrong type,
    FileNotFoundError for a recipe that is not there.
    """
    expected = _read_params()
    values = dict(expected)
    if recipe is not None:
        path = _recipe_path(recipe)
        values |= _typed(_read(path), expected, f"{path.name}: ")
    texts = overrides or {}
    given = {name: _parse(text, expected.get(name)) for name, text in texts.items()}
    return values | _typed(given, expected)


def check(values: Mapping) -> None:
    """Raise ValueError where a parameter in `values` has another type than in params.yaml.

    Other names are none of its business, so that a notebook can say `params.check(globals())`.
    """
    for name, like in _read_params().items():
        if name in values:
            convert(name, values[name], like)


def declared(notebook_path: str | Path) -> dict:
    """Give the names and literal values of the notebook's cell tagged `parameters`.

    Raises ValueError when there is not exactly one such cell, or when one of its lines is not an
    annotated literal (`name: type = value`).
    """
    name = Path(notebook_path).name
    try:
        cells = json.loads(Path(notebook_path).read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError):
        raise ValueError(f"{name}: not a Jupyter notebook; restore it from git") from None
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(f"{name}: {len(tagged)} cells are tagged `parameters`; tag exactly one")
    found = {}
    for line in "".join(tagged[0]["source"]).splitlines():
        try:
            for node in ast.parse(line).body:
                found[node.target.id] = ast.literal_eval(node.value)
        except (AttributeError, SyntaxError, ValueError):
            raise ValueError(
                f"{name}: parameters cell: {line!r} is no `name: type = literal  # comment`"
            ) from None
    return found


def convert(name: str, value, like):
    """Give `value` in the type of `like`: a whole number may stand where a number is expected.

    Raises ValueError for any other difference of type, in a list's elements too.
    """
    if isinstance(value, list) and isinstance(like, list):
        return [_scalar(name, element, like[0]) for element in value] if like else value
    return _scalar(name, value, like)


def _scalar(name, value, like):
    if type(like) is float and type(value) is int:
        return float(value)
    if type(value) is not type(like):
        kind = KINDS.get(type(value), type(value).__name__)
        expected = "a number" if type(like) is float else KINDS[type(like)]
        raise ValueError(f"{name}: {value!r} is {kind}, not {expected}; {_remedy(value, like)}")
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"{name}: {value} is not a finite number; write one such as {like}")
    return value


def _remedy(value, like) -> str:
    exponent = EXPONENT.fullmatch(value) if isinstance(value, str) else None
    if type(like) is float and exponent:
        return f"in YAML write {_yaml_float(exponent)}"
    if type(like) is str and isinstance(value, int | float):
        return f'write "{value}"'
    if type(like) is list and isinstance(value, int | float):
        return f"write [{value}]"
    return f"write for example {json.dumps(like)}"


def _yaml_float(exponent: re.Match) -> str:
    """Write 1e-4 as 1.0e-4 and 1e5 as 1.0e+5: YAML 1.1 wants the point and the sign."""
    whole, fraction, sign, power = exponent.groups()
    return f"{whole}{fraction or '.0'}e{sign or '+'}{power}"


def _typed(given: Mapping, expected: Mapping, where: str = "") -> dict:
    for name in given:
        if name not in expected:
            close = difflib.get_close_matches(str(name), expected, n=1)
            hint = f"did you mean {close[0]}?" if close else "params.yaml lists them all"
            raise ValueError(f"{where}{name}: no such parameter; {hint}")
    return {name: convert(where + name, value, expected[name]) for name, value in given.items()}


def _parse(text, like):
    """Give the value of a command-line text; a text where text is expected stays as it is."""
    if not isinstance(text, str) or isinstance(like, str):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    exponent = EXPONENT.fullmatch(text.strip())
    return float(text) if exponent and type(like) is float else value


def _read_params() -> dict:
    """Read params.yaml, whose values are the types; 1e-4 there would make a number text."""
    values = _read(PARAMS)
    for name, value in values.items():
        for element in value if isinstance(value, list) else [value]:
            if isinstance(element, str) and EXPONENT.fullmatch(element):
                _scalar(f"{PARAMS.name}: {name}", element, 0.0)
    return values


def _read(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path.name}: no parameters; write one `name: value` a line")
    return values


def _recipe_path(recipe: str) -> Path:
    path = Path(recipe)
    if path.suffix not in {".yaml", ".yml"}:
        path = RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(found.stem for found in RECIPES.glob("*.yaml")))
        raise FileNotFoundError(f"recipe {recipe!r}: no such file; kit/recipes has: {names}")
    return path
