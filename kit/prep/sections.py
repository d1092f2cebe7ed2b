"""The parameters of data preparation."""

from dataclasses import dataclass

from kit.sections import Section, at_least, free, one_of, within


@dataclass(frozen=True)
class Preparation(Section):
    """How images become shards."""

    demo_views: int = at_least(0, "take 1000, or 0 to use raw_dir as it is")
    train_shards: int = within(1, 99_999, "take 16 for some thousands of images")
    validation_shards: int = within(1, 99_999, "take 4 for some hundreds of images")
    validation_fraction: float = within(0, 1, "take 0.1")
    subset: bool = free()
    check_md5: bool = free()
    check: str = one_of("full", "header")
    quarantine_budget: float = within(0, 1, "take 0.01")
    store_short_side: int = at_least(0, "0 keeps the original bytes")
    store_quality: int = within(1, 100, "take 90")
    processes: int = at_least(0, "0 stands for one per core")
    spark_master: str = free()
