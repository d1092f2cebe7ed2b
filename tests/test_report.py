import json
import os
import re
import subprocess

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kit.runner import report


def write_executed(run_dir, name: str, *cells) -> None:
    notebook = new_notebook(cells=list(cells))
    notebook.metadata["papermill"] = {"start_time": "2024-05-06T07:08:09.123456+00:00"}
    folder = run_dir / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


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
    assert len(anchors) == len(set(anchors)) == 6


def test_the_report_loads_nothing_and_runs_nothing(html):
    assert "<script" not in html
    assert "<link" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_the_summary_names_only_what_was_measured(tmp_path):
    assert not [line for line in report.summary(tmp_path) if "top-1" in line or " ms " in line]
    (tmp_path / "latency.json").write_text('{"total": {"p50": 7.26}}')
    assert report.summary(tmp_path)[-1].endswith("7.3 ms for one image (median)")


def test_numbers_of_an_earlier_model_are_not_shown(tmp_path):
    (tmp_path / "latency.json").write_text('{"total": {"p50": 7.26}}')
    (tmp_path / "model.json").write_text("{}")
    os.utime(tmp_path / "latency.json", (1e9, 1e9))
    assert report.measured(tmp_path) == []
    os.utime(tmp_path / "model.json", (1e9 - 1, 1e9 - 1))
    assert len(report.measured(tmp_path)) == 1


def git(folder, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_commit_is_recorded_with_whether_files_differ(tmp_path):
    assert report._commit(tmp_path) is None
    git(tmp_path, "init")
    assert report._commit(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "one")
    clean = report._commit(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert report._commit(tmp_path) == {"commit": clean["commit"], "dirty": True}


def test_the_commit_of_a_repository_around_the_folder_is_not_ours(tmp_path):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "one")
    inner = tmp_path / "inner"
    inner.mkdir()
    assert report._commit(tmp_path) is not None
    assert report._commit(inner) is None


def test_an_absent_package_has_no_version():
    assert report._version("no-such-package-here") is None
    assert report._version("pytest") == pytest.__version__


def test_the_summary_tells_the_speed_of_the_input(tmp_path):
    measured = {
        "images_per_second": {"input": 5147.2},
        "input_bound": "input-bound: no (0% waiting)",
    }
    (tmp_path / "throughput.json").write_text(json.dumps(measured))
    assert report.measured(tmp_path) == [
        "input:              5,147 images/s; input-bound: no (0% waiting)"
    ]
