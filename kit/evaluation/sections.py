"""The parameters of evaluation."""

from dataclasses import dataclass

from kit.sections import Section, all_of, limited, path

VIEWS = ("flip", "ten_crop")  # of kit.evaluation.test_time_augmentation, beside the single crop
FILES = {  # a parameter that may be empty: the file in what it names, and what to do
    "real_labels": ("", "name ReaL's real.json"),
    "other_images": ("", "name a folder of class folders"),
    "compare_with": ("predictions.csv", "evaluate that run first (notebook 03)"),
}


def sizes(value) -> str:
    wrong = [size for size in value if type(size) is not int or size < 32]
    return f"{wrong[0]} is no whole number of pixels of 32 or more" if wrong else ""


@dataclass(frozen=True)
class Evaluation(Section):
    """What is scored beside the single centre crop."""

    test_views: list = all_of(*VIEWS)
    test_sizes: list = limited(sizes)
    real_labels: str = path()
    other_images: str = path()
    compare_with: str = path()
