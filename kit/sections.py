"""What a section of parameters is: values that travel together, each with its limits.

Each room has a sections.py of its own, which imports no TensorFlow, so that `kit.params.load` can
refuse a value at once. A limit is a function of a value: it gives what is wrong with it, or "".
"""

import dataclasses
import math
from collections.abc import Callable, Iterable

Limit = Callable[[object], str]


class Section:
    """The base of the sections, which are frozen dataclasses.

    Raises ValueError, with a line for each value that is not within its limits.
    """

    def __post_init__(self) -> None:
        problems = [
            f"{field.name}: {problem}"
            for field in dataclasses.fields(self)
            if (problem := field.metadata["limit"](getattr(self, field.name)))
        ]
        if not problems:  # those of several values together make no sense of a wrong one
            problems = list(self.conflicts())
        if problems:
            raise ValueError("\n".join(problems))

    def conflicts(self) -> Iterable[str]:
        """Give a line for each pair of values that do not go together."""
        return ()


def limited(limit: Limit):
    """Give the dataclass field of a parameter with this limit."""
    return dataclasses.field(metadata={"limit": limit})


def free():
    """Give the field of a parameter that may have any value of its type."""
    return limited(lambda value: "")


def path(limit: Limit = lambda value: "", is_path=lambda value: True):
    """Give the field of a file's or folder's path, which may be empty.

    A value that `is_path` denies is a word of another meaning.
    """
    return dataclasses.field(metadata={"limit": limit, "path": is_path})


def one_of(*choices: str):
    return limited(
        lambda value: "" if value in choices else f'"{value}" is not one of {", ".join(choices)}'
    )


def all_of(*choices: str):
    """Give the field of a list of such texts."""

    def limit(values):
        wrong = [value for value in values if value not in choices]
        return f'"{wrong[0]}" is not one of {", ".join(choices)}' if wrong else ""

    return limited(limit)


def _number(is_good: Callable[[float], bool], otherwise: str):
    return limited(lambda value: "" if is_good(value) else f"{value} {otherwise}")


def at_least(lowest: float, advice: str):
    return _number(lambda value: lowest <= value < math.inf, f"is below {lowest}; {advice}")


def within(lowest: float, highest: float, advice: str):
    otherwise = f"is not from {lowest} to {highest:,}; {advice}"
    return _number(lambda value: lowest <= value <= highest, otherwise)


def below(highest: float, advice: str):
    """Give the field of a number from 0 to below `highest`."""
    otherwise = f"is not from 0 to below {highest}; {advice}"
    return _number(lambda value: 0 <= value < highest, otherwise)
