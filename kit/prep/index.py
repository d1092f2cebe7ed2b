"""The index of raw images: what preparation knows of each before any is opened."""

from dataclasses import dataclass, field
from typing import NamedTuple

from kit.data.manifest import ClassName


class Image(NamedTuple):  # small, because ImageNet has 1.3 million
    split: str  # "train", "validation" or "test"
    label: int  # from 0
    container: str  # the folder, tar or parquet file that holds it: absolute path or URL
    name: str  # of its file there
    size: int  # bytes, as listed; of the whole file when that is a parquet
    position: int = -1  # first byte in a tar, row in a parquet file; -1: a file of its own
    changed: int | str = 0  # when the file did, as listed: paths.Entry
    boxes: str | bytes = ""  # path of its XML file, or packed as in boxes.py; "": none

    @property
    def path(self) -> str:
        return f"{self.container}/{self.name}"

    @property
    def in_parquet(self) -> bool:
        return self.position >= 0 and self.container.endswith(".parquet")


@dataclass(frozen=True)
class Index:
    layout: str
    classes: list[ClassName]  # sorted by wnid
    images: list[Image]  # training first, then validation and test, each by class and name
    skipped: list[tuple[str, str]]  # path and reason of each file that cannot be an image
    missing: list[str] = field(default_factory=list)  # what could be there, in a line each
    expect_boxes: int = 0  # ImageNet's number of them, where it must be met
