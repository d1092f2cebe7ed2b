"""Folders at a URL, staging to this machine, and S3 over a real connection on loopback."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import layouts
import pytest
from images import class_folders, index_of, make_shards, prepare

from kit import ROOT, locks
from kit.data import manifest, paths, staging, storage
from kit.prep import reading, writer

REMOTE = "s3://bucket/sets/shards"


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """Serve S3 by moto in a process of its own, of which nothing is left when the tests end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    log = (tmp_path_factory.mktemp("s3") / "log").open("w")
    server = subprocess.Popen(command, stdout=log, stderr=log)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            _await(port)
            yield _bucket("bucket")
        finally:
            server.terminate()
            server.wait(timeout=20)


def _await(port):
    for _ in range(150):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise TimeoutError("moto's server did not start")


def _bucket(name):
    import fsspec

    system = fsspec.filesystem("s3", use_listings_cache=False)
    system.mkdir(name)
    return system


def upload(system, folder: Path, url: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            system.put_file(str(path), f"{url}/{path.relative_to(folder)}")


def contents(folder) -> dict:
    return {
        path.name: path.read_bytes()
        for path in Path(folder).iterdir()
        if path.name != staging.IN_PROGRESS and path.is_file()
    }


# Every kind of folder


def local(tmp_path, s3=None):
    (tmp_path / "shards").mkdir()
    return storage.folder(tmp_path / "shards")


def at_s3(tmp_path, s3):
    return storage.folder("s3://bucket/kinds")


@pytest.mark.slow
@pytest.mark.parametrize("make", [local, at_s3])
def test_folders_of_both_kinds_behave_alike(tmp_path, s3, make):
    folder = make(tmp_path, s3)
    assert folder.names() == folder.names("deeper") == []
    assert folder.size("a") is None
    folder.write("a", b"first")
    folder.write("a", b"second")
    folder.write("deeper/b", b"")
    (tmp_path / "file").write_bytes(b"whole")
    folder.put("c", tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert folder.names() == ["a", "c"]
    assert folder.names("deeper") == ["b"]
    assert (folder.size("a"), folder.size("deeper/b"), folder.size("c")) == (6, 0, 5)
    assert (folder.read("a"), folder.read("deeper/b"), folder.read("c")) == (
        b"second",
        b"",
        b"whole",
    )
    for name in ("a", "c", "deeper/b", "never"):
        folder.remove(name)
    assert folder.names() == folder.names("deeper") == []
    with pytest.raises(FileNotFoundError):
        folder.read("a")


# S3


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [layouts.archives, layouts.extracted, layouts.kaggle, layouts.parquet]
)
def test_raw_images_at_s3_give_the_same_examples(tmp_path, s3, make):
    make(tmp_path)
    url = f"s3://bucket/raw/{make.__name__}"
    upload(s3, tmp_path, url)
    index = index_of(url, validation_fraction=0.5, subset=True)
    here = index_of(tmp_path, validation_fraction=0.5, subset=True)
    assert (index.layout, index.classes) == (here.layout, here.classes)
    assert len(index.images) == 16
    for image, same in zip(index.images, here.images, strict=True):
        assert reading.read_image(image) == reading.read_image(same)
        assert reading.boxes_of(image, index.classes, 32, 32) == reading.boxes_of(
            same, here.classes, 32, 32
        )
        state = reading.state_of(image, url)
        assert state == reading.state_of(same, str(tmp_path))


@pytest.fixture(scope="module")
def shards_at_s3(tmp_path_factory, s3):
    """Shards written to S3 from images at S3; returns the folder of the same ones made here."""
    folder = tmp_path_factory.mktemp("shards")
    here = make_shards(folder)
    upload(s3, folder / "raw", "s3://bucket/raw/folders")
    prepare("s3://bucket/raw/folders", REMOTE)
    return here


@pytest.mark.slow
def test_shards_written_to_s3_are_those_written_here(shards_at_s3, s3):
    folder = storage.folder(REMOTE)
    here = contents(shards_at_s3)
    assert folder.names() == sorted(here)
    for name in here:
        if name != manifest.MANIFEST:  # it names its source
            assert folder.read(name) == here[name]
    assert s3.find("bucket/sets") == [f"bucket/sets/shards/{name}" for name in sorted(here)]


@pytest.mark.slow
def test_only_one_of_many_creates_a_file_at_s3(s3):
    folder = storage.folder("s3://bucket/created")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: folder.create("a", b"%d" % n), range(8)))
    assert made.count(True) == 1
    assert folder.read("a") == b"%d" % made.index(True)


