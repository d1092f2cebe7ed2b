"""ResNet-50 as a Keras functional graph, in the three forms people mean by that name.

"1"    He et al. 2015, Deep Residual Learning for Image Recognition: stride on the first 1x1.
"1.5"  stride on the 3x3 instead: TensorFlow's official "v1", NVIDIA's, torchvision's. +0.5 % top-1.
"2"    He et al. 2016, Identity Mappings in Deep Residual Networks: pre-activation.
"""

from functools import partial

import keras

VERSIONS = ("1", "1.5", "2")
BATCH_NORMS = ("per_replica", "synchronized")
UNDECAYED = ("norm", "bias")  # what weight decay may leave out
EXPANSION = 4  # a bottleneck's last 1x1 has four times the filters of its 3x3


def resnet50(
    *,
    classes,
    version,
    stage_sizes,
    channel_means,
    batch_norm,
    batch_norm_momentum,
    batch_norm_epsilon,
    zero_gamma,
    blur_pool,
    drop_path,
    weight_decay,
    weight_decay_skips,
    width=64,
):
    """Build the network: pixels [batch, height, width, 3] -> logits [batch, classes].

    Pixels are RGB in [0, 255], uint8 or float: the means are subtracted inside the graph, so that
    an exported model needs no preprocessing but the resize. Logits are float32 under every dtype
    policy. `stage_sizes` counts the blocks of each stage. `batch_norm` names the images of a step
    over which a channel is normalised: those of each replica, or of all. `weight_decay` counts as
    in TensorFlow's `l2_loss`: times half the squared sum of each kernel, and of what else
    `weight_decay_skips` ("norm", "bias") does not leave out. A smaller `width` makes the same
    network for tests. For `blur_pool` see `blur`, for `drop_path` see `drop_rates`.

    Raises ValueError for what makes no network.
    """
    check_rules(
        version=version,
        stage_sizes=stage_sizes,
        channel_means=channel_means,
        batch_norm=batch_norm,
        batch_norm_momentum=batch_norm_momentum,
        batch_norm_epsilon=batch_norm_epsilon,
        zero_gamma=zero_gamma,
        drop_path=drop_path,
        weight_decay_skips=weight_decay_skips,
    )
    decay, decays = decays_of(weight_decay, weight_decay_skips)
    conv = partial(convolution, decay=decay)
    numbers = {"momentum": batch_norm_momentum, "epsilon": batch_norm_epsilon}
    together = {"synchronized": batch_norm == "synchronized"}
    norm = partial(batch_normalization, **numbers, **together, decay=decays["norm"])
    images = keras.Input((None, None, 3), name="images")
    x = subtract_means(images, channel_means)
    x = stem(x, width, conv, norm, activate=version != "2")
    block = block_of(version, zero_gamma, conv=partial(conv, blur_pool=blur_pool), norm=norm)
    for stage, rates in enumerate(drop_rates(stage_sizes, drop_path), start=1):
        x = residual_stage(x, stage, rates, width, block)
    if version == "2":
        x = norm(x, name="head_norm")
        x = relu(x, name="head_relu")
    logits = head(x, classes, decay, decays["bias"])
    return keras.Model(images, logits, name=f"resnet50_v{version.replace('.', '_')}")


