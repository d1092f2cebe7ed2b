"""The parameters of the network and of where its weights come from."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kit.sections import Section, all_of, below, free, limited, one_of, path

UNDECAYED = ("norm", "bias")  # what weight decay may leave out


def blocks(value) -> str:
    if value and all(type(count) is int and count > 0 for count in value):
        return ""
    return f"{value} are no blocks of each stage; [3, 4, 6, 3]?"


@dataclass(frozen=True)
class Network(Section):
    """The form of the network."""

    resnet_version: str = one_of("1", "1.5", "2")
    stage_sizes: list = limited(blocks)
    channel_means: list = limited(
        lambda value: "" if len(value) == 3 else f"{value} are not three: those of R, G and B"
    )
    batch_norm: str = one_of("per_replica", "synchronized")
    batch_norm_momentum: float = below(1, "take 0.9")
    batch_norm_epsilon: float = limited(
        lambda value: "" if value > 0 else f"{value} is not above 0; take 1.0e-5"
    )
    zero_gamma: bool = free()
    blur_pool: bool = free()
    drop_path: float = below(1, "take 0.05")

    @property
    def synchronized(self) -> bool:
        """Whether batch norm normalises over the images of all replicas."""
        return self.batch_norm == "synchronized"

    def conflicts(self):
        if self.resnet_version == "2" and self.zero_gamma:
            yield (
                "zero_gamma: true has no meaning in resnet_version 2, whose branches end in a "
                "convolution; take false"
            )


@dataclass(frozen=True)
class WeightDecay(Section):
    """How strongly weights are pulled to zero, and which of them are not."""

    weight_decay: float = below(1, "take 1.0e-4")
    weight_decay_skips: list = all_of(*UNDECAYED)


PYTORCH_MEANS = (123.675, 116.28, 103.53)  # torchvision/transforms/_presets.py, times 255
CAFFE_MEANS = (123.68, 116.779, 103.939)  # keras/src/applications/imagenet_utils.py, mode "caffe"
FROZEN = (
    "none",
    "stage1",
    "stage2",
    "stage3",
    "body",
)  # all before it, too; body: to the last layer
WEIGHT_FILES = (".keras", ".h5", ".safetensors", ".pth")


class Pretrained(NamedTuple):
    """Weights for ImageNet's 1,000 classes that are fetched by their name."""

    url: str
    resize_side: int  # pixels, before the centre crop of 224, for which
    top1: float  # is published, in per cent,
    top1_at_288: float | None = None  # and this for a crop of 288
    md5: str = ""
    resnet_version: str = "1.5"
    channel_means: tuple = PYTORCH_MEANS
    licence: str = "Apache-2.0"

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def digest(self) -> str:
        """The MD5, or the first digits of the SHA-256, which PyTorch's names end in (torch.hub)."""
        return self.md5 or re.search(r"-([0-9a-f]{8,})\.", self.file)[1]

    @property
    def resize(self) -> tuple[int, bool]:
        """How they were scored: the short side, and whether a resize averages over what it skips.

        torchvision and timm read images by Pillow, Keras by TensorFlow.
        """
        return self.resize_side, self.channel_means == PYTORCH_MEANS

    @property
    def wanted(self) -> dict:
        """The values of the network's parameters that these weights are for."""
        return {
            "resnet_version": self.resnet_version,
            "channel_means": list(self.channel_means),
            "stage_sizes": [3, 4, 6, 3],
            "blur_pool": False,
        }

    def suggested(self, image_size: int) -> dict:
        """The values of parameters that nobody has set; 288 pixels are scored where published."""
        larger = self.top1_at_288 and image_size == 224
        return self.wanted | ({"test_sizes": [288]} if larger else {})


RSB, WEIGHTS = "v0.1-rsb-weights", "v0.1-weights"  # timm's releases


def timm(release: str, file: str, *published) -> Pretrained:
    url = "https://github.com/huggingface/pytorch-image-models/releases/download"
    return Pretrained(f"{url}/{release}/{file}.pth", *published)


