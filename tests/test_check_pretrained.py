"""`make check-pretrained`: the images that it finds, and what it says where something is amiss."""

import pytest

from kit.model import pretrained
from kit.model.sections import PRETRAINED
from kit.prep import imagenet
from tests import check_pretrained
from tests.images import jpeg

FILES = {"n01443537": ["a.JPEG", "c.JPEG"], "n01440764": ["b.JPEG"]}  # labels 1 and 0
JPEG = jpeg(40, 48)


def class_folders(root):
    for wnid, names in FILES.items():
        (root / wnid).mkdir(parents=True)
        for name in names:
            (root / wnid / name).write_bytes(JPEG)


def flat(root):
    (root / "val").mkdir()
    for name in sorted(sum(FILES.values(), [])):
        (root / "val" / name).write_bytes(JPEG)
    wnids = "n01443537\nn01440764\nn01443537\n"
    (root / imagenet.LABELS_FILE).write_text(wnids)


@pytest.mark.parametrize("layout", [class_folders, lambda root: class_folders(root / "val"), flat])
def test_images_are_labelled_as_the_weights_count_the_classes(layout, tmp_path):
    layout(tmp_path)
    index = check_pretrained.read_index(tmp_path)
    found = [(image.label, image.name) for image in index.images if image.split == "validation"]
    assert found == [(0, "b.JPEG"), (1, "a.JPEG"), (1, "c.JPEG")]
    assert len(index.classes) == 1000


def test_what_is_missing_is_a_line_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check_pretrained, "OUT", tmp_path / "out")
    empty, strange = tmp_path / "empty", tmp_path / "strange"
    empty.mkdir()
    (strange / "n99999999").mkdir(parents=True)
    (strange / "n99999999" / "a.jpg").write_bytes(JPEG)
    for images, said in (
        ("", "IMAGES is not given: make check-pretrained IMAGES=/path"),
        (tmp_path / "gone", f"IMAGES={tmp_path}/gone is no folder"),
        (empty, f"IMAGES={empty} holds no image"),
        (strange, "n99999999 is no wnid of ImageNet's 1,000 classes"),
    ):
        assert check_pretrained.main(images) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and said in line
    assert not (tmp_path / "out").exists()


def test_without_a_network_every_file_that_is_missing_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check_pretrained, "OUT", tmp_path / "out")
    monkeypatch.setattr(pretrained, "keras_home", lambda: tmp_path)
    class_folders(tmp_path / "images")
    names = ("torchvision_v1", "keras")
    for name in names:
        url = f"http://no.invalid/{PRETRAINED[name].file}"
        monkeypatch.setitem(PRETRAINED, name, PRETRAINED[name]._replace(url=url))
    assert check_pretrained.main(tmp_path / "images", *names) == 2
    lines = capsys.readouterr().err.splitlines()
    for name, line in zip(names, lines, strict=True):
        assert line.startswith(f"error: {PRETRAINED[name].url} cannot be fetched")
        assert line.endswith(f"or put the file at {tmp_path / 'models' / PRETRAINED[name].file}")
    assert check_pretrained.main(tmp_path / "images", "torchvision_v3") == 2
    assert "torchvision_v3 is no name of weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
