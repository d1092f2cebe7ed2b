import base64
import io
import json
import os
import re
import subprocess

import bs4
import nbformat
import PIL.Image
import pytest
from images import class_folders, png, prepare
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kit.runner import environment, report, summary


def write_executed(run_dir, name: str, *cells) -> None:
    notebook = new_notebook(cells=list(cells))
    notebook.metadata["papermill"] = {"start_time": "2024-05-06T07:08:09.123456+00:00"}
    folder = run_dir / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def picture(width: int = 1) -> str:
    image = io.BytesIO()
    PIL.Image.new("RGB", (width, 1)).save(image, "png")
    return base64.b64encode(image.getvalue()).decode()


@pytest.fixture
def html(tmp_path):
    """The report of two notebooks, whose cells have the same ids."""
    text = "<script>alert(1)</script>"
    printed = new_code_cell("print(name)", outputs=[new_output("stream", text=text)], id="same")
    write_executed(tmp_path, "02_b", new_markdown_cell("# Second", id="same"))
    write_executed(tmp_path, "01_a", new_markdown_cell("# First"), printed)
    report.write_report(tmp_path)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_joins_the_notebooks_in_order_and_says_when_each_ran(html):
    places = [html.index(text) for text in ("First", "alert(1)", "Second")]
    assert places == sorted(places)
    assert html.count("executed 2024-05-06 07:08 UTC") == 2
    assert 'href="#02_b"' in html
    assert 'id="02_b"' in html


def test_no_two_cells_of_the_report_share_an_anchor(html):
    anchors = re.findall(r'id="(cell-id=[^"]*)"', html)
    assert len(anchors) == len(set(anchors)) == 5


def test_the_report_loads_nothing_and_runs_nothing(html):
    assert "<script" not in html
    assert "<link" not in html
    assert "&lt;script&gt;alert(1)" in html


def write_run(run_dir, **files) -> str:
    """Write a run of one notebook with these files, and give its report."""
    write_executed(run_dir, "02_training", new_markdown_cell("# Training"))
    for name, content in files.items():
        (run_dir / f"{name}.json").write_text(json.dumps(content))
    report.write_report(run_dir)
    return (run_dir / "report.html").read_text(encoding="utf-8")


MODEL = {
    "sha256": "a",
    "classes": [{}, {}],
    "data": {"source": "my <images>", "images": {"train": 1200, "validation": 300}},
}
ENVIRONMENT = {
    "git": {"commit": "0123456789abcdef", "dirty": True},
    "devices": ["GPU:0 A100"],
    "packages": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    "python": "3.11.7",
}
SCORES = {
    "model": "a",
    "images": 300,
    "top1": {"value": 0.9, "low": 0.861, "high": 0.929},
    "top5": {"value": 1, "low": 0.987, "high": 1},
}


LATENCY = {"model": "a", "total": {"p50": 7.26}}


def test_the_report_opens_with_what_the_run_was_and_measured(tmp_path):
    sources = {"epochs": "the command line", "momentum": "recipe demo"}
    recorded = {"epochs": 3, "momentum": 0.9, "sources": sources}
    html = write_run(
        tmp_path, model=MODEL, environment=ENVIRONMENT, params=recorded, evaluation=SCORES
    )
    front = html[: html.index("02_training.ipynb</code>")]
    for expected in (
        "<td>my &lt;images&gt;: 1,200 training and 300 validation images of 2 classes</td>",
        "<td>2024-05-06 07:08 UTC</td>",
        "<td>0123456789ab, files changed since</td>",
        "<td>demo, 1 value changed by hand</td>",
        "GPU:0 A100; TensorFlow 2.21.0, Keras 3.15.1",
        "top-1 90.0 % (95 % interval 86.1 % to 92.9 %), top-5 100.0 %, of 300 images",
        '<a href="#02_training">training</a>',
        "<td>epochs</td><td>3</td><td>the command line</td>",
    ):
        assert expected in front