# URLs and hashes: torchvision 0.28 (models/resnet.py), Keras 3.15 (applications/resnet.py) and timm
# 1.0.31 (models/resnet.py), which names the files on GitHub that its model cards describe.
# Accuracies: torchvision's and Keras' own; timm's table in the cards of its ResNets, of bicubic
# crops, those of 288 pixels mostly of the whole short side. Licences: as those packages state them;
# Keras' file comes from the ResNet-50 of He et al. in Caffe, MIT.
PRETRAINED = {
    "torchvision_v1": Pretrained(
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        *(256, 76.130),
        licence="BSD-3-Clause",
    ),
    "torchvision_v2": Pretrained(
        "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
        *(232, 80.858),
        licence="BSD-3-Clause",
    ),
    "keras": Pretrained(
        "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
        "resnet50_weights_tf_dim_ordering_tf_kernels.h5",
        *(256, 74.9),
        md5="2cb95161c43110f7111970584f804107",
        resnet_version="1",
        channel_means=CAFFE_MEANS,
        licence="MIT",
    ),
    "timm/resnet50.a1_in1k": timm(RSB, "resnet50_a1_0-14fe96d1", 235, 80.38, 81.22),
    "timm/resnet50.a1h_in1k": timm(RSB, "resnet50_a1h2_176-001a1197", 224, 80.68),
    "timm/resnet50.a2_in1k": timm(RSB, "resnet50_a2_0-a2746f79", 235, 79.85, 80.78),
    "timm/resnet50.a3_in1k": timm(RSB, "resnet50_a3_0-59cae1ef", 235, 78.06),
    "timm/resnet50.b1k_in1k": timm(RSB, "resnet50_b1k-532a802a", 235, 79.52, 80.71),
    "timm/resnet50.b2k_in1k": timm(RSB, "resnet50_b2k-1ba180c1", 235, 79.38, 80.45),
    "timm/resnet50.c1_in1k": timm(RSB, "resnet50_c1-5ba5e060", 235, 79.74, 80.91),
    "timm/resnet50.c2_in1k": timm(RSB, "resnet50_c2-d01e05b2", 235, 79.88, 80.86),
    "timm/resnet50.d_in1k": timm(RSB, "resnet50_d-f39db8af", 235, 79.91, 80.97),
    "timm/resnet50.ram_in1k": timm(WEIGHTS, "resnet50_ram-a26f946b", 256, 79.03, 79.97),
    "timm/resnet50.am_in1k": timm(WEIGHTS, "resnet50_am-6c502b37", 256, 79.01),
    "timm/resnet50.ra_in1k": timm(WEIGHTS, "resnet50_ra-85ebb6e5", 256, 78.81, 79.83),
    "timm/resnet50.bt_in1k": timm(WEIGHTS, "rw_resnet50-86acaeed", 256, 78.46, 79.63),
}


def is_weights_file(value: str) -> bool:
    """Tell whether initial_weights is a file's path, and not a name of PRETRAINED."""
    return value not in PRETRAINED and Path(value).suffix in WEIGHT_FILES


def weights_or_file(value: str) -> str:
    if not value or value in PRETRAINED or is_weights_file(value):
        return ""
    close = [name for name in PRETRAINED if value in name]
    close = close or difflib.get_close_matches(value, PRETRAINED, n=3) or PRETRAINED
    return (
        f'"{value}" is no file of {", ".join(WEIGHT_FILES)} and no name of weights; '
        f"did you mean {', '.join(close)}?"
    )


@dataclass(frozen=True)
class Initial(Section):
    """Where the weights come from."""

    initial_weights: str = path(weights_or_file, is_weights_file)
    freeze: str = one_of(*FROZEN)

    def conflicts(self):
        if self.freeze != "none" and not self.initial_weights:
            yield (
                f"freeze: {self.freeze} would leave random weights as they are; take none, or give "
                "initial_weights"
            )

    @property
    def wanted(self) -> dict:
        """The parameters that weights with a name decide, and their values."""
        return PRETRAINED[self.initial_weights].wanted if self.named else {}

    @property
    def named(self) -> bool:
        return self.initial_weights in PRETRAINED
