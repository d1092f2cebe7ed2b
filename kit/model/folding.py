"""The network as it is deployed: batch norm inside the convolutions, probabilities out."""

from functools import partial

import keras
import numpy as np

# what only training needs: dropping a path or a feature does nothing outside it
TRAINING_ONLY = (keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.GaussianNoise)


def deployable(model, *, image_size):
    """Build from a network of logits the one that is exported, in float32 with the same weights.

    Pixels uint8 [batch, image_size, image_size, 3], named "images" -> "probabilities" float32
    [batch, classes], each row summing to 1. A batch norm that alone follows a convolution is folded
    into it: one pass less over the activations, for runtimes that do not do so themselves. The
    others (before a convolution, in version "2") stay. A model of another precision comes out in
    float32.
    """
    folded = foldable(model)
    inside = {convolution: norm for norm, convolution in folded.items()}
    pixels = keras.Input((image_size, image_size, 3), dtype="uint8", name="images")
    network = keras.models.clone_model(
        model,
        input_tensors=pixels,
        clone_function=partial(float32_layer, biased=inside),
        call_function=partial(call_unless, skipped=folded),
    )
    for layer in network.layers:
        if layer.name in inside:
            norm = model.get_layer(inside[layer.name])
            layer.set_weights(folded_weights(model.get_layer(layer.name), norm))
        elif layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    probabilities = keras.layers.Softmax(name="probabilities", dtype="float32")(network.output)
    return keras.Model(pixels, probabilities, name=model.name)


def in_float32(model):
    """Build the same network, with the same weights, of float32 layers alone."""
    network = keras.models.clone_model(model, clone_function=float32_layer)
    network.set_weights(model.get_weights())
    return network


def foldable(model):
    """Map each batch norm that can be folded to its convolution, by name.

    Nothing may come between the two, and nobody else may read what is between them.
    """
    found = {}
    read = {output._keras_history.operation for output in model.outputs}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            before = layer.input._keras_history.operation
            if (
                type(before) is keras.layers.Conv2D
                and before.activation is keras.activations.linear
                and len(before._outbound_nodes) == 1
                and before not in read
            ):
                found[layer.name] = before.name
    return found


def folded_weights(convolution, norm):
    """Give kernel and bias of the convolution with the batch norm after it, as in evaluation.

    gamma (Wx + b - mean) / sqrt(variance + epsilon) + beta, computed in float64.
    """
    kernel, *bias = (np.asarray(weight, "float64") for weight in convolution.get_weights())
    mean, variance = (np.asarray(w, "float64") for w in (norm.moving_mean, norm.moving_variance))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    shift = -mean
    if bias:
        shift = shift + bias[0]
    if norm.scale:
        scale = scale * np.asarray(norm.gamma, "float64")
    shift = shift * scale
    if norm.center:
        shift = shift + np.asarray(norm.beta, "float64")
    return [kernel * scale, shift]


def float32_layer(layer, *, biased=()):
    """Give the layer anew: float32, not regularized, with a bias if in `biased`; no weights yet."""
    config = layer.get_config() | {"dtype": "float32"}
    config |= {name: None for name in config if name.endswith("_regularizer")}
    if layer.name in biased:
        config["use_bias"] = True
    return type(layer).from_config(config)


def call_unless(layer, *inputs, skipped, **options):
    """Call the layer, or hand on its input where it is folded or only for training."""
    if layer.name in skipped or isinstance(layer, TRAINING_ONLY):
        return inputs[0]
    return layer(*inputs, **options)
