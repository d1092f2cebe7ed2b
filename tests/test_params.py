import json
from pathlib import Path

import pytest
import yaml

from kit import ROOT, params

DEFAULTS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
RECIPES = sorted(params.RECIPES.glob("*.yaml"))


def recipe(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def notebook(folder: Path, *sources: str, tags=("parameters",)) -> Path:
    cells = [
        {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source.splitlines(True)}
        for source in sources
    ]
    path = folder / "01_first.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    return path


def test_without_arguments_the_values_are_those_of_params_yaml():
    assert params.load() == DEFAULTS


def test_the_recipe_is_the_one_published():
    values = params.load()
    drops = [epoch * values["steps_per_epoch"] for epoch in values["decay_epochs"]]
    assert drops == [150_000, 300_000, 400_000, 450_000]
    assert values["epochs"] * values["steps_per_epoch"] == 500_000
    assert (values["learning_rate"], values["momentum"], values["batch_size"]) == (0.1, 0.9, 256)
    assert (values["weight_decay"], values["decay_factor"]) == (1e-4, 0.1)
    assert (values["train_shards"], values["validation_shards"]) == (1024, 128)
    assert (values["image_size"], values["resize_side"]) == (224, 256)


def test_overrides_win_over_the_recipe_and_the_recipe_over_params_yaml(tmp_path):
    mine = recipe(tmp_path, "epochs: 3\nbatch_size: 8\n")
    values = params.load(recipe=mine, overrides={"epochs": "4"})
    assert (values["epochs"], values["batch_size"]) == (4, 8)
    assert list(values) == list(DEFAULTS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("weight_decay", "1e-4", 1e-4),
        ("weight_decay", "5.0e-5", 5e-5),
        ("learning_rate", "1", 1.0),
        ("batch_size", "64", 64),
        ("deterministic", "true", True),
        ("version", "2", "2"),
        ("version", "1.5", "1.5"),
        ("photos", "my photos #2/a: b", "my photos #2/a: b"),
        ("photos", "", ""),
        ("decay_epochs", "[]", []),
        ("channel_means", "[0, 0.5, 1]", [0.0, 0.5, 1.0]),
    ],
)
def test_command_line_text_becomes_the_type_of_params_yaml(name, text, value):
    found = params.load(overrides={name: text})[name]
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, list):
        assert [type(element) for element in found] == [type(element) for element in value]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", "1e5", "batch_size: '1e5' is text, not a whole number"),
        ("batch_size", "2.5", "batch_size: 2.5 is a decimal number, not a whole number"),
        ("batch_size", "true", "batch_size: True is true or false, not a whole number"),
        ("learning_rate", "no", "learning_rate: False is true or false, not a number"),
        ("learning_rate", "fast", "learning_rate: 'fast' is text, not a number"),
        ("learning_rate", ".inf", "learning_rate: inf is not a finite number"),
        ("learning_rate", "", "learning_rate: None is empty, not a number"),
        ("deterministic", "1", "deterministic: 1 is a whole number, not true or false"),
        ("decay_epochs", "30", "decay_epochs: 30 is a whole number, not a list; write [30]"),
        ("decay_epochs", "[30, 60.5]", "decay_epochs: 60.5 is a decimal number, not a whole"),
        ("decay_epochs", "[1, [", "decay_epochs: '[1, [' is text, not a list"),
        ("version", 1.5, 'version: 1.5 is a decimal number, not text; write "1.5"'),
        ("photos", None, "photos: None is empty, not text"),
    ],
)
def test_a_wrong_type_is_refused_in_one_line(name, value, message):
    with pytest.raises(ValueError) as caught:
        params.load(overrides={name: value})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "remedy"), [("1e-4", "1.0e-4"), ("2.5e3", "2.5e+3"), ("1E5", "1.0e+5")]
)
def test_a_number_that_yaml_reads_as_text_is_refused_with_one_that_it_reads(tmp_path, text, remedy):
    with pytest.raises(ValueError) as caught:
        params.load(recipe=recipe(tmp_path, f"weight_decay: {text}\n"))
    expected = f"mine.yaml: weight_decay: {text!r} is text, not a number; in YAML write {remedy}"
    assert str(caught.value) == expected
    assert yaml.safe_load(remedy) == float(text)


def test_such_a_number_in_params_yaml_itself_does_not_make_the_parameter_text(
    tmp_path, monkeypatch
):
    edited = tmp_path / "params.yaml"
    edited.write_text("epochs: 3\nweight_decay: 1e-4\n", encoding="utf-8")
    monkeypatch.setattr(params, "PARAMS", edited)
    with pytest.raises(ValueError, match="params.yaml: weight_decay: '1e-4' is text"):
        params.load()
    with pytest.raises(ValueError, match="params.yaml: weight_decay: '1e-4' is text"):
        params.check({})


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="^epoch: no such parameter; did you mean epochs?"):
        params.load(overrides={"epoch": "3"})
    with pytest.raises(ValueError, match="^mine.yaml: network: no such parameter; params.yaml"):
        params.load(recipe=recipe(tmp_path, "network: {momentum: 0.9}\n"))


def test_an_unknown_recipe_is_refused_with_those_that_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(params, "RECIPES", tmp_path)
    for name in ("short.yaml", "long.yaml"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match="'no_such': .*kit/recipes has: long, short$"):
        params.load(recipe="no_such")


@pytest.mark.parametrize("text", ["", "just text", "- 1\n- 2\n", "a: [\n", "\tepochs: 3\n"])
def test_a_recipe_that_is_no_mapping_is_refused_in_one_line(tmp_path, text):
    with pytest.raises(ValueError, match="^mine.yaml: ") as caught:
        params.load(recipe=recipe(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_check_looks_at_parameters_only():
    params.check({"epochs": 3, "learning_rate": 1, "json": json, "x": None})
    with pytest.raises(ValueError, match="epochs: '3' is text, not a whole number"):
        params.check({"epochs": "3"})


def test_declared_reads_the_literals_of_the_parameters_cell(tmp_path):
    source = 'epochs: int = 3  # passes\n\n# chance\nversion: str = "2"\ndecay: list = [1, -2.5]'
    assert params.declared(notebook(tmp_path, source)) == {
        "epochs": 3,
        "version": "2",
        "decay": [1, -2.5],
    }


@pytest.mark.parametrize(
    "line", ["epochs = 3", "epochs: int = 3 * 2", "epochs: int", "print(1)", "%time", "import os"]
)
def test_declared_refuses_what_is_no_annotated_literal(tmp_path, line):
    with pytest.raises(ValueError, match="01_first.ipynb: parameters cell: ") as caught:
        params.declared(notebook(tmp_path, "seed: int = 0\n" + line))
    assert line in str(caught.value)


def test_declared_wants_exactly_one_parameters_cell(tmp_path):
    with pytest.raises(ValueError, match="0 cells are tagged"):
        params.declared(notebook(tmp_path, "seed: int = 0", tags=()))
    with pytest.raises(ValueError, match="2 cells are tagged"):
        params.declared(notebook(tmp_path, "seed: int = 0", "epochs: int = 1"))


def test_declared_refuses_what_is_no_notebook(tmp_path):
    path = tmp_path / "01_torn.ipynb"
    path.write_text('{"cells": [', encoding="utf-8")
    with pytest.raises(ValueError, match="01_torn.ipynb: not a Jupyter notebook"):
        params.declared(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_holds_only_what_differs_from_params_yaml(path):
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    values = params.load(recipe=path.stem)
    assert {name for name in values if values[name] != DEFAULTS[name]} == set(given)
