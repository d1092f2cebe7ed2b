"""Files of weights from strangers: none reads another file, none unpacks to gigabytes."""

import json
import pickle
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest

from kit import ROOT
from kit.files import hash_file
from kit.inference import formats
from kit.inference.classifier import load_model
from kit.model import foreign_files, weight_files
from kit.model.foreign_files import check_keras, check_onnx
from tests.exported import write_run
from tests.peak import peak


def secret(folder):
    """A file that is nobody's business, as HDF5 and as plain numbers."""
    with h5py.File(folder / "secret.h5", "w") as h5:
        h5["numbers"] = np.arange(6, dtype="float32")
    (folder / "secret").write_bytes(np.arange(6, dtype="float32").tobytes())
    return folder


def external_link(h5, folder):
    h5["layers/dense/vars/0"] = h5py.ExternalLink(str(folder / "secret.h5"), "numbers")


def external_storage(h5, folder):
    shape = {"shape": (6,), "dtype": "float32"}
    h5.create_dataset("layers/dense/vars/0", **shape, external=[(str(folder / "secret"), 0, 24)])


def virtual_data(h5, folder):
    layout = h5py.VirtualLayout((6,), "float32")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "numbers", (6,))
    h5.create_virtual_dataset("layers/dense/vars/0", layout)


def soft_link(h5, folder):
    h5["layers/dense/vars/0"] = h5py.SoftLink("/elsewhere")


def external_group(h5, folder):
    h5["layers"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")


def lists(h5, folder):
    h5.create_dataset("layers/dense/vars/0", (6,), h5py.vlen_dtype("float32"))


def references(h5, folder):
    h5.create_dataset("layers/dense/vars/0", (6,), h5py.ref_dtype)


NO_NUMBERS = [lists, references]
READ_OTHERS = [external_link, external_storage, virtual_data, soft_link, external_group]


def huge_shape(h5, folder):
    h5.create_dataset("layers/dense/vars/0", (10**6, 10**6), "float32", chunks=True)


def huge_chunk(h5, folder):
    chunk = (2**28,)
    h5.create_dataset("layers/dense/vars/0", (1,), "float32", maxshape=(None,), chunks=chunk)


def zeros(h5, folder):
    h5.create_dataset("layers/dense/vars/0", (2**28,), "float32", compression="gzip")


def many_small(h5, folder):
    for number in range(40):
        h5.create_dataset(f"layers/dense/vars/{number}", (2**22,), "float32", chunks=True)


BOMBS = [huge_shape, huge_chunk, zeros, many_small]


def hostile_h5(path, make, folder):
    with h5py.File(path, "w") as h5:
        h5.create_group("layers/other/vars").attrs["name"] = "dense"
        if make is external_group:
            del h5["layers"]
        make(h5, folder)
        if make is not external_group:
            h5["layers/dense/vars"].attrs["name"] = "dense"
    return path


def hostile_keras(path, make, folder):
    inside = hostile_h5(path.with_suffix(".h5"), make, folder)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(inside, "model.weights.h5")
    return path


@pytest.mark.parametrize("make", READ_OTHERS + NO_NUMBERS + BOMBS)
@pytest.mark.parametrize("form", [".h5", ".keras"])
def test_hdf5_that_reads_other_files_or_claims_gigabytes_is_refused(tmp_path, make, form):
    write = {".h5": hostile_h5, ".keras": hostile_keras}[form]
    path = write(tmp_path / f"weights{form}", make, secret(tmp_path))
    words = "claims more than" if make in BOMBS else "is a link to another|in another file"
    words = "not numbers" if make in NO_NUMBERS else words
    with pytest.raises(ValueError, match=f"no weights can be read of it .*({words})"):
        weight_files.read(path)
    if form == ".keras":
        with pytest.raises(ValueError, match=words):
            check_keras(path)


def test_a_trained_model_whose_numbers_are_elsewhere_is_not_loaded(tmp_path):
    """Not even with a model.json that knows its hash."""
    run_dir = write_run(tmp_path)
    whole, path = run_dir / "model.keras", run_dir / "other.keras"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as changed:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(".h5"):
                (tmp_path / "weights.h5").write_bytes(data)
                with h5py.File(tmp_path / "weights.h5", "a") as h5:
                    h5["more"] = h5py.ExternalLink(str(secret(tmp_path) / "secret.h5"), "numbers")
                data = (tmp_path / "weights.h5").read_bytes()
            changed.writestr(name, data)
    path.replace(whole)
    metadata = json.loads((run_dir / "model.json").read_text())
    metadata["sha256"] = hash_file(whole)
    (run_dir / "model.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="model.keras cannot be read .*a link to another"):
        load_model(run_dir)


@pytest.mark.parametrize("units", [20, 10**6, 10**12, 10**25])
def test_layers_of_more_numbers_than_the_file_holds_are_refused_before_they_are_made(
    tmp_path, units
):
    """By a config.json that asks for two layers of so many units after one another."""
    layers = [keras.Input((4,)), *(keras.layers.Dense(3, name=name) for name in ("a", "b"))]
    keras.Sequential(layers).save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as source:
        members = {name: source.read(name) for name in source.namelist()}
    config = json.loads(members["config.json"])
    for layer in config["config"]["layers"][1:]:
        layer["config"]["units"] = units
        layer.pop("build_config", None)  # it tells the shape of the input, too
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as changed:
        for name, data in (members | {"config.json": json.dumps(config)}).items():
            changed.writestr(name, data)
    rows = [{"wnid": "n", "name": "n"}] * 3
    metadata = {"classes": rows, "image_size": 8, "resize_side": 9}
    metadata["sha256"] = hash_file(tmp_path / "model.keras")
    (tmp_path / "model.json").write_text(json.dumps(metadata))
    before = peak()
    with pytest.raises(ValueError, match="model.keras cannot be read as a model") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value) and peak() - before < 0.2
    if units < 2**31:  # of a side that TensorFlow has
        asked = 4 * units + units + units * units + units
        assert f"its layers have {asked:,} numbers, and the file holds 27" in str(error.value)


@pytest.mark.parametrize(
    ("count", "extra", "why"),
    [(5000, {}, "more than 5,000 layers"), (1, {"unroll": True}, "that is unrolled")],
)
def test_a_model_of_countless_layers_or_steps_is_refused_before_it_is_built(
    tmp_path, count, extra, why
):
    layer = {"module": "keras.layers", "class_name": "Dropout", "config": {"rate": 0.0} | extra}
    model = {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer] * count}}
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(model))
    with pytest.raises(ValueError, match=why):
        check_keras(tmp_path / "model.keras")


