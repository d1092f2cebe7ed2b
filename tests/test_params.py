"""Values from params.yaml, a recipe and by hand, and what is said of wrong ones."""

import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from kit import ROOT, params
from kit.runner import notebooks

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
    assert params.load().values == DEFAULTS
    assert list(params.load().values) == list(DEFAULTS)


def test_every_parameter_is_in_one_section():
    fields = [
        field.name for section in params.SECTIONS.values() for field in dataclasses.fields(section)
    ]
    assert sorted(fields) == sorted(DEFAULTS)


def test_some_sections_give_their_values_in_the_order_of_params_yaml():
    p = params.load()
    assert list(p.flat("mixing", "reading")) == [
        *("repeated_augmentation", "mixup", "cutmix"),
        *("shuffle_shards", "data_service"),
    ]
    assert "batch_size" in p.training and "photos" not in p.training


def test_the_recipe_is_the_one_published():
    p = params.load()
    drops = [epoch * p.schedule.steps_per_epoch for epoch in p.schedule.drops]
    assert drops == [150_000, 300_000, 400_000, 450_000]
    assert p.schedule.epochs * p.schedule.steps_per_epoch == 500_000
    assert (p.schedule.learning_rate, p.schedule.batch_size) == (0.1, 256)
    assert (p.optimizer.momentum, p.schedule.decay_factor) == (0.9, 0.1)
    assert p.weight_decay.weight_decay == 1e-4
    assert (p.preparation.train_shards, p.preparation.validation_shards) == (1024, 128)
    assert (p.resolution.image_size, p.resolution.resize_side) == (224, 256)


def test_overrides_win_over_the_recipe_and_the_recipe_over_params_yaml(tmp_path):
    mine = recipe(tmp_path, "epochs: 3\nbatch_size: 8\n")
    p = params.load(mine, {"epochs": "4"}, source="the command line")
    assert (p.schedule.epochs, p.schedule.batch_size, p.run.seed) == (4, 8, 0)
    sources = [p.sources[name] for name in ("epochs", "batch_size", "seed")]
    assert sources == ["the command line", "recipe mine", "params.yaml"]
    assert list(p.values) == list(DEFAULTS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("weight_decay", "1e-4", 1e-4),
        ("weight_decay", "5.0e-5", 5e-5),
        ("learning_rate", "1", 1.0),
        ("batch_size", "64", 64),
        ("deterministic", "true", True),
        ("resnet_version", "2", "2"),
        ("resnet_version", "1.5", "1.5"),
        ("photos", "my photos #2/a: b", "my photos #2/a: b"),
        ("photos", "", ""),
        ("decay_epochs", "[]", []),
        ("decay_epochs", "[0.5, 30]", [0.5, 30.0]),
        ("channel_means", "[0, 0.5, 1]", [0.0, 0.5, 1.0]),
    ],
)
def test_command_line_text_becomes_the_type_of_params_yaml(name, text, value):
    found = params.load(overrides={name: text}).values[name]
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, list):
        assert [type(element) for element in found] == [type(element) for element in value]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", "1e5", "batch_size: 100000.0 is a decimal number, not a whole number"),
        ("batch_size", "2.5", "batch_size: 2.5 is a decimal number, not a whole number"),
        ("batch_size", "true", "batch_size: True is true or false, not a whole number"),
        ("learning_rate", "no", "learning_rate: False is true or false, not a number"),
        ("learning_rate", "fast", "learning_rate: 'fast' is text, not a number"),
        ("learning_rate", ".inf", "learning_rate: inf is not a finite number"),
        ("learning_rate", "", "learning_rate: None is empty, not a number"),
        ("deterministic", "1", "deterministic: 1 is a whole number, not true or false"),
        ("decay_epochs", "30", "decay_epochs: 30 is a whole number, not a list; write [30]"),
        ("decay_epochs", "[30, true]", "decay_epochs: True is true or false, not a number"),
        ("test_views", "[flip, 2]", "test_views: 2 is a whole number, not text"),
        ("decay_epochs", "[1, [", "decay_epochs: '[1, [' is text, not a list"),
        ("resnet_version", 1.5, 'resnet_version: 1.5 is a decimal number, not text; write "1.5"'),
        ("photos", None, "photos: None is empty, not text"),
    ],
)
def test_a_wrong_type_is_refused_in_one_line(name, value, message):
    with pytest.raises(ValueError) as caught:
        params.load(overrides={name: value})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "2.5e+3", "1E2", "-5.e-1"])
def test_exponents_are_numbers_in_recipes_and_lists_though_yaml_wants_a_point(tmp_path, text):
    lines = f"learning_rate: 1\ndecay_epochs: [{text}, 3]\nraw_dir: '{text}'\n"
    given = {"weight_decay": text}
    values, _, problems = params.resolve(recipe(tmp_path, lines), given, tmp_path, "")
    assert not problems
    found = [values["weight_decay"], values["decay_epochs"][0], values["raw_dir"]]
    assert found == [float(text), float(text), text]


