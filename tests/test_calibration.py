import numpy as np
import pytest
import scipy.optimize
import scipy.special

from kit.evaluation import calibration


def answers(images=4000, classes=6, temperature=1.0, seed=0):
    """Labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (images, classes)).astype("float32")
    shares = scipy.special.softmax(logits / temperature, axis=1)
    labels = (rng.random([images, 1]) > shares.cumsum(axis=1)).sum(axis=1)
    return labels.clip(max=classes - 1), logits


def test_reliability_bins_hold_the_numbers_found_by_hand():
    shares = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.45, 0.55], [0.5, 0.5]])
    bins = calibration.reliability(np.array([0, 1, 1, 1, 0]), np.log(shares), bins=4)
    assert [row["images"] for row in bins] == [0, 1, 2, 2]  # 0.5 is the second bin's upper border
    assert bins[0] == {"images": 0, "confidence": None, "accuracy": None}
    assert [row["accuracy"] for row in bins[1:]] == [1, 0.5, 1]
    assert [row["confidence"] for row in bins[1:]] == pytest.approx([0.5, 0.625, 0.85])
    expected = (1 * 0.5 + 2 * 0.125 + 2 * 0.15) / 5
    assert calibration.expected_error(bins) == pytest.approx(expected)


def test_expected_error_agrees_with_a_loop_over_the_images():
    labels, logits = answers(500, temperature=2.0)
    shares = scipy.special.softmax(logits.astype("float64"), axis=1)
    total = 0.0
    for step in range(15):
        rows = [
            (own.max(), own.argmax() == label)
            for own, label in zip(shares, labels, strict=True)
            if step / 15 < own.max() <= (step + 1) / 15
        ]
        if rows:
            sure, right = np.transpose(rows)
            total += len(rows) / 500 * abs(right.mean() - sure.mean())
    found = calibration.expected_error(calibration.reliability(labels, logits))
    assert found == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_the_one_that_scipy_finds(temperature):
    labels, logits = answers(temperature=temperature)

    def cross_entropy(log_temperature):
        scaled = scipy.special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return -scaled[np.arange(len(labels)), labels].mean()

    best = np.exp(scipy.optimize.minimize_scalar(cross_entropy, bounds=(-4, 4)).x)
    found = calibration.fit_temperature(labels, logits)
    assert found == pytest.approx(best, rel=1e-3)
    assert found == pytest.approx(temperature, rel=0.06)  # the one that the labels were drawn with


def test_too_sure_a_network_is_mended_on_images_that_the_fit_has_not_seen():
    labels, logits = answers(20_000, temperature=2.5)
    found = calibration.calibrate(labels, logits)
    assert (found["fitted_on"], found["images"]) == (10_000, 10_000)
    assert found["temperature"] == calibration.fit_temperature(labels[::2], logits[::2])
    before, after = found["before"], found["after"]
    assert before["error"] > 0.15 and after["error"] < 0.02
    assert after["cross_entropy"] < before["cross_entropy"]
    assert sum(row["images"] for row in after["bins"]) == 10_000
    for part in (before, after):
        assert part["error"] == calibration.expected_error(part["bins"])


def test_a_network_without_mistakes_or_without_knowledge_gets_the_last_temperature():
    logits = np.eye(4, dtype="float32")
    labels = np.arange(4)
    coldest = calibration.fit_temperature(labels, logits)
    hottest = calibration.fit_temperature((labels + 1) % 4, logits)
    assert [coldest, hottest] == pytest.approx([calibration.COLDEST, calibration.HOTTEST], rel=1e-5)


def test_one_image_cannot_be_fitted_and_judged():
    with pytest.raises(ValueError, match="1 validation image: calibration needs two or more"):
        calibration.calibrate(np.zeros(1, int), np.zeros([1, 3], "float32"))
