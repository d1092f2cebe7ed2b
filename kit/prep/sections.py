"""The parameters of data preparation."""

from dataclasses import dataclass

from kit.sections import Section, at_least, free, limited, one_of, within

FEWEST_VIEWS = 50  # so that each class has a validation view and each odd file is made


def views(value) -> str:
    enough = value == 0 or value >= FEWEST_VIEWS
    return "" if enough else f"{value} is too few: {FEWEST_VIEWS} or more, or 0 to use raw_dir"


def fraction(value) -> str:
    return "" if 0 < value < 1 else f"{value} is not between 0 and 1; take 0.1"


@dataclass(frozen=True)
class Preparation(Section):
    """How images become shards."""

    demo_views: int = limited(views)
    train_shards: int = within(1, 99_999, "take 16 for some thousands of images")
    validation_shards: int = within(1, 99_999, "take 4 for some hundreds of images")
    validation_fraction: float = limited(fraction)
    subset: bool = free()
    check_md5: bool = free()
    check: str = one_of("full", "header")
    quarantine_budget: float = within(0, 1, "take 0.01")
    store_short_side: int = at_least(0, "0 keeps the original bytes")
    store_quality: int = within(1, 100, "take 90")
    apply_orientation: bool = free()
    processes: int = at_least(0, "0 stands for one per core")
    spark_master: str = free()

    @property
    def shards(self) -> dict:
        """The values that decide what the shards hold, besides the images and the seed."""
        decide = ("train_shards", "validation_shards", "check")
        stored = ("store_short_side", "store_quality", "apply_orientation")
        return {name: getattr(self, name) for name in (*decide, *stored)}
