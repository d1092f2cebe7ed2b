import json
import os
import resource
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from images import make_shards
from packaging.requirements import Requirement

import kit.__main__
from kit import ROOT
from kit.doctor import checks, exposure, replicas


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data"))


def states(lines):
    return [line.state for line in lines]


@pytest.mark.slow
def test_the_command_finds_this_machine_fit(data_dir, tmp_path):
    settings = {"HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path), "PATH": str(tmp_path)}
    settings["CUDA_VISIBLE_DEVICES"] = "-1"
    command = [sys.executable, "-m", "kit", "doctor", "-p", "data_dir", str(data_dir)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    asked = subprocess.run(
        [*command, "-p", "run_dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 60  # seconds of one core, however busy the machine
    said = asked.stdout.splitlines()
    assert [line for line in said if not line.startswith("ok")] == []
    for words in (
        "keras 3",
        "GB free",
        "12 train, 6 validation images",
        "an all-reduce of ones over CPU:0, CPU:1 gives 2 on each",
        "two training steps on CPU:0, CPU:1 equal one device's",
        "two training steps through XLA on CPU:0, CPU:1 equal those without",
    ):
        assert words in asked.stdout
    assert asked.returncode == 0


def test_what_hangs_is_a_problem_and_ends_in_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checks, "SECONDS", 0)
    assert kit.__main__.main(["doctor", "-p", "data_dir", str(tmp_path)]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("problem ")
    assert "was not done in 0 s; with several GPUs try" in last


def test_an_unknown_parameter_ends_in_exit_code_2(capsys):
    assert kit.__main__.main(["doctor", "-p", "data_dri", "x"]) == 2
    assert "did you mean data_dir?" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["jupyter_server.serverapp", "tensorboard", "packaging"])
def test_an_absent_package_is_a_line_and_the_other_checks_go_on(tmp_path, monkeypatch, package):
    for name in [name for name in sys.modules if name.startswith(package)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    lines = []
    for line in checks.examine(tmp_path, tmp_path):
        lines.append(line)
        if "NVIDIA" in line.text:  # the last before TensorFlow's
            break
    (found,) = (line.text for line in lines if "make setup" in line.text)
    assert "cannot be checked" in found and package.split(".")[0] in found


def test_a_broken_package_is_a_line_and_no_traceback(tmp_path, monkeypatch):
    def broken():
        raise AttributeError("module 'jupyter_core' has no attribute 'application'")

    monkeypatch.setattr(exposure, "jupyter", broken)
    monkeypatch.setattr(checks, "asked_apart", lambda data_dir: [])
    (found,) = (line for line in checks.examine(tmp_path, tmp_path) if "jupyter_core" in line.text)
    assert found.state == "warning" and found.text.startswith("jupyter cannot be checked")


def test_a_python_without_the_kits_packages_is_told_how_to_get_them():
    command = [sys.executable, "-S", "-m", "kit", "doctor"]  # without site-packages
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr == "error: No module named 'yaml'; make setup installs what is needed\n"


def test_versions_are_held_against_the_pins():
    assert checks._compare(Requirement("keras>=3")).state == "ok"
    wrong = checks._compare(Requirement("keras==1.*"))
    assert wrong.state == "problem"
    assert "the kit is tested with ==1.*; make setup" in wrong.text
    assert "not installed; make setup" in checks._compare(Requirement("no-such-package==1")).text


def test_shards_are_read_as_far_as_their_manifest_goes(data_dir, tmp_path):
    assert checks.shards(data_dir).state == "ok"
    assert checks.shards(tmp_path).state == "warning"
    assert "run notebook 01" in checks.shards(tmp_path).text
    cut = make_shards(tmp_path)
    shard = cut / "train-00001-of-00002"
    shard.write_bytes(b"short")
    assert checks.shards(cut).state == "problem"
    assert "has 5 bytes" in checks.shards(cut).text
    shard.unlink()
    assert checks.shards(cut).state == "problem"
    assert "is missing" in checks.shards(cut).text


def test_little_room_is_a_problem(data_dir, tmp_path, monkeypatch):
    assert states(checks.disks(tmp_path / "not/yet", tmp_path)) == ["ok", "ok"]
    monkeypatch.setattr(checks, "LEAST_FREE", 10**18)
    assert states(checks.disks(tmp_path / "not/yet", tmp_path)) == ["problem", "problem"]
    assert states(checks.disks(tmp_path, data_dir)) == ["problem"]  # the shards are there already
    assert states(checks.disks(tmp_path, "gs://bucket/shards")) == ["problem"]


@pytest.fixture
def jupyter_dirs(tmp_path, monkeypatch):
    """Folders of Jupyter's that hold nothing yet."""
    dirs = SimpleNamespace(config=tmp_path / "config", runtime=tmp_path / "runtime")
    for name in ("config", "runtime"):
        getattr(dirs, name).mkdir()
        monkeypatch.setenv(f"JUPYTER_{name.upper()}_DIR", str(getattr(dirs, name)))
    return dirs


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("jupyter_server_config.py", 'c.ServerApp.ip = "0.0.0.0"', 'ServerApp.ip to "0.0.0.0"'),
        ("jupyter_server_config.json", '{"ServerApp": {"ip": "*"}}', 'ServerApp.ip to "*"'),
        ("jupyter_lab_config.py", 'c.IdentityProvider.token = ""', "disables the token"),
        ("jupyter_notebook_config.py", 'c.NotebookApp.token = ""', "disables the token"),
        ("jupyter_server_config.py", 'c.ServerApp.ip = "127.0.0.1"', None),
        (
            "jupyter_server_config.py",
            'c.ServerApp.token = ""\nc.PasswordIdentityProvider.hashed_password = "argon2:x"',
            None,
        ),
    ],
)
def test_an_open_jupyter_configuration_is_found(jupyter_dirs, name, text, found):
    assert exposure.jupyter() == []
    (jupyter_dirs.config / name).write_text(text)
    said = exposure.jupyter()
    assert len(said) == (found is not None)
    assert not said or found in said[0]


def test_an_open_jupyter_server_is_found(jupyter_dirs):
    server = {
        "pid": os.getpid(),
        "port": 8888,
        "hostname": "0.0.0.0",
        "token": "",
        "password": False,
    }
    (jupyter_dirs.runtime / "jpserver-1.json").write_text(json.dumps(server))
    said = exposure.jupyter()
    assert len(said) == 2
    assert "port 8888 listens on 0.0.0.0" in said[0]
    assert "port 8888 asks for no token" in said[1]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/net")
def test_ports_that_listen_on_every_address_are_told_from_those_on_localhost():
    with socket.socket() as everywhere, socket.socket() as here:
        for opened, address in ((everywhere, "0.0.0.0"), (here, "127.0.0.1")):
            opened.bind((address, 0))
            opened.listen()
        found = exposure.ports_open_to_all()
        assert everywhere.getsockname()[1] in found
        assert here.getsockname()[1] not in found


def test_two_replicas_sum_their_ones():
    assert replicas.sum_of_ones(2) == [[2.0], [2.0]]


def test_replicas_that_differ_are_found(monkeypatch):
    """Each replica's batch norm sees its own images then, which must show in the weights."""
    monkeypatch.setitem(replicas.TINY, "batch_norm", "per_replica")
    assert replicas.difference(2) > 10 * replicas.TOLERANCE