@pytest.mark.slow
def test_s3_is_prepared_by_one_process_at_a_time(tmp_path, s3):
    """Another host's lock is respected; one of a process of this host that was killed is not."""
    raw_dir, folder = class_folders(tmp_path), storage.folder("s3://bucket/sets/locked")
    lock, own = f"{folder}/{writer.LOCK}", locks._identity()
    folder.write(writer.LOCK, json.dumps(own | {"host": "elsewhere"}).encode())
    with pytest.raises(locks.InUse, match=f"of elsewhere since .* is gone, delete {lock}$"):
        prepare(raw_dir, folder.url)
    assert folder.names() == [writer.LOCK]
    folder.write(writer.LOCK, json.dumps(own | {"start": "17"}).encode())

    def progress(tasks, total):
        with pytest.raises(locks.InUse, match=f"by process {own['process']} of {own['host']}"):
            prepare(raw_dir, folder.url)
        assert json.loads(folder.read(writer.LOCK))["start"] == own["start"]
        return tasks

    prepare(raw_dir, folder.url, progress=progress)
    assert len(folder.names()) == 5 and writer.LOCK not in folder.names()


HOST = """
import random, socket, sys, threading, time
import fsspec
from fsspec.implementations.local import LocalFileSystem
from kit import ROOT, locks
from kit.data import storage

class Store(LocalFileSystem):
    @classmethod
    def _strip_protocol(cls, path):
        return path.replace("hdfs://", "/")

    def pipe_file(self, path, value, mode):
        time.sleep(random.random() / 5)
        super().pipe_file(path, value)

def say(what, number):
    print(f"{what} {number}\\n", end="", flush=True)  # at once, for there are many threads

def take(number):
    try:
        with locks.holding_remote(storage.folder(f"hdfs:/{folder}"), f"lock{number}", "it is held"):
            say("held", number)
            ended.wait()
    except Exception as error:
        say("refused" if "by process" in str(error) else repr(error), number)

host, folder = sys.argv[1:]
socket.gethostname = lambda: host
fsspec.register_implementation("hdfs", Store, clobber=True)
ended = threading.Event()
threads = [threading.Thread(target=take, args=[number]) for number in range(50)]
for thread in threads:
    thread.start()
sys.stdin.read()
ended.set()
"""


@pytest.mark.slow
def test_of_two_hosts_at_a_store_that_lets_both_write_one_holds_the_lock(tmp_path):
    """Fifty times, at a store which looks whether there is a file, and writes it later."""
    pytest.importorskip("fsspec")
    store, programs = tmp_path / "store", []
    store.mkdir()
    for host in ("host1", "host2"):
        (tmp_path / host).mkdir()
        options = {"env": os.environ | {"TMPDIR": str(tmp_path / host)}, "cwd": ROOT, "text": True}
        command = [sys.executable, "-c", HOST, host, store]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        programs.append(subprocess.Popen(command, **pipes, **options))
    said = [program.stdout.readline() for _ in range(50) for program in programs]
    assert all(program.communicate()[0] == "" for program in programs)
    assert sorted(said) == sorted(f"{w} {n}\n" for w in ("held", "refused") for n in range(50))
    assert not list(store.iterdir())


@pytest.fixture
def staged(monkeypatch, tmp_path):
    monkeypatch.setattr(staging, "STAGED_DIR", str(tmp_path / "staged"))
    return tmp_path / "staged/s3/bucket/sets/shards"


@pytest.mark.slow
def test_shards_are_staged_once(shards_at_s3, staged):
    seen = []

    def progress(names, total):
        seen.append(total)
        yield from names

    assert staging.stage(REMOTE, progress) == str(staged)
    assert contents(staged).keys() == contents(shards_at_s3).keys()
    assert len(manifest.shard_paths(str(staged), "train")) == 2
    times = {path: path.stat().st_mtime_ns for path in staged.glob("*-of-*")}
    staging.stage(REMOTE, progress)
    assert seen == [3, 0]
    assert {path: path.stat().st_mtime_ns for path in staged.glob("*-of-*")} == times


@pytest.mark.slow
def test_cut_and_missing_shards_are_fetched_again(shards_at_s3, staged):
    staging.stage(REMOTE)
    before = contents(staged)
    first, second, _ = sorted(staged.glob("*-of-*"))
    first.unlink()
    second.write_bytes(b"half")
    (staged / manifest.MANIFEST).unlink()  # as after a kill
    staging.stage(REMOTE)
    assert contents(staged) == before


