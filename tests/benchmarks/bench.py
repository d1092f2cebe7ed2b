"""Speed of the kit's parts against other ways to the same end: make bench PART=prep.

Each figure is the median over interleaved rounds, in which ours and theirs take turns, so that a
machine that slows down does so for both; ratios are what may be quoted. Prints a table and merges
it into runs/bench/bench.json.
"""

import contextlib
import importlib
import json
import os
import platform
import statistics
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # where the kit is not installed

from kit.files import replacing  # noqa: E402

RESULTS = ROOT / "runs" / "bench" / "bench.json"
PARTS = ("gpu", "inference", "pipeline", "prep", "training")
PACKAGES = ("tensorflow", "keras", "numpy", "pillow", "torch")


def main(parts: list[str]) -> None:
    for part in parts or PARTS:
        if part not in PARTS:
            sys.exit(f"PART={part}: one of {', '.join(PARTS)}")
        figures = {name: summarise(**figure) for name, figure in load(part).measure().items()}
        if figures:
            show(part, figures)
            merge(part, figures)


def load(part: str):
    sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]  # ways, and tests
    return importlib.import_module(part)


def summarise(*, ours: list[float], theirs: list[float], mark: float | None, unit: str) -> dict:
    """Give the figure's line of bench.json from what the rounds measured; some have no mark."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "mark": mark,
        "unit": unit,
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
        "rounds": len(ratios),
    }


def show(part: str, figures: dict) -> None:
    print(f"{part:<22}{'ratio':>7}{'min':>7}{'max':>7}{'mark':>7}{'ours':>10}{'theirs':>10}  unit")
    for name, line in figures.items():
        numbers = [line[key] for key in ("ratio", "min", "max", "mark")]
        numbers = "".join(" " * 7 if one is None else f"{one:7.2f}" for one in numbers)
        print(f"{name:<22}{numbers}{line['ours']:10.4g}{line['theirs']:10.4g}  {line['unit']}")


def merge(part: str, figures: dict) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results["machine"] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": load_average,
    }
    results["versions"] = versions()
    results[part] = figures
    with replacing(RESULTS) as path:
        path.write_text(json.dumps(results, indent=1) + "\n")


def versions() -> dict:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
