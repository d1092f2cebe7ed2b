"""The parameters of inference and export."""

from dataclasses import dataclass

from kit.sections import Section, all_of, at_least, path

FORMATS = ("saved_model", "onnx", "litert", "litert_int8")  # of kit.inference.formats


@dataclass(frozen=True)
class Inference(Section):
    """Which images are classified, and what is written of them."""

    photos: str = path()
    predictions: str = path()
    top_k: int = at_least(1, "take 5")


@dataclass(frozen=True)
class Export(Section):
    """Which formats of the model are written, and how their latency is measured."""

    exports: list = all_of(*FORMATS)
    calibration_images: int = at_least(0, "take 200")
    latency_runs: int = at_least(1, "take 200")

    def conflicts(self):
        if "litert_int8" in self.exports and not self.calibration_images:
            yield "calibration_images: 0 show litert_int8 no ranges; take 200"
