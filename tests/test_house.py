"""The layout of kit: imports between rooms point one way, and each kind of work has one place."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from kit import params

KIT = Path(__file__).parent.parent / "kit"
MODULES = {
    ".".join(path.relative_to(KIT.parent).with_suffix("").parts): path
    for path in sorted(KIT.rglob("*.py"))
    if path.name != "__init__.py"
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

# From the bottom to the top: a room imports itself and what stands on a lower floor.
FLOORS = (
    ("kit", "locks", "signals", "machine", "notebook", "sections", "values"),
    ("files",),
    ("params",),
    ("data",),
    ("prep",),
    ("pipeline", "model"),
    ("training",),
    ("evaluation",),
    ("inference",),
    ("plots",),
    ("runner", "doctor"),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
TOP = {"__init__", "__main__", "files", "params", *FLOORS[0][1:]}


def room(module: str) -> str:
    """Give the room of a module; the sections of all rooms are one, at the bottom."""
    parts = module.split(".")
    if parts[-1] == "sections":
        return "sections"
    return parts[1] if len(parts) > 1 else "kit"


def imports(tree: ast.Module) -> set[str]:
    """Give the modules of kit that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in inner}
    return {name for name in names if name.split(".")[0] == "kit"}


IMPORTS = {name: imports(tree) for name, tree in TREES.items()}


def test_imports_between_rooms_point_down():
    wrong = {
        (importer, imported)
        for importer, found in IMPORTS.items()
        for imported in found
        if room(importer) != room(imported) and FLOOR[room(imported)] >= FLOOR[room(importer)]
    }
    assert not wrong


def test_there_is_no_circle():
    list(TopologicalSorter(IMPORTS).static_order())  # raises CycleError


def test_readers_of_shards_do_not_import_what_writes_them():
    readers = {"pipeline", "model", "training", "evaluation", "inference", "data", "plots"}
    assert not [
        (importer, imported)
        for importer, found in IMPORTS.items()
        for imported in found
        if room(importer) in readers and room(imported) == "prep"
    ]


def test_figures_draw_what_they_are_given():
    """kit.plots imports nothing of kit but files."""
    found = set().union(*(IMPORTS[name] for name in MODULES if room(name) == "plots"))
    assert {name for name in found if room(name) not in ("plots", "kit", "files")} == set()


@pytest.mark.parametrize("name", MODULES)
def test_only_the_entry_points_print_and_read_settings(name):
    if room(name) in ("runner", "params", "values", "__main__"):
        return
    calls = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    assert not any(getattr(call.func, "id", "") == "print" for call in calls)
    for node in ast.walk(TREES[name]):
        assert not (isinstance(node, ast.Attribute) and node.attr == "argv")
        packages = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
        packages += [getattr(node, "module", None)]
        assert not {"yaml", "argparse"} & set(packages)


def test_no_file_lies_loose_at_the_top():
    assert {path.stem for path in KIT.glob("*.py")} <= TOP


# Parameters whose names are also words of the code, or of the files that it writes: what else.
ORDINARY = {
    **dict.fromkeys(
        ("raw_dir", "data_dir", "run_dir", "photos", "predictions", "exports"),
        "what a function that reads or writes them is given",
    ),
    **dict.fromkeys(
        ("image_size", "resize_side", "channel_means", "stage_sizes", "precision"),
        "keys of model.json, by which a trained model is used, and arguments for its images",
    ),
    **dict.fromkeys(
        ("batch_size", "epochs", "steps_per_epoch", "learning_rate", "loss", "optimizer"),
        "Keras' own words",
    ),
    **dict.fromkeys(("schedule", "weight_decay"), "sections, too"),
    **dict.fromkeys(("seed", "deterministic"), "what a function that draws numbers is given"),
    "replicas": "what a function that counts devices is given",
    "processes": "what a function that starts them is given",
    "check": "functions that check",
}


def words(tree: ast.Module) -> set[str]:
    """Give the identifiers, arguments, keywords, attributes and strings of a module."""
    kinds = {
        ast.Name: "id",
        ast.arg: "arg",
        ast.keyword: "arg",
        ast.Attribute: "attr",
        ast.Constant: "value",
    }
    found = (getattr(node, kinds[type(node)]) for node in ast.walk(tree) if type(node) in kinds)
    return {word for word in found if isinstance(word, str)}


def read_of_sections(name: str, tree: ast.Module) -> set[str]:
    """Give the attributes that a module reads of a section: `crop.area_range`, `p.crop.area_range`.

    A variable that holds a section is called as the section, but `decay`, which holds WeightDecay.
    """
    holders = {*params.SECTIONS, "decay"} | ({"self"} if room(name) == "sections" else set())
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {
        node.attr
        for node in attributes
        if getattr(node.value, "id", getattr(node.value, "attr", None)) in holders
    }


def files_by_parameter(words_of) -> dict[str, set[str]]:
    found = {name: words_of(name, tree) for name, tree in TREES.items()}
    return {
        parameter: {name for name in found if parameter in found[name]}
        for parameter in params.FIELDS
    }


def test_a_parameter_is_named_in_at_most_four_files():
    """In its section and where it is used: no function hands it on by its name."""
    found = files_by_parameter(lambda name, tree: words(tree))
    many = {name: files for name, files in found.items() if len(files) > 4}
    assert many.keys() == ORDINARY.keys()


def test_each_parameter_is_read_of_its_section_in_at_most_four_files():
    """Those of ordinary names, too; beyond them they are arguments like any other."""
    found = files_by_parameter(read_of_sections)
    assert not {name: files for name, files in found.items() if len(files) > 4}
