"""What GPUs ask of an input pipeline, and what they get from it: published rates and arithmetic.

Nothing here measures; the measures come from kit/pipeline/throughput.py.
"""

import heapq
from typing import NamedTuple

GPUS = (1, 2, 4, 8)
INPUT = {  # the stages, each of which has those before it in it
    "read": "reading",
    "parse": "parsing",
    "decode": "cropping and decoding",
    "resize": "resizing and flipping",
    "input": "shuffling and batching",
}

# The recipe: 500,000 steps of 256 images in "~24 hours" on four V100s, and no faster on eight.
RECIPE_RATE = 500_000 * 256 / (24 * 3600)  # images/s


class Published(NamedTuple):
    gpu: str
    precision: str
    rates: dict[int, float]  # GPUs in one machine -> images/s over all of them
    source: str


NVIDIA = "NVIDIA/DeepLearningExamples"
MLPERF = "mlcommons/training_results_v3.0"
# ResNet-50 v1.5 in training, 224 pixels. Mixed precision is float16 there; no rate in bfloat16, and
# none of an H100 in float32 or TF32, was found published.
PUBLISHED = (
    Published(
        "V100 16 GB",
        "float32",
        {1: 364.9, 4: 1419.4, 8: 2778.5},
        f"DGX-1, container tensorflow-19.05-py3: {NVIDIA} 0663b67, "
        "TensorFlow/Classification/RN50v1.5/README.md",
    ),
    Published(
        "V100 16 GB",
        "mixed",
        {1: 1270, 8: 9510},
        f"DGX-1, container tensorflow-20.06-tf1-py3, XLA: {NVIDIA} 1d4211f, "
        "TensorFlow/Classification/ConvNets/resnet50v1.5/README.md",
    ),
    Published(
        "A100 40 GB",
        "TF32",
        {1: 909, 8: 7000},
        f"DGX A100, container tensorflow-20.06-tf1-py3, XLA: {NVIDIA} 1d4211f, "
        "TensorFlow/Classification/ConvNets/resnet50v1.5/README.md",
    ),
    Published(
        "A100 40 GB",
        "mixed",
        {1: 2375, 8: 17400},
        f"DGX A100, container tensorflow-20.06-tf1-py3, XLA: {NVIDIA} 1d4211f, "
        "TensorFlow/Classification/ConvNets/resnet50v1.5/README.md",
    ),
    Published(
        "H100 80 GB",
        "mixed",
        {8: 56056},
        f"DGX H100, MLPerf Training 3.0, MXNet, median of epochs 23 to 35: {MLPERF} 9f08e30, "
        "NVIDIA/results/dgxh100_ngc23.04_mxnet/resnet/result_0.txt (tracked_stats)",
    ),
)


def verdict(rates, *, input_bound):
    """Say which stage is the limit, and what each stage of INPUT adds to an image.

    `rates` maps the stages of INPUT, and "synthetic" (a step that never waits), to images/s;
    `input_bound` is whether training waits. Gives "limit", "milliseconds" (of each stage of INPUT,
    in sum those of the whole input) and "words".
    """
    ends = [0.0, *(1000 / rates[stage] for stage in INPUT)]
    milliseconds = {stage: ends[i + 1] - ends[i] for i, stage in enumerate(INPUT)}
    slowest = max(milliseconds, key=milliseconds.get)
    limit = INPUT[slowest] if input_bound else "the training step"
    words = (
        f"the limit is {limit}: the input takes {ends[-1]:.2f} ms an image, "
        f"{milliseconds[slowest] / ends[-1]:.0%} of it {INPUT[slowest]}; "
        f"a step that never waits {1000 / rates['synthetic']:.2f} ms"
    )
    return {"limit": limit, "milliseconds": milliseconds, "words": words}


