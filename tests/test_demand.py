import pytest

from kit.pipeline import demand


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


def test_the_recipes_input_would_feed_four_v100s_and_half_starve_eight():
    assert round(demand.RECIPE_RATE) == 1481
    rows = demand.demand(supply=demand.RECIPE_RATE, cores=1, bytes_per_image=1)
    v100 = {row["gpus"]: row for row in rows[:4]}
    assert v100[4]["fed"] and not v100[8]["fed"]
    assert v100[8]["cores"] == pytest.approx(2778.5 / 1481.48, rel=1e-4)


def test_table_marks_what_is_computed():
    rows = demand.demand(supply=1000, cores=2, bytes_per_image=100_000)
    lines = demand.table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert lines[2] == "| 1 V100 16 GB, float32 | 365 | 0.7 | 36 | yes |"
    assert lines[3] == "| 2 V100 16 GB, float32 | 730* | 1.5 | 73 | yes |"
