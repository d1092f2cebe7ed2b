import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kit import ROOT, __main__, __version__, params
from kit.runner import notebooks, run
from kit.training import run_state

FIRST = """
import os, sys, time
print("waiting", flush=True)
while not os.path.exists("echoed") and time.monotonic() < give_up:
    time.sleep(0.05)
print("echoed while the cell ran:", os.path.exists("echoed"))
print(sys.executable, os.getcwd())
"""
FLOOD = """
for step in range(3000):
    print(f"\\rstep {step}", end="", file=sys.stderr, flush=True)
"""
SECOND = """
import json, pathlib
folder = pathlib.Path(run_dir)
hash = {"model": ""}  # there is no model.json
measured = {"images": 50, "top1": {"value": 0.9, "low": 0.786, "high": 0.957}, "top5": {"value": 1}}
(folder / "evaluation.json").write_text(json.dumps(measured | hash))
(folder / "latency.json").write_text(json.dumps({"total": {"p50": 12.34}} | hash))
rows = "photo,problem,label_1,name_1,probability_1\\ncup.png,,2,coffee,0.875\\ntorn.png,torn,,,\\n"
(folder / "photos.csv").write_text(rows)
"""
PICTURE = """
from matplotlib.figure import Figure
figure = Figure(figsize=(2, 1))
figure.subplots().plot([3, 1, 2])
figure
"""


def write_notebook(root: Path, name: str, parameters: str, *sources: str) -> Path:
    cells = [new_markdown_cell(f"# Title of {name}"), new_code_cell(parameters)]
    cells[1].metadata["tags"] = ["parameters"]
    cells += [new_code_cell(source.strip()) for source in sources]
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


class Stream(io.StringIO):
    """Captured output that answers, by a file, as soon as it is told that a cell waits."""

    def __init__(self, answer: Path):
        super().__init__()
        self.answer = answer

    def write(self, text):
        if "waiting" in text:
            self.answer.touch()
        return super().write(text)


def call(root: Path, *arguments: str) -> SimpleNamespace:
    out, err = Stream(root / "echoed"), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = __main__.main(["run", *arguments], root=root)
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue(), root=root)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two notebooks, on a machine where another Python's kernel is called python3."""
    root = tmp_path_factory.mktemp("a {kit}")
    give_up = f"give_up = time.monotonic() + 20\n{FIRST}".replace("import os, sys, time\n", "")
    write_notebook(
        root, "01_first", "seed: int = 5  # chance", "import os, sys, time", give_up, FLOOD
    )
    declared = 'run_dir: str = "a"  # here\nlearning_rate: float = 0.5  # rate'
    write_notebook(root, "02_second", declared, SECOND, PICTURE, "6 * 7")
    write_notebook(root, "10_other", "seed: int = 5  # chance")
    before = {path: path.read_bytes() for path in root.glob("notebooks/*")}
    with pytest.MonkeyPatch.context() as patch:
        kernel = root / "jupyter" / "kernels" / "python3" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        kernel.write_text('{"argv": ["no-such-python"], "display_name": "", "language": "python"}')
        patch.setenv("JUPYTER_PATH", str(root / "jupyter"))
        result = call(root, "-p", "run_dir", "runs/one", "-p", "learning_rate", "1")
    result.run_dir = root / "runs" / "one"
    result.unchanged = before == {path: path.read_bytes() for path in root.glob("notebooks/*")}
    return result


def executed(result, name: str):
    return nbformat.read(result.run_dir / "notebooks" / f"{name}.ipynb", as_version=4)


def printed(executed, stream: str) -> list[str]:
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.get("name") == stream]


def test_a_run_that_went_well_exits_with_0_and_leaves_the_notebooks_as_they_were(finished):
    assert (finished.code, finished.unchanged) == (0, True), finished.err
    names = sorted(path.name for path in (finished.run_dir / "notebooks").iterdir())
    assert names == ["01_first.ipynb", "02_second.ipynb"]


def test_each_notebook_is_told_the_recipe_and_what_is_given_by_hand(finished):
    given = [executed(finished, name).metadata.papermill.parameters for name in names_of(finished)]
    told = {"recipe": "params.yaml", "run_dir": "runs/one", "learning_rate": 1.0}
    assert given == [told, told]
    assert isinstance(given[1]["learning_rate"], float)
    assert "unknown parameter" not in finished.err


def names_of(result) -> list[str]:
    return sorted(path.stem for path in (result.run_dir / "notebooks").iterdir())


