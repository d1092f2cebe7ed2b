"""ResNet-50 as a Keras functional graph, in the three forms people mean by that name.

"1"    He et al. 2015, Deep Residual Learning for Image Recognition: stride on the first 1x1.
"1.5"  stride on the 3x3 instead: TensorFlow's official "v1", NVIDIA's, torchvision's. +0.5 % top-1.
"2"    He et al. 2016, Identity Mappings in Deep Residual Networks: pre-activation.
"""

from functools import partial

import keras

VERSIONS = ("1", "1.5", "2")
BATCH_NORMS = ("per_replica", "synchronized")
EXPANSION = 4  # a bottleneck's last 1x1 has four times the filters of its 3x3


def resnet50(
    *,
    classes,
    version,
    channel_means,
    batch_norm,
    batch_norm_momentum,
    batch_norm_epsilon,
    zero_gamma,
    weight_decay,
    width=64,
    stage_sizes=(3, 4, 6, 3),
):
    """Build the network: pixels [batch, height, width, 3] -> logits [batch, classes].

    Pixels are RGB in [0, 255]. The means are subtracted inside the graph, so that pixels may come
    as uint8 and an exported model needs no preprocessing but the resize. Logits are float32 under
    every dtype policy. `weight_decay` counts as in TensorFlow's `l2_loss`: times half the squared
    sum of each convolution and dense kernel, and of nothing else. `batch_norm` names the images
    of a step over which a channel is normalised: those of each replica, or of all. Smaller
    `width` and `stage_sizes` make the same network for tests.

    Raises ValueError for an unknown version or rule of batch norm, or for `zero_gamma` in version
    "2", whose branches end in a convolution.
    """
    check_rules(version=version, batch_norm=batch_norm, zero_gamma=zero_gamma)
    conv = partial(convolution, weight_decay=weight_decay)
    norm = partial(
        batch_normalization,
        momentum=batch_norm_momentum,
        epsilon=batch_norm_epsilon,
        synchronized=batch_norm == "synchronized",
    )
    block = {
        "1": partial(bottleneck, stride_on="conv1", zero_gamma=zero_gamma),
        "1.5": partial(bottleneck, stride_on="conv2", zero_gamma=zero_gamma),
        "2": preactivation_bottleneck,
    }[version]

    images = keras.Input((None, None, 3), name="images")
    # float32: bfloat16 would round the means to whole pixel values
    x = keras.layers.Rescaling(
        1.0, [-mean for mean in channel_means], dtype="float32", name="subtract_means"
    )(images)
    x = stem(x, width, conv, norm, activate=version != "2")
    for stage, blocks in enumerate(stage_sizes, start=1):
        x = residual_stage(x, stage, blocks, width, partial(block, conv=conv, norm=norm))
    if version == "2":
        x = norm(x, name="head_norm")
        x = relu(x, name="head_relu")
    logits = head(x, classes, weight_decay)
    return keras.Model(images, logits, name=f"resnet50_v{version.replace('.', '_')}")


def check_rules(*, version, batch_norm, zero_gamma):
    """Raise ValueError unless these make a network together."""
    if version not in VERSIONS:
        raise ValueError(f'version: "{version}" is not one of {", ".join(VERSIONS)}')
    if batch_norm not in BATCH_NORMS:
        raise ValueError(f'batch_norm: "{batch_norm}" is not one of {", ".join(BATCH_NORMS)}')
    if version == "2" and zero_gamma:
        raise ValueError(
            "zero_gamma: true has no meaning in version 2, whose branches end in a convolution"
        )


def residual_stage(x, stage, blocks, width, block):
    """Apply the blocks of a stage, counted from 1; all but the first halve height and width."""
    for number in range(1, blocks + 1):
        x = block(
            x,
            filters=width * 2 ** (stage - 1),
            strides=2 if stage > 1 and number == 1 else 1,
            project=number == 1,
            name=f"stage{stage}_block{number}",
        )
    return x


def convolution(x, filters, kernel_size, *, strides=1, weight_decay, name):
    """Convolve without bias, padded evenly on all sides, as the papers and PyTorch do.

    TensorFlow's "same" pads a strided convolution only at the bottom and the right.
    """
    if strides > 1 and kernel_size > 1:
        x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=l2(weight_decay),
        name=name,
    )(x)


def batch_normalization(x, *, momentum, epsilon, synchronized, gamma="ones", name):
    """Normalise each channel; its scale and shift carry no weight decay."""
    return keras.layers.BatchNormalization(
        momentum=momentum,
        epsilon=epsilon,
        gamma_initializer=gamma,
        synchronized=synchronized,
        name=name,
    )(x)


def relu(x, *, name):
    return keras.layers.ReLU(name=name)(x)


def l2(weight_decay):
    """Give TensorFlow's `weight_decay * l2_loss`, half the squared sum: Keras' own has no half."""
    return keras.regularizers.L2(weight_decay / 2) if weight_decay else None


def stem(x, width, conv, norm, *, activate):
    """Bring height and width to a quarter: 7x7 stride 2, then max-pool 3x3 stride 2."""
    x = conv(x, width, 7, strides=2, name="stem_conv")
    if activate:
        x = norm(x, name="stem_norm")
        x = relu(x, name="stem_relu")
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)


def bottleneck(x, *, filters, strides, project, conv, norm, stride_on, zero_gamma, name):
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
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return relu(x, name=f"{name}_relu3")


def preactivation_bottleneck(x, *, filters, strides, project, conv, norm, name):
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
    return keras.layers.Add(name=f"{name}_add")([shortcut, x])


def head(x, classes, weight_decay):
    """Average over the image and classify, both in float32."""
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="head_pool")(x)
    return keras.layers.Dense(
        classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        kernel_regularizer=l2(weight_decay),
        dtype="float32",
        name="logits",
    )(x)