def check_rules(
    *,
    version,
    stage_sizes,
    channel_means,
    batch_norm,
    batch_norm_momentum,
    batch_norm_epsilon,
    zero_gamma,
    drop_path,
    weight_decay_skips,
):
    """Raise ValueError unless these make a network together."""
    if version not in VERSIONS:
        raise ValueError(f'version: "{version}" is not one of {", ".join(VERSIONS)}')
    if not stage_sizes or any(type(blocks) is not int or blocks < 1 for blocks in stage_sizes):
        raise ValueError(f"stage_sizes: {stage_sizes} are no blocks of each stage; [3, 4, 6, 3]?")
    if len(channel_means) != 3:
        raise ValueError(f"channel_means: {channel_means} are not three; name those of R, G and B")
    if batch_norm not in BATCH_NORMS:
        raise ValueError(f'batch_norm: "{batch_norm}" is not one of {", ".join(BATCH_NORMS)}')
    if not 0 <= batch_norm_momentum < 1:
        raise ValueError(
            f"batch_norm_momentum: {batch_norm_momentum} is no share from 0 to below 1; take 0.9"
        )
    if not batch_norm_epsilon > 0:
        raise ValueError(f"batch_norm_epsilon: {batch_norm_epsilon} is not above 0; take 1.0e-5")
    if version == "2" and zero_gamma:
        raise ValueError(
            "zero_gamma: true has no meaning in version 2, whose branches end in a convolution"
        )
    if not 0 <= drop_path < 1:
        raise ValueError(f"drop_path: {drop_path} is no chance; take one from 0 to below 1")
    for kind in weight_decay_skips:
        if kind not in UNDECAYED:
            raise ValueError(f'weight_decay_skips: "{kind}" is not one of {", ".join(UNDECAYED)}')


def block_of(version, zero_gamma, **layers):
    """Give the function that applies one block of that version."""
    if version == "2":
        return partial(preactivation_bottleneck, **layers)
    strided = "conv1" if version == "1" else "conv2"
    return partial(bottleneck, stride_on=strided, zero_gamma=zero_gamma, **layers)


def drop_rates(stage_sizes, drop_path):
    """List for each stage, by block, the chance that training skips its branch for an image.

    It rises in equal steps from 0 at the first block to `drop_path` at the last, as in timm; Huang
    et al. 2016, Deep Networks with Stochastic Depth, section 3, let it start a step higher.
    """
    steps = max(1, sum(stage_sizes) - 1)
    rates = iter([drop_path * number / steps for number in range(sum(stage_sizes))])
    return [[next(rates) for _ in range(blocks)] for blocks in stage_sizes]


def residual_stage(x, stage, drop_rates, width, block):
    """Apply a block for each rate; each stage but the first, counted from 1, halves the sides."""
    for number, drop_rate in enumerate(drop_rates, start=1):
        x = block(
            x,
            filters=width * 2 ** (stage - 1),
            strides=2 if stage > 1 and number == 1 else 1,
            project=number == 1,
            drop_rate=drop_rate,
            name=f"stage{stage}_block{number}",
        )
    return x


def convolution(x, filters, kernel_size, *, strides=1, decay, blur_pool=False, name):
    """Convolve without bias, padded evenly on all sides, as the papers and PyTorch do.

    TensorFlow's "same" pads a strided convolution only at the bottom and the right.
    """
    if blur_pool and strides > 1:
        x = blur(x, name=f"{name}_blur")
    if strides > 1 and kernel_size > 1:
        x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=decay,
        name=name,
    )(x)


def blur(x, *, name):
    """Blur each channel with [1, 2, 1] / 4 along both sides, on zeros beyond the edge.

    Two means of 2x2 make that kernel. FFCV blurs so before each strided convolution but the
    stem's (BlurPoolConv2d of its train_imagenet.py, after Zhang 2019, Making Convolutional
    Networks Shift-Invariant Again).
    """
    x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    for number in (1, 2):
        x = keras.layers.AveragePooling2D(2, 1, name=f"{name}{number}")(x)
    return x


def batch_normalization(x, *, momentum, epsilon, synchronized, decay, gamma="ones", name):
    """Normalise each channel."""
    return keras.layers.BatchNormalization(
        momentum=momentum,
        epsilon=epsilon,
        gamma_initializer=gamma,
        gamma_regularizer=decay,
        beta_regularizer=decay,
        synchronized=synchronized,
        name=name,
    )(x)


def add(shortcut, branch, *, drop_rate, name):
    """Add a block's branch to its shortcut; in training, skip it for some images.

    The other images' branches are scaled up, so that the expected sum stays.
    """
    if drop_rate:
        branch = keras.layers.Dropout(drop_rate, (None, 1, 1, 1), name=f"{name}_drop")(branch)
    return keras.layers.Add(name=f"{name}_add")([shortcut, branch])


