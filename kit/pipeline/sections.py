"""The parameters of reading and preprocessing."""

import math
from dataclasses import dataclass

from kit.sections import Section, at_least, free, limited, one_of, within

SMALLEST = 32  # pixels: five halvings leave one


def pixels(value) -> str:
    return "" if value >= SMALLEST else f"{value} leaves nothing after five halvings; take 32"


def ends(value) -> str:
    if len(value) == 2 and 0 < value[0] <= value[1] < math.inf:
        return ""
    return f"{value} is no [lowest, highest] above 0, such as [0.75, 1.0]"


def shares(value) -> str:
    if not ends(value) and value[1] > 1:
        return f"{value} is more than the image; end it with 1.0"
    return ends(value)


def alpha(value) -> str:
    return "" if 0 <= value < math.inf else f"{value} is no alpha; take 0.0 for none, or up to 1.0"


def sizes_by_epoch(value) -> str:
    """Sizes are multiples of 32, by which the network divides them.

    The last stage then sees no more of an image's border at one size than at another.
    """
    before = -1
    for pair in value:
        is_pair = isinstance(pair, list | tuple) and [type(number) for number in pair] == [int, int]
        if not is_pair or pair[0] <= before:
            such = "such as [0, 160], [12, 192]"
            return f"{pair} is no [epoch, pixels] after those before it, {such}"
        before, size = pair
        if size < SMALLEST or size % SMALLEST:
            near = max(SMALLEST, round(size / SMALLEST) * SMALLEST)
            return f"{size} is no multiple of {SMALLEST}; take {near}"
    return ""


@dataclass(frozen=True)
class Resolution(Section):
    """The sides of the images, pixels, in training and in evaluation."""

    image_size: int = limited(pixels)
    training_sizes: list = limited(sizes_by_epoch)
    resize_side: int = limited(pixels)
    evaluation_size: int = limited(lambda value: pixels(value) if value else "")

    @property
    def evaluated(self) -> int:
        """The side of the evaluation's centre crop."""
        return self.evaluation_size or self.image_size

    def conflicts(self):
        if self.evaluated > self.resize_side:
            name = "evaluation_size" if self.evaluation_size else "image_size"
            yield (
                f"{name}: {self.evaluated} is larger than resize_side: {self.resize_side}; for the "
                f"centre crop to fit, take a resize_side of about {round(self.evaluated * 8 / 7)}"
            )


@dataclass(frozen=True)
class Crop(Section):
    """How a training crop is drawn, and how images are resized in training and evaluation."""

    antialias: bool = free()
    crop_sampling: str = one_of("distorted_box", "random_resized")
    min_object_covered: float = within(0, 1, "take 0.1")
    aspect_ratio_range: list = limited(ends)
    area_range: list = limited(shares)
    max_attempts: int = at_least(1, "take 10 or more")


@dataclass(frozen=True)
class Augmentation(Section):
    """What changes a training image after its crop and flip."""

    augmentation: str = one_of("none", "rand_augment", "trivial_augment")
    augmentation_magnitude: float = within(0, 10, "the recipes have 6 and 7")
    random_erasing: float = within(0, 1, "take 0.1")


@dataclass(frozen=True)
class Mixing(Section):
    """What joins several training images of a batch."""

    mixup: float = limited(alpha)
    cutmix: float = limited(alpha)
    repeated_augmentation: int = at_least(1, "take 1 for one crop of each image")

    def check_batch(self, batch_size: int) -> None:
        """Raise ValueError for a batch that cannot be made or mixed."""
        if batch_size % self.repeated_augmentation:
            raise ValueError(
                f"repeated_augmentation: {self.repeated_augmentation} does not divide batch_size: "
                f"{batch_size}; take a batch_size that is a multiple of it"
            )
        if (self.mixup or self.cutmix) and batch_size == self.repeated_augmentation:
            raise ValueError(
                f"batch_size: {batch_size} holds one image, and mixup or cutmix has nothing to mix "
                "it with; take a larger batch, or 0.0 of both"
            )


@dataclass(frozen=True)
class Reading(Section):
    """How the shards are read."""

    shuffle_shards: int = at_least(1, "take 8")
    data_service: str = free()

    def check_order(self, deterministic: bool) -> None:
        """Raise ValueError for an order that is asked for and cannot be had."""
        if deterministic and self.data_service:
            raise ValueError(
                "deterministic: true cannot be had from a data_service, whose workers answer in "
                'any order; take deterministic: false, or data_service: ""'
            )


@dataclass(frozen=True)
class Throughput(Section):
    """How long the input is measured."""

    measured_seconds: float = within(0.01, 3600, "take 5.0")
