"""In a real kernel: whether somebody has the notebook open, and what shows of an error."""

import re
import sys
from types import SimpleNamespace

import pytest
from jupyter_client.manager import start_new_kernel

from kit import ROOT, notebook

WRONG = "from kit import params; params.load(overrides={'epochz': 1, 'seed': -1})"
NAMED = "epochz: no such parameter"


@pytest.fixture(scope="module")
def ask():
    """Give a function that runs code in a kernel, somebody being `there` or not: its output."""
    manager, client = start_new_kernel(cwd=ROOT)

    def execute(code, *, there=False):
        found = SimpleNamespace(text="", errors=[])

        def hook(message):
            content = message["content"]
            if message["msg_type"] == "stream":
                found.text += content["text"]
            elif message["msg_type"] == "error":
                content["traceback"] = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(content["traceback"]))
                found.errors.append(content)

        client.allow_stdin = there
        client.execute_interactive(code, allow_stdin=there, timeout=120, output_hook=hook)
        return found

    yield execute
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_front_end_that_could_answer_is_somebody(ask):
    """Papermill, nbconvert and nbval ask as the first request does, JupyterLab as the second."""
    code = "from kit.notebook import is_interactive; print(is_interactive())"
    assert [ask(code, there=there).text.strip() for there in (False, True)] == ["False", "True"]
    assert not notebook.is_interactive()


def test_what_the_kit_refuses_in_an_open_notebook_is_its_sentences_alone(ask):
    (error,) = ask(WRONG, there=True).errors
    first, second, rest = error["traceback"].splitlines()
    assert error["ename"] == "ValueError"
    assert first.startswith(f"ValueError: {NAMED}") and second.startswith("seed: -1")
    assert rest == notebook.REST


def test_where_the_kit_refused_it_is_still_to_be_had(ask):
    ask(WRONG, there=True)
    found = ask("%tb", there=True)
    text = "".join(error["traceback"] for error in found.errors) + found.text
    assert "params.py" in text and NAMED in text and notebook.REST not in text


def test_in_batch_the_sentence_comes_first_and_the_traceback_after_it(ask):
    (error,) = ask(WRONG).errors
    lines = error["traceback"].splitlines()
    assert lines[0].startswith(f"ValueError: {NAMED}") and lines[1].startswith("seed: -1")
    assert lines[2].startswith("---") and "params.py" in error["traceback"]
    assert lines[-2].startswith(f"ValueError: {NAMED}")  # as papermill ends without the kit


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('my own')",
        "int('x')",
        "from kit import files; files.hash_file('nowhere')",  # Python's own, called by the kit
        "from kit import files; files.json_object(3)",  # a mistake within the kit
    ],
)
def test_every_other_error_shows_as_in_any_notebook(ask, code):
    (error,) = ask(f"import kit\n{code}", there=True).errors
    lines = error["traceback"].splitlines()
    assert lines[0].startswith("---") and "Traceback (most recent call last)" in lines[1]
    assert notebook.REST not in lines and "kit/notebook.py" not in error["traceback"]
    ask("from IPython import get_ipython; get_ipython().set_custom_exc((), None)")
    (plain,) = ask(f"import kit\n{code}", there=True).errors
    ask("import kit; kit.notebook.install()")
    numbers = re.compile(r"In\[\d+\]|cell line: \d+")
    assert numbers.sub("", plain["traceback"]) == numbers.sub("", error["traceback"])


def test_outside_of_a_kernel_nothing_is_installed(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    notebook.install()
    assert "IPython" not in sys.modules
