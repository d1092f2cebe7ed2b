"""Files that people hand in, changed at random: each is read, or refused in a line."""

import copy
import json
import random

import pytest

from kit import params
from kit.data.manifest import read_manifest
from kit.files import SEAL, json_bytes
from kit.model.metadata import read_metadata
from kit.training import run_state
from tests.images import make_shards

FEW, MANY = 60, 2000
ODD = [None, True, -1, 0, 2**70, 1e300, "", "x", "\x00", "../..", [], [[]], {}, {"a": 1}, [None]]
RAW = [b"[" * 5000, b"9" * 5000, b"", b"\xff", b"NaN", b"-", b"{", b"null", b'{"a": 1e999999}']
TEXT = [*"[]{}:,-?!&*|>'\"#%@`\n\t0", "!!int ", "!!binary ", "*a", "&a ", "? ", "1:2", "2021-13-45"]


def places(value, path=()):
    """Give the path of each value within a value of JSON."""
    yield path
    inner = value.items() if isinstance(value, dict) else ()
    for key, element in enumerate(value) if isinstance(value, list) else inner:
        yield from places(element, (*path, key))


def changed(values, source):
    """Change, remove or add a value anywhere; seldom break the JSON itself."""
    values = copy.deepcopy(values)
    *way, key = source.choice([path for path in places(values) if path])
    inside = values
    for step in way:
        inside = inside[step]
    match source.choice(["odd", "lose", "add", "raw", "cut", "swap"]):
        case "odd":
            inside[key] = source.choice(ODD)
        case "lose":
            del inside[key]
        case "add" if isinstance(inside, dict):
            inside[source.choice(["a", "sha256", ""])] = source.choice(ODD)
        case "raw":
            return source.choice(RAW)
        case "cut":
            data = json_bytes(values)
            return data[: source.randrange(len(data))]
        case _:
            inside[key] = copy.deepcopy(source.choice([values, [inside[key]], {"x": inside[key]}]))
    return json_bytes(values)


def metadata(folder):
    classes = [{"wnid": f"n{number}", "name": f"name {number}"} for number in range(3)]
    values = {"classes": classes, "image_size": 32, "resize_side": 40, "parameters": {"version": 1}}
    (folder / "model.json").write_bytes(json_bytes(values | {"data": {"mended": 1}}))
    return folder / "model.json", lambda: read_metadata(folder / "model.json")


def manifest(folder):
    return make_shards(folder) / "manifest.json", lambda: read_manifest(folder / "shards")


def run_record(folder):
    run_state.begin(folder, {"seed": 0, "epochs": 3})
    return folder / run_state.FILE, lambda: run_state.check(folder, {"seed": 0, "epochs": 3})


def answer(call):
    """Give what was raised, in a line, or "" where all was read."""
    try:
        call()
    except (ValueError, OSError) as error:
        for line in str(error).splitlines():
            assert line.isprintable()
        return str(error)
    return ""


@pytest.mark.parametrize("make", [metadata, manifest, run_record])
@pytest.mark.parametrize("rounds", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_changed_json_is_read_or_refused_in_a_line(make, rounds, tmp_path):
    path, read = make(tmp_path)
    whole = json.loads(path.read_bytes())
    whole.pop(SEAL, None)  # it would refuse all
    answers = set()
    for seed in range(rounds):
        path.write_bytes(changed(whole, random.Random(seed)))
        said = answer(read)
        assert "\n" not in said
        answers.add(said)
    assert "" in answers and len(answers) > 5


@pytest.mark.parametrize("rounds", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_changed_yaml_is_read_or_refused_in_lines(rounds, tmp_path):
    texts = [path.read_text(encoding="utf-8") for path in sorted(params.recipes().values())]
    path, answers = tmp_path / "mine.yaml", set()
    for seed in range(rounds):
        source = random.Random(seed)
        text = source.choice(texts)
        for _ in range(source.randrange(1, 4)):
            place = source.randrange(len(text))
            piece = source.choice([*TEXT, "[" * 3000, "9" * 5000, text[:40]])
            text = text[:place] + piece + text[place + source.randrange(3) :]
        path.write_text(text, encoding="utf-8")
        answers.add(answer(lambda: params.load(path)))
        value = source.choice([*TEXT, text[:60], "[" * 3000, "9" * 5000, "1e999", "-1", "[1, [2]]"])
        name = source.choice(list(params.FIELDS))
        answers.add(answer(lambda name=name, value=value: params.load("demo", {name: value})))
    assert "" in answers and len(answers) > 20
