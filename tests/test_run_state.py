import subprocess
import sys

import pytest

from kit import ROOT, params
from kit.training import run_state

# where things are, what is shown, how often it is saved: none of them moves a weight
MAY_CHANGE = {
    *("raw_dir", "data_dir", "run_dir", "data_service", "tensorboard", "expected_top1"),
    *("outside_band", "checkpoint_minutes", "keep_checkpoints", "on_save_error"),
}
OF_OTHER_NOTEBOOKS = ("preparation", "evaluation", "inference", "export", "throughput")
PARAMETERS = {"seed": 0, "decay_epochs": [30, 60], "learning_rate": 0.1, "data_dir": "here"}


def test_an_unfinished_run_of_the_same_parameters_goes_on(tmp_path):
    run_state.begin(tmp_path, PARAMETERS)
    kept = tmp_path / "checkpoints" / "newest" / "ckpt-1.index"
    kept.parent.mkdir()
    kept.write_text("")
    run_state.begin(tmp_path, PARAMETERS | {"data_dir": "moved", "keep_checkpoints": 9})
    assert kept.exists()


def test_other_parameters_are_refused_and_each_difference_is_named(tmp_path):
    run_state.begin(tmp_path, PARAMETERS)
    others = PARAMETERS | {"seed": 1, "decay_epochs": [30]}
    with pytest.raises(ValueError) as caught:
        run_state.begin(tmp_path, others)
    message = str(caught.value)
    assert "(seed: 0 there, 1 now; decay_epochs: [30, 60] there, [30] now)" in message
    assert "\n" not in message
    assert run_state.parameters_of(tmp_path)["seed"] == 0


@pytest.mark.parametrize("name", params.FIELDS)
def test_a_resume_compares_each_parameter_that_decides_a_training(tmp_path, name):
    p = params.load()
    run_state.begin(tmp_path, p.training)
    changed = p.training | ({name: [p.values[name], "changed"]} if name in p.training else {})
    if name in MAY_CHANGE or name in p.flat(*OF_OTHER_NOTEBOOKS):
        run_state.begin(tmp_path, changed)
    else:
        with pytest.raises(ValueError, match=rf"parameters \({name}: "):
            run_state.begin(tmp_path, changed)


def test_names_that_only_one_of_two_versions_knows_are_no_difference(tmp_path):
    run_state.begin(tmp_path, PARAMETERS | {"of_old": 1})
    run_state.begin(tmp_path, PARAMETERS | {"of_new": 1})


def test_a_finished_run_makes_room_for_the_next(tmp_path):
    run_state.begin(tmp_path, PARAMETERS)
    left = tmp_path / "checkpoints" / "best" / "ckpt-1.index"
    left.parent.mkdir()
    left.write_text("")
    run_state.finish(tmp_path)
    assert run_state.parameters_of(tmp_path) is None
    assert left.exists()
    run_state.begin(tmp_path, PARAMETERS | {"seed": 1})
    assert not left.exists()
    assert run_state.parameters_of(tmp_path)["seed"] == 1


def test_a_model_saved_without_a_training_marks_nothing(tmp_path):
    run_state.finish(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_is_asked_before_tensorflow_is_there():
    program = (
        "import sys; from kit.training import run_state; sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
