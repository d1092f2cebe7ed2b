"""What `python -m kit predict` says: which images are meant, and the likeliest classes of each."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from kit.data.folders import reason_to_skip
from kit.data.paths import printable
from kit.inference.batch import classify_files, find_photos
from kit.inference.classifier import Classifier, check_top_k
from kit.model.sections import PRETRAINED, weights_or_file


def classifier(run_dir, weights, count) -> Classifier:
    """Load the model of `run_dir`, by its fastest export, or the published weights of a name.

    Raises OSError or ValueError for what is not there, and for a `count` of classes under 1.
    """
    check_top_k(count)
    if not weights:
        return Classifier.fastest(_known(run_dir))
    if weights not in PRETRAINED:
        reason = weights_or_file(weights) or f'"{weights}" is a file; they have a name'
        raise ValueError(f"weights: {reason}")
    from kit.model import pretrained

    return Classifier.from_model(*pretrained.load(weights))


def find(photos: Iterable[str]) -> tuple[dict[str, Path], list[str]]:
    """Give the files that are meant, {name: path}, and a line on what else is in their folders.

    Each of `photos` is a file, a folder, whose images are meant with those of its folders, or a
    pattern that the shell has left as it was. A file that is not there is given, too.
    """
    files, others = {}, Counter()
    for path in chain.from_iterable(map(_meant, photos)):
        if not path.is_dir():
            files[str(path)] = path
            continue
        hidden = []
        for file in find_photos(path, hidden=hidden):
            if reason := reason_to_skip(file.name, "" if file.is_dir() else "file"):
                others[reason] += 1
            else:
                files[str(file)] = file
        others["hidden"] += len(hidden)
    return files, [f"skipped {count}: {reason}" for reason, count in others.most_common() if count]


def answers(model: Classifier, files: dict[str, Path], count: int) -> Iterator[dict]:
    """Give {"photo", "classes": [{"label" from 0, "name", "probability"}]} of each file.

    That names `count` classes. Of one that cannot be read {"photo", "problem"}.
    """
    for row in chain.from_iterable(classify_files(model, files, count)):
        if row["problem"]:
            yield row
            continue
        classes = [
            {"label": label, "name": model.classes[label]["name"], "probability": share}
            for label, share in zip(row["labels"], row["probabilities"], strict=True)
        ]
        yield {"photo": row["photo"], "classes": classes}


def line(answer: dict) -> str:
    """Give an answer as a line of text."""
    said = answer.get("problem") or ", ".join(
        f"{row['name']} ({100 * row['probability']:.1f} %)" for row in answer["classes"]
    )
    return printable(f"{answer['photo']}: {said}")


def _known(run_dir) -> Path:
    """Give the folder; a ~ that the shell has left is the home, unless there is a folder of it."""
    path = Path(run_dir)
    return path if path.exists() else Path(os.path.expanduser(run_dir))  # noqa: PTH111 ~nobody


def _meant(photo: str) -> list[Path]:
    path = _known(photo)
    if os.path.lexists(path):
        return [path]
    found = glob.glob(str(path), recursive=True)  # noqa: PTH207 Path.glob takes no whole path
    return [Path(name) for name in sorted(found)] or [path]
