"""Planted wrong labels are found; the rule is the paper's, by its own loops."""

import numpy as np

from kit.evaluation.suspicious import suspicious_labels


def planted(images=2000, classes=5, wrong=60, seed=0):
    """Give given labels, logits that follow the true ones, and where the two differ."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, images, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    logits = rng.normal(0, 1, (images, classes))
    logits[np.arange(images), truth] += 8
    places = rng.choice(images, wrong, replace=False)
    labels = truth.copy()
    labels[places] = (truth[places] + rng.integers(1, classes, wrong)) % classes
    return labels, logits, set(places.tolist()), truth


def test_planted_wrong_labels_are_found_with_their_right_ones():
    labels, logits, wrong, truth = planted()
    found = suspicious_labels(labels, logits)
    positions = [row["position"] for row in found]
    assert set(positions) <= wrong
    assert len(positions) >= 57
    assert all(row["suggested"] == truth[row["position"]] for row in found)
    assert suspicious_labels(truth, logits) == []


def test_the_rule_is_that_of_the_confident_joint():
    labels, logits, _, _ = planted(images=300, wrong=30)
    labels[labels == 4] = 0  # a class without images has no threshold
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    thresholds = [shares[labels == j, j].mean() for j in range(4)]
    expected = {}
    for n, (label, row) in enumerate(zip(labels, shares, strict=True)):
        confident = [j for j in range(4) if row[j] >= thresholds[j]]
        if confident and row.argmax() != label:
            suggested = max(confident, key=lambda j: row[j])
            if suggested != label:
                expected[n] = suggested, row[label] - max(np.delete(row, label))
    found = suspicious_labels(labels, logits)
    assert {row["position"]: row["suggested"] for row in found} == {
        n: suggested for n, (suggested, _) in expected.items()
    }
    assert [row["position"] for row in found] == sorted(expected, key=lambda n: expected[n][1])
    for row in found:
        assert np.isclose(row["probability"], shares[row["position"], row["label"]])
        assert np.isclose(row["suggested_probability"], shares[row["position"], row["suggested"]])


def test_large_logits_do_not_overflow():
    labels, logits, _, _ = planted(images=300, wrong=30)
    assert suspicious_labels(labels, logits * 1000)
