"""Published weights against torchvision's own evaluation, image by image.

Torchvision reads and resizes files by Pillow. Its ResNet-50 of random weights goes into a file as
its published ones do, and through `make check-pretrained`: preparation, evaluation, export.
"""

import numpy as np
import pytest
from PIL import Image

from kit.evaluation import predictions
from kit.model import pretrained
from kit.model.sections import PRETRAINED
from kit.pipeline import preprocessing
from kit.pipeline.dataset import encoded_examples
from kit.prep.demo import PHOTOGRAPHS
from tests import check_pretrained, pytorch

pytestmark = pytest.mark.slow

NAME = "torchvision_v1"
IMAGES, BATCH = 60, 20
SIZE = {"image_size": 224, "resize_side": 256}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Views of scikit-image's photographs, as JPEGs of the usual qualities."""
    data, folder = pytest.importorskip("skimage.data"), tmp_path_factory.mktemp("photos")
    whole = [Image.fromarray(getattr(data, p.function)()).convert("RGB") for p in PHOTOGRAPHS]
    for number in range(IMAGES):
        rng, picture = np.random.default_rng(number), whole[number % len(whole)]
        sides = np.minimum(rng.integers(256, 513, size=2), picture.size)
        corner = rng.integers(0, picture.size - sides + 1)
        how = {"quality": int(rng.integers(75, 96)), "subsampling": int(rng.choice([0, 2]))}
        picture.crop((*corner, *corner + sides)).save(folder / f"{number:02}.JPEG", **how)
    return sorted(folder.iterdir())


def kits_pixels(file):
    return preprocessing.evaluation_image(file.read_bytes(), antialias=True, **SIZE).numpy()


def torchvisions_pixels(file):
    transforms = pytorch.torchvision().transforms
    resized = transforms.Resize(SIZE["resize_side"])(Image.open(file).convert("RGB"))
    return np.asarray(transforms.CenterCrop(SIZE["image_size"])(resized))


def test_decoder_and_antialiased_resize_are_torchvisions(files):
    """And so are the sides and the place of the crop; the resize but for a level."""
    for file in files:
        picture = Image.open(file).convert("RGB")
        np.testing.assert_array_equal(preprocessing.decode(file.read_bytes()), picture)
        difference = kits_pixels(file).astype(int) - torchvisions_pixels(file)
        assert np.abs(difference).max() <= 1, (file.name, picture.size)


class Torchvision:
    """Its ResNet-50: pixels in, logits out; random, but for what lets its answers vary."""

    def __init__(self, pixels):
        torch, torchvision = pytorch.torch(), pytorch.torchvision()
        torch.manual_seed(0)
        self.network = torchvision.models.resnet50()
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self.normalise = torchvision.transforms.Normalize(mean=mean, std=std)
        head, self.network.fc = self.network.fc, torch.nn.Identity()
        for module in self.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean of all batches
        self(pixels[:BATCH])
        self.network.eval()
        features = self(pixels)
        weight = np.random.default_rng(0).normal(
            size=head.weight.shape, scale=2e-3
        )  # logits of some tenths
        weight /= features.std(axis=0)
        head.weight.data = torch.tensor(weight, dtype=torch.float32)
        head.bias.data = torch.tensor(-weight @ features.mean(axis=0), dtype=torch.float32)
        self.network.fc = head

    def __call__(self, pixels):
        torch = pytorch.torch()
        batches = torch.tensor(pixels).permute(0, 3, 1, 2).split(BATCH)
        with torch.no_grad():
            return np.concatenate([self.network(self.normalise(b / 255)).numpy() for b in batches])


def test_the_whole_way_gives_torchvisions_logits(files, tmp_path, monkeypatch, capsys):
    """Of the same pixels: preparation, the file, the network and the export add nothing."""
    pixels = np.stack([kits_pixels(file) for file in files])
    torchvision = Torchvision(pixels)
    expected = torchvision(pixels)
    answers = expected.argmax(axis=1)
    assert len(set(answers)) > IMAGES / 4
    wnids = [line.split("\t")[0] for line in pretrained.CLASSES.read_text().splitlines()]
    for file, answer in zip(files, answers, strict=True):
        folder = tmp_path / "images" / wnids[answer]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes(file.read_bytes())
    by_name = checked(tmp_path, torchvision.network, monkeypatch)
    found = np.stack([by_name[file.name] for file in files])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * expected.std())
    row = next(line for line in capsys.readouterr().out.splitlines() if NAME in line)
    _, _, _, here, _, _, exported, _ = row.split("|")
    assert here.strip() == "100.00%" and "100.00%" in exported  # torchvision's answer to each image


def checked(root, network, monkeypatch):
    """Run the command on root/images and torchvision's file; give logits by the images' names."""
    found, predict = [], predictions.predict

    def recorded(*arguments, **options):
        found.append(predict(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(predictions, "predict", recorded)
    monkeypatch.setattr(pretrained, "keras_home", lambda: root)
    monkeypatch.setattr(pretrained, "check", lambda *arguments: None)  # no hash of random weights
    monkeypatch.setattr(check_pretrained, "OUT", root / "out")
    (root / "models").mkdir()
    pytorch.torch().save(network.state_dict(), root / "models" / PRETRAINED[NAME].file)
    assert check_pretrained.main(root / "images", NAME) == 0
    examples = encoded_examples(data_dir=root / "out" / "shards", split="validation")
    return dict(zip(predictions.file_names(examples), found[0][1], strict=True))