def test_notebooks_run_in_the_root_with_the_running_interpreter(finished):
    first = "".join(printed(executed(finished, "01_first"), "stdout"))
    assert f"{sys.executable} {finished.root}\n" in first


def test_output_is_echoed_while_a_cell_runs(finished):
    assert "echoed while the cell ran: True\n" in finished.out


def test_3000_redraws_leave_one_line_in_the_notebook_and_on_the_screen(finished):
    (text,) = printed(executed(finished, "01_first"), "stderr")
    assert text == "step 2999"
    assert [line for line in finished.err.splitlines() if "step" in line] == ["step 2999"]


def test_every_resolved_value_and_the_environment_are_recorded(finished):
    values = json.loads((finished.run_dir / "params.json").read_text())
    sources = values.pop("sources")
    assert values == params.load(overrides={"run_dir": "runs/one", "learning_rate": 1.0}).values
    assert sources["learning_rate"] == "the command line"
    assert sources["momentum"] == "params.yaml"
    environment = json.loads((finished.run_dir / "environment.json").read_text())
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert any(device.startswith("CPU:0") for device in environment["devices"])
    assert environment["git"] is None


def test_the_report_shows_every_notebook(finished):
    report = (finished.run_dir / "report.html").read_text(encoding="utf-8")
    for expected in ("Title of 01_first", "step 2999", "Title of 02_second", "<pre>42</pre>"):
        assert expected in report
    assert report.count("data:image/png;base64,") == 1


def test_the_end_says_where_things_are_and_what_was_measured(finished):
    for expected in ("runs/one/notebooks", "runs/one/report.html", "runs/one/figures"):
        assert expected in finished.out
    scores = "top-1 90.0 % (95 % interval 78.6 % to 95.7 %), top-5 100.0 %, of 50 images"
    assert scores in finished.out
    assert "12.3 ms" in finished.out
    assert "cup.png is coffee (87.5 %)" in finished.out


def test_the_terminal_says_which_step_runs(finished):
    steps = [line for line in finished.out.splitlines() if line.startswith("step ")]
    assert steps[0] == "step 1 of 2: first"
    assert steps[1].startswith("step 1 of 2: first, done in ")
    assert steps[2] == "step 2 of 2: second"


def test_a_step_is_said_to_take_as_long_as_the_last_time(finished, tmp_path):
    output = finished.run_dir / "notebooks" / "02_second.ipynb"
    given = executed(finished, "02_second").metadata.papermill.parameters
    assert notebooks._took(output, given).endswith(" s")
    assert notebooks._took(output, {**given, "epochs": 3}) == ""
    assert notebooks._took(tmp_path / "none.ipynb", given) == ""


def test_the_first_failure_stops_the_run_and_ends_with_its_error(tmp_path):
    error = "raise ValueError('raw_dir: x: no such folder; name yours')"
    write_notebook(tmp_path, "01_first", "seed: int = 5  # chance", "print('so far')", error)
    write_notebook(tmp_path, "02_second", "seed: int = 5  # chance")
    stale = tmp_path / "runs" / "two" / "notebooks" / "02_second.ipynb"
    stale.parent.mkdir(parents=True)
    stale.write_text("of an earlier run")

    result = call(tmp_path, "-p", "run_dir", "runs/two")

    assert result.code == 1
    assert "\n01_first failed in cell [4]; " in result.err
    assert result.err.endswith("\nValueError: raw_dir: x: no such folder; name yours\n")
    result.run_dir = tmp_path / "runs" / "two"
    assert names_of(result) == ["01_first"]
    assert printed(executed(result, "01_first"), "stdout") == ["so far\n"]
    report = (result.run_dir / "report.html").read_text(encoding="utf-8")
    assert "so far" in report
    assert "no such folder; name yours" in report


def test_a_kernel_that_dies_is_a_failure_of_its_cell(tmp_path):
    die = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    page = write_notebook(tmp_path, "01_first", "seed: int = 5  # chance", die)
    (tmp_path / "notebooks_done" / "notebooks").mkdir(parents=True)
    failure = notebooks.execute_all({page: {}}, {}, tmp_path / "notebooks_done", tmp_path)
    assert failure.startswith("01_first failed in cell [2]; ")
    assert "the kernel died" in failure