def test_kerass_own_files_pass(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")])
    model.compile("adam")
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    check_keras(tmp_path / "model.keras")
    for name in ("model.keras", "model.weights.h5"):
        kernel, bias = weight_files.read(tmp_path / name).values()
        np.testing.assert_array_equal(kernel, model.layers[-1].kernel)
        np.testing.assert_array_equal(bias, model.layers[-1].bias)


def test_a_zip_of_too_many_members_is_refused_before_they_are_listed(tmp_path, monkeypatch):
    path, listed = tmp_path / "many.keras", []
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(100):
            archive.writestr(f"{number}", "")
    assert len(foreign_files.open_zip(path).namelist()) == 100
    monkeypatch.setattr(foreign_files, "MAX_DIRECTORY_BYTES", 4000)
    monkeypatch.setattr(zipfile, "ZipFile", listed.append)
    with pytest.raises(ValueError, match="its list of members has more than 4,000 bytes"):
        foreign_files.open_zip(path)
    with path.open("rb") as file, pytest.raises(ValueError, match="its list of members"):
        foreign_files.open_zip(file)
    assert listed == []


def zip_of_zeros(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        with archive.open("model.weights.h5", "w", force_zip64=True) as member:
            for _ in range(40):
                member.write(bytes(2**24))


def long_config(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "[" * 2**27)
        archive.writestr("model.weights.h5", "")


def deep_config(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "[" * 2**20)
        archive.writestr("model.weights.h5", "")


def repeated_number(path):
    torch_zip(path, (0, (2**40,), (0,)), b"\0" * 4)


def long_pickle(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"}" * 2**28 + b".")


def torch_zip(path, place, numbers):
    """A state dict of one tensor: its offset, shape and strides in a storage."""
    offset, shape, strides = place
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuK\1tQ"
    rest = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, shape, strides, False, None))
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"
    data = b"\x80\x02}X\1\0\0\0w" + tensor + b"s."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/data/0", numbers)


def false_header(path):
    path.write_bytes((2**40).to_bytes(8, "little") + b"{" * 100)


SLOW_READS = {
    ("zeros.keras"): zip_of_zeros,
    ("long.keras"): long_config,
    ("deep.keras"): deep_config,
    ("repeated.pth"): repeated_number,
    ("pickle.pth"): long_pickle,
    ("header.safetensors"): false_header,
}
READ = """
import sys, time
from pathlib import Path
from kit.model import weight_files
from tests.peak import peak
before, started = peak(), time.process_time()
try:
    weight_files.read(Path(sys.argv[1]))
    weight_files.saved_layers(Path(sys.argv[1]))
except ValueError as error:
    assert str(error).isprintable(), error
    print("refused:", error)
grown = peak() - before
print(time.process_time() - started, grown)
"""


@pytest.mark.parametrize("name", SLOW_READS)
def test_bombs_take_no_second_and_no_gigabyte(tmp_path, name):
    SLOW_READS[name](tmp_path / name)
    command = [sys.executable, "-c", READ, tmp_path / name]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    refused, measured = said.splitlines()
    seconds, gigabytes = map(float, measured.split())
    assert refused.startswith("refused:") and name in refused
    assert seconds < 5 and gigabytes < 1


def onnx_model(folder, place):
    """An ONNX file whose numbers are in a file beside it: of an initializer, or deep in a graph."""
    import onnx
    from onnx import helper

    tensor = helper.make_tensor("numbers", onnx.TensorProto.FLOAT, [6], np.zeros(6, "f4"))
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    inner = helper.make_graph([], "inner", [], [])
    initializers = []
    if place == "initializer":
        initializers = [tensor]
    elif place == "constant":
        inner.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    elif place == "graph":
        deep = helper.make_graph([], "deep", [], [], [tensor])
        inner.node.append(helper.make_node("If", ["x"], ["y"], then_branch=deep, else_branch=deep))
    inner.initializer.extend(initializers)
    onnx.save(helper.make_model(inner), folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["initializer", "constant", "graph", "nowhere"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_onnx_that_reads_another_file_is_refused_before_a_runtime_sees_it(tmp_path, place, runtime):
    pytest.importorskip("onnx")
    pytest.importorskip(runtime)
    path = onnx_model(secret(tmp_path), place)
    if place == "nowhere":
        check_onnx(path)
        return
    with pytest.raises(ValueError, match="model.onnx cannot be read as ONNX .*in another file"):
        formats.RUNTIMES[runtime].open(path)


@pytest.mark.slow
def test_a_file_that_is_no_onnx_is_refused_in_one_line(tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="model.onnx cannot be read as ONNX") as error:
        formats.RUNTIMES["onnxruntime"].open(tmp_path / "model.onnx")
    assert "\n" not in str(error.value)
