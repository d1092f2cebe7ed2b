"""Grad-CAM: where in an image the network sees a class."""

import keras
import numpy as np
import tensorflow as tf


def gradcam(model, pixels, class_number):
    """Show which parts of an image speak for a class: float32 [height, width] in [0, 1].

    `pixels` are what the network sees, [height, width, 3] in [0, 255], `class_number` counts from
    0. Grad-CAM (Selvaraju et al. 2017) adds up the last feature maps, each times the average
    gradient of the class's logit, and keeps what is positive. Behind an average pool and one dense
    layer, as in every ResNet-50 of the kit, that gradient is the layer's weight over the number of
    places (their section 3.1), so none need be computed. The largest value is 1, but in an image
    without any positive place, where all are 0.
    """
    features = keras.Model(model.input, model.get_layer("head_pool").input)
    maps = features(np.asarray(pixels)[np.newaxis], training=False)
    weights = model.get_layer("logits").kernel[:, class_number]
    heat = tf.nn.relu(tf.tensordot(tf.cast(maps, tf.float32), weights, 1))
    heat = tf.image.resize(heat[..., tf.newaxis], np.shape(pixels)[:2])[0, ..., 0].numpy()
    return heat / (heat.max() or 1)
