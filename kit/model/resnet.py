"""ResNet-50 as a Keras functional graph, in the three forms people mean by that name.

"1"    He et al. 2015, Deep Residual Learning for Image Recognition: stride on the first 1x1.
"1.5"  stride on the 3x3 instead: TensorFlow's official "v1", NVIDIA's, torchvision's. +0.5 % top-1.
"2"    He et al. 2016, Identity Mappings in Deep Residual Networks: pre-activation.
"""

from functools import partial

import keras

from kit.model.sections import UNDECAYED

EXPANSION = 4  # a bottleneck's last 1x1 has four times the filters of its 3x3


def resnet50(network, *, classes, decay=None, width=64):
    """Build the network: pixels [batch, height, width, 3] -> logits [batch, classes].

    `network` is the section Network. Pixels are RGB in [0, 255], uint8 or float: the means are
    subtracted inside the graph, so that an exported model needs no preprocessing but the resize.
    Logits are float32 under every dtype policy. `stage_sizes` counts the blocks of each stage.
    `batch_norm` names the images of a step over which a channel is normalised: those of each
    replica, or of all. `decay`, the section WeightDecay, adds an L2 loss as TensorFlow's `l2_loss`
    counts it: half the sum of a kernel's squares, and of what else `weight_decay_skips` does not
    leave out. A smaller `width` makes the same network for tests. For `blur_pool` see `blur`, for
    `drop_path` see `drop_rates`.
    """
    regularizers = l2_regularizers(decay)
    conv = partial(convolution, decay=regularizers["kernel"])
    norm = partial(batch_normalization, network=network, decay=regularizers["norm"])
    images = keras.Input((None, None, 3), name="images")
    x = subtract_means(images, network.channel_means)
    preactivated = network.resnet_version == "2"
    x = stem(x, width, conv, norm, activate=not preactivated)
    block = block_of(network, conv=partial(conv, blur_pool=network.blur_pool), norm=norm)
    rates = drop_rates(network.stage_sizes, network.drop_path)
    for stage, stage_rates in enumerate(rates, start=1):
        x = residual_stage(x, stage, stage_rates, width, block)
    if preactivated:
        x = norm(x, name="head_norm")
        x = relu(x, name="head_relu")
    logits = head(x, classes, regularizers)
    version = network.resnet_version.replace(".", "_")
    return keras.Model(images, logits, name=f"resnet50_v{version}")


def block_of(network, **layers):
    """Give the function that applies one block of the network's version."""
    if network.resnet_version == "2":
        return partial(preactivation_bottleneck, **layers)
    strided = "conv1" if network.resnet_version == "1" else "conv2"
    return partial(bottleneck, stride_on=strided, zero_gamma=network.zero_gamma, **layers)


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


def batch_normalization(x, *, network, decay, gamma="ones", name):
    """Normalise each channel."""
    return keras.layers.BatchNormalization(
        momentum=network.batch_norm_momentum,
        epsilon=network.batch_norm_epsilon,
        gamma_initializer=gamma,
        gamma_regularizer=decay,
        beta_regularizer=decay,
        synchronized=network.synchronized,
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


def l2_regularizers(decay):
    """Give the regularizer of kernels, "kernel", and of "norm" and "bias", or None."""
    if decay is None or not decay.weight_decay:
        return dict.fromkeys(("kernel", *UNDECAYED))
    l2 = half_l2(decay.weight_decay)
    skipped = decay.weight_decay_skips
    return {"kernel": l2} | {kind: None if kind in skipped else l2 for kind in UNDECAYED}


def half_l2(weight_decay):
    """Give TensorFlow's `weight_decay * l2_loss`, half the squared sum: Keras' own has no half."""
    return keras.regularizers.L2(weight_decay / 2)


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


def head(x, classes, regularizers):
    """Average over the image and classify, both in float32."""
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="head_pool")(x)
    return keras.layers.Dense(
        classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        kernel_regularizer=regularizers["kernel"],
        bias_regularizer=regularizers["bias"],
        dtype="float32",
        name="logits",
    )(x)
