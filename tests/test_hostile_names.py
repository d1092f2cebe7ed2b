"""Names of classes, files and folders as HTML, Markdown and SVG: a browser runs nothing of them."""

import html
import json
import re
import shutil
import subprocess

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kit import params, plots
from kit.evaluation import model_card, scores, tables
from kit.runner import report
from tests.test_model_card import MANIFEST, PARAMETERS, model_metadata
from tests.test_plots_evaluation import per_class
from tests.test_scores import random_scores

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or "/usr/bin/chromium"
HIT = "document.documentElement.id='ran'"
NAMES = [
    f"<script>{HIT}</script>",
    f'<img src=x onerror="{HIT}">',
    f"\"><svg onload={HIT}><a b='",
    f"</title></style></pre></code></textarea><script>{HIT}</script>",
    f"``` `<script>{HIT}</script>",
    f"x\n\n<script>{HIT}</script>\n\ny",
    f"<details open ontoggle={HIT}><iframe srcdoc='<script>parent.{HIT}</script>'>",
    f"\x1b[31m<script>{HIT}</script>|<b>|",
    f'[a](javascript:{HIT}) ![b](x"onerror={HIT}) <javascript:{HIT}>',
    f"&#60;script>{HIT}&#60;/script>",
    f"]]><script>{HIT}</script><!--",
]
CLASSES = [{"wnid": name, "name": name} for name in NAMES]


