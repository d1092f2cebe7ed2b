"""The callback that writes what TensorBoard shows of a training."""

import shutil
import time
from pathlib import Path

import keras
import tensorflow as tf

from kit.training.callbacks import input_bound

IMAGES = 4  # shown of an epoch's first batch
TAGS = {  # TensorBoard groups tags by what stands before the slash
    "loss": "loss/total",
    "cross_entropy": "loss/cross_entropy",
    "l2_loss": "loss/l2",
    "top1": "accuracy/top1",
    "top5": "accuracy/top5",
    "learning_rate": "step/learning_rate",
    "gradient_norm": "step/gradient_norm",
    "images_per_second": "speed/images_per_second",
    "input_wait": "speed/input_wait",
    "device_memory": "speed/device_memory_gib",
}


class TensorBoard(keras.callbacks.Callback):
    """Write run_dir/logs: the metrics, some training images, the parameters and the network.

    The axis of every tag counts epochs from 1, as the figures do: 1 after the first. A training
    that starts at its first step replaces the logs of an earlier one. A resumed one continues them,
    and TensorBoard forgets what was written of the epochs that are trained again. (Keras' callback
    of this name restarts the axis on resume, and draws no graph of a subclass of its functional
    model.)
    """

    def __init__(self, run_dir, *, parameters):
        super().__init__()
        self.logs_dir = Path(run_dir) / "logs"
        self.parameters = parameters
        self.writers = {}

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1
        if self.writers:
            return
        if not int(keras.ops.convert_to_numpy(self.model.optimizer.iterations)):
            shutil.rmtree(self.logs_dir, ignore_errors=True)
        for prefix, split in ("", "train"), ("val_", "validation"):
            self.writers[prefix] = tf.summary.create_file_writer(str(self.logs_dir / split))
            purge_from(self.epoch if epoch else 0, self.writers[prefix])
        if epoch == 0:
            with self.writers[""].as_default(step=0):
                tf.summary.text("parameters", table(self.parameters))
                tf.summary.graph(graph_of_layers(self.model))

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            images, _ = self.model.batch
            images = self.model.distribute_strategy.experimental_local_results(images)[0]
            with self.writers[""].as_default(step=self.epoch):
                tf.summary.image("augmented", images[:IMAGES], max_outputs=IMAGES)

    def on_epoch_end(self, epoch, logs=None):
        for prefix, writer in self.writers.items():
            with writer.as_default(step=epoch + 1):
                for name, value in logs.items():
                    if name.startswith("val_") == bool(prefix):
                        name = name.removeprefix(prefix)
                        tf.summary.scalar(TAGS.get(name, name), value)
        with self.writers[""].as_default(step=epoch + 1):
            tf.summary.text("input_bound", input_bound(logs["input_wait"]))
        for writer in self.writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self.writers.values():
            writer.close()
        self.writers = {}


def purge_from(epoch, writer):
    """Make TensorBoard drop what earlier writers in this folder logged from `epoch` on.

    TensorBoard's usual reader does so when a step comes again; its slower one, for platforms
    without a wheel of the other, only at the start of a session.
    """
    session = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    event = tf.compat.v1.Event(step=epoch, wall_time=time.time(), session_log=session)
    tf.raw_ops.ImportEvent(writer=writer._resource, event=event.SerializeToString())


def table(parameters):
    """Return the parameters as a Markdown table, in their order."""
    rows = [f"| {name} | `{value}` |" for name, value in parameters.items()]
    return "\n".join(["| parameter | value |", "|---|---|", *rows])


def graph_of_layers(model):
    """Return a functional model's layers as a GraphDef; stage1_block2_conv3: stage1/block2/conv3.

    TensorBoard folds nodes by what stands before a slash. The graph of operations that TensorFlow
    would write is nine times as large and folded into one box.
    """
    names = {
        id(layer.output): layer.name.replace("_", "/", 1 + layer.name.startswith("stage"))
        for layer in model.layers
    }
    graph = tf.compat.v1.GraphDef()
    for layer in model.layers:
        name = names[id(layer.output)]
        sources = [names[id(tensor)] for tensor in keras.tree.flatten(layer.input)]
        node = graph.node.add(name=name, op=type(layer).__name__)
        node.input.extend(source for source in sources if source != name)  # Input feeds itself
        shape = tf.TensorShape(layer.output.shape).as_proto()
        node.attr["_output_shapes"].list.shape.add().CopyFrom(shape)
    return graph
