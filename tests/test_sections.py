"""What is refused of parameters before any work: limits, and values that do not go together."""

import pytest

from kit import params
from kit.training.sections import Devices, Schedule
from tests.networks import sections, training_data

WRONG = [  # parameter, value, what the line says after the name
    ("seed", -1, "-1 is not from 0 to 4,294,967,295; take 0"),
    ("seed", 2**32, "4294967296 is not from 0 to 4,294,967,295; take 0"),
    ("validation_fraction", 0, "0.0 is not between 0 and 1; take 0.1"),
    ("validation_fraction", 1, "1.0 is not between 0 and 1; take 0.1"),
    ("demo_views", -1, "-1 is too few: 50 or more, or 0 to use raw_dir"),
    ("demo_views", 49, "49 is too few: 50 or more, or 0 to use raw_dir"),
    ("train_shards", 0, "0 is not from 1 to 99,999; take 16 for some thousands"),
    ("train_shards", 100_000, "100000 is not from 1 to 99,999; take 16"),
    ("validation_shards", 0, "0 is not from 1 to 99,999; take 4"),
    ("check", "half", '"half" is not one of full, header'),
    ("quarantine_budget", -0.1, "-0.1 is not from 0 to 1; take 0.01"),
    ("quarantine_budget", 1.1, "1.1 is not from 0 to 1; take 0.01"),
    ("store_short_side", -1, "-1 is below 0; 0 keeps the original bytes"),
    ("store_quality", 0, "0 is not from 1 to 100; take 90"),
    ("store_quality", 101, "101 is not from 1 to 100; take 90"),
    ("processes", -1, "-1 is below 0; 0 stands for one per core"),
    ("image_size", 16, "16 leaves nothing after five halvings; take 32"),
    ("evaluation_size", 16, "16 leaves nothing after five halvings; take 32"),
    ("evaluation_size", -1, "-1 leaves nothing after five halvings; take 32"),
    ("resize_side", 31, "31 leaves nothing after five halvings; take 32"),
    ("training_sizes", [[0, 160], [12, 200]], "200 is no multiple of 32; take 192"),
    ("training_sizes", [[0, 160], [12, 176]], "176 is no multiple of 32; take 192"),
    ("training_sizes", [[0, 20]], "20 is no multiple of 32; take 32"),
    ("training_sizes", [[0, 160], [0, 192]], "[0, 192] is no [epoch, pixels] after those before"),
    ("training_sizes", [[-1, 160]], "[-1, 160] is no [epoch, pixels]"),
    ("training_sizes", [160], "160 is no [epoch, pixels]"),
    ("training_sizes", [[0, 160.0]], "[0, 160.0] is no [epoch, pixels]"),
    ("training_sizes", [[0, 160, 1]], "[0, 160, 1] is no [epoch, pixels]"),
    ("crop_sampling", "center", '"center" is not one of distorted_box, random_resized'),
    ("min_object_covered", 1.1, "1.1 is not from 0 to 1; take 0.1"),
    ("min_object_covered", -0.1, "-0.1 is not from 0 to 1; take 0.1"),
    ("aspect_ratio_range", [1.33, 0.75], "[1.33, 0.75] is no [lowest, highest] above 0, such as"),
    ("aspect_ratio_range", [0.0, 1.33], "[0.0, 1.33] is no [lowest, highest] above 0"),
    ("aspect_ratio_range", [0.75], "[0.75] is no [lowest, highest] above 0"),
    ("area_range", [1.0, 0.05], "[1.0, 0.05] is no [lowest, highest] above 0"),
    ("area_range", [0.0, 1.0], "[0.0, 1.0] is no [lowest, highest] above 0"),
    ("area_range", [0.05, 1.1], "[0.05, 1.1] is more than the image; end it with 1.0"),
    ("max_attempts", 0, "0 is below 1; take 10 or more"),
    ("augmentation", "auto_augment", '"auto_augment" is not one of none, rand_augment, trivial'),
    ("augmentation_magnitude", 11.0, "11.0 is not from 0 to 10; the recipes have 6 and 7"),
    ("augmentation_magnitude", -1.0, "-1.0 is not from 0 to 10; the recipes have 6 and 7"),
    ("random_erasing", 1.5, "1.5 is not from 0 to 1; take 0.1"),
    ("random_erasing", -0.1, "-0.1 is not from 0 to 1; take 0.1"),
    ("mixup", -0.2, "-0.2 is no alpha; take 0.0 for none, or up to 1.0"),
    ("cutmix", -1.0, "-1.0 is no alpha; take 0.0 for none, or up to 1.0"),
    ("repeated_augmentation", 0, "0 is below 1; take 1 for one crop of each image"),
    ("repeated_augmentation", -2, "-2 is below 1; take 1 for one crop of each image"),
    ("shuffle_shards", 0, "0 is below 1; take 8"),
    ("resnet_version", "3", '"3" is not one of 1, 1.5, 2'),
    ("resnet_version", "1.6", '"1.6" is not one of 1, 1.5, 2'),
    ("stage_sizes", [], "[] are no blocks of each stage; [3, 4, 6, 3]?"),
    ("stage_sizes", [3, 0, 6, 3], "[3, 0, 6, 3] are no blocks of each stage"),
    ("channel_means", [123.68], "[123.68] are not three: those of R, G and B"),
    ("batch_norm", "global", '"global" is not one of per_replica, synchronized'),
    ("batch_norm_momentum", 1.0, "1.0 is not from 0 to below 1; take 0.9"),
    ("batch_norm_momentum", -0.1, "-0.1 is not from 0 to below 1; take 0.9"),
    ("batch_norm_epsilon", 0.0, "0.0 is not above 0; take 1.0e-5"),
    ("drop_path", 1.0, "1.0 is not from 0 to below 1; take 0.05"),
    ("drop_path", -0.1, "-0.1 is not from 0 to below 1; take 0.05"),
    ("weight_decay", -1e-4, "-0.0001 is not from 0 to below 1; take 1.0e-4"),
    ("weight_decay_skips", ["gamma"], '"gamma" is not one of norm, bias'),
    ("replicas", -1, "-1 is below 0; 0 takes every GPU, or one CPU"),
    ("precision", "bf16", '"bf16" is not one of float32, mixed_bfloat16'),
    ("loss", "mse", '"mse" is not one of cross_entropy, binary_cross_entropy'),
    ("label_smoothing", 1.0, "1.0 is not from 0 to below 1; take 0.1"),
    ("label_smoothing", -0.1, "-0.1 is not from 0 to below 1; take 0.1"),
    ("target_threshold", -0.1, "-0.1 is not from 0 to below 1; take 0.2"),
    ("target_threshold", 1.0, "1.0 is not from 0 to below 1; take 0.2"),
    ("optimizer", "adam", '"adam" is not one of sgd, lamb'),
    ("momentum", -0.1, "-0.1 is not from 0 to below 1; take 0.9"),
    ("clip_grad_norm", -1.0, "-1.0 is below 0; take 1.0, or 0 for no limit"),
    ("ema_decay", 1.0, "1.0 is not from 0 to below 1; take 0.9999, or 0 for no average"),
    ("ema_decay", 99.99, "99.99 is not from 0 to below 1; take 0.9999"),
    ("ema_decay", -0.1, "-0.1 is not from 0 to below 1; take 0.9999"),
    ("batch_size", 0, "0 is below 1; take 32"),
    ("epochs", 0, "0 is below 1; take 1 or more"),
    ("steps_per_epoch", -1, "-1 is below 0; 0 is one pass over the training images"),
    ("learning_rate", -0.1, "-0.1 is below 0; take 0.1"),
    ("base_batch_size", -1, "-1 is below 0; 0 leaves learning_rate as it is"),
    ("schedule", "cos", '"cos" is not one of steps, cosine, cosine_from_start, linear'),
    ("schedule", "polynomial", '"polynomial" is not one of steps, cosine, cosine_from_start, lin'),
    ("schedule_update", "batch", '"batch" is not one of epoch, step'),
    ("decay_epochs", [60, 30], "[60.0, 30.0] are not rising epochs, or shares of the epochs"),
    ("decay_epochs", [30, 30], "[30.0, 30.0] are not rising epochs"),
    ("decay_epochs", [0, 30], "[0.0, 30.0] are not rising epochs"),
    ("decay_epochs", [-0.5], "[-0.5] are not rising epochs"),
    ("decay_factor", -0.1, "-0.1 is not from 0 to 1; take 0.1"),
    ("final_learning_rate", -0.1, "-0.1 is below 0; take 0.0"),
    ("warmup_epochs", -1, "-1.0 is below 0; take 0 for none"),
    ("warmup_learning_rate", -0.1, "-0.1 is below 0; take 0.0"),
    ("checkpoint_minutes", -1, "-1.0 is below 0; 0 saves at the end of each epoch alone"),
    ("keep_checkpoints", 0, "0 is below 1; take 3"),
    ("patience", -1, "-1 is below 0; take 5, or 0 to train all epochs"),
    ("body_rate_factor", 0.0, "0.0 is not above 0; take 0.1, or freeze: body to keep weights"),
    ("on_save_error", "ignore", '"ignore" is not one of stop, continue'),
    ("expected_top1", [[3]], "[3] is no [epoch, lowest, highest], such as [90, 0.76, 0.77]"),
    ("expected_top1", [[1, 0.1, 0.2], [90, 0.76]], "[90, 0.76] is no [epoch, lowest, highest]"),
    ("expected_top1", [[0, 0.1, 0.2]], "[0, 0.1, 0.2] is no [epoch, lowest, highest]"),
    ("expected_top1", [[2, 0.3, 0.2]], "[2, 0.3, 0.2] is no [epoch, lowest, highest]"),
    ("expected_top1", [[90, 76, 77]], "[90, 76, 77] is no [epoch, lowest, highest]"),
    ("expected_top1", [["2", 0.1, 0.2]], "['2', 0.1, 0.2] is no [epoch, lowest, highest]"),
    ("expected_top1", [[1.5, 0, 1]], "[1.5, 0, 1] is no [epoch, lowest, highest]"),
    ("expected_top1", [[float("inf"), 0, 1]], "[inf, 0, 1] is no [epoch, lowest, highest]"),
    ("outside_band", "ignore", '"ignore" is not one of warn, stop'),
    ("test_views", ["mirror"], '"mirror" is not one of flip, ten_crop'),
    ("test_sizes", [16], "16 is no whole number of pixels of 32 or more"),
    ("test_sizes", [224.5], "224.5 is no whole number of pixels of 32 or more"),
    ("top_k", 0, "0 is below 1; take 5"),
    ("exports", ["tflite"], '"tflite" is not one of saved_model, onnx, litert, litert_int8'),
    ("calibration_images", -1, "-1 is below 0; take 200"),
    ("latency_runs", 0, "0 is below 1; take 200"),
    ("measured_seconds", 0, "0.0 is not from 0.01 to 3,600; take 5.0"),
    ("measured_seconds", 3601, "3601.0 is not from 0.01 to 3,600; take 5.0"),
]
CONFLICTS = [  # values of one section, or of several, and the line
    (
        {"image_size": 320},
        "image_size: 320 is larger than resize_side: 256; for the centre crop to",
    ),
    ({"image_size": 64, "resize_side": 36}, "image_size: 64 is larger .* 36; .* about 73"),
    ({"evaluation_size": 300}, "evaluation_size: 300 is larger than resize_side: 256"),
    (
        {"image_size": 160, "evaluation_size": 224, "resize_side": 200},
        "evaluation_size: 224 is larger than .* 200; .* about 256",
    ),
    (
        {"training_sizes": [[0, 160], [16, 192]], "epochs": 16},
        "training_sizes: epoch 16 never comes, for there are 16",
    ),
    (
        {"resnet_version": "2", "zero_gamma": True},
        "zero_gamma: true has no meaning in resnet_version 2",
    ),
    (
        {"target_threshold": 0.2},
        "target_threshold: 0.2 means nothing to loss: cross_entropy; take 0, or binary",
    ),
    (
        {"loss": "binary_cross_entropy", "label_smoothing": 0.1, "target_threshold": 0.2},
        "label_smoothing: 0.1 is undone by target_threshold: 0.2, .*; take 0.0 of either",
    ),
    (
        {"warmup_epochs": 100},
        "warmup_epochs: 100 leaves nothing of 100 epochs; take fewer, a share",
    ),
    ({"warmup_epochs": 120}, "warmup_epochs: 120 leaves nothing of 100 epochs"),
    (
        {"warmup_epochs": 5},
        "warmup_learning_rate: 0.0 is the rate of the whole first epoch, .* / 6",
    ),
    (
        {"warmup_epochs": 0.05},
        "warmup_learning_rate: 0.0 is the rate of the whole first epoch, .* / 6",
    ),
    (
        {"epochs": 50, "decay_epochs": [30, 60, 80, 90]},
        "decay_epochs: 60 is after the last of 50 epochs; take earlier ones, or shares such as",
    ),
    (
        {"final_learning_rate": 0.2},
        "final_learning_rate: 0.2 is above learning_rate: 0.1, and the rate would rise; take",
    ),
    (
        {"repeated_augmentation": 3},
        "repeated_augmentation: 3 does not divide batch_size: 256; take a batch_size that is a mul",
    ),
    (
        {"batch_size": 4, "repeated_augmentation": 4, "cutmix": 1.0},
        "batch_size: 4 holds one image, and mixup or cutmix has nothing to mix",
    ),
    ({"batch_size": 1, "mixup": 0.2}, "batch_size: 1 holds one image"),
    ({"batch_size": 33, "replicas": 2}, "batch_size: 33 does not divide among 2 replicas; take 32"),
    (
        {"xla": "true", "batch_norm": "synchronized"},
        "xla: true cannot compile batch_norm: synchronized",
    ),
    (
        {"xla": "true", "deterministic": True},
        "xla: true has no deterministic gradient of max pooling",
    ),
    (
        {"data_service": "grpc://localhost:5050", "deterministic": True},
        "deterministic: true cannot be had from a data_service",
    ),
    (
        {"exports": ["litert_int8"], "calibration_images": 0},
        "calibration_images: 0 show litert_int8 no ranges; take 200",
    ),
]


