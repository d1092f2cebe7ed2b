"""Parameters: params.yaml, then a recipe, then what is given by hand; nothing unknown or wrong.

Imports no TensorFlow: a wrong value is refused at once.
"""

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from kit import ROOT
from kit.evaluation.sections import Evaluation
from kit.inference.sections import Export, Inference
from kit.model.sections import PRETRAINED, Initial, Network, WeightDecay
from kit.pipeline.sections import Augmentation, Crop, Mixing, Reading, Resolution, Throughput
from kit.prep.sections import Preparation
from kit.sections import Section, free, path, within
from kit.training.sections import Devices, Loss, Monitoring, Optimizer, Saving, Schedule
from kit.values import Table, parse, read_mapping, typed_values

PARAMS = ROOT / "params.yaml"
RECIPES = Path(__file__).resolve().parent / "recipes"
NOT_TRAINING = ("preparation", "evaluation", "inference", "export", "throughput")  # sections
PLAIN = {bool, int, float, str, list}  # what a notebook may set a parameter to


@dataclasses.dataclass(frozen=True)
class Run(Section):
    """Where things are, and what chance depends on."""

    raw_dir: str = path()
    data_dir: str = path()
    run_dir: str = path()
    seed: int = within(0, 2**32 - 1, "take 0")
    deterministic: bool = free()


@dataclasses.dataclass(frozen=True)
class Parameters:
    """All parameters, in sections. `sources` tells where each value comes from."""

    run: Run
    preparation: Preparation
    resolution: Resolution
    crop: Crop
    augmentation: Augmentation
    mixing: Mixing
    reading: Reading
    network: Network
    weight_decay: WeightDecay
    initial: Initial
    devices: Devices
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    saving: Saving
    monitoring: Monitoring
    evaluation: Evaluation
    inference: Inference
    export: Export
    throughput: Throughput
    sources: Mapping[str, str]

    @property
    def values(self) -> dict:
        """All values by name, in the order of params.yaml."""
        return self.flat(*SECTIONS)

    def flat(self, *sections: str) -> dict:
        """Give the values of some sections by name, in the order of params.yaml."""
        found = {}
        for section in sections:
            found |= vars(getattr(self, section))
        return {name: found[name] for name in self.sources if name in found}

    @property
    def training(self) -> dict:
        """The values that decide what a training computes, by name."""
        return self.flat(*TRAINING)

    def table(self) -> Table:
        """Give what a notebook shows of the parameters."""
        return Table(self.values, self.sources)


SECTIONS = {field.name: field.type for field in dataclasses.fields(Parameters)[:-1]}
TRAINING = [name for name in SECTIONS if name not in NOT_TRAINING]  # decide what it computes
FIELDS = {f.name: f for section in SECTIONS.values() for f in dataclasses.fields(section)}
PATHS = [name for name, field in FIELDS.items() if "path" in field.metadata]