def test_a_report_of_a_run_that_left_nothing_leaves_all_of_it_out(tmp_path):
    html = write_run(tmp_path)
    assert html.count("<td>") == 1  # the date
    assert "Parameters</h2>" not in html and "<figure" not in html


def test_the_front_shows_the_figures_of_this_model_with_a_text_for_each(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("accuracy", "confusion", "mistakes", "latency", "other"):
        (tmp_path / "figures" / f"{name}.png").write_bytes(base64.b64decode(picture()))
    html = write_run(tmp_path, model=MODEL, evaluation=SCORES, latency=LATENCY)
    assert html.count('<figure><img alt="') == html.count("<figure>") == 3
    mistakes = SCORES | {"worst_mistakes": [{"position": 3}]}  # else the figure is an earlier one's
    assert write_run(tmp_path, evaluation=mistakes).count("<figure>") == 4
    html = write_run(tmp_path, model=MODEL | {"sha256": "b"})  # only training draws before it
    assert html.count('<figure><img alt="Top-1 and top-5') == html.count("<figure>") == 1


def test_code_is_folded_but_where_it_failed(tmp_path):
    failed = new_output("error", ename="ValueError", evalue="raw_dir", traceback=["raw_dir: x"])
    cells = new_code_cell("print(1)"), new_code_cell("fail()", outputs=[failed])
    write_executed(tmp_path, "01_a", *cells)
    report.write_report(tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    folds = bs4.BeautifulSoup(html, "html.parser").find_all("details")
    assert [fold.has_attr("open") for fold in folds] == [False, True]
    assert "raw_dir: x" in html


def test_parameters_stand_in_the_report_once_and_links_between_notebooks_stay_in_it(tmp_path):
    given = new_code_cell("epochs = 77", metadata={"tags": ["injected-parameters"]})
    table = [new_output("execute_result", {"text/plain": "epochs 77"}, execution_count=1)]
    load = new_code_cell("p = params.load_notebook(globals())\np.table()", outputs=table)
    text = new_markdown_cell("## Next\n\nNext: [training](02_training.ipynb)")
    write_executed(tmp_path, "01_a", given, load, text)
    recorded = {"epochs": 77, "sources": {"epochs": "the command line"}}
    html = write_run(tmp_path, params=recorded)
    assert html.count("77</td>") == html.count(">77<") == 1
    assert "epochs 77" not in html
    assert 'href="#02_training">training' in html
    assert '<a href="#01_a-1">Next</a>' in html and 'id="01_a-1"' in html


def test_a_picture_says_what_the_text_above_it_says(tmp_path):
    drawn = [new_output("display_data", {"image/png": picture()})]
    text = new_markdown_cell('The `loss` falls, "as" it <b>should</b>.')
    write_executed(tmp_path, "01_a", text, new_code_cell("figure", outputs=drawn))
    report.write_report(tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    (image,) = bs4.BeautifulSoup(html, "html.parser").find_all("img")
    assert image["alt"] == 'The loss falls, "as" it should.'


def test_what_a_browser_would_run_is_left_out_of_the_report(tmp_path):
    page = "<b onclick='alert(1)'>bold</b><script>alert(2)</script><iframe src='//x'></iframe>"
    data = {"text/html": page, "application/javascript": "alert(3)"}
    cell = new_code_cell("page", outputs=[new_output("display_data", data)])
    write_executed(tmp_path, "01_a", cell)
    report.write_report(tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<b>bold</b>" in html
    for unsafe in ("onclick=", "<script", "<iframe", "alert(3)"):
        assert unsafe not in html


def test_the_summary_names_only_what_was_measured(tmp_path):
    assert not [line for line in summary.lines(tmp_path) if "top-1" in line or " ms " in line]
    write_run(tmp_path, model=MODEL, latency=LATENCY)
    assert summary.lines(tmp_path)[-1].endswith("7.3 ms for one image (median)")


def test_the_summary_says_what_became_of_the_images_where_they_were_prepared(tmp_path):
    class_folders(tmp_path / "raw", classes=2, images=3)
    (tmp_path / "raw/class0/odd.png").write_bytes(png(20, 30))
    (tmp_path / "raw/class1/notes.doc").write_text("no image")
    prepare(tmp_path / "raw", tmp_path / "shards")
    (tmp_path / "params.json").write_text(json.dumps({"data_dir": str(tmp_path / "shards")}))
    assert not [line for line in summary.lines(tmp_path) if line.startswith("images")]
    write_executed(tmp_path, "01_data_prep")
    told = [line.split(":", 1) for line in summary.lines(tmp_path) if line.startswith("images")]
    assert [(name, text.strip()) for name, text in told] == [
        ("images read", "7"),
        ("images written", "7"),
        ("images resized", "0"),
        ("images re-encoded", "1: PNG 1"),
        ("images quarantined", "0"),
        ("images skipped", "1: not an image by its name (.doc) 1"),
    ]
    (tmp_path / "shards/manifest.json").unlink()
    assert not list(summary.prepared(tmp_path))


MACRO = {"balanced_accuracy": 0.9, "precision": 0.8, "f1": 0.7, "roc_auc": 0.99}


def test_the_summary_tells_the_averages_over_the_classes_and_the_test_split(tmp_path):
    scores = SCORES | {"macro": MACRO | {"average_precision": 0.95}}
    scores |= {"test": scores | {"images": 77}, "suspicious_labels": {"images": 12}}
    write_run(tmp_path, model=MODEL, evaluation=scores)
    found = dict(summary.measured(tmp_path))
    assert found["by class"] == (
        "balanced accuracy 90.0%, precision 80.0%, F1 70.0%, ROC area 0.990, average precision "
        "0.950 (averages over the classes)"
    )
    assert found["test split"].endswith("of 77 images")
    assert found["labels"] == "the model doubts 12 of 300 (notebook 03)"


@pytest.mark.parametrize("clock", [1e9, 3e9])
def test_whose_numbers_they_are_is_told_by_the_models_hash_and_not_by_the_clock(tmp_path, clock):
    write_run(tmp_path, model=MODEL, evaluation=SCORES, latency=LATENCY)
    (tmp_path / "photos.csv").write_text("photo,problem,name_1,probability_1\na.jpg,,cat,0.9\n")
    for path in tmp_path.iterdir():
        if path.name != "model.json":
            os.utime(path, (clock, clock))
    assert len(list(summary.measured(tmp_path))) == 2
    assert list(summary.predictions(tmp_path)) == ["a.jpg is cat (90.0 %)"]
    write_run(tmp_path, model=MODEL | {"sha256": "b"})
    assert list(summary.measured(tmp_path)) == list(summary.predictions(tmp_path)) == []


def git(folder, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_commit_is_recorded_with_whether_files_differ(tmp_path):
    assert environment._commit(tmp_path) is None
    git(tmp_path, "init")
    assert environment._commit(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "one")
    clean = environment._commit(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert environment._commit(tmp_path) == {"commit": clean["commit"], "dirty": True}


def test_the_commit_of_a_repository_around_the_folder_is_not_ours(tmp_path):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "one")
    inner = tmp_path / "inner"
    inner.mkdir()
    assert environment._commit(tmp_path) is not None
    assert environment._commit(inner) is None


def test_an_absent_package_has_no_version():
    assert environment._version("no-such-package-here") is None
    assert environment._version("pytest") == pytest.__version__


def test_the_summary_tells_the_speed_of_the_input(tmp_path):
    measured = {
        "images_per_second": {"input": 5147.2},
        "input_bound": "input-bound: no (0% waiting)",
    }
    (tmp_path / "throughput.json").write_text(json.dumps(measured))
    expected = ("input", "5,147 images/s; input-bound: no (0% waiting)")
    assert list(summary.measured(tmp_path)) == [expected]
