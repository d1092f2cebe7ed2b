import shutil
import subprocess
import sys

import pytest

from kit import ROOT, locks, params
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


def test_a_folder_is_a_trainings_own_until_it_fails_or_its_model_is_saved(tmp_path):
    lock = tmp_path / run_state.LOCK
    with pytest.raises(MemoryError), run_state.alone(tmp_path):
        assert locks.owner(lock)
        raise MemoryError
    assert not locks.owner(lock)
    with run_state.alone(tmp_path):
        run_state.begin(tmp_path, PARAMETERS)
    assert locks.owner(lock)
    run_state.finish(tmp_path)
    assert not locks.owner(lock)


def test_names_that_only_one_of_two_versions_knows_are_no_difference(tmp_path):
    run_state.begin(tmp_path, PARAMETERS | {"of_old": 1})
    run_state.begin(tmp_path, PARAMETERS | {"of_new": 1})


def finished(run_dir, parameters=PARAMETERS, *, checkpoint=True):
    run_state.begin(run_dir, parameters)
    kept = run_dir / "checkpoints" / "newest" / "ckpt-1.index"
    kept.parent.mkdir()
    kept.write_text("")
    if not checkpoint:
        kept.unlink()
    (run_dir / "model.keras").write_text("precious")
    run_state.finish(run_dir)
    assert run_state.parameters_of(run_dir) is None


def test_a_finished_model_is_not_replaced_by_a_training_of_other_parameters(tmp_path):
    finished(tmp_path)
    with pytest.raises(ValueError, match="holds a finished model of other .*seed: 0 there, 1 now"):
        run_state.begin(tmp_path, PARAMETERS | {"seed": 1})
    run_state.begin(tmp_path, PARAMETERS)  # nothing is left to do


@pytest.mark.parametrize("file", ["ckpt", "run.json"])
def test_a_model_without_what_it_came_from_is_not_replaced(tmp_path, file):
    finished(tmp_path, checkpoint=file == "run.json")
    if file == "run.json":
        shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(ValueError, match=r"no checkpoint to go on from; .* delete .*model\.keras"):
        run_state.begin(tmp_path, PARAMETERS)


def test_without_its_model_a_finished_run_makes_room_for_the_next(tmp_path):
    finished(tmp_path)
    (tmp_path / "model.keras").unlink()
    run_state.begin(tmp_path, PARAMETERS | {"seed": 1})
    assert not (tmp_path / "checkpoints" / "newest").exists()
    assert run_state.parameters_of(tmp_path)["seed"] == 1


@pytest.mark.parametrize(
    ("values", "epochs", "possible"),
    [
        ({"schedule": "steps", "decay_epochs": [2, 3]}, 6, True),
        ({"schedule": "steps", "decay_epochs": [2, 3]}, 3, False),  # fewer
        ({"schedule": "steps", "decay_epochs": [0.5]}, 6, False),  # a share, so it comes later
        ({"schedule": "steps", "decay_epochs": [0.5]}, 5, True),  # in the second, too
        ({"schedule": "cosine", "decay_epochs": []}, 6, False),
        ({"schedule": "linear", "decay_epochs": []}, 6, False),
    ],
)
def test_more_epochs_extend_a_run_whose_rates_stay_as_they_were(tmp_path, values, epochs, possible):
    p = params.load("demo", {"epochs": 4, "warmup_epochs": 0, **values})
    finished(tmp_path, p.training)
    run = run_state.begin(tmp_path, p.training)
    longer = p.training | {"epochs": epochs}
    if possible:
        assert run_state.begin(tmp_path, longer) == run
    else:
        with pytest.raises(ValueError, match=f"epochs: 4 there, {epochs} now"):
            run_state.begin(tmp_path, longer)


def test_a_run_keeps_its_identity_and_another_has_another(tmp_path):
    ours = run_state.begin(tmp_path / "a", PARAMETERS)
    run_state.record(tmp_path / "a", PARAMETERS | {"epochs": 9})
    assert run_state.begin(tmp_path / "a", PARAMETERS | {"epochs": 9}) == ours
    assert run_state.begin(tmp_path / "b", PARAMETERS | {"epochs": 9}) != ours


@pytest.mark.parametrize("text", ["", "{", "[]", '{"finished": 1}', "[" * 9999, "\x00"])
def test_a_record_that_cannot_be_read_is_refused_in_a_line(tmp_path, text):
    run_state.begin(tmp_path, PARAMETERS)
    (tmp_path / run_state.FILE).write_text(text)
    with pytest.raises(ValueError, match=r"run\.json cannot be read .* to start anew$") as caught:
        run_state.begin(tmp_path, PARAMETERS)
    assert "\n" not in str(caught.value)


def test_a_model_saved_without_a_training_marks_nothing(tmp_path):
    run_state.finish(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_is_asked_before_tensorflow_is_there():
    program = (
        "import sys; from kit.training import run_state; sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
