"""What is refused of a training's parameters before any work."""

import inspect
from pathlib import Path

import pytest

from kit import params
from kit.model.resnet import resnet50
from kit.runner import run
from kit.training import recipe
from tests import small_training


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"training_sizes": [[0, 160], [12, 200]]}, "training_sizes: 200 is no multiple of 32"),
        ({"test_size": 300}, "test_size: 300 is larger than resize_side: 256"),
        ({"ema_decay": 1.0}, "ema_decay: 1.0 is no share"),
        ({"ema_decay": -0.1}, "ema_decay: -0.1 is no share"),
        ({"repeated_augmentation": 3}, "repeated_augmentation: 3 does not divide batch_size: 256"),
        ({"batch_size": 4, "repeated_augmentation": 4, "cutmix": 1.0}, "batch_size: 4 holds one"),
        ({"mixup": -0.2}, "mixup: -0.2 is no alpha"),
        ({"cutmix": -1.0}, "cutmix: -1.0 is no alpha"),
        ({"augmentation": "auto_augment"}, 'augmentation: "auto_augment" is not one of none, rand'),
        ({"augmentation_magnitude": 11.0}, "augmentation_magnitude: 11.0 is not from 0 to 10"),
        ({"random_erasing": 1.5}, "random_erasing: 1.5 is no share"),
        ({"loss": "bce"}, 'loss: "bce" is not one of cross_entropy, binary_cross_entropy'),
        ({"label_smoothing": 1.0}, "label_smoothing: 1.0 is no share"),
        (
            {"loss": "binary_cross_entropy", "label_smoothing": 0.1, "target_threshold": 0.2},
            "label_smoothing: 0.1 is undone by target_threshold: 0.2",
        ),
        ({"target_threshold": 0.2}, "target_threshold: 0.2 means nothing to loss: cross_entropy"),
        ({"optimizer": "adam"}, 'optimizer: "adam" is not one of sgd, lamb'),
        ({"clip_norm": -1.0}, "clip_norm: -1.0 is no length"),
        ({"rate_decay": "cos"}, 'rate_decay: "cos" is not one of steps, cosine'),
        ({"rate_every": "batch"}, 'rate_every: "batch" is not one of epoch, step'),
        ({"warmup_epochs": 100}, "warmup_epochs: 100 leaves nothing of 100 epochs"),
        ({"warmup_epochs": 5}, "warmup_start: 0.0 is the rate of the whole first epoch"),
        ({"learning_rate": -0.1}, "learning_rate: -0.1 is below 0"),
        ({"weight_decay": -1e-4}, "weight_decay: -0.0001 is below 0"),
        ({"weight_decay_skips": ["gamma"]}, 'weight_decay_skips: "gamma" is not one of norm, bias'),
        ({"drop_path": 1.0}, "drop_path: 1.0 is no chance"),
        ({"stage_sizes": [3, 0, 6, 3]}, "stage_sizes: "),
        ({"version": "3"}, 'version: "3" is not one of 1, 1.5, 2'),
        ({"channel_means": [123.68]}, "channel_means: [123.68] are not three"),
        ({"batch_norm_momentum": 1.0}, "batch_norm_momentum: 1.0 is no share"),
        ({"batch_norm_momentum": -0.1}, "batch_norm_momentum: -0.1 is no share"),
        ({"batch_norm_epsilon": 0.0}, "batch_norm_epsilon: 0.0 is not above 0; take 1.0e-5"),
        ({"crop_sampling": "center"}, 'crop_sampling: "center" is not one of distorted_box, '),
        ({"min_object_covered": 1.1}, "min_object_covered: 1.1 is no share; take 0.0 to 1.0"),
        ({"min_object_covered": -0.1}, "min_object_covered: -0.1 is no share"),
        ({"aspect_ratio_range": [1.33, 0.75]}, "aspect_ratio_range: [1.33, 0.75] is no [lowest, h"),
        ({"aspect_ratio_range": [0.0, 1.33]}, "aspect_ratio_range: [0.0, 1.33] is no [lowest, hig"),
        ({"aspect_ratio_range": [0.75]}, "aspect_ratio_range: [0.75] is no [lowest, highest]"),
        ({"area_range": [1.0, 0.05]}, "area_range: [1.0, 0.05] is no [lowest, highest]"),
        ({"area_range": [0.05, 1.1]}, "area_range: [0.05, 1.1] is more than the image"),
        ({"area_range": [0.0, 1.0]}, "area_range: [0.0, 1.0] is no [lowest, highest]"),
        ({"max_attempts": 0}, "max_attempts: 0 draws no crop; take 10 or more"),
        ({"steps_per_epoch": -1}, "steps_per_epoch: -1 is below 0; take 0 for one pass"),
        (
            {"epochs": 50},
            "decay_epochs: [30, 60, 80, 90] do not rise within 1 to 50, the epochs; t",
        ),
        ({"decay_epochs": [60, 30]}, "decay_epochs: [60, 30] do not rise within 1 to 100, the epo"),
        ({"decay_epochs": [30, 30]}, "decay_epochs: [30, 30] do not rise"),
        ({"decay_epochs": [0, 30]}, "decay_epochs: [0, 30] do not rise"),
        ({"final_rate": 0.2}, "final_rate: 0.2 is above learning_rate: 0.1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints: 0 leaves nothing to go on from"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(wrong, line):
    with pytest.raises(ValueError) as caught:
        recipe.check_recipe(params.load() | wrong)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "right",
    [
        {"epochs": 50, "decay_epochs": [30]},
        {"epochs": 2, "decay_epochs": []},
        {"epochs": 90, "decay_epochs": [30, 60, 90]},  # the last one of no effect, as often written
        {"epochs": 50, "rate_decay": "cosine"},
        {"rate_decay": "cosine", "final_rate": 0.1},
        {"min_object_covered": 0.0, "area_range": [1.0, 1.0], "max_attempts": 1},
        {"aspect_ratio_range": [1.5, 2.5], "min_object_covered": 1.0, "batch_norm_momentum": 0.0},
    ],
)
def test_what_stands_at_a_limit_passes(right):
    recipe.check_recipe(params.load() | right)


