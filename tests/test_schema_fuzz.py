"""Files that people hand in, changed at random: each is read, or refused in a line."""

import copy
import json
import random
import zipfile

import numpy as np
import pytest

from kit import params
from kit.data.manifest import read_manifest
from kit.evaluation import model_card, other_data, scores
from kit.files import SEAL, json_bytes
from kit.inference import journal
from kit.model import weight_files
from kit.model.metadata import read_metadata
from kit.prep import demo
from kit.training import run_state
from kit.training.trainer import model_metadata
from tests.images import MANIFEST, make_shards

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
            data = json.dumps(values).encode()
            return data[: source.randrange(len(data))]
        case _:
            inside[key] = copy.deepcopy(source.choice([values, [inside[key]], {"x": inside[key]}]))
    return json.dumps(values).encode()


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


def marker(folder):
    (folder / demo.MARKER).write_text('{"demo_views": 50, "seed": 0}')
    return folder / demo.MARKER, lambda: demo.make_demo(raw_dir=folder, demo_views=50, seed=0)


def real_labels(folder):
    path = folder / "real.json"
    path.write_text("[[0, 2], [], [1]]")
    return path, lambda: other_data.read_real(path, classes=3)


def layers(folder):
    """The configuration within a .keras file."""
    path, archive = folder / "config.json", folder / "model.keras"
    both = [{"config": {"name": "a"}}, {"config": {"name": "b"}}]
    path.write_text(json.dumps({"config": {"layers": both}}))

    def read():
        with zipfile.ZipFile(archive, "w") as made:
            made.write(path, path.name)
        weight_files.saved_layers(archive)

    return path, read


def unfinished(folder):
    """A row of the journal of `predict`: what is no row counts as not written."""
    path, lines = folder / "row", folder / "journal"
    path.write_text(
        '{"photo": "a", "problem": "", "stamp": [1, 2], "labels": [0], "probabilities": [0.5]}'
    )

    def read():
        lines.write_bytes(b"{}\n" + path.read_bytes() + b"\n")
        for row in journal.read(lines):
            assert isinstance(row["photo"], str) and (row["problem"] or "labels" in row)
            return
        raise ValueError("no row")

    return path, read


def card(folder):
    """What a model card says of an evaluation."""
    facts = params.load().values | {"image_size": 32, "evaluation_size": 32}
    model = model_metadata(MANIFEST, facts) | {"sha256": "a"}
    (folder / "model.json").write_bytes(json_bytes(model))
    logits = np.eye(6, dtype="float32")
    found = scores.evaluate(np.arange(6), logits, MANIFEST["classes"])
    path = folder / "evaluation.json"
    path.write_bytes(json_bytes(found | {"shards": "", "model": "a"}))
    return path, lambda: model_card.write_card(folder)


def answer(call):
    """Give what was raised, in a line, or "" where all was read."""
    try:
        call()
    except (ValueError, OSError) as error:
        for line in str(error).splitlines():
            assert line.isprintable()
        return str(error)
    return ""


READERS = {metadata: 6, manifest: 6, run_record: 6, marker: 6, layers: 6}  # answers at the least
READERS |= {real_labels: 2, unfinished: 2}


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize("rounds", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_changed_json_is_read_or_refused_in_a_line(make, rounds, tmp_path):
    path, read = make(tmp_path)
    assert len(answers_to(path, read, rounds)) >= READERS[make]


@pytest.mark.parametrize("rounds", [FEW // 10, pytest.param(MANY // 10, marks=pytest.mark.slow)])
def test_a_card_is_made_of_a_changed_evaluation_or_refused_in_a_line(rounds, tmp_path):
    answers_to(*card(tmp_path), rounds)


def answers_to(path, read, rounds):
    """Give what `read` says of the file at `path`, changed in so many ways."""
    whole = json.loads(path.read_bytes())
    if isinstance(whole, dict):
        whole.pop(SEAL, None)  # it would refuse all
    answers = set()
    for seed in range(rounds):
        path.write_bytes(changed(whole, random.Random(seed)))
        said = answer(read)
        assert "\n" not in said
        answers.add(said)
    assert "" in answers
    return answers


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
