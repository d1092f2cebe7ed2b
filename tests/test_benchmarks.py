"""The benchmark of a GPU, whose code runs here on the CPU with tiny networks in their place."""

import subprocess
import sys
from pathlib import Path

import pytest

from kit import params

BENCHMARKS = Path(__file__).parent / "benchmarks"
# what a GPU machine with Python and TensorFlow alone lacks
LACKED = ("yaml", "IPython", "PIL", "matplotlib", "scipy", "papermill", "tensorboard")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    return gpu


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Let processes that are started find none of LACKED."""
    names = ", ".join(f'"{name}"' for name in LACKED)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Lacking(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        lacked = name.split('.')[0] in ({names})\n"
        "        return None if lacked else super().find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Lacking\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_without_a_gpu_the_command_says_so_and_ends_well(bare):
    command = [sys.executable, BENCHMARKS / "bench.py", "gpu"]
    asked = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parents[1])
    assert asked.stdout == "PART=gpu: TensorFlow sees no GPU here, so nothing is measured\n"
    assert asked.returncode == 0, asked.stderr


def test_the_kits_fit_needs_tensorflow_alone(bare):
    """Where more is imported, PART=gpu runs only where it is installed."""
    code = f"import sys; sys.path[:0] = [{str(BENCHMARKS)!r}, '.']; from ways import kit_fit"
    root = BENCHMARKS.parents[1]
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert asked.returncode == 0, asked.stderr


def test_the_benchmark_reads_params_yaml_without_a_package(gpu):
    from ways import kit_fit

    assert kit_fit.recipe() == params.load().values | {"xla": "auto"}


def test_what_no_time_is_left_for_is_left_out_and_said(gpu, capsys):
    assert gpu.measured({"kit": gpu.Way()}, seconds=0) == {}
    assert "kit: left out, 0 s are over" in capsys.readouterr().out


def test_a_figure_needs_both_of_its_ways(gpu):
    found = {"kit": {"images_per_second": [2.0]}, "kit, no XLA": {"images_per_second": [1.0]}}
    assert gpu.figures(found) == {
        "xla_vs_none": {"ours": [2.0], "theirs": [1.0], "mark": None, "unit": "images/s"}
    }


@pytest.mark.slow  # a process for each, and XLA compiles
def test_each_way_measures_its_rounds(gpu, bare, capsys):
    pytest.importorskip("torch")
    ways = gpu.tiny(gpu.WAYS)
    found = gpu.measured(ways, seconds=3600)
    said = capsys.readouterr().out
    assert found.keys() == ways.keys(), said
    for name, way in found.items():
        assert len(way["images_per_second"]) == 2 and min(way["images_per_second"]) > 0, name
        assert way["first_step"] is None or 1 < way["first_step"] < 600, name
    assert found["two logical GPUs"]["apart"] < 1e-4
    assert gpu.figures(found).keys() == gpu.FIGURES.keys()
    gpu.show(found)
    table = capsys.readouterr().out
    assert not [name for name in ways if f"\n{name}  " not in table]


def test_a_way_that_fails_is_left_out_with_its_last_words(gpu, capsys):
    ways = {"broken": gpu.Way("no such program")}
    assert gpu.measured(ways, seconds=60) == {}
    said = capsys.readouterr().out
    assert "broken: left out, it ended with 1: KeyError: 'no such program'" in said
