"""Values of YAML files and of the command line in the types that are expected, and their table."""

import difflib
import html
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

MAX_YAML_BYTES = 2**16  # of a recipe or a value; params.yaml has a sixth of it
DEFAULTS = "params.yaml"
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a decimal number",
    str: "text",
    list: "a list",
    dict: "a mapping",
    type(None): "empty",
}


class Plain(yaml.SafeLoader):
    """YAML with numbers such as 1e-4, and without aliases: ten lines of them can be gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not taken; write the value itself")
        return super().compose_node(parent, index)


Plain.add_implicit_resolver(  # YAML 1.1 takes 1.0e-4 alone for a number, and 1e-4 for text
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str):
    """Give the value of a YAML text; ValueError, in a line, for what is none."""
    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"more than {MAX_YAML_BYTES:,} characters")
    try:
        return yaml.load(text, Plain)
    except Exception as error:  # PyYAML has many kinds, of deep lists, dates and numbers too
        raise ValueError(" ".join(str(error).split())[:300]) from None


def read_mapping(path: Path) -> dict:
    """Read a YAML file of names and values; raises ValueError, in a line, for any other file."""
    if path.stat().st_size > MAX_YAML_BYTES:
        raise ValueError(f"{path.name}: more than {MAX_YAML_BYTES:,} bytes are no parameters")
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path.name}: no parameters; write one `name: value` a line")
    return values


def parse(text, like):
    """Give the value of a command-line text; a text where text is expected stays as it is."""
    if not isinstance(text, str) or isinstance(like, str):
        return text
    try:
        return parse_yaml(text)
    except ValueError:
        return text


def typed_values(given: Mapping, expected: Mapping, prefix: str) -> tuple[dict, list[str]]:
    """Give the values in the types of `expected`, and a line for each that has none or another."""
    typed, problems = {}, []
    for name, value in given.items():
        if name not in expected:
            close = difflib.get_close_matches(str(name), expected, n=1)
            hint = f"did you mean {close[0]}?" if close else "params.yaml lists them all"
            problems.append(f"{prefix}{name}: no such parameter; {hint}")
            continue
        try:
            typed[name] = convert(prefix + name, value, expected[name])
        except ValueError as error:
            problems.append(str(error))
    return typed, problems


def convert(name: str, value, like):
    """Give `value` in the type of `like`: a whole number may stand where a number is expected.

    Raises ValueError for any other difference of type, in a list's elements too.
    """
    if type(value) is bool and type(like) is str:
        return json.dumps(value)  # YAML reads true and false so
    if isinstance(value, list) and isinstance(like, list):
        return [_scalar(name, element, like[0]) for element in value] if like else value
    return _scalar(name, value, like)


def _scalar(name, value, like):
    if type(like) is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name}: a number of {len(str(value))} digits is too large") from None
    if type(value) is not type(like):
        kind = KINDS.get(type(value), type(value).__name__)
        expected = "a number" if type(like) is float else KINDS[type(like)]
        raise ValueError(
            f"{name}: {_shown(value)} is {kind}, not {expected}; {_remedy(value, like)}"
        )
    if type(value) is float and not math.isfinite(value):
        raise ValueError(f"{name}: {value} is not a finite number; write one such as {like}")
    return value


def _shown(value) -> str:
    try:
        return repr(value)[:200]
    except (RecursionError, ValueError):  # a number of more than 4,300 digits
        return "a value"


def _remedy(value, like) -> str:
    if type(like) is str and isinstance(value, int | float):
        return f'write "{value}"'
    if type(like) is list and isinstance(value, int | float):
        return f"write [{value}]"
    return f"write for example {json.dumps(like)}"


class Table:
    """Name, value and source of each parameter; those that are not params.yaml's come first."""

    def __init__(self, values: Mapping, sources: Mapping[str, str]):
        shown = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
        rows = [(name, text, sources[name]) for name, text in shown.items()]
        self.rows = sorted(rows, key=lambda row: row[2] == DEFAULTS)

    def __repr__(self) -> str:
        wide = max(len(name) for name, _, _ in self.rows)
        return "\n".join(f"{name:{wide}}  {value}  ({where})" for name, value, where in self.rows)

    def _repr_html_(self) -> str:
        changed = [row for row in self.rows if row[2] != DEFAULTS]
        rest = self.rows[len(changed) :]
        summary = f"<summary>and {len(rest)} as params.yaml has them</summary>"
        return f"{_html_table(changed)}<details>{summary}{_html_table(rest)}</details>"


def _html_table(rows) -> str:
    cells = [[f"<td>{html.escape(str(cell))}</td>" for cell in row] for row in rows]
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    head = "<tr><th>parameter</th><th>value</th><th>from</th></tr>"
    return f"<table>{head}{body}</table>" if rows else ""
