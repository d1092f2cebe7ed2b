"""Cells of CSV files, and the tables that hold them."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data.cells import harmless, original
from kit.evaluation import comparison

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://a","b")', "'=1"]
FORMULAS += ["\n=1", " =1", "\ufeff+1", "\uff1d1+1", "\uff20a", "' \xa0-1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_as_a_formula(text):
    assert harmless(text)[0] == "'"
    assert original(harmless(text)) == text


@pytest.mark.parametrize("cell", ["cat.jpg", "a=b", "", "'quoted'", "''", 7, -1.5, None])
def test_other_cells_stay(cell):
    assert harmless(cell) is cell


@given(st.text(alphabet="'=+-@\t\r\n \uff1dab", max_size=6))
def test_every_text_comes_back_through_csv(text):
    file = io.StringIO()
    csv.writer(file).writerow([harmless(text), "x"])
    file.seek(0)
    found = next(csv.reader(io.StringIO(file.getvalue(), newline="")))[0]
    assert original(found) == text
    assert not found.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_predictions_of_hostile_names_are_harmless_and_read_back(tmp_path):
    names = ["=cmd|'/C calc'!A0.jpg", "-1.jpg", "plain.jpg"]
    labels, logits = np.array([0, 1, 1]), np.array([[2.0, 1], [2, 1], [0, 3]])
    path = comparison.write_predictions(tmp_path, names, labels, logits)
    with path.open(newline="") as file:
        first = [row[0] for row in csv.reader(file)][1:]
    assert first == ["'=cmd|'/C calc'!A0.jpg", "'-1.jpg", "plain.jpg"]
    found = comparison.read_predictions(tmp_path)
    assert found == {(names[0], 0, 0): True, (names[1], 1, 0): False, (names[2], 1, 0): True}