def test_an_interrupt_leaves_no_kernel_behind(tmp_path):
    tell = "import os, pathlib\npathlib.Path('part').write_text(str(os.getpid()))"
    sleep = "import time\nos.rename('part', 'pid')\ntime.sleep(60)"
    page = write_notebook(tmp_path, "01_first", "seed: int = 5  # chance", tell, sleep)
    (tmp_path / "done" / "notebooks").mkdir(parents=True)
    program = (
        "import sys; from pathlib import Path; from kit.runner import notebooks;"
        "notebooks.execute_all({Path(sys.argv[1]): {}}, {}, Path('done'), Path.cwd())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(page)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    kernel = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) != 0
    eventually(lambda: not is_alive(kernel))


TRAIN = """
import os, signal, time
from kit import signals
with signals.handled_by(signals.Interruption()) as interruption:
    os.rename("part", "pid")
    while not interruption.signal:
        time.sleep(0.05)
time.sleep(1)  # saves
open("saved", "w").close()
raise interruption.error("saved after step 7")
"""


@pytest.mark.parametrize(
    ("number", "cell", "code", "line"),
    [
        (signal.SIGTERM, TRAIN, 75, "interrupted; Preempted: SIGTERM: saved after step 7; "),
        (signal.SIGINT, TRAIN, 130, "interrupted; Preempted: SIGTERM: saved after step 7; "),
        (
            signal.SIGTERM,
            "os.rename('part', 'pid')\nimport time\ntime.sleep(60)",
            75,
            "interrupted; ",
        ),
    ],
)
def test_a_signal_reaches_the_kernel_which_may_save_first(tmp_path, number, cell, code, line):
    tell = "import os, pathlib\npathlib.Path('part').write_text(str(os.getpid()))"
    write_notebook(tmp_path, "01_first", "seed: int = 5  # chance", tell, cell)
    write_notebook(tmp_path, "02_second", "seed: int = 5  # chance", "open('second', 'w')")
    program = "import sys; from pathlib import Path; from kit import __main__;"
    program += "sys.exit(__main__.main(['run', '-p', 'run_dir', 'runs/x'], root=Path.cwd()))"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    kernel = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == code
    assert said.splitlines()[-1].startswith(line)
    assert (tmp_path / "saved").exists() == (cell is TRAIN)
    assert not (tmp_path / "second").exists()
    eventually(lambda: not is_alive(kernel))


def test_an_interrupted_run_goes_on_with_the_notebook_in_which_it_was(tmp_path):
    stop = "import os\nif os.path.exists('stop'):\n    raise type('Preempted', (Exception,), {})"
    write_notebook(tmp_path, "01_first", "seed: int = 5", "open('first', 'a').write('x')")
    write_notebook(tmp_path, "02_second", "seed: int = 5", stop)
    (tmp_path / "stop").touch()
    arguments = ("-p", "run_dir", "runs/x")
    assert call(tmp_path, *arguments).code == 75
    (tmp_path / "stop").unlink()
    result = call(tmp_path, *arguments)
    steps = "step 1 of 2: first, done before the interruption\nstep 2 of 2: second\n"
    assert steps in result.out
    assert (tmp_path / "first").read_text() == "x"
    assert "Title of 01_first" in (tmp_path / "runs/x/report.html").read_text(encoding="utf-8")
    assert call(tmp_path, *arguments).code == 0  # it has come to its end: now all runs again
    assert (tmp_path / "first").read_text() == "xx"


def test_an_interrupted_run_with_other_values_starts_at_the_first_notebook(tmp_path):
    one = write_notebook(tmp_path, "01_first", "seed: int = 5")
    (tmp_path / "done" / "notebooks").mkdir(parents=True)
    notebooks.execute_all({one: {"seed": 5}}, {}, tmp_path / "done", tmp_path)
    count = functools.partial(notebooks.executed_before, run_dir=tmp_path / "done")
    assert count({one: {"seed": 5}}) == 1
    assert count({one: {"seed": 6}}) == 0
    write_notebook(tmp_path, "01_first", "seed: int = 5", "print('another')")
    assert count({one: {"seed": 5}}) == 0


def eventually(condition, seconds: float = 120):
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return found


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "weight_decay", "much"], "error: weight_decay: 'much' is text, not a number"),
        (["-p", "epoch", "3"], "error: epoch: no such parameter; did you mean epochs?"),
        (["--recipe", "no_such"], "error: recipe 'no_such': no such file"),
        (["--recipe", "demo", "--only", "07"], "error: --only '07': no notebook begins so; there"),
        (["--recipe", "demo", "--only", "01,"], "error: --only '': no notebook begins so"),
        (["-p", "run_dir", ""], "error: run_dir: '' holds the kit itself"),
        (["-p", "run_dir", "notebooks/.."], "error: run_dir: '.' holds the kit itself"),
        (["-p", "run_dir", "notebooks/01_first.ipynb"], "error: run_dir: "),
        (["--only", "01"], "error: --recipe: name one of demo, "),
        ([], "error: --recipe: name one of demo, "),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_executed(tmp_path, arguments, message):
    write_notebook(tmp_path, "01_first", "seed: int = 5  # chance", "open('ran', 'w')")
    result = call(tmp_path, *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(message)
    assert result.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notebooks"]


def test_all_that_is_wrong_is_said_at_once_and_leaves_no_folder(tmp_path):
    declared = "raw_dir: str = ''\ndemo_views: int = 0\npredictions: str = ''\nphotos: str = ''"
    write_notebook(tmp_path, "01_first", declared, "open('ran', 'w')")
    wrong = {"epochs": "0", "batch_size": "x", "raw_dir": "no/raw", "photos": "no/photos"}
    wrong |= {"predictions": "no/table.txt", "run_dir": "new/run"}
    result = call(tmp_path, *(f"-p{name}={value}" for name, value in wrong.items()))
    assert result.code == 2
    lines = sorted(line.split(": ")[1] for line in result.err.splitlines())
    assert lines == ["batch_size", "epochs", "photos", "predictions", "raw_dir"]
    assert [path.name for path in tmp_path.iterdir()] == ["notebooks"]


def test_a_dry_run_says_what_would_be_done_and_makes_no_folder(tmp_path):
    write_notebook(tmp_path, "01_first", "seed: int = 5  # chance", "open('ran', 'w')")
    result = call(tmp_path, "--recipe", "demo", "--dry-run", "-p", "epochs=3")
    assert result.code == 0
    assert "notebooks: 01_first\n" in result.out
    assert "run_dir: runs/demo (not there yet)\n" in result.out
    assert "  epochs: 3 (the command line)\n" in result.out
    assert "  image_size: 64 (recipe demo)\n" in result.out
    assert "momentum: 0.9 " not in result.out.replace("batch_norm_momentum", "")
    assert [path.name for path in tmp_path.iterdir()] == ["notebooks"]


def test_a_folder_without_notebooks_is_one_line(tmp_path):
    result = call(tmp_path, "--recipe", "demo")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "no notebooks" in result.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "--recipe", "folder", "-p", "epochs", "x", "-p", "raw_dir", "no/such"], 2),
        (["run", "--recipe", "demo", "--dry-run"], 0),
        (["params", "--recipe", "rsb_a3"], 0),
        (["recipes"], 0),
        (["doctor", "-p", "epochs", "x"], 2),
    ],
)
def test_an_answer_comes_before_anything_slow_is_imported(arguments, code):
    program = (
        f"import sys; from kit.__main__ import main; code = main({arguments});"
        "slow = {'tensorflow', 'keras', 'papermill', 'nbconvert'} & set(sys.modules);"
        "sys.exit(code + 10 * len(slow))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr


def kit(*arguments: str, cwd=ROOT):
    command = [sys.executable, "-m", "kit", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [[], ["walk"]])
def test_no_or_an_unknown_command_prints_the_usage(arguments):
    done = kit(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m kit")


def test_a_misspelled_command_is_told_the_nearest():
    assert kit("rnu").stderr.endswith("rnu: no such command; did you mean run?\n")


def test_help_lists_every_command_and_version_is_the_kits():
    listed = kit("--help").stdout
    for command in ("run", "params", "recipes", "doctor", "data-service"):
        assert f"\n    {command} " in listed
    assert kit("--version").stdout == f"{__version__}\n"


def test_a_path_on_the_command_line_means_the_shells_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    arguments = ("run", "--recipe", "folder", "--dry-run", "-p", "raw_dir", "mine")
    done = kit(*arguments, cwd=tmp_path)
    assert f"raw_dir: {tmp_path / 'mine'}\n" in done.stdout
    elsewhere = kit(*arguments)
    assert elsewhere.returncode == 2
    assert f"raw_dir: {ROOT / 'mine'} does not exist" in elsewhere.stderr


def test_a_recipe_of_ones_own_reaches_the_notebooks_by_its_whole_path(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("epochs: 3\n")
    monkeypatch.chdir(tmp_path)
    assert run.injected("mine.yaml", params.load("mine.yaml")) == {
        "recipe": str(tmp_path / "mine.yaml")
    }
    assert run.injected("params.yaml", params.load())["recipe"] == "params.yaml"


@pytest.mark.parametrize(
    "given",
    [["-p", "epochs", "3"], ["-p", "epochs=3"], ["-pepochs=3"], ["--parameter", "epochs=3"]],
)
def test_a_parameter_may_be_given_in_either_form(given, capsys):
    assert __main__.main(["params", "--recipe", "demo", *given]) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("epochs "))
    assert line.split()[1:5] == ["3", "the", "command", "line"]


@pytest.mark.parametrize("given", [["-p", "epochs"], ["-p", "photos", "two", "words"]])
def test_half_a_parameter_is_explained(given, capsys):
    with pytest.raises(SystemExit):
        __main__.main(["params", *given])
    assert "write -p NAME VALUE, a VALUE of words in quotes" in capsys.readouterr().err


def test_params_prints_value_source_and_meaning_of_each(capsys):
    assert __main__.main(["params", "--recipe", "demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(params.load().values)
    (batch,) = (line for line in lines if line.startswith("batch_size "))
    assert batch.split("  ")[0] == "batch_size"
    assert " 32 " in batch and "recipe demo" in batch and "images per step" in batch


def test_params_tells_two_runs_apart(finished, capsys):
    assert __main__.main(["params", "--diff", "demo", str(finished.run_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "learning_rate          0.01 -> 1.0" in lines
    assert not [line for line in lines if line.startswith(("momentum ", "sources "))]


def test_recipes_are_listed_with_what_they_published(capsys):
    assert __main__.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["params.yaml", *params.recipes()]
    found = {line.split()[0]: line.split()[1] for line in lines}
    assert (found["nvidia_90"], found["demo"]) == ("77.12", "-")


def test_only_selects_by_prefix_in_the_order_of_the_notebooks(tmp_path):
    for name in ("02_b", "01_a", "03_c"):
        write_notebook(tmp_path, name, "seed: int = 5")
    folder = tmp_path / "notebooks"
    assert [path.stem for path in notebooks.select(folder, None)] == ["01_a", "02_b", "03_c"]
    assert [path.stem for path in notebooks.select(folder, "03, 01")] == ["01_a", "03_c"]


@pytest.mark.parametrize(
    ("code", "used"),
    [
        ("print(1)", ["seed"]),
        ("p = params.load_notebook(globals())\np.table()", ["seed"]),
        ("p = params.load_notebook(globals())\nbatches(p.mixing)", ["mixup", "cutmix"]),
        ("p == 1 or train(p)", list(params.read_params())),
        ("p.values", list(params.read_params())),
    ],
)
def test_a_notebook_uses_what_it_declares_and_the_sections_that_it_names(tmp_path, code, used):
    page = write_notebook(tmp_path, "01_first", "recipe: str = ''\nseed: int = 5", code)
    found = notebooks.uses(page)
    assert set(used) <= set(found) and "seed" in found
    assert ("epochs" in found) == ("epochs" in used)


def test_a_run_of_some_notebooks_keeps_the_recorded_values_of_the_others(tmp_path):
    def recorded(tasks, **overrides):
        p = params.load(None, {"run_dir": "runs/x", **overrides})
        return json.loads((run.prepare(p, tasks, tmp_path) / "params.json").read_text())

    tasks = {Path("02"): {"epochs": 0}, Path("04"): {"top_k": 0}}
    assert recorded(tasks, epochs=101, top_k=7)["epochs"] == 101
    found = recorded({Path("04"): {"top_k": 0}}, epochs=200, top_k=1)
    assert (found["epochs"], found["top_k"], found["run_dir"]) == (101, 1, "runs/x")
    assert found["sources"]["epochs"] == "given by hand"


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (["one\n", "two\n"], "one\ntwo\n"),
        (["half ", "a line\n"], "half a line\n"),
        (["10 %\r20 %", "\r30 %\n"], "30 %\n"),
        (["10 %\r", "20 %\r", "\n"], "20 %\n"),
        (["a\r", "\nb\r\n"], "a\nb\n"),
        (["no end"], "no end\n"),
        (["10 %\r"], "10 %\n"),
        ([], ""),
    ],
)
def test_in_a_file_only_what_was_last_drawn_of_a_line_is_echoed(chunks, expected):
    stream = io.StringIO()
    echo = notebooks.Echo(stream)
    for chunk in chunks:
        echo.write(chunk)
    echo.end()
    assert stream.getvalue() == expected


def test_on_a_terminal_every_redraw_is_echoed():
    stream = io.StringIO()
    stream.isatty = lambda: True
    echo = notebooks.Echo(stream)
    echo.write("10 %\r")
    echo.write("20 %\r")
    assert stream.getvalue() == "10 %\r20 %\r"


def test_what_tensorflow_says_of_itself_is_not_echoed():
    stream = io.StringIO()
    echo = notebooks.Echo(stream)
    echo.write(
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "I0000 00:00:1.5 42 cudart_stub.cc:31] Could not find cuda drivers, GPU will not be used.\n"
        "E0000 00:00:1.5 42 cuda_platform.cc:52] failed call to cuInit: INTERNAL\n"
        "E0000 00:00:1.5 42 gpu.cc:9] out of memory\nIn the end\n"
    )
    assert stream.getvalue() == "E0000 00:00:1.5 42 gpu.cc:9] out of memory\nIn the end\n"


def test_an_unfinished_training_of_other_parameters_is_refused_before_anything_runs(tmp_path):
    declared = "run_dir: str = ''\nepochs: int = 5\ncheckpoint_minutes: float = 1.0"
    write_notebook(tmp_path, "02_x", declared, "open('ran', 'w')")
    run_state.begin(tmp_path / "runs" / "x", {"epochs": 90, "replicas": 4})
    result = call(tmp_path, "-p", "run_dir", "runs/x", "-p", "epochs", "100")
    assert result.code == 2
    assert "epochs: 90 there, 100 now" in result.err
    assert not (tmp_path / "ran").exists()


def test_half_a_configuration_of_hosts_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": ')
    write_notebook(tmp_path, "01_x", "seed: int = 5", "open('ran', 'w')")
    result = call(tmp_path, "--recipe", "params.yaml")
    assert result.code == 2
    assert result.err.startswith("error: TF_CONFIG") and result.err.count("\n") == 1
    assert not (tmp_path / "ran").exists()


def test_a_lost_host_is_worth_another_try(tmp_path):
    cell = "class HostLost(Exception): pass\nraise HostLost('lost beta:12345')"
    write_notebook(tmp_path, "01_x", "run_dir: str = ''", cell)
    result = call(tmp_path, "-p", "run_dir", "runs/x")
    assert result.code == 75
    assert "HostLost: lost beta:12345; the same command goes on from there" in result.err


@pytest.mark.parametrize(
    "change, line",
    [
        (["exports", "[saved_model, coreml]"], 'exports: "coreml" is not one of saved_model, onnx'),
        (["exports", "[onnx]"], "exports: onnx needs tf2onnx, which is not installed: pip install"),
        (["top_k", "0"], "top_k: 0 is below 1"),
        (["latency_runs", "0"], "latency_runs: 0 is below 1"),
    ],
)
def test_what_the_last_notebook_cannot_do_stops_the_run_at_its_start(
    tmp_path, monkeypatch, change, line
):
    for module in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(__spec__=object()))
    monkeypatch.setitem(sys.modules, "tf2onnx", None)  # as if it alone were not installed
    declared = 'exports: list = ["saved_model"]\ntop_k: int = 5\nlatency_runs: int = 50\n'
    declared += "calibration_images: int = 200"
    write_notebook(tmp_path, "01_x", declared, "open('ran', 'w')")
    result = call(tmp_path, "-p", *change)
    assert result.code == 2
    assert result.err.startswith(f"error: {line}") and result.err.count("\n") == 1
    assert not (tmp_path / "ran").exists()


def test_images_that_the_last_notebook_cannot_take_stop_the_run_at_its_start(tmp_path):
    write_notebook(tmp_path, "04_x", "photos: str = ''", "open('ran', 'w')")
    (tmp_path / "empty").mkdir()
    result = call(tmp_path, "-p", "photos", str(tmp_path / "empty"), "-p", "run_dir", "runs/x")
    assert result.code == 2
    assert result.err.startswith('error: photos: no image in "')
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_sigterm_in_the_first_seconds_exits_with_75_too():
    command = [sys.executable, "-m", "kit", "run", "--recipe", "demo", "--dry-run"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        handled = 0
        while not handled & 1 << (signal.SIGTERM - 1) and process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            handled = int(status.partition("SigCgt:")[2].split()[0], 16)
        process.terminate()
    assert process.returncode == 75


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1, "executed": "2"}', "[" * 9999])
def test_a_record_of_progress_that_was_cut_off_counts_as_none(tmp_path, text):
    path = tmp_path / notebooks.PROGRESS
    path.parent.mkdir()
    path.write_text(text)
    assert notebooks.executed_before({}, tmp_path) == 0
