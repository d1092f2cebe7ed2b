import pytest

from kit.training.checks import (
    check_bands,
    check_batch,
    check_compile,
    check_precision,
    check_sizes,
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


def test_the_crop_must_fit_into_the_resized_image():
    check_sizes(image_size=224, resize_side=224)
    with pytest.raises(ValueError, match="image_size: 64 is larger than .* 36; .* about 73"):
        check_sizes(image_size=64, resize_side=36)
    with pytest.raises(ValueError, match="image_size: 16 .* take 32 or more"):
        check_sizes(image_size=16, resize_side=18)


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


def test_settings_that_are_wrong_on_several_replicas_pass_on_one():
    settings = {"clipnorm": 1.0, "jit_compile": True, "momentum": 0.9}
    check_compile(replicas=1, **settings)
    check_compile(replicas=2, momentum=0.9, clipnorm=None, jit_compile="auto")
    with pytest.raises(ValueError, match="clipnorm: 1.0 on 2 replicas clips each .* train on one"):
        check_compile(replicas=2, **settings)
    with pytest.raises(ValueError, match="steps_per_execution: 4 .* leave it at 1"):
        check_compile(replicas=1, steps_per_execution=4)
