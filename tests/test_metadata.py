import json

import pytest

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
    with pytest.raises(ValueError, match="model.json lacks image_size: train again"):
        read(tmp_path, image_size=32.5)
