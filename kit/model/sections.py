"""The parameters of the network."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Initial(Section):
    """Where the weights come from."""

    initial_weights: str = path()
