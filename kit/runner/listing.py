"""What `python -m kit params` and `recipes` print."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from kit import params
from kit.files import read_json


def parameters(recipe: str | None, overrides: Mapping) -> Iterator[str]:
    """Give a line for each parameter of a recipe: name, value, source, meaning."""
    loaded = params.load(recipe, overrides, folder=Path.cwd(), source="the command line")
    meanings = params.meanings()
    for name, value in loaded.values.items():
        told = f"{name:22} {_shown(value):24} {loaded.sources[name]:16} {meanings.get(name, '')}"
        yield told.rstrip()


def difference(first: str, second: str, root: Path) -> Iterator[str]:
    """Give a line for each parameter in which two runs, or recipes, differ."""
    ours, theirs = _values(first, root), _values(second, root)
    names = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    yield f"{len(names)} parameters differ: {first} -> {second}"
    for name in names:
        pair = [_shown(values[name]) if name in values else "-" for values in (ours, theirs)]
        yield f"{name:22} {' -> '.join(pair)}"


def _shown(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _values(run: str, root: Path) -> dict:
    """Read the values of a run's folder, in the shell's folder or the root, or of a recipe."""
    for folder in (Path(run), root / run):
        if folder.is_dir():
            values = read_json(folder / "params.json", remedy="name another run")
            return {name: value for name, value in values.items() if name != "sources"}
    return params.load(run).values


def recipes() -> Iterator[str]:
    """Give a line for each recipe: name, published accuracy, and its file's first sentence."""
    for name, path in {params.PARAMS.name: params.PARAMS, **params.recipes()}.items():
        text = path.read_text(encoding="utf-8")
        published = re.search(r"^# Published:\D*([\d.]+(?: to [\d.]+)? %)", text, re.M)
        accuracy = published[1] if published else "-"
        comment = " ".join(line[2:] for line in text.splitlines() if line.startswith("# "))
        yield f"{name:16} {accuracy:12} {re.match(r'.*?[.](?= |$)', comment)[0]}"
