import pytest

from kit.training.checks import check_batch, check_precision, check_sizes


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