def load(
    recipe: str | None = None,
    overrides: Mapping | None = None,
    *,
    folder: str | Path = ROOT,
    source: str = "given by hand",
) -> Parameters:
    """Give every parameter of params.yaml with its resolved value, in sections.

    `recipe` is a name in kit/recipes or the path of a YAML file, and "params.yaml" or None stands
    for no other values than that file's; `overrides` come last, as values or as text from a command
    line, where relative paths mean `folder`. In params.yaml and in a recipe they mean the
    repository's root. `source` is what `sources` says of the overrides.

    Raises ValueError with a line for each thing that is wrong: unknown names, types, limits, and
    values that do not go together; FileNotFoundError for a recipe that is not there.
    """
    values, sources, problems = resolve(recipe, overrides, folder, source)
    sections, wrong = _sections(values)
    problems += wrong
    parameters = None if wrong else Parameters(**sections, sources=sources)
    if problems or (problems := list(conflicts(parameters))):
        said = "\n".join(problems)  # a value may hold any character
        raise ValueError("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in said))
    return parameters


def resolve(recipe, overrides, folder, source) -> tuple[dict, dict[str, str], list[str]]:
    """Give the values and sources of `load`, and a line for each unknown name and wrong type."""
    expected = read_params()
    values = {name: _anchored(name, value, ROOT) for name, value in expected.items()}
    sources = dict.fromkeys(expected, PARAMS.name)
    problems: list[str] = []
    given = {name: parse(text, expected.get(name)) for name, text in (overrides or {}).items()}
    layers = [(given, source, "", Path(folder))]
    if recipe not in (None, PARAMS.name):
        path = recipe_path(recipe)
        layers.insert(0, (read_mapping(path), f"recipe {path.stem}", f"{path.name}: ", ROOT))
    for layer, where, prefix, base in layers:
        typed, wrong = typed_values(layer, expected, prefix)
        problems += wrong
        values |= {name: _anchored(name, value, base) for name, value in typed.items()}
        sources |= dict.fromkeys(typed, where)
    weights = values["initial_weights"]
    if weights in PRETRAINED:  # they decide what nobody has set
        for name, value in PRETRAINED[weights].suggested(values["image_size"]).items():
            if sources[name] == PARAMS.name and values[name] != value:
                values[name], sources[name] = value, f"weights {weights}"
    return values, sources, problems


def load_notebook(namespace: Mapping) -> Parameters:
    """Give the parameters of a notebook, whose names are `namespace`: call it with `globals()`.

    Its variable `recipe` names a recipe; every other one that is named as a parameter and holds a
    plain value, not None, overrides it, whether the parameters cell or papermill has set it.
    Relative paths mean the folder that papermill was started in, and the repository's root for a
    notebook that is open in JupyterLab. From then on the working folder is the repository's root.
    """
    names = [name for name in read_params() if type(namespace.get(name)) in PLAIN]
    given = {name: namespace[name] for name in names}
    here = Path.cwd()
    folder = ROOT if here == ROOT / "notebooks" else here
    recipe = namespace.get("recipe") or None
    parameters = load(recipe, given, folder=folder, source="this notebook")
    os.chdir(ROOT)
    return parameters


def conflicts(parameters: Parameters):
    """Give a line for each pair of values, of different sections, that do not go together."""
    schedule, devices = parameters.schedule, parameters.devices
    late = [e for e, _ in parameters.resolution.training_sizes if e >= schedule.epochs]
    if late:
        yield (
            f"training_sizes: epoch {late[0]} never comes, for there are {schedule.epochs}, "
            "counted from 0; leave it out"
        )
    values, weights = parameters.values, parameters.initial.initial_weights
    for name, wanted in parameters.initial.wanted.items():
        if values[name] != wanted:
            yield (
                f"{name}: {json.dumps(values[name])} is not what the weights {weights} are for: "
                f"leave it out, or set it to {json.dumps(wanted)}"
            )
    stage, stages = parameters.initial.freeze, len(parameters.network.stage_sizes)
    if stage.startswith("stage") and int(stage[-1]) > stages:
        yield f"freeze: {stage} is not there: stage_sizes has {stages}; take body"
    for check, *values in (
        (devices.check, devices.replicas or 1, schedule.batch_size),
        (parameters.mixing.check_batch, schedule.batch_size),
        (parameters.reading.check_order, parameters.run.deterministic),
        (devices.check_xla, parameters.network.synchronized, parameters.run.deterministic),
    ):
        try:
            check(*values)
        except ValueError as error:
            yield str(error)


def meanings() -> dict[str, str]:
    """Give what params.yaml says of each parameter, in its comments."""
    found, name = {}, ""
    for line in PARAMS.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"(\w+): .*?\s# (.*)|\s+# (.*)", line):
            name = match[1] or name
            found[name] = f"{found.get(name, '')} {match[2] or match[3]}".strip()
    return found


def recipes() -> dict[str, Path]:
    """Give the files of the recipes by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def read_params() -> dict:
    """Read params.yaml; raises ValueError unless it has each field of the sections, in its type."""
    values = read_mapping(PARAMS)
    like = {name: field.type() for name, field in FIELDS.items()}
    typed, problems = typed_values(values, like, f"{PARAMS.name}: ")
    missing = [name for name in FIELDS if name not in values]
    problems += [f"{PARAMS.name}: {name} is missing; restore it from git" for name in missing]
    if problems:
        raise ValueError("\n".join(problems))
    return typed


def recipe_path(recipe: str) -> Path:
    """Give the file of a recipe: a name in kit/recipes, or a path."""
    path = Path(recipe)
    if path.suffix not in {".yaml", ".yml"}:
        path = RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        close = difflib.get_close_matches(str(recipe), recipes(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise FileNotFoundError(
            f"recipe {recipe!r}: no such file; {hint}kit/recipes has: {', '.join(recipes())}"
        )
    return path


def _sections(values: Mapping) -> tuple[dict[str, Section], list[str]]:
    sections, problems = {}, []
    for name, section in SECTIONS.items():
        fields = [field.name for field in dataclasses.fields(section)]
        try:
            sections[name] = section(**{field: values[field] for field in fields})
        except ValueError as error:
            problems += str(error).splitlines()
    return sections, problems


def is_path(name: str, value: str) -> bool:
    """Tell whether the parameter's value is a path, and not a word such as a name of weights."""
    return name in PATHS and FIELDS[name].metadata["path"](value)


def _anchored(name: str, value, folder: Path):
    """Give a path from the repository's root, where it lies in it, or else the whole path."""
    if not value or not is_path(name, value) or "://" in value:
        return value
    path = Path(os.path.normpath(folder / os.path.expanduser(value)))  # noqa: PTH111 ~nobody stays
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
