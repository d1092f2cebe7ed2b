import json

import pytest

from kit.files import seal, write_json
from kit.model import metadata

SIZES = {"classes": [], "image_size": 32, "resize_side": 40}


def read(tmp_path, **values):
    (tmp_path / "model.json").write_text(json.dumps(SIZES | values))
    return metadata.read_metadata(tmp_path / "model.json")


def test_metadata_is_read_as_it_was_written(tmp_path):
    values = {"parameters": {"schedule": "cosine"}, "resnet_version": "1.5"}
    assert read(tmp_path, **values) == SIZES | values


def test_keys_that_older_kits_wrote_are_read_under_todays_names(tmp_path):
    parameters = {"version": "1", "test_size": 0, "rate_decay": "steps", "clip_norm": 1.0}
    found = read(tmp_path, version="1", parameters=parameters, data={"mended": 2})
    assert found["resnet_version"] == "1" and "version" not in found
    today = {"resnet_version": "1", "evaluation_size": 0, "schedule": "steps"}
    assert found["parameters"] == today | {"clip_grad_norm": 1.0}
    assert found["data"] == {"reencoded": 2}


def test_what_is_needed_and_lacking_is_named(tmp_path):
    with pytest.raises(ValueError, match="model.json: image_size is '32.5', not a whole number"):
        read(tmp_path, image_size=32.5)


@pytest.mark.parametrize("side", [-1, 0, 10**6])
def test_a_size_that_no_image_has_is_refused(tmp_path, side):
    with pytest.raises(ValueError, match=f"has image_size {side}, resize_side .*not of 1 to 8192:"):
        read(tmp_path, image_size=side, resize_side=max(side, 9))


def test_an_edited_class_name_is_noticed(tmp_path):
    path = tmp_path / "model.json"
    values = SIZES | {"classes": [{"wnid": "n1", "name": "cat"}, {"wnid": "n2", "name": "dog"}]}
    write_json(path, seal(values))
    metadata.read_metadata(path)
    path.write_text(path.read_text().replace("cat", "cow"))
    with pytest.raises(ValueError, match="it was edited since it was written; copy it again"):
        metadata.read_metadata(path)


@pytest.mark.parametrize(
    "classes", [7, [1], [{"wnid": "n"}], [{"wnid": "n", "name": 1}], {"wnid": "n"}, None]
)
def test_classes_of_another_form_are_refused_in_a_line(tmp_path, classes):
    with pytest.raises(ValueError, match=r"model\.json: classes") as caught:
        read(tmp_path, classes=classes)
    assert "\n" not in str(caught.value)