@pytest.mark.parametrize(("name", "value", "line"), WRONG)
def test_a_value_beyond_its_limit_is_refused_in_one_line(name, value, line):
    with pytest.raises(ValueError) as caught:
        params.load(overrides={name: value})
    assert str(caught.value).startswith(f"{name}: {line}")
    assert "\n" not in str(caught.value)


def test_each_number_and_each_list_has_a_limit_that_is_tried_here():
    tried = {name for name, _, _ in WRONG}
    left = {name: value for name, value in params.load().values.items() if name not in tried}
    assert {type(value) for value in left.values()} == {bool, str}


@pytest.mark.parametrize(("values", "line"), CONFLICTS)
def test_values_that_do_not_go_together_are_refused_in_one_line(values, line):
    with pytest.raises(ValueError, match=f"^{line}") as caught:
        params.load(overrides=values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "right",
    [
        {"epochs": 50, "decay_epochs": [30]},
        {"epochs": 2, "decay_epochs": []},
        {"epochs": 90, "decay_epochs": [30, 60, 90]},  # the last one of no effect, as often written
        {"epochs": 50, "schedule": "cosine", "decay_epochs": [30, 60]},  # which has no drops
        {"schedule": "cosine", "final_learning_rate": 0.1},
        {"warmup_epochs": 5, "schedule_update": "step"},
        {"warmup_epochs": 99.5, "warmup_learning_rate": 0.01},
        {"min_object_covered": 0.0, "area_range": [1.0, 1.0], "max_attempts": 1},
        {"aspect_ratio_range": [1.5, 2.5], "min_object_covered": 1.0, "batch_norm_momentum": 0.0},
        {"image_size": 224, "resize_side": 224},
        {"image_size": 192, "evaluation_size": 256, "resize_side": 293},
        {"image_size": 176, "evaluation_size": 224, "resize_side": 232},
        {"image_size": 32, "resize_side": 32},
        {"training_sizes": [[0, 160], [12, 192]], "epochs": 16},
        {"training_sizes": [[15, 32]], "epochs": 16},
        {"expected_top1": [[2, 0.06, 0.09], [90, 0.76, 0.77]]},
        {"expected_top1": [[1, 0, 1]]},
        {"loss": "binary_cross_entropy", "target_threshold": 0.2},
        {"loss": "binary_cross_entropy", "label_smoothing": 0.1},
        {"xla": "true", "batch_norm": "per_replica"},
        {"batch_size": 7, "replicas": 7},
        {"batch_size": 4, "repeated_augmentation": 4},
        {"batch_size": 2, "mixup": 0.2, "cutmix": 1.0},
        {"calibration_images": 0},
        {"data_service": "grpc://localhost:5050", "deterministic": False},
        {"seed": 2**32 - 1, "store_quality": 100, "quarantine_budget": 1.0, "test_sizes": [32]},
    ],
)
def test_what_stands_at_a_limit_passes(right):
    assert params.load(overrides=right).flat(*params.SECTIONS).items() >= right.items()