def relu(x, *, name):
    return keras.layers.ReLU(name=name)(x)


def decays_of(weight_decay, weight_decay_skips):
    """Give the regularizer of kernels, and by kind that of what is not one, or None."""
    decay = l2(weight_decay)
    return decay, {kind: None if kind in weight_decay_skips else decay for kind in UNDECAYED}


def l2(weight_decay):
    """Give TensorFlow's `weight_decay * l2_loss`, half the squared sum: Keras' own has no half."""
    return keras.regularizers.L2(weight_decay / 2) if weight_decay else None


def subtract_means(images, channel_means):
    """Subtract the channels' means in float32: bfloat16 would round them to whole pixel values."""
    offset = [-mean for mean in channel_means]
    return keras.layers.Rescaling(1.0, offset, dtype="float32", name="subtract_means")(images)


def stem(x, width, conv, norm, *, activate):
    """Bring height and width to a quarter: 7x7 stride 2, then max-pool 3x3 stride 2."""
    x = conv(x, width, 7, strides=2, name="stem_conv")
    if activate:
        x = norm(x, name="stem_norm")
        x = relu(x, name="stem_relu")
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)


def bottleneck(x, *, filters, strides, project, drop_rate, conv, norm, stride_on, zero_gamma, name):
    """Apply 1x1, 3x3, 1x1, add the shortcut, then ReLU (He et al. 2015, figure 5, right)."""
    shortcut = x
    if project:
        shortcut = conv(x, EXPANSION * filters, 1, strides=strides, name=f"{name}_shortcut_conv")
        shortcut = norm(shortcut, name=f"{name}_shortcut_norm")
    x = conv(x, filters, 1, strides=strides if stride_on == "conv1" else 1, name=f"{name}_conv1")
    x = norm(x, name=f"{name}_norm1")
    x = relu(x, name=f"{name}_relu1")
    x = conv(x, filters, 3, strides=strides if stride_on == "conv2" else 1, name=f"{name}_conv2")
    x = norm(x, name=f"{name}_norm2")
    x = relu(x, name=f"{name}_relu2")
    x = conv(x, EXPANSION * filters, 1, name=f"{name}_conv3")
    # a zero gamma makes the block start as its shortcut (Goyal et al. 2017, section 5.1)
    x = norm(x, gamma="zeros" if zero_gamma else "ones", name=f"{name}_norm3")
    x = add(shortcut, x, drop_rate=drop_rate, name=name)
    return relu(x, name=f"{name}_relu3")


def preactivation_bottleneck(x, *, filters, strides, project, drop_rate, conv, norm, name):
    """Normalise and activate before each convolution, nothing after the sum (He et al. 2016)."""
    shortcut = x
    x = norm(x, name=f"{name}_norm1")
    x = relu(x, name=f"{name}_relu1")
    if project:
        shortcut = conv(x, EXPANSION * filters, 1, strides=strides, name=f"{name}_shortcut_conv")
    x = conv(x, filters, 1, name=f"{name}_conv1")
    x = norm(x, name=f"{name}_norm2")
    x = relu(x, name=f"{name}_relu2")
    x = conv(x, filters, 3, strides=strides, name=f"{name}_conv2")
    x = norm(x, name=f"{name}_norm3")
    x = relu(x, name=f"{name}_relu3")
    x = conv(x, EXPANSION * filters, 1, name=f"{name}_conv3")
    return add(shortcut, x, drop_rate=drop_rate, name=name)


def head(x, classes, decay, bias_decay):
    """Average over the image and classify, both in float32."""
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="head_pool")(x)
    return keras.layers.Dense(
        classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        kernel_regularizer=decay,
        bias_regularizer=bias_decay,
        dtype="float32",
        name="logits",
    )(x)
