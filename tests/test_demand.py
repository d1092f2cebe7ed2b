import itertools

import pytest

from kit.pipeline import demand


def test_consumers_get_the_lesser_of_supply_and_demand():
    counts, steps, queues = (1, 2, 3, 4, 7, 8, 64), (0.001, 0.03, 0.1, 0.31), (1, 2, 16)
    for consumers, step_seconds, prefetch in itertools.product(counts, steps, queues):
        rate = demand.simulate(
            consumers=consumers, step_seconds=step_seconds, batch_seconds=0.03, prefetch=prefetch
        )
        assert rate == pytest.approx(min(1 / 0.03, consumers / step_seconds), rel=1e-6)


def test_the_knee_is_where_demand_meets_supply():
    rows = demand.knee(supply=1000, batch_size=32, step_seconds=0.128, consumers=8)
    assert [row["consumers"] for row in rows] == list(range(1, 9))
    assert [row["demand"] for row in rows] == pytest.approx([250 * n for n in range(1, 9)])
    rates = [row["images_per_second"] for row in rows]
    assert rates == pytest.approx([250, 500, 750] + [1000] * 5)


def test_published_rates_are_taken_as_they_are_and_others_in_proportion():
    rates = {1: 100.0, 4: 380.0, 8: 700.0}
    assert [demand.images_per_second(rates, n) for n in (1, 2, 4, 6, 8, 16)] == [
        pytest.approx(rate) for rate in (100, 200, 380, 570, 700, 1400)
    ]
    assert demand.images_per_second({8: 800.0}, 2) == pytest.approx(200)


def test_every_published_rate_has_a_source_and_falls_per_gpu():
    for machine in demand.PUBLISHED:
        assert any(place in machine.source for place in ("README.md", "result_0.txt"))
        per_gpu = [rate / gpus for gpus, rate in sorted(machine.rates.items())]
        assert per_gpu == sorted(per_gpu, reverse=True)


def test_cores_and_disk_follow_the_demand():
    rows = demand.demand(supply=1500.0, cores=2, bytes_per_image=110_000)
    assert len(rows) == len(demand.PUBLISHED) * len(demand.GPUS)
    (four,) = (
        row
        for row in rows
        if (row["gpu"], row["precision"], row["gpus"]) == ("V100 16 GB", "float32", 4)
    )
    assert four["images_per_second"] == 1419.4
    assert four["published"] and four["fed"]
    assert four["cores"] == pytest.approx(1419.4 / 750)
    assert four["megabytes_per_second"] == pytest.approx(156.134)
    assert not [row for row in rows if row["fed"] != (row["cores"] <= 2)]


def test_remedies_of_decoding_leave_the_rest_of_the_input():
    """An image takes 2 ms, 1.25 of them decoding; stored smaller it is decoded in 0.5."""
    measured = {"original": 800, "stored": 2000, "scaled": 1000}
    rows = demand.remedies(supply=500, decoding=measured)
    rates = {row["remedy"]: row["images_per_second"] for row in rows}
    assert rates == pytest.approx(
        {
            "twice the cores": 1000,
            "a second machine, by tf.data service": 1000,
            "images stored smaller": 800,
            "scaled decode": 1000 / 1.75,
        }
    )
    assert [row["factor"] for row in rows] == pytest.approx([2, 2, 1.6, 2 / 1.75])
    assert {row["kind"] for row in rows} == {"computed", "measured"}


def test_decoding_that_is_all_of_the_input_passes_its_gain_on_whole():
    measured = {"original": 400, "stored": 800, "scaled": 400}
    rows = demand.remedies(supply=500, decoding=measured)
    assert rows[2]["images_per_second"] == pytest.approx(800)


def test_the_recipe_is_fast_enough_for_four_v100s_and_not_for_eight():
    assert round(demand.RECIPE_RATE) == 1481
    rows = demand.recipe_case()
    assert [row["consumers"] for row in rows] == list(range(1, 9))
    for row in rows[:4]:
        assert row["images_per_second"] == pytest.approx(row["demand"])
    assert rows[3]["demand"] == 1419.4
    assert rows[7]["demand"] == 2778.5
    for row in rows[4:]:
        assert row["images_per_second"] == pytest.approx(demand.RECIPE_RATE)


RATES = {"read": 1000.0, "parse": 500.0, "decode": 100.0, "resize": 80.0, "input": 50.0}


def test_verdict_divides_the_input_among_its_stages():
    found = demand.verdict(RATES | {"synthetic": 200.0}, input_bound=True)
    assert found["milliseconds"] == pytest.approx(
        {"read": 1, "parse": 1, "decode": 8, "resize": 2.5, "input": 7.5}
    )
    assert found["words"] == (
        "the limit is cropping and decoding: the input takes 20.00 ms an image, 40% of it cropping "
        "and decoding; a step that never waits 5.00 ms"
    )


def test_training_that_does_not_wait_is_its_own_limit():
    found = demand.verdict(RATES | {"synthetic": 10.0}, input_bound=False)
    assert found["limit"] == "the training step"