@pytest.mark.parametrize(
    ("line", "edited", "message"),
    [
        ("weight_decay: 1.0e-4", "weight_decay: 1e-4x", "weight_decay: '1e-4x' is text, not a num"),
        ("epochs: 100", 'epochs: "100"', "epochs: '100' is text, not a whole number"),
        ("epochs: 100", "", "epochs is missing; restore it from git"),
        ("epochs: 100", "epoch: 100", "epoch: no such parameter; did you mean epochs"),
    ],
)
def test_an_edited_params_yaml_is_checked_too(tmp_path, monkeypatch, line, edited, message):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert f"\n{line}" in text
    (tmp_path / "params.yaml").write_text(text.replace(f"\n{line}", f"\n{edited}"), "utf-8")
    monkeypatch.setattr(params, "PARAMS", tmp_path / "params.yaml")
    for ask in (params.load, lambda: params.load_notebook({})):
        with pytest.raises(ValueError, match=f"^params.yaml: {message}"):
            ask()


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="^epoch: no such parameter; did you mean epochs?"):
        params.load(overrides={"epoch": "3"})
    with pytest.raises(ValueError, match="^mine.yaml: nothing: no such parameter; params.yaml"):
        params.load(recipe(tmp_path, "nothing: {momentum: 0.9}\n"))


def test_an_unknown_recipe_is_refused_with_those_that_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(params, "RECIPES", tmp_path)
    for name in ("short.yaml", "long.yaml"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match="'no_such': .*kit/recipes has: long, short$"):
        params.load("no_such")
    with pytest.raises(FileNotFoundError, match="'shrt': no such file; did you mean short?"):
        params.load("shrt")


@pytest.mark.parametrize("text", ["", "just text", "- 1\n- 2\n", "a: [\n", "\tepochs: 3\n"])
def test_a_recipe_that_is_no_mapping_is_refused_in_one_line(tmp_path, text):
    with pytest.raises(ValueError, match="^mine.yaml: ") as caught:
        params.load(recipe(tmp_path, text))
    assert "\n" not in str(caught.value)


SIX_MISTAKES = {
    "epoch": "3",
    "batch_size": "many",
    "learning_rate": "-1",
    "loss": "mse",
    "keep_checkpoints": "0",
    "image_size": "320",  # larger than resize_side
}


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError) as caught:
        params.load(overrides=SIX_MISTAKES)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert {line.partition(":")[0] for line in lines} == set(SIX_MISTAKES)


def test_the_answer_comes_within_two_seconds_and_without_tensorflow():
    program = """
import sys
from kit import params
params.load("folder", {"epochs": "3"})
try:
    params.load(overrides=%r)
except ValueError as error:
    print(len(str(error).splitlines()))
print("tensorflow" in sys.modules or "keras" in sys.modules)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-c", program % SIX_MISTAKES], cwd=ROOT, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert run.stdout.split() == ["6", "False"], run.stderr


WEIGHTS = "initial_weights"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("shards", "{folder}/shards"),
        ("../shards", "{parent}/shards"),
        ("/data/shards", "/data/shards"),
        ("~/shards", "{home}/shards"),
        ("~nobody/shards", "{folder}/~nobody/shards"),
        ("s3://bucket/shards", "s3://bucket/shards"),
        ("{root}/data/mine", "data/mine"),
        ("", ""),
    ],
)
def test_a_path_given_by_hand_means_the_folder_that_is_told(tmp_path, monkeypatch, given, expected):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setattr(params.os.path, "expanduser", without_nobody(params.os.path.expanduser))
    words = {"folder": tmp_path, "parent": tmp_path.parent, "home": "/home/somebody", "root": ROOT}
    overrides = {name: given.format(**words) for name in params.PATHS if name != WEIGHTS}
    p = params.load(overrides=overrides, folder=tmp_path)
    assert {p.values[name] for name in overrides} == {expected.format(**words)}


@pytest.mark.parametrize(
    ("given", "expected"), [("net.pth", "{folder}/net.pth"), ("torchvision_v2", "torchvision_v2")]
)
def test_weights_given_by_hand_are_a_file_or_a_name(tmp_path, given, expected):
    p = params.load(overrides={WEIGHTS: given}, folder=tmp_path)
    assert p.values[WEIGHTS] == expected.format(folder=tmp_path)


def without_nobody(expand):
    """Let no machine have a user of that name."""
    return lambda path: path if str(path).startswith("~nobody") else expand(path)


def test_a_path_in_a_recipe_or_in_params_yaml_means_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    mine = recipe(tmp_path, "raw_dir: photos\ndata_dir: ~/shards\n")
    run = params.load(mine, folder=tmp_path).run
    assert (run.raw_dir, run.data_dir) == ("photos", "/home/somebody/shards")
    assert run.run_dir == DEFAULTS["run_dir"]
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("runs/imagenet", "~/runs"), "utf-8")
    monkeypatch.setattr(params, "PARAMS", tmp_path / "params.yaml")
    assert params.load(folder=tmp_path).run.run_dir == "/home/somebody/runs"


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """Work in a folder, as papermill does in its caller's; back again after the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_notebook_takes_the_recipe_and_the_variables_that_are_set(in_folder):
    namespace = {"recipe": "demo", "epochs": 3, "learning_rate": 1, "batch_size": None}
    namespace |= {"json": json, "unknown": 5, "__name__": "__main__"}
    p = params.load_notebook(namespace)
    demo = params.load("demo")
    assert p.values == demo.values | {"epochs": 3, "learning_rate": 1.0}
    names = ("epochs", "learning_rate", "batch_size", "seed")
    sources = [p.sources[name] for name in names]
    assert sources == ["this notebook", "this notebook", "recipe demo", "params.yaml"]