@pytest.fixture
def opened(tmp_path):
    """Give the function that opens a page in a browser and returns what became of it."""
    if not shutil.which(BROWSER):
        pytest.skip("no Chromium here")

    def dumped(text, name="page.html"):
        page = tmp_path / "opened" / name
        page.parent.mkdir(exist_ok=True)
        page.write_text(text, encoding="utf-8", errors="replace")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        flags += [f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=2000"]
        done = subprocess.run(
            [BROWSER, *flags, "--dump-dom", page.as_uri()], capture_output=True, timeout=120
        )
        return done.stdout.decode(errors="replace")

    return dumped


def ran(page):
    return 'id="ran"' in page.partition("<head")[0]


def evaluated():
    labels, logits = random_scores(classes=len(NAMES))
    return scores.evaluate(labels, logits, CLASSES)


def outputs():
    """Give what a notebook's cells show of names, in each way that a cell has."""
    found = evaluated()
    table = params.Table(
        {"data_dir": NAMES[0], "run_dir": "\n".join(NAMES)},
        {"data_dir": "x"} | {"run_dir": NAMES[1]},
    )
    text = "\n".join(NAMES)
    shown = {"text/html": table._repr_html_(), "text/plain": text}
    worst = {"text/markdown": tables.classes(found["per_class"], found["confusion"])}
    return [
        new_output("stream", text=text),
        new_output("stream", name="stderr", text=text),
        new_output("display_data", shown),
        new_output("display_data", worst),
        new_output("display_data", {"text/plain": text}),
        new_output("display_data", {"image/png": "iVBORw0KGgo="}),
        new_output("error", ename=text, evalue=text, traceback=[text]),
    ]


def executed(run_dir, cells):
    notebook = new_notebook(cells=cells)
    notebook.metadata["papermill"] = {"start_time": "2024-05-06T07:08:09.123456+00:00"}
    (run_dir / "notebooks").mkdir(parents=True)
    nbformat.write(notebook, run_dir / "notebooks" / "03_evaluation.ipynb")


def write_run(run_dir):
    """Write a run whose names are all hostile, and what a careless cell shows of them too."""
    careless = {"text/html": "\n".join(NAMES), "application/javascript": HIT}
    raw = [
        new_output("display_data", careless),
        new_output("display_data", {"text/markdown": "\n\n".join(NAMES)}),
    ]
    raw.append(
        new_output(
            "display_data", {"image/svg+xml": f"<svg onload={HIT}/>", "text/latex": NAMES[0]}
        )
    )
    cells = [new_markdown_cell(name) for name in ("## " + NAMES[0], *NAMES)]
    executed(run_dir, [*cells, new_code_cell("\n".join(NAMES), outputs=outputs() + raw)])
    model = model_metadata(MANIFEST | {"source": NAMES[0], "layout": NAMES[1]}, PARAMETERS)
    model["data"]["source"] = "\n".join(NAMES)
    write(run_dir / "model.json", model | {"classes": CLASSES, "sha256": "a"})
    write(run_dir / "evaluation.json", evaluated() | {"model": "a", "shards": NAMES[0]})
    sources = {"recipe": NAMES[0], "data_dir": f"recipe {NAMES[1]}"}
    write(run_dir / "params.json", {"recipe": NAMES[2], "data_dir": NAMES[3], "sources": sources})
    packages = {"tensorflow": NAMES[0], "keras": "1"}
    machine = {"git": None, "devices": [NAMES[0]], "packages": packages, "python": "3"}
    write(run_dir / "environment.json", machine)
    latency = {"device": NAMES[0], "fastest": NAMES[1], "total": {"p50": 1, "p90": 2}, "runs": 3}
    write(run_dir / "latency.json", latency | {"model": "a"})


def write(path, values):
    path.write_text(json.dumps(values), encoding="utf-8")


def test_the_browser_would_run_them(opened):
    """Else the tests below would prove nothing."""
    for name in (*NAMES[:4], NAMES[6]):
        assert ran(opened(f"<html><head><title>x</title></head><body>{name}</body></html>"))
    assert not ran(opened(f"<html><head></head><body>{html.escape(NAMES[0])}</body></html>"))


def test_a_report_full_of_hostile_names_runs_nothing(opened, tmp_path):
    run_dir = tmp_path / NAMES[1].replace("/", "")
    write_run(run_dir)
    report.write_report(run_dir)
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    without = re.sub(r"<meta [^>]*Content-Security-Policy[^>]*>", "", text)  # it would stop all
    assert without != text
    page = opened(without)
    assert "top-1" in page and not ran(page)
    assert 'href="javascript:' not in page
    assert "<script" not in page and "<iframe" not in page


def test_the_policy_of_the_report_stops_what_would_slip_through(opened, tmp_path):
    executed(tmp_path, [])
    report.write_report(tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in NAMES[:2]:
        assert not ran(opened(text.replace("<main>", f"<main>{name}")))


def test_what_the_kit_shows_in_a_notebook_runs_nothing_in_plain_nbconvert(opened):
    notebook = new_notebook(cells=[new_code_cell("x", outputs=outputs())])
    text, _ = HTMLExporter().from_notebook_node(notebook)
    assert not ran(opened(text))


def test_a_model_card_of_hostile_names_runs_nothing(opened, tmp_path):
    run_dir = tmp_path / "run"
    write_run(run_dir)
    (run_dir / NAMES[1].replace("/", "")).touch()
    card = model_card.write_card(run_dir).read_text(encoding="utf-8")
    assert HIT in card
    page = opened(f"<html><head></head><body>{markdown2html(card)}</body></html>")
    assert "Hyperparameters" in page and not ran(page)
    assert 'href="javascript:' not in page


def test_a_figure_as_svg_runs_nothing(opened, tmp_path):
    rows = [
        row | {"name": name} for row, name in zip(per_class([0.5] * len(NAMES)), NAMES, strict=True)
    ]
    figure = plots.class_accuracy(rows)
    for kind in ("path", "none"):  # glyphs, or text
        with plt.rc_context({"svg.fonttype": kind}):
            figure.savefig(tmp_path / "figure.svg")
        text = (tmp_path / "figure.svg").read_text(encoding="utf-8")
        page = opened(text, "figure.svg")
        assert "<svg" in page and not ran(f"{page}<head")
        assert not ran(
            opened(f"<html><head></head><body>{text[text.index('<svg') :]}</body></html>")
        )