def test_a_limit_that_a_value_breaks_hides_no_other_of_its_section():
    with pytest.raises(ValueError) as caught:
        params.load(overrides={"epochs": 0, "batch_size": 0, "warmup_epochs": -1})
    names = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert names == ["batch_size", "epochs", "warmup_epochs"]


@pytest.mark.parametrize(
    ("batch_size", "replicas", "remedy"),
    [(33, 2, "take 32 or 34"), (1, 2, "take 2"), (250, 8, "take 248 or 256")],
)
def test_a_batch_must_divide_among_the_replicas_that_are_found(batch_size, replicas, remedy):
    with pytest.raises(ValueError, match=f"batch_size: {batch_size} .*; {remedy}$"):
        Devices(replicas=0, precision="float32", xla="auto").check(replicas, batch_size)


@pytest.mark.parametrize(("batch_size", "replicas"), [(32, 1), (32, 2), (256, 8), (7, 7)])
def test_a_batch_that_divides_passes(batch_size, replicas):
    Devices(replicas=0, precision="float32", xla="auto").check(replicas, batch_size)


def test_each_host_needs_two_images_to_mix(tmp_path):
    training_data(tmp_path, batch_size=4, mixup=0.2, workers=2)
    with pytest.raises(ValueError, match="batch_size: 1 holds one image"):
        training_data(tmp_path, batch_size=4, mixup=0.2, workers=4)


