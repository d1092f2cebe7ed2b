from fractions import Fraction
from math import comb

import numpy as np
import pytest

from kit.evaluation import comparison


def answers(both, ours, theirs, neither):
    """Which of the images each network got right, so many of each kind, mixed."""
    kinds = [(True, True)] * both + [(True, False)] * ours
    kinds += [(False, True)] * theirs + [(False, False)] * neither
    return np.random.default_rng(0).permutation(kinds).T


@pytest.mark.parametrize(
    "table, p_value",
    [((1, 1, 7, 12), 0.0703), ((59, 6, 16, 80), 0.0525)],  # Bentur et al. 2009, Cavo et al. 2012
)
def test_mcnemar_gives_what_is_published(table, p_value):
    """Fagerland, Lydersen and Laake 2013, The McNemar test for binary matched-pairs data."""
    found = comparison.compare(*answers(*table))
    assert found["p_value"] == pytest.approx(p_value, abs=5e-5)
    assert (found["images"], found["only_ours"], found["only_theirs"]) == (sum(table), *table[1:3])
    assert found["difference"] == pytest.approx((table[1] - table[2]) / sum(table))


@pytest.mark.parametrize("one, other", [(0, 0), (0, 1), (3, 3), (5, 14), (40, 71), (2400, 2600)])
def test_mcnemar_counts_the_tosses_of_a_coin_that_divide_as_unevenly(one, other):
    tosses = one + other
    ways = sum(
        comb(tosses, k) for k in range(tosses + 1) if abs(2 * k - tosses) >= abs(one - other)
    )
    expected = float(Fraction(ways, 2**tosses))
    assert comparison.mcnemar(one, other) == pytest.approx(expected, rel=1e-9)
    assert comparison.mcnemar(other, one) == comparison.mcnemar(one, other)


def test_mcnemar_of_a_whole_imagenet_is_a_number():
    assert comparison.mcnemar(0, 50_000) == 0
    assert 0 < comparison.mcnemar(5000, 5300) < 0.01


def test_the_interval_holds_the_true_difference_19_times_in_20():
    """Bonett and Price 2012: it covers, on average, what it says."""
    rng = np.random.default_rng(0)
    hits = []
    for shares in ([0.6, 0.05, 0.1, 0.25], [0.9, 0.02, 0.04, 0.04], [0.3, 0.2, 0.2, 0.3]):
        for table in rng.multinomial(100, shares, 400):
            found = comparison.compare(*answers(*table))
            hits.append(found["low"] <= shares[1] - shares[2] <= found["high"])
    assert 0.935 < np.mean(hits) < 0.975


def test_the_interval_is_bonett_and_prices():
    """By hand, of the first table: a variance of (10/23 - (6/23)**2) / 23 around -6/23."""
    found = comparison.compare(*answers(1, 1, 7, 12))
    assert (found["low"], found["high"]) == pytest.approx((-0.508359, -0.013380), abs=2e-6)
    certain = comparison.compare(*answers(0, 5, 0, 0))  # what sticks out of [-1, 1] is cut off
    assert (certain["low"], certain["high"]) == (pytest.approx(0.195836, abs=2e-6), 1.0)


def test_equal_networks_do_not_differ():
    right = np.array([True, False, True])
    found = comparison.compare(right, right)
    assert (found["difference"], found["p_value"]) == (0, 1)
    assert found["low"] < 0 < found["high"]


def write(folder, files, labels, predictions):
    logits = np.eye(4, dtype="float32")[predictions]
    return comparison.write_predictions(folder, files, np.array(labels), logits)


def test_predictions_are_read_as_they_were_written(tmp_path):
    files = ["a,b.jpg", 'say "x".jpg', "é.jpg"]
    path = write(tmp_path / "run", files, [0, 1, 2], [0, 3, 2])
    assert path.read_text(encoding="utf-8").splitlines()[0] == "file,label,prediction,probability"
    found = comparison.read_predictions(tmp_path / "run")
    assert found == comparison.by_image(files, [0, 1, 2], [0, 3, 2])
    assert list(found.values()) == [True, False, True]
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["predictions.csv"]


def test_two_runs_are_paired_by_image_whatever_their_order():
    ours = comparison.by_image(["a", "b", "c"], [0, 1, 2], [0, 0, 2])
    theirs = comparison.by_image(["c", "a", "b"], [2, 0, 1], [1, 0, 1])
    mine, others = comparison.pair(ours, theirs)
    assert mine.tolist() == [True, False, True]
    assert others.tolist() == [True, True, False]


def test_images_of_one_name_are_told_apart():
    found = comparison.by_image(["a", "a", "a"], [0, 0, 1], [0, 1, 1])
    assert list(found.values()) == [True, False, True]


def test_runs_of_other_images_are_not_compared():
    ours = comparison.by_image(["a", "b"], [0, 1], [0, 1])
    relabelled = comparison.by_image(["a", "b"], [0, 2], [0, 2])
    with pytest.raises(ValueError, match="2 images are not in both runs, such as b of class 1"):
        comparison.pair(ours, relabelled)


def test_another_file_in_the_place_of_the_predictions_is_refused(tmp_path):
    for text in ("", "file,label\na,0\n"):
        (tmp_path / "predictions.csv").write_text(text)
        with pytest.raises(ValueError, match="compare_with: .* is not notebook 03's"):
            comparison.read_predictions(tmp_path)
