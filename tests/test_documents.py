"""The documents: their links, and the parameters, commands and files that they name."""

import importlib
import json
import re
from pathlib import Path

import pytest

from kit import ROOT, params

CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
FOLDERS = ("kit", "tests", "figures", "notebooks", ".github")


def documents() -> list[Path]:
    """List every Markdown file, the notebooks with their text cells among them."""
    inside = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md"))]
    return [*sorted(ROOT.glob("*.md")), *inside, *sorted((ROOT / "notebooks").glob("0*.ipynb"))]


def text_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def prose(path: Path) -> str:
    return CODE.sub("", text_of(path))


def anchors(path: Path) -> set[str]:
    """Give the anchors of a file's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


def links(path: Path) -> list[str]:
    text = prose(path)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [link for link in found if not re.match(r"https?:|mailto:", link)]


def in_backticks(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(path))


def renamed() -> dict[str, str]:
    """Give the parameters' old names and their new ones, as the changelog lists them."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    table = text.partition("| old name | new name |")[2].partition("\n\n")[0]
    return dict(re.findall(r"\| `(\w+)` \| `(\w+)` \|", table))


each = pytest.mark.parametrize(
    "path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix()
)


def test_the_front_page_is_one_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert "no imagenet run" in text.lower()


@each
def test_links_lead_to_files_and_headings(path):
    for link in links(path):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@each
def test_parameters_are_named_as_in_params_yaml(path):
    known = params.read_params().keys()
    for text in in_backticks(path):
        if match := re.fullmatch(r"([a-z]\w+): \S.*", text):
            assert match[1] in known, text
    for name in re.findall(r"(?:-p|--parameter) (\w+)[ =]", text_of(path)):
        assert name in {*known, "recipe", "name", "NAME"}, name


@each
def test_old_names_of_parameters_stand_in_the_changelog_only(path):
    old = renamed()
    assert old
    assert set(old.values()) <= params.read_params().keys()
    if path.name != "CHANGELOG.md":
        assert not {text for text in in_backticks(path) if text in old}


def test_recipes_speak_of_parameters_by_their_names():
    old = {name for name in renamed() if "_" in name}  # version is a word like others
    for path in [params.PARAMS, *params.recipes().values()]:
        assert not old & set(re.findall(r"\w+", path.read_text(encoding="utf-8"))), path.name


@each
def test_names_in_backticks_occur_in_the_code(path):
    if path.name == "CHANGELOG.md":  # it names what is gone
        return
    files = [ROOT / "params.yaml", ROOT / "Makefile", ROOT / "pyproject.toml"]
    for folder in ("kit", "tests", "notebooks"):
        files += [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".yaml", ".ipynb"}]
    files = [file for file in files if file not in (path, Path(__file__))]
    words = set(re.findall(r"\w+", "\n".join(map(text_or_code, files))))
    for text in in_backticks(path):
        if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", text):
            assert text in words, text


def text_or_code(path: Path) -> str:
    """Give a file's text, but of a notebook only the code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(c["source"]) for c in json.loads(text)["cells"])


@each
def test_files_in_backticks_exist(path):
    for text in in_backticks(path):
        if re.fullmatch(r"(kit|tests|notebooks|figures)/[\w/.-]+", text) and "NAME" not in text:
            gone = path.name == "CHANGELOG.md"
            assert gone or (ROOT / text).exists(), text


@each
def test_recipes_and_commands_exist(path):
    text = text_of(path)
    for name in re.findall(r"--recipe (\w+)(?![\w./])", text):
        assert name in {*params.recipes(), "NAME"}, name
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = re.findall(r"^\s*make ([a-z-]+)", text, re.MULTILINE)
    commands += re.findall(r"`make ([a-z-]+)", text)
    assert set(commands) <= set(targets)
    main = (ROOT / "kit" / "__main__.py").read_text(encoding="utf-8")
    for name in re.findall(r"python -m kit ([a-z-]+)", text):
        assert f'"{name}"' in main or name == "run", name


@each
def test_imports_in_examples_work(path):
    for module, name in re.findall(r"^from (kit[\w.]*) import (\w+)", text_of(path), re.MULTILINE):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@each
def test_no_path_of_a_machine_and_no_address_of_a_registry(path):
    text = text_of(path)
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|mnt|opt)/", text)
    assert not re.search(r"pypi\.org|pythonhosted|conda\.anaconda|ghcr\.io|index[-]url", text)


def test_every_recipe_has_a_row():
    text = (ROOT / "kit" / "recipes" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\w+)`\]\(\1\.yaml\) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(params.recipes())


def test_the_map_of_the_code_names_every_module():
    """Each under its room, or with its folder; sections.py is explained once."""
    rooms = (ROOT / "kit" / "README.md").read_text(encoding="utf-8").split("\n### ")
    named = {room.split("\n")[0]: set(re.findall(r"[\w/]+\.py", room)) for room in rooms}
    for path in (ROOT / "kit").rglob("*.py"):
        if path.name not in {"__init__.py", "sections.py"}:
            whole = path.relative_to(ROOT / "kit").as_posix()
            assert path.name in named.get(path.parent.name, ()) or whole in set.union(
                *named.values()
            ), whole
