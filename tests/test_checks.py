import pytest
from kit.training.checks import (
    check_bands,
    check_batch,
    check_compile,
    check_loss,
    check_optimizer,
    check_precision,
    check_rates,
    check_sizes,
    check_training_sizes,
)


@pytest.mark.parametrize(
    "batch_size, replicas, remedy",
    [(33, 2, "take 32 or 34"), (1, 2, "take 2"), (250, 8, "take 248 or 256"), (0, 4, "take 4 or")],
)
def test_a_batch_must_divide_among_the_replicas(batch_size, replicas, remedy):
    with pytest.raises(ValueError, match=f"batch_size: {batch_size} .*; {remedy}"):
        check_batch(batch_size=batch_size, replicas=replicas)


@pytest.mark.parametrize("batch_size, replicas", [(32, 1), (32, 2), (256, 8), (7, 7)])
def test_a_batch_that_divides_passes(batch_size, replicas):
    check_batch(batch_size=batch_size, replicas=replicas)


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match='precision: "bf16" is not one of float32, mixed_bfloat16'):
        check_precision(precision="bf16", replicas=1)


def test_float16_is_refused_on_several_replicas():
    check_precision(precision="mixed_float16", replicas=1)
    with pytest.raises(ValueError, match="mixed_float16 on several replicas"):
        check_precision(precision="mixed_float16", replicas=2)


@pytest.mark.parametrize("sizes", [(224, 0, 224), (192, 256, 293), (176, 224, 232)])
def test_a_crop_that_fits_passes(sizes):
    image_size, test_size, resize_side = sizes
    check_sizes(image_size=image_size, test_size=test_size, resize_side=resize_side)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((64, 0, 36), "image_size: 64 is larger than .* 36; .* about 73"),
        ((160, 224, 200), "test_size: 224 is larger than .* 200; .* about 256"),
        ((16, 0, 18), "image_size: 16 .* take 32 or more"),
        ((16, 64, 73), "image_size: 16 .* take 32 or more"),
        ((64, 16, 73), "test_size: 16 .* take 32 or more"),
    ],
)
def test_the_crop_must_fit_into_the_resized_image(sizes, message):
    image_size, test_size, resize_side = sizes
    with pytest.raises(ValueError, match=message):
        check_sizes(image_size=image_size, test_size=test_size, resize_side=resize_side)


def test_training_sizes_are_multiples_of_32_at_rising_epochs():
    check_training_sizes(training_sizes=[], epochs=1)
    check_training_sizes(training_sizes=[[0, 160], [12, 192]], epochs=16)
    for sizes, message in (
        ([[0, 160], [12, 176]], "176 is no multiple of 32; take 192"),
        ([[0, 20]], "20 is no multiple of 32; take 32"),
        ([[0, 160], [0, 192]], r"\[0, 192\] is no .epoch, pixels. after those before"),
        ([[-1, 160]], r"\[-1, 160\] is no .epoch, pixels."),
        ([160], "160 is no .epoch, pixels."),
        ([[0, 160.0]], r"\[0, 160.0\] is no .epoch, pixels."),
        ([[0, 160], [16, 192]], "epoch 16 never comes, for there are 16"),
    ):
        with pytest.raises(ValueError, match=f"^training_sizes: {message}"):
            check_training_sizes(training_sizes=sizes, epochs=16)


@pytest.mark.parametrize("bands", [[], [[2, 0.06, 0.09], [90, 0.76, 0.77]], [[1, 0, 1]]])
def test_a_band_is_an_epoch_and_two_shares(bands):
    check_bands(expected_top1=bands, outside_band="warn")


@pytest.mark.parametrize(
    "band",
    [3, [90, 0.76], [0, 0.1, 0.2], [2, 0.3, 0.2], [90, 76, 77], ["2", 0.1, 0.2], [1.5, 0, 1]],
)
def test_another_band_is_named(band):
    with pytest.raises(ValueError, match="expected_top1: .* is no .epoch, lowest, highest., such"):
        check_bands(expected_top1=[[1, 0.1, 0.2], band], outside_band="stop")


def test_what_to_do_outside_of_a_band_is_one_of_two():
    with pytest.raises(ValueError, match='outside_band: "ignore" is not one of warn, stop'):
        check_bands(expected_top1=[], outside_band="ignore")


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"loss": "mse"}, 'loss: "mse" is not one of cross_entropy, binary_cross_entropy'),
        ({"label_smoothing": 1.0}, "label_smoothing: 1.0 is no share from 0 to below 1"),
        ({"target_threshold": -0.1}, "target_threshold: -0.1 is no share"),
        ({"target_threshold": 0.2}, "target_threshold: 0.2 means nothing to loss: cross_entropy"),
        (
            {"loss": "binary_cross_entropy", "target_threshold": 0.2},
            "label_smoothing: 0.1 is undone by target_threshold: 0.2, .*; take 0.0 of either",
        ),
    ],
)
def test_what_makes_no_loss_is_named(wrong, said):
    right = {"loss": "cross_entropy", "label_smoothing": 0.1, "target_threshold": 0.0}
    check_loss(**right)
    check_loss(loss="binary_cross_entropy", label_smoothing=0.0, target_threshold=0.2)
    with pytest.raises(ValueError, match=said):
        check_loss(**right | wrong)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"optimizer": "adam"}, 'optimizer: "adam" is not one of sgd, lamb'),
        ({"clip_norm": -1.0}, "clip_norm: -1.0 is no length; take 1.0"),
        ({"ema_decay": 1.0}, "ema_decay: 1.0 is no share .*; take 0.9999"),
        ({"ema_decay": 99.99}, "ema_decay: 99.99 is no share"),
    ],
)
def test_what_makes_no_optimizer_is_named(wrong, said):
    right = {"optimizer": "lamb", "clip_norm": 1.0, "ema_decay": 0.9999}
    check_optimizer(**right)
    with pytest.raises(ValueError, match=said):
        check_optimizer(**right | wrong)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"rate_decay": "cosin"}, 'rate_decay: "cosin" is not one of steps, cosine, cosine_from'),
        ({"rate_every": "batch"}, 'rate_every: "batch" is not one of epoch, step'),
        ({"warmup_epochs": 90}, "warmup_epochs: 90 leaves nothing of 90 epochs"),
        ({"warmup_start": 0.0}, "warmup_start: 0.0 is the rate of the whole first epoch, .* / 6"),
        ({"warmup_start": -0.1}, "warmup_start: -0.1 is below 0"),
        ({"learning_rate": -0.1}, "learning_rate: -0.1 is below 0"),
    ],
)
def test_what_makes_no_schedule_is_named(wrong, said):
    right = {"epochs": 90, "learning_rate": 0.1, "decay_epochs": [30], "warmup_epochs": 5}
    right |= {"rate_decay": "steps", "rate_every": "epoch", "warmup_start": 0.02}
    check_rates(**right)
    check_rates(**right | {"rate_every": "step", "warmup_start": 0.0})
    with pytest.raises(ValueError, match=said):
        check_rates(**right | wrong)


def test_settings_that_are_wrong_on_several_replicas_pass_on_one():
    settings = {"clipnorm": 1.0, "jit_compile": True, "momentum": 0.9}
    check_compile(replicas=1, **settings)
    check_compile(replicas=2, momentum=0.9, clipnorm=None, jit_compile="auto")
    with pytest.raises(ValueError, match="clipnorm: 1.0 on 2 replicas clips each .* train on one"):
        check_compile(replicas=2, **settings)
    with pytest.raises(ValueError, match="steps_per_execution: 4 .* leave it at 1"):
        check_compile(replicas=1, steps_per_execution=4)