def demand(*, supply, cores, bytes_per_image):
    """List what each published machine asks of this one: a dict per kind and number of GPUs.

    `supply` is what this machine's pipeline gives, images/s on `cores` cores. Each row has gpu,
    precision, gpus, images_per_second, published (False: as many times the nearest published rate
    per GPU), cores and megabytes_per_second (10^6 bytes of shards) that would feed it, and fed:
    whether this machine does. Cores are counted as if each gave as much as these do.
    """
    rows = []
    for machine in PUBLISHED:
        for gpus in GPUS:
            rate = images_per_second(machine.rates, gpus)
            rows.append(
                {
                    "gpu": machine.gpu,
                    "precision": machine.precision,
                    "gpus": gpus,
                    "images_per_second": rate,
                    "published": gpus in machine.rates,
                    "cores": rate * cores / supply,
                    "megabytes_per_second": rate * bytes_per_image / 1e6,
                    "fed": supply >= rate,
                }
            )
    return rows


def images_per_second(rates, gpus):
    """Give the rate of `gpus` GPUs: published, or in proportion to the next smaller count's.

    Where no smaller one is published, in proportion to the smallest. Proportion flatters the GPUs,
    so an input that keeps up with it is enough.
    """
    nearest = max((count for count in rates if count <= gpus), default=min(rates))
    return rates[nearest] / nearest * gpus


def remedies(*, supply, decoding):
    """List what each remedy makes of `supply` images/s: a dict each of remedy, rate, factor, kind.

    `decoding` is what throughput.decoding measured; what else an image takes stays as it is. More
    cores and machines are computed as if a second one gave as much as the first, which leaves out
    what tf.data service costs to send images over the network.
    """
    rest = max(1 / supply - 1 / decoding["original"], 0)  # seconds an image, beside its decoding
    rows = [
        ("twice the cores", 2 * supply, "computed"),
        ("a second machine, by tf.data service", 2 * supply, "computed"),
        ("images stored smaller", 1 / (rest + 1 / decoding["stored"]), "measured"),
        ("scaled decode", 1 / (rest + 1 / decoding["scaled"]), "measured"),
    ]
    return [
        {"remedy": name, "images_per_second": rate, "factor": rate / supply, "kind": kind}
        for name, rate, kind in rows
    ]


def simulate(*, consumers, step_seconds, batch_seconds, prefetch, batches=1000):
    """Simulate consumers that share a pipeline; give the batches per second that they get.

    A pipeline makes a batch every `batch_seconds`, one after the other, unless `prefetch` made ones
    wait to be taken. Each consumer takes the next batch as soon as there is one and is then busy
    for `step_seconds`. The first half of the batches, in which the queue settles, does not count.
    With constant times the answer is min(1 / batch_seconds, consumers / step_seconds).
    """
    free = [0.0] * consumers  # when each consumer is free again
    taken = []  # when each batch was taken
    made = 0.0
    for batch in range(batches):
        room = taken[batch - prefetch] if batch >= prefetch else 0.0
        made = max(made, room) + batch_seconds
        taken.append(max(made, heapq.heappop(free)))
        heapq.heappush(free, taken[-1] + step_seconds)
    counted = batches // 2 // consumers * consumers  # whole rounds
    return counted / (taken[-1] - taken[-1 - counted])


def knee(*, supply, batch_size, step_seconds, consumers, prefetch=2):
    """List what 1, 2, ... `consumers` get from a pipeline of `supply` images/s, in a simulation.

    A dict each of consumers, demand (images/s that they could take), and images_per_second.
    """
    return [
        {
            "consumers": count,
            "demand": count * batch_size / step_seconds,
            "images_per_second": batch_size
            * simulate(
                consumers=count,
                step_seconds=step_seconds,
                batch_seconds=batch_size / supply,
                prefetch=prefetch,
            ),
        }
        for count in range(1, consumers + 1)
    ]


def recipe_case():
    """List the recipe's runs on paper: 1 to 8 V100s in float32 at an input of RECIPE_RATE.

    As `knee`, with the demand that is published and batches of 64 a GPU (the recipe's on four).
    """
    rows = []
    for count in range(1, max(GPUS) + 1):
        rate = images_per_second(PUBLISHED[0].rates, count)
        got = 64 * simulate(
            consumers=count,
            step_seconds=64 * count / rate,
            batch_seconds=64 / RECIPE_RATE,
            prefetch=2,
        )
        rows.append({"consumers": count, "demand": rate, "images_per_second": got})
    return rows
