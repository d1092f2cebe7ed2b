"""The card of a trained model, from what its run left: run_dir/model_card.md.

model_card.md.jinja is its text, whose sections are those of the 2018 recipe's page
(recipe_resnet50_imagenet.md), in its order. Measurements that were not made are named.
"""

import csv
import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from kit import params
from kit.data.paths import printable
from kit.evaluation import tables
from kit.files import read_json, replacing
from kit.model.metadata import read_metadata
from kit.training.run_state import FREE

CARD = "model_card.md"
NEEDED = {"data": dict, "parameters": dict, "training_size": int}  # of model.json
REMEDY = "run notebooks 02 to 04 again, or delete what was edited"
# What is raised where a file lacks something, or has another thing in its place.
MISTAKES = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
MISTAKES += (TemplateError, csv.Error)
FIGURES = ("loss", "cross_entropy", "l2_loss", "accuracy")
OPTIONAL = {"real": "ReaL", "other_images": "other images", "comparison": "against another run"}
FEW = 20  # images of a class, of which one is more than 5 %
FILTERS = {
    "count": lambda number: f"{float(number):,.0f}",
    "percent": lambda share: f"{float(share):.1%}",
    "fixed": lambda number, digits, kind="f": f"{float(number):.{digits}{kind}}",
    "splits": tables.splits,
    "table": lambda rows, *head: tables.markdown(head, rows),
    "code": tables.code,
    "escape": tables.escape,
    "compared": tables.compared,
    "macro": tables.macro,
    "classes": tables.classes,
}


def write_card(run_dir):
    """Write the card, whole or not at all, and give its path.

    model.json must be there; history.csv, params.json, environment.json, evaluation.json,
    latency.json and exports are used where they are, the measurements if they are of this model.
    Raises ValueError for a model.json that tells nothing of the training, and for other files of
    which no card can be made.
    """
    run_dir = Path(run_dir)
    model = read_metadata(run_dir / "model.json", NEEDED)
    jinja = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined)
    jinja.filters |= FILTERS
    try:
        text = jinja.get_template(f"{CARD}.jinja").render(_facts(run_dir, model))
    except MISTAKES as error:
        why = f"no model card can be made of its files ({printable(str(error))[:200]})"
        raise ValueError(f"{run_dir}: {why}: {REMEDY}") from None
    with replacing(run_dir / CARD) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return run_dir / CARD


def _facts(run_dir, model):
    """Give what the template names."""
    found = measured(run_dir, "evaluation.json")
    history = read_history(run_dir)
    return {
        "model": model,
        "data": model["data"],
        "demo_views": read(run_dir / "params.json").get("demo_views", 0),
        "environment": ", ".join(_environment(read(run_dir / "environment.json"))),
        "parameters": list(_parameters(model["parameters"])),
        "history": history,
        "best": max(history, key=lambda row: float(row["val_top1"] or 0), default={}),
        "figures": [name for name in FIGURES if (run_dir / "figures" / f"{name}.png").exists()],
        "files": sorted({p.name for p in run_dir.iterdir() if p.name[0] != "."} | {CARD}),
        "found": found,
        "scores": list(_scores(found)),
        "latency": measured(run_dir, "latency.json"),
        "exports": dict(_exports(run_dir, model.get("sha256", ""))),
        "few": sum(row["images"] < FEW for row in found.get("per_class", [])),
        "FEW": FEW,
        "missing": [words for name, words in OPTIONAL.items() if name not in found],
    }


def measured(run_dir, name) -> dict:
    """Read a file of measurements in run_dir; {} where it is absent or of another model."""
    found = read(run_dir / name)
    return found if found.get("model") == read(run_dir / "model.json").get("sha256", "") else {}


def read(path) -> dict:
    """Read a JSON file; {} where there is none."""
    return read_json(path, remedy=REMEDY) if path.exists() else {}


def read_history(run_dir) -> list[dict]:
    """List the rows of history.csv, which is written anew, whole, after each epoch."""
    path = Path(run_dir, "history.csv")
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _environment(found):
    packages = (f"{name} {version}" for name, version in found.get("packages", {}).items())
    yield from map(tables.escape, [*packages, *found.get("devices", [])])
    if found.get("git"):
        yield f"commit {tables.code(found['git']['commit'])}"


def _parameters(given):
    """Give a row of the table for each parameter that decides what a training computes."""
    recipe = params.load()
    for name, value in given.items():
        if name not in FREE:
            default = recipe.values.get(name)
            other = "" if value == default else tables.escape(json.dumps(default))
            yield [f"`{name}`", tables.escape(json.dumps(value)), other]


def _scores(found):
    """Give a row of the table for each accuracy that was measured."""
    if not found:
        return
    yield ["top-1", *tables.share(found["top1"]), f"{found['images']:,}"]
    yield ["top-5", *tables.share(found["top5"]), f"{found['images']:,}"]
    if test := found.get("test"):
        yield ["top-1, test split", *tables.share(test["top1"]), f"{test['images']:,}"]
    rows = {f"top-1, {view}": row for view, row in found.get("views", {}).items()}
    rows |= {f"top-1 at {row['image_size']} pixels": row for row in found.get("test_sizes", [])}
    rows |= {"ReaL": found.get("real"), "top-1, other images": found.get("other_images")}
    for words, row in rows.items():
        if row:
            yield [words, *tables.share(row["top1"]), f"{row['images']:,}"]


def _exports(run_dir, sha256):
    """Give name and metadata of each export of this very model; others may lie beside them."""
    for path in sorted(run_dir.glob("export/*.json")):
        found = read(path)
        if found.get("sha256") == sha256 and path.with_suffix("").exists():
            yield path.stem, found
