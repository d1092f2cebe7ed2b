"""Weights by one word: fetched over a loopback server, checked, and never half-written."""

import functools
import hashlib
import http.server
import re
import runpy
import socket
import threading
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from kit import params
from kit.model import pretrained, weights
from kit.model.metadata import sizes_of
from kit.model.sections import PRETRAINED
from tests import networks, pytorch

CONTENT = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(http.server.BaseHTTPRequestHandler):
    """Serve CONTENT; `cut` of a path closes the connection in the midst, once or always."""

    def __init__(self, requests, *arguments):
        self.requests = requests
        super().__init__(*arguments)

    def do_GET(self):
        self.requests.append(self.path)
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        cut = self.path.startswith("/cut") and self.requests.count(self.path) == 1
        self.wfile.write(CONTENT[: len(CONTENT) // 3] if cut else CONTENT)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    """Give the address of a server on loopback, and the list of the paths that it was asked for."""
    requests = []
    handler = functools.partial(Server, requests)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Give the folder that stands for Keras' cache."""
    monkeypatch.setattr(pretrained, "keras_home", lambda: tmp_path)
    return tmp_path / "models"


def test_a_file_is_fetched_once_with_a_progress_bar(server, home, capsys):
    address, requests = server
    for _ in range(2):
        path = pretrained.cached(f"{address}/net-{DIGEST}.pth", DIGEST)
        assert path == home / f"net-{DIGEST}.pth"
        assert path.read_bytes() == CONTENT
    assert len(requests) == 1
    assert f"{len(CONTENT)}/{len(CONTENT)}" in capsys.readouterr().out  # Keras' Progbar
    assert [path.name for path in home.iterdir()] == [path.name]


def test_the_md5_of_keras_files_is_compared_whole(server, home):
    digest = hashlib.md5(CONTENT).hexdigest()
    assert pretrained.cached(f"{server[0]}/net.h5", digest).read_bytes() == CONTENT
    with pytest.raises(ValueError, match="delete it, and it is fetched again"):
        pretrained.cached(f"{server[0]}/net.h5", digest[:-1] + "x")


def test_another_hash_is_refused_and_nothing_kept(server, home):
    url = f"{server[0]}/net-00000000.pth"
    said = f"^{url} is not .*: its hash is {DIGEST}, not 00000000; try again, or put the file at "
    with pytest.raises(ValueError, match=said + re.escape(str(home / "net-00000000.pth")) + "$"):
        pretrained.cached(url, "00000000")
    assert list(home.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_refused_and_stays(server, home):
    home.mkdir()
    path = home / f"net-{DIGEST}.pth"
    path.write_bytes(CONTENT[:1000])
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is not the file that was publ"):
        pretrained.cached(f"{server[0]}/net-{DIGEST}.pth", DIGEST)
    assert path.read_bytes() == CONTENT[:1000]
    assert server[1] == []


def test_a_cut_download_leaves_nothing_and_the_next_starts_anew(server, home):
    url = f"{server[0]}/cut-{DIGEST}.pth"
    with pytest.raises(OSError, match=f"^{url} cannot be fetched .*100000 out of 300000 bytes"):
        pretrained.cached(url, DIGEST)
    assert list(home.iterdir()) == []
    assert pretrained.cached(url, DIGEST).read_bytes() == CONTENT


def unreachable():
    """Give the address of a port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    "kind, reason", [("missing", "404"), ("offline", "refused"), ("no-name", "")]
)
def test_without_a_network_one_line_tells_the_url_and_where_to_put_the_file(
    server, home, kind, reason
):
    address = {"missing": server[0], "offline": unreachable(), "no-name": "http://no.invalid"}[kind]
    url = f"{address}/{kind}.h5"
    with pytest.raises(OSError, match=f"{url} cannot be fetched .*{reason}") as caught:
        pretrained.cached(url, "0" * 32)
    assert str(caught.value).endswith(f"or put the file at {home / f'{kind}.h5'}")
    assert "\n" not in str(caught.value)
    assert list(home.iterdir()) == []


def test_a_server_that_falls_silent_is_given_up(home, monkeypatch):
    monkeypatch.setattr(pretrained, "SILENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/net.h5"
        with pytest.raises(OSError, match="cannot be fetched .*timed out"):
            pretrained.cached(url, "0" * 32)
    assert socket.getdefaulttimeout() is None


def test_a_path_of_a_file_is_given_back(home):
    assert pretrained.fetch("/data/own.keras").as_posix() == "/data/own.keras"


# The table against the libraries that published the files.


@pytest.mark.slow
def test_torchvisions_files_are_those_of_its_release():
    theirs = pytorch.torchvision().models.ResNet50_Weights
    for name, released in (
        ("torchvision_v1", "IMAGENET1K_V1"),
        ("torchvision_v2", "IMAGENET1K_V2"),
    ):
        row, meta = PRETRAINED[name], theirs[released]
        assert row.url == meta.url
        assert row.top1 == meta.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        transforms = meta.transforms()
        assert [row.resize_side] == transforms.resize_size
        assert transforms.crop_size == [224]
        np.testing.assert_allclose(row.channel_means, 255 * np.array(transforms.mean))


def test_keras_file_is_that_of_its_release():
    from keras.src.applications import resnet

    row = PRETRAINED["keras"]
    assert row.url == f"{resnet.BASE_WEIGHTS_PATH}{row.file}"
    assert row.digest == resnet.WEIGHTS_HASHES["resnet50"][0]
    zeros = keras.applications.resnet.preprocess_input(np.zeros((1, 1, 1, 3), "float32"))
    np.testing.assert_allclose(row.channel_means, -zeros[0, 0, 0, ::-1], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRETRAINED if name.startswith("timm/")])
def test_timms_files_are_those_of_its_release(name):
    theirs = pytorch.timm().models.get_pretrained_cfg(name.removeprefix("timm/"))
    row = PRETRAINED[name]
    assert row.url == theirs.url.replace("/rwightman/", "/huggingface/")
    assert f"timm/{theirs.architecture}.{theirs.tag}" == name
    np.testing.assert_allclose(row.channel_means, 255 * np.array(theirs.mean))
    sizes = {theirs.input_size: theirs.crop_pct, theirs.test_input_size: theirs.test_crop_pct}
    share = sizes.get((3, 224, 224)) or theirs.crop_pct
    assert row.resize_side == int(224 / share)
    if row.top1_at_288:
        assert theirs.test_input_size == (3, 288, 288)


# What the weights decide, before TensorFlow is loaded.


def test_weights_decide_what_nobody_has_set():
    p = params.load(overrides={"initial_weights": "torchvision_v2"})
    assert p.network.channel_means == [123.675, 116.28, 103.53]
    assert p.sources["channel_means"] == "weights torchvision_v2"
    assert p.sources["resnet_version"] == params.PARAMS.name  # as they want it
    p = params.load(overrides={"initial_weights": "keras"})
    assert (p.network.resnet_version, p.sources["resnet_version"]) == ("1", "weights keras")


def test_weights_published_at_288_pixels_are_scored_there_too():
    def sizes(weights, **given):
        return params.load(overrides={"initial_weights": weights} | given).evaluation.test_sizes

    assert sizes("timm/resnet50.a1_in1k") == [288]
    assert sizes("timm/resnet50.a1_in1k", test_sizes=[256]) == [256]
    assert sizes("timm/resnet50.a1_in1k", image_size=96) == []
    assert sizes("torchvision_v2") == []


def test_a_conflict_with_the_weights_is_refused():
    wrong = {"resnet_version": "1.5", "channel_means": [1, 2, 3], "blur_pool": True}
    with pytest.raises(ValueError) as caught:
        params.load(overrides={"initial_weights": "keras"} | wrong)
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == list(wrong)
    assert lines[0] == (
        'resnet_version: "1.5" is not what the weights keras are for: leave it out, or set it to '
        '"1"'
    )


@pytest.mark.parametrize(
    "given, meant",
    [("torchvison_v2", "torchvision_v2"), ("timm/resnet50.a1", "timm/resnet50.a1_in1k")],
)
def test_an_unknown_name_names_the_nearest(given, meant, tmp_path):
    with pytest.raises(
        ValueError, match=f'^initial_weights: "{given}" is no file .*mean {meant}'
    ) as e:
        params.load(overrides={"initial_weights": given}, folder=tmp_path)
    assert len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["own.keras", "torchvison_v2", ""])
def test_a_model_of_no_published_weights_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}.* no name of weights.* torchvision_v2"):
        pretrained.load(name)


@pytest.mark.slow
def test_a_ready_model_answers_with_imagenets_names(home, monkeypatch):
    """With a stand-in for the file: a network of random weights."""
    pytest.importorskip("torch")  # writes the file
    home.mkdir()
    row = PRETRAINED["torchvision_v2"]
    theirs = networks.network(classes=1000, channel_means=row.channel_means)
    weights.write_torchvision(theirs, home / row.file)
    monkeypatch.setattr(pretrained, "check", lambda *arguments: None)
    model, metadata = pretrained.load("torchvision_v2")
    assert metadata["classes"][7] == {"wnid": "n01514668", "name": "cock"}
    assert sizes_of(metadata) == {"image_size": 224, "resize_side": 232, "antialias": True}
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("uint8")
    expected = theirs(images).numpy()
    np.testing.assert_allclose(model(images), expected, atol=1e-4 * np.abs(expected).max())


def test_only_kerass_weights_were_scored_on_images_resized_without_an_average():
    rough = [name for name, row in PRETRAINED.items() if row.resize != (row.resize_side, True)]
    assert rough == ["keras"] and PRETRAINED["keras"].resize == (256, False)


def test_class_names_are_torchvisions_and_timms_in_their_order():
    lines = [line.split("\t") for line in pretrained.CLASSES.read_text().splitlines()]
    wnids, names = map(list, zip(*lines, strict=True))
    assert len(set(wnids)) == 1000 and wnids == sorted(wnids)  # ImageNet's order is the wnids'
    for module in ("torchvision", "timm"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    meta = Path(find_spec("torchvision").origin).parent / "models" / "_meta.py"
    assert names == runpy.run_path(str(meta))["_IMAGENET_CATEGORIES"]
    info = Path(find_spec("timm").origin).parent / "data" / "_info" / "imagenet_synsets.txt"
    assert wnids == info.read_text().split()
