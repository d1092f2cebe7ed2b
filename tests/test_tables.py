import pytest

from kit.evaluation import tables


def row(name, correct, images):
    share = correct / images if images else None
    return {
        "name": name,
        "images": images,
        "correct": correct,
        "top1": share,
        "low": share and share / 2,
        "high": share and (1 + share) / 2,
        "precision": share and 0.5,
        "f1": share and 0.25,
    }


def test_markdown_keeps_a_cell_in_its_cell():
    text = tables.markdown(["a", "b"], [["x|y", 1], ["two\nlines", ""]])
    assert text.split("\n") == ["| a | b |", "| --- | --- |", "| x\\|y | 1 |", "| two lines |  |"]


@pytest.mark.parametrize(
    "name",
    ["a_b", "_c_", "*x*", "<b>", "[l](u)", "`", "&lt;", "~~d~~", "#1"]
    + ["$x$", "![i](javascript:x)", "<img src=x onerror=x>", "[a]: x", "www.x", "a &#60; b"],
)
def test_an_escaped_name_is_shown_as_it_is(name):
    mistune = pytest.importorskip("mistune")  # Jupyter's own
    (shown,) = mistune.create_markdown(renderer="ast")(f"name {tables.escape(name)}")
    assert "".join(part["raw"] for part in shown["children"]) == f"name {name}"
    (shown,) = mistune.create_markdown(renderer="ast")(tables.code(name))
    assert [part["type"] for part in shown["children"]] == ["codespan"]
    assert shown["children"][0]["raw"] == name


def test_a_name_stays_in_its_line():
    for show in (tables.escape, tables.code):
        text = show("a\n\n<script>\r# b\tc")
        assert len(text.splitlines()) == 1 and "\r" not in text


def test_the_averages_over_the_classes_are_said_in_a_line():
    found = {"balanced_accuracy": 0.9, "precision": 0.85, "f1": 0.8, "roc_auc": 0.99}
    assert tables.macro(found | {"average_precision": None}) == (
        "balanced accuracy 90.0%, precision 85.0%, F1 80.0%, ROC area 0.990, average precision "
        "unknown"
    )


def test_the_worst_class_comes_first_and_one_without_images_last():
    per_class = [row("cat", 4, 5), row("dog", 1, 4), row("horse", 0, 0)]
    confusion = [[4, 1, 0], [1, 1, 2], [0, 0, 0]]
    lines = tables.classes(per_class, confusion).split("\n")
    assert lines[2:] == [
        "| dog | 4 | 25.0% | 12.5% to 62.5% | 50.0% | 25.0% | horse (2) |",
        "| cat | 5 | 80.0% | 40.0% to 90.0% | 50.0% | 25.0% | dog (1) |",
        "| horse | 0 |  |  |  |  |  |",
    ]


def test_of_many_classes_both_ends_are_shown():
    per_class = [row(f"class {number}", number, 100) for number in range(1, 41)]
    confusion = [[0] * 40 for _ in range(40)]
    lines = tables.classes(per_class, confusion).split("\n")[2:]
    names = [line.split("|")[1].strip() for line in lines]
    assert names == [f"class {number}" for number in (*range(1, 11), *range(31, 41))]


def test_a_comparison_is_said_in_a_line():
    found = {"images": 1000, "only_ours": 30, "only_theirs": 12, "p_value": 0.00791}
    text = tables.compared(found | {"difference": 0.018, "low": 0.005, "high": 0.031})
    assert text == (
        "+1.80% of 1,000 images, 95 % interval +0.50% to +3.10%; right alone on 30, the other on "
        "12; exact McNemar p = 0.0079"
    )


def test_each_export_has_a_line_and_int8_tells_what_it_costs():
    cost = {"images": 1000, "only_ours": 1, "only_theirs": 12, "p_value": 0.0034}
    cost |= {"difference": -0.011, "low": -0.02, "high": -0.001, "agreement": 0.985}
    rows = [
        {"form": "onnx", "bytes": 94_300_000, "max_difference": 2.6e-6},
        {"form": "litert_int8", "bytes": 24_000_000, "max_difference": 0.31, "cost": cost},
    ]
    first, second, third, fourth = tables.exports(rows).split("\n")
    assert first == "onnx: 94 MB, log-probabilities differ by 2.6e-06 at most"
    assert second == "litert_int8: 24 MB, log-probabilities differ by 3.1e-01 at most"
    assert third == "  same answer to 98.5% of the validation images;"
    assert fourth == f"  top-1 {tables.compared(cost)}"