@pytest.mark.slow
def test_shards_of_an_older_set_are_replaced(shards_at_s3, staged):
    staging.stage(REMOTE)
    before = contents(staged)
    shard = sorted(staged.glob("*-of-*"))[0]
    shard.write_bytes(bytes(shard.stat().st_size))  # another shard of the same size
    (staged / staging.IN_PROGRESS).write_bytes(b"{}")
    staging.stage(REMOTE)
    assert contents(staged) == before


@pytest.mark.slow
def test_shard_of_another_size_at_s3_is_named(shards_at_s3, staged, s3):
    s3.copy("bucket/sets/shards", "bucket/sets/cut", recursive=True)
    s3.pipe_file("bucket/sets/cut/train-00001-of-00002", b"half")
    with pytest.raises(ValueError, match="train-00001-of-00002 has 4 bytes, its manifest says"):
        staging.stage("s3://bucket/sets/cut")
    target = staged.parent / "cut"
    assert not (target / manifest.MANIFEST).exists()
    assert not list(target.glob(".*.tmp"))


@pytest.mark.slow
def test_folder_that_is_not_at_s3_is_named(s3):
    with pytest.raises(FileNotFoundError, match="s3://bucket/none does not exist"):
        index_of("s3://bucket/none", validation_fraction=0.5)
    with pytest.raises(FileNotFoundError, match="s3://bucket/none holds no finished shards"):
        staging.stage("s3://bucket/none")


@pytest.mark.slow
def test_server_that_is_not_there_gets_one_line(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import fsspec

    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(OSError, match="s3://bucket/x cannot be reached .*credentials") as caught:
        paths.is_folder("s3://bucket/x")
    assert "\n" not in str(caught.value)
    fsspec.filesystem("s3").clear_instance_cache()


# HDFS


@pytest.mark.slow
def test_hdfs_without_a_name_node_gets_one_line():
    with pytest.raises(OSError, match="hdfs://127.0.0.1:9/raw cannot be reached") as caught:
        paths.is_folder("hdfs://127.0.0.1:9/raw")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_hdfs_upload_appears_by_rename(tmp_path, monkeypatch):
    """fsspec's wrapper of pyarrow's file systems, which is that of HDFS too, over a local one."""
    import fsspec
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

    system = ArrowFSWrapper(SubTreeFileSystem(str(tmp_path / "hdfs"), LocalFileSystem()))
    (tmp_path / "hdfs").mkdir()
    monkeypatch.setattr(
        fsspec, "url_to_fs", lambda url, **_: (system, url.removeprefix("hdfs://node"))
    )
    folder = storage.folder("hdfs://node/sets/shards")
    folder.write("a", b"first")
    folder.write("a", b"second")
    (tmp_path / "file").write_bytes(b"whole")
    folder.put("b", tmp_path / "file")
    assert folder.names() == ["a", "b"]
    assert contents(tmp_path / "hdfs/sets/shards") == {"a": b"second", "b": b"whole"}
    layouts.archives(tmp_path / "hdfs/raw")
    index = index_of("hdfs://node/raw", validation_fraction=0.5, subset=True)
    assert [reading.read_image(image) for image in index.images] == [
        data for _, _, _, data, _ in layouts.examples()
    ]


# Without any package


def test_local_folder_and_google_storage_need_no_staging(tmp_path):
    assert staging.stage(str(tmp_path)) == str(tmp_path)
    assert staging.stage("gs://bucket/shards") == "gs://bucket/shards"
    storage.check_readable(tmp_path)
    storage.check_readable("gs://bucket/shards")


@pytest.mark.parametrize("url", ["s3://bucket/shards", "hdfs://node:8020/shards"])
def test_what_tensorflow_cannot_read_is_told_before_it_tries(url):
    with pytest.raises(ValueError, match="TensorFlow does not read from there: copy the shards"):
        storage.check_readable(url)


@pytest.mark.parametrize("url", ["s3://bucket/../../etc", "s3://", "s3://a//b"])
def test_url_cannot_lead_out_of_the_staging_folder(url):
    with pytest.raises(ValueError, match="names no folder"):
        staging._staged_path(url)


def test_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[s3\]'"):
        paths.is_folder("s3://bucket/raw")


def test_disk_that_is_too_small_is_told(tmp_path):
    with pytest.raises(OSError, match=r"has room for .* GiB, and the shards have 1073741824.0 GiB"):
        staging._check_room(storage.folder(tmp_path), 2**60)


def test_reading_a_range_stops_at_the_end(tmp_path):
    class_folders(tmp_path, classes=1, images=1)
    path = next(tmp_path.rglob("*.jpg"))
    data = path.read_bytes()
    assert paths.read_range(str(path), 2, 10) == data[2:12]
    assert paths.read_range(str(path), len(data) - 3, 10) == data[-3:]