def test_each_host_has_two_images_to_mix():
    values = params.load() | {"batch_size": 4, "mixup": 0.2}
    recipe.check_recipe(values, hosts=2)
    with pytest.raises(ValueError, match="batch_size: 1 holds one image"):
        recipe.check_recipe(values, hosts=4)


def test_finetune_asks_for_its_weights(tmp_path):
    values = params.load(recipe="finetune")
    with pytest.raises(FileNotFoundError, match="initial_weights: data/.* is no file"):
        recipe.check_recipe(values)
    (tmp_path / "resnet50.h5").touch()
    with pytest.raises(ValueError, match="^initial_weights: .*resnet50.h5: no weights can be read"):
        recipe.check_recipe(values | {"initial_weights": str(tmp_path / "resnet50.h5")})


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory):
    """Files of a network of one block in each stage, for seven classes."""
    folder = tmp_path_factory.mktemp("weights")
    network = small_training.NETWORK | {"classes": 7, "stage_sizes": [1, 1, 1, 1], "width": 64}
    names = inspect.signature(resnet50).parameters
    made = resnet50(**{name: network[name] for name in names if name in network})
    made.save_weights(folder / "own.weights.h5")
    made.save(folder / "own.keras")
    return folder


def of_own(path):
    """A fine-tuning that the weights in `path` fit, of classes that nobody has counted yet."""
    like = {name: small_training.NETWORK[name] for name in ("version", "channel_means")}
    like |= {"stage_sizes": [1, 1, 1, 1], "initial_weights": str(path)}
    return params.load(recipe="finetune") | like


@pytest.mark.parametrize("name", ["own.weights.h5", "own.keras"])
def test_weights_of_this_network_pass_whatever_their_classes(name, own_weights):
    recipe.check_recipe(of_own(own_weights / name))


@pytest.mark.parametrize(
    ("name", "wrong", "line"),
    [
        (
            "own.weights.h5",
            {"stage_sizes": [1, 1, 1, 2]},
            "stage4_block2_.* is missing: weights of",
        ),
        ("own.keras", {"stage_sizes": [1, 1, 2, 1]}, "stage3_block2_.* is in this network alone"),
        ("own.keras", {"version": "1"}, "stage2_block1_conv2_pad is in the file alone"),
        ("own.keras", {"blur_pool": True}, ".*_blur.* is in this network alone"),
        ("own.keras", {"channel_means": [1.0, 2.0, 3.0]}, "channel_means: .* are not those of the"),
    ],
)
def test_weights_of_another_network_stop_a_run_before_its_images_are_prepared(
    name, wrong, line, own_weights
):
    tasks = {Path("01"): {"seed": 0}, Path("02"): of_own(own_weights / name) | wrong}
    with pytest.raises(ValueError, match=f"^initial_weights: .*{name}: {line}") as caught:
        run.check_training(tasks, ["CPU:0"])
    assert "\n" not in str(caught.value)
