"""What GPUs ask of an input pipeline: published training speeds of ResNet-50, and arithmetic.

What they get is the lesser of this and of what the pipeline gives, which throughput.py measures.
"""

from typing import NamedTuple

GPUS = (1, 2, 4, 8)

# The 2018 recipe: 500,000 steps of 256 images in "~24 hours" on four V100s, and no faster on eight.
RECIPE_RATE = 500_000 * 256 / (24 * 3600)  # images/s


class Published(NamedTuple):
    gpu: str
    precision: str
    rates: dict[int, float]  # GPUs in one machine -> images/s over all of them
    source: str


NVIDIA = "NVIDIA/DeepLearningExamples 1d4211f"
READ_ME = "TensorFlow/Classification/ConvNets/resnet50v1.5/README.md"
DGX_1 = (
    "DGX-1, container tensorflow-19.05-py3: NVIDIA/DeepLearningExamples 0663b67, "
    "TensorFlow/Classification/RN50v1.5/README.md"
)
DGX_1_XLA = f"DGX-1, container tensorflow-20.06-tf1-py3, XLA: {NVIDIA}, {READ_ME}"
DGX_A100 = f"DGX A100, container tensorflow-20.06-tf1-py3, XLA: {NVIDIA}, {READ_ME}"
DGX_H100 = (
    "DGX H100, MLPerf Training 3.0, MXNet, median of epochs 23 to 35: "
    "mlcommons/training_results_v3.0 9f08e30, "
    "NVIDIA/results/dgxh100_ngc23.04_mxnet/resnet/result_0.txt (tracked_stats)"
)
# ResNet-50 v1.5 in training, 224 pixels. Mixed precision is float16 there; no rate in bfloat16, and
# none of an H100 in float32 or TF32, was found published.
PUBLISHED = (
    Published("V100 16 GB", "float32", {1: 364.9, 4: 1419.4, 8: 2778.5}, DGX_1),
    Published("V100 16 GB", "mixed", {1: 1270, 8: 9510}, DGX_1_XLA),
    Published("A100 40 GB", "TF32", {1: 909, 8: 7000}, DGX_A100),
    Published("A100 40 GB", "mixed", {1: 2375, 8: 17400}, DGX_A100),
    Published("H100 80 GB", "mixed", {8: 56056}, DGX_H100),
)


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


def table(rows):
    """Give the rows of `demand` as a Markdown table; a `*` marks a rate that is computed."""
    lines = ["| GPUs | images/s | cores | MB/s | fed by this machine |", "|---|--:|--:|--:|---|"]
    for row in rows:
        mark, fed = "" if row["published"] else "*", "yes" if row["fed"] else "no"
        lines.append(
            f"| {row['gpus']} {row['gpu']}, {row['precision']} "
            f"| {row['images_per_second']:,.0f}{mark} | {row['cores']:,.1f} "
            f"| {row['megabytes_per_second']:,.0f} | {fed} |"
        )
    return "\n".join(lines)


def images_per_second(rates, gpus):
    """Give the rate of `gpus` GPUs: published, or in proportion to the next smaller count's.

    Where no smaller one is published, in proportion to the smallest. Proportion flatters the GPUs,
    so an input that keeps up with it is enough.
    """
    nearest = max((count for count in rates if count <= gpus), default=min(rates))
    return rates[nearest] / nearest * gpus