@pytest.mark.parametrize(
    ("shares", "epochs", "drops"),
    [  # by hand: 0.667 * 45 = 30.015, 0.889 * 45 = 40.005, 0.8 * 6 = 4.8, 0.3 * 3 = 0.9
        ([0.3, 0.6, 0.8, 0.9], 100, [30, 60, 80, 90]),
        ([0.667, 0.889], 45, [30, 40]),
        ([0.8], 6, [5]),
        ([0.3, 0.6, 0.8, 0.9], 3, [1, 2, 2, 3]),
        ([0.3, 0.6], 1, [1, 1]),
        ([0.5, 40], 60, [30, 40]),
        ([1, 2.5], 60, [1, 2.5]),
        ([], 60, []),
    ],
)
def test_decay_epochs_below_1_are_shares_of_the_epochs(shares, epochs, drops):
    assert sections(decay_epochs=shares, epochs=epochs).schedule.drops == drops


@pytest.mark.parametrize(
    ("share", "epochs", "warmup"),
    [  # by hand: 0.05 * 45 = 2.25, 0.03 * 30 = 0.9, 0.1 * 6 = 0.6; of one epoch nothing is left
        (0.05, 45, 2),
        (0.03, 30, 1),
        (0.1, 6, 1),
        (0.05, 3, 1),
        (0.9, 2, 1),
        (0.05, 1, 0),
        (5, 90, 5),
        (2.5, 90, 2.5),
        (0, 90, 0),
    ],
)
def test_a_warm_up_below_1_is_a_share_of_the_epochs(share, epochs, warmup):
    values = {"warmup_epochs": share, "warmup_learning_rate": 0.01, "epochs": epochs}
    assert sections(**values).schedule.warmup == warmup


@pytest.mark.parametrize("recipe", ["demo", "folder", "finetune"])
@pytest.mark.parametrize("epochs", ["1", "2", "3", "200"])
def test_the_schedule_follows_the_epochs(recipe, epochs):
    schedule = params.load(recipe, {"epochs": epochs}).schedule
    rates = [schedule.rate(epoch) for epoch in range(schedule.epochs)]
    assert max(rates) <= schedule.scaled(schedule.learning_rate)
    assert schedule.rate(schedule.epochs) < max(rates) or int(epochs) == 1


def test_the_recipe_of_folders_has_two_epochs_of_warm_up_and_drops_after_30_and_40():
    schedule = params.load("folder").schedule
    rates = [0.0167, 0.03335, *[0.05] * 28, *[0.005] * 10, *[0.0005] * 5]
    assert [schedule.rate(epoch) for epoch in range(45)] == pytest.approx(rates)


def test_sections_are_frozen():
    with pytest.raises(AttributeError):
        sections().schedule.epochs = 3
    assert isinstance(sections().schedule, Schedule)