def test_a_notebook_without_a_recipe_has_the_values_of_params_yaml(in_folder):
    assert params.load_notebook({}).values == DEFAULTS
    assert params.load_notebook({"recipe": None}).values == DEFAULTS


def test_what_a_notebook_gives_is_checked(in_folder):
    with pytest.raises(ValueError, match="epochs: 'three' is text, not a whole number"):
        params.load_notebook({"recipe": "demo", "epochs": "three"})
    with pytest.raises(ValueError, match="^epochs: 0 is below 1"):
        params.load_notebook({"recipe": "demo", "epochs": 0})
    assert Path.cwd() == in_folder  # so that the cell can be run again


def test_paths_of_a_notebook_mean_the_callers_folder_and_in_the_lab_the_repository(in_folder):
    assert params.load_notebook({"run_dir": "mine"}).run.run_dir == f"{in_folder}/mine"
    assert Path.cwd() == ROOT
    assert params.load_notebook({"run_dir": "runs/mine"}).run.run_dir == "runs/mine"


def test_paths_of_a_notebook_in_its_own_folder_mean_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    assert params.load_notebook({"run_dir": "runs/mine"}).run.run_dir == "runs/mine"
    assert Path.cwd() == ROOT


def test_the_table_shows_each_parameter_once_and_what_was_changed_first(tmp_path):
    mine = recipe(tmp_path, 'photos: "<b>&"\n')
    table = params.load(mine, {"epochs": 3}, source="this notebook").table()
    lines = repr(table).splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["epochs", "3", "(this", "notebook)"],
        ["photos", '"<b>&"', "(recipe", "mine)"],
    ]
    assert {line.split()[0] for line in lines} == set(DEFAULTS)
    assert len(lines) == len(DEFAULTS)
    html = table._repr_html_()
    assert html.count("<tr><td>") == len(DEFAULTS)
    assert "&lt;b&gt;&amp;" in html and "<b>" not in html
    assert html.index("<td>epochs</td>") < html.index("<details>") < html.index("<td>seed</td>")


def test_params_yaml_says_what_each_parameter_means():
    meanings = params.meanings()
    assert set(meanings) == set(DEFAULTS)
    assert all(meanings.values())
    assert meanings["max_attempts"].endswith("largest central crop (random_resized)")


def test_declared_names_the_variables_of_the_parameters_cell(tmp_path):
    source = 'epochs: int = 3  # passes\n\n# chance\nrecipe: str = "demo"\ndecay: list = [1, -2.5]'
    found = notebooks.declared(notebook(tmp_path, source))
    assert found == ["epochs", "recipe", "decay"]


def test_declared_wants_exactly_one_parameters_cell(tmp_path):
    with pytest.raises(ValueError, match="0 cells are tagged"):
        notebooks.declared(notebook(tmp_path, "seed: int = 0", tags=()))
    with pytest.raises(ValueError, match="2 cells are tagged"):
        notebooks.declared(notebook(tmp_path, "seed: int = 0", "epochs: int = 1"))


def test_declared_refuses_what_is_no_notebook(tmp_path):
    path = tmp_path / "01_torn.ipynb"
    path.write_text('{"cells": [', encoding="utf-8")
    with pytest.raises(ValueError, match="01_torn.ipynb: not a Jupyter notebook"):
        notebooks.declared(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_holds_only_what_differs_from_params_yaml(path):
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    p = params.load(path.stem)
    changed = {name for name in p.values if p.values[name] != DEFAULTS[name]}
    followed = {name for name in changed if p.sources[name].startswith("weights ")}
    assert changed - followed == set(given)


BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases .* are not taken"),
        ("a: &a [*a]", "aliases .* are not taken"),
        ("[" * 20_000, "not YAML"),
        ("seed: " + "9" * 5000, "not YAML"),
        ("#" * 70_000, "more than 65,536 bytes are no parameters"),
    ],
)
def test_a_recipe_that_would_fill_the_memory_is_refused_at_once(tmp_path, text, words):
    (tmp_path / "bomb.yaml").write_text(text)
    started = time.process_time()
    with pytest.raises(ValueError, match=rf"bomb\.yaml: .*{words}") as error:
        params.load(str(tmp_path / "bomb.yaml"))
    assert time.process_time() - started < 5
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    "value", ["[&a [1, 1], *a]", "[" * 20_000, "9" * 5000, "[" + "1, " * 40_000]
)
def test_a_value_that_would_fill_the_memory_is_refused_at_once(value):
    started = time.process_time()
    with pytest.raises(ValueError, match="decay_epochs: "):
        params.load(None, {"decay_epochs": value})
    assert time.process_time() - started < 5
