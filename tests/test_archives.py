"""Tars read by offset against Python's own tarfile; hostile ones; the devkit against SciPy's."""

import gzip
import io
import os
import tarfile
import time

import layouts
import pytest
from images import index_of, jpeg
from layouts import tar, write

from kit.prep import archives, devkit, reading

LONG = "n00000001/" + "deep/" * 30 + "n00000001_5.JPEG"  # longer than a header's 100 bytes


def members(data, start=0, end=None):
    return list(archives.read_members(io.BytesIO(data), start, end or len(data)))


def header(name, size=0, kind=tarfile.REGTYPE, form=tarfile.GNU_FORMAT, **fields):
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    for key, value in fields.items():
        setattr(member, key, value)
    return member.tobuf(form)


END = bytes(1024)


# Well-formed


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_finds(form):
    files = {"a.JPEG": b"x" * 511, "b.JPEG": b"", "folder/c.JPEG": b"y" * 512, "d": b"z" * 9999}
    if form != tarfile.USTAR_FORMAT:
        files |= {LONG: b"long", "käse.JPEG": b"k"}
    data = tar(files, form)
    found = members(data)
    assert {m.name: data[m.start : m.start + m.size] for m in found} == files
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive.getmembers()]
    assert [(m.name, m.start, m.size) for m in found] == expected
    assert not any(m.problem for m in found)


def test_tar_as_the_command_writes_it(tmp_path):
    for name in ("one.JPEG", "two.JPEG"):
        write(tmp_path / "in" / name, name * 200)
    os.system(f"cd {tmp_path} && tar cf out.tar in")
    data = (tmp_path / "out.tar").read_bytes()
    found = {m.name: data[m.start : m.start + m.size].decode() for m in members(data)}
    assert found == {f"in/{name}": name * 200 for name in ("one.JPEG", "two.JPEG")}


def test_names_that_are_not_utf8_survive():
    name = os.fsdecode(b"caf\xe9\n.JPEG")
    (found,) = members(header(name) + END)
    assert os.fsencode(found.name) == b"caf\xe9\n.JPEG"


def test_sizes_over_eight_gib_are_read():
    size = 2**33 + 5
    data = header("big", size)  # in base 256; pax states it in a header of its own
    assert next(archives.read_members(io.BytesIO(data), 0, 2**34)) == ("big", "", 512, size)
    pax = header("big", size, form=tarfile.PAX_FORMAT)
    assert next(archives.read_members(io.BytesIO(pax), 0, 2**34)) == ("big", "", 1536, size)


# Hostile


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        ("/etc/passwd.JPEG", {}, "a path that leads out of the archive"),
        ("../../out.JPEG", {}, "a path that leads out of the archive"),
        ("a/../../out.JPEG", {}, "a path that leads out of the archive"),
        ("link.JPEG", {"kind": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link, a device"),
        ("hard.JPEG", {"kind": tarfile.LNKTYPE, "linkname": "other"}, "a link, a device"),
        ("device.JPEG", {"kind": tarfile.CHRTYPE}, "a link, a device"),
        ("pipe.JPEG", {"kind": tarfile.FIFOTYPE}, "a link, a device"),
        ("sparse.JPEG", {"kind": tarfile.GNUTYPE_SPARSE}, "a link, a device or a sparse file"),
        ("pax.JPEG", {"pax_headers": {"GNU.sparse.major": "1"}}, "a link, a device or a sparse"),
    ],
)
def test_member_that_is_no_plain_file_within_is_skipped(tmp_path, name, fields, problem):
    form = tarfile.PAX_FORMAT if "pax_headers" in fields else tarfile.GNU_FORMAT
    layouts.archives(tmp_path)
    path = tmp_path / "ILSVRC2012_img_val.tar"
    data = path.read_bytes()
    path.write_bytes(header(name, form=form, **fields) + data)
    index = index_of(tmp_path, validation_fraction=0.5, subset=True)
    ((where, reason),) = index.skipped
    assert where.endswith(name)
    assert reason.startswith(problem)
    assert len(index.images) == 16
    assert all(reading.read_image(image) for image in index.images)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header("a", 10**9) + b"x" * 600, "a claims 1,000,000,000 bytes"),
        (header("a", 2**70, form=tarfile.GNU_FORMAT), "claims 1,180,591,620,717,411,303,424"),
        (header("a", 513) + b"x" * 512, "a claims 513 bytes"),
        (header("x" * 90000 + "/a", 1), "a header of 90,003 bytes"),
        (header("a", 8, tarfile.XHDTYPE) + b"99 path=".ljust(512), "a pax header that is none"),
        (header("a", 8, tarfile.XHDTYPE) + b"0 path==".ljust(512), "a pax header that is none"),
        (b"<html>not found</html>".ljust(512), "no tar header at byte 0"),
        (header("a", 0) + b"\1" * 100, "no tar header at byte 512"),
        (header("a")[:300], "no tar header at byte 0"),
    ],
)
def test_tar_that_lies_or_is_none_is_named(tmp_path, data, words):
    layouts.archives(tmp_path)
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(data)
    with pytest.raises(ValueError, match=rf"img_val\.tar cannot be read \(.*{words}") as caught:
        index_of(tmp_path, validation_fraction=0.5, subset=True)
    assert "\n" not in str(caught.value)


def test_negative_size_does_not_lead_in_circles():
    data = bytearray(header("a"))
    data[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024 in base 256
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 256 + sum(data[156:]))
    with pytest.raises(ValueError, match="claims -1,024 bytes"):
        members(bytes(data) + END)


def test_name_that_stands_twice_counts_as_tar_extracts_it(tmp_path):
    layouts.archives(tmp_path)
    name, (_, newer) = "ILSVRC2012_val_00000001.JPEG", ("", jpeg(8, 8))
    path = tmp_path / "ILSVRC2012_img_val.tar"
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(newer)
        archive.addfile(member, io.BytesIO(newer))
    index = index_of(tmp_path, validation_fraction=0.5, subset=True)
    assert [reason for _, reason in index.skipped] == ["a later file has the same name"]
    (image,) = [image for image in index.images if image.name == name]
    assert reading.read_image(image) == newer


def test_class_without_images_is_named(tmp_path):
    layouts.archives(tmp_path)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    empty = tar({"notes.txt": b""})
    path.write_bytes(tar({"n00000001.tar": empty, "n00000004.tar": empty}))
    with pytest.raises(ValueError, match=r"no image in n00000001\.tar, n00000004\.tar"):
        index_of(tmp_path, validation_fraction=0.5, subset=True)


def test_archive_cut_after_it_was_listed_stops_the_reader(tmp_path):
    layouts.archives(tmp_path)
    index = index_of(tmp_path, validation_fraction=0.5, subset=True)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    os.truncate(path, 5000)
    lost = max(index.images, key=lambda image: image.position * (image.container == str(path)))
    with pytest.raises(OSError, match=r"img_train\.tar/.*had [\d,]+ bytes when it was listed"):
        reading.read_image(lost)


# Boxes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            tar({"n00000001_0.xml": b"<a>" + b" " * 2**20}),
            "n00000001_0.xml has more than 1,048,576",
        ),
        (tar({"n00000001_0.xml": b"<!DOCTYPE a><a/>"}), "n00000001_0.xml.*document type"),
        (header("n00000001_0.xml", 900) + b"x" * 100, "n00000001_0.xml.*is cut short"),
        (b"no tar".ljust(512), "no tar header"),
    ],
)
def test_bad_boxes_are_named(tmp_path, data, words):
    layouts.archives(tmp_path)
    (tmp_path / "ILSVRC2012_bbox_train_v2.tar.gz").write_bytes(gzip.compress(data))
    with pytest.raises(ValueError, match=rf"bbox_train_v2\.tar\.gz cannot be read \(.*{words}"):
        index_of(tmp_path, validation_fraction=0.5, subset=True)


@pytest.mark.parametrize(
    "spoil", [lambda d: d[: len(d) // 2], lambda d: b"no gzip", lambda d: d[:200]]
)
def test_broken_gzip_is_named(tmp_path, spoil):
    layouts.archives(tmp_path)
    path = tmp_path / "ILSVRC2012_bbox_train_v2.tar.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=r"bbox_train_v2\.tar\.gz cannot be read"):
        index_of(tmp_path, validation_fraction=0.5, subset=True)


def test_gzip_bomb_stops_at_its_limit(monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 2**20)
    data = gzip.compress(header("a.xml", 2**25) + bytes(2**25))
    file = gzip.GzipFile(fileobj=io.BytesIO(data))
    started = time.process_time()
    with pytest.raises(ValueError, match="a.xml claims 33,554,432 bytes"):
        list(archives.read_members(file, end=archives.MAX_UNPACKED_BYTES))
    assert time.process_time() - started < 1


# Devkit


@pytest.mark.parametrize("compressed", [False, True])
def test_synsets_are_those_that_scipy_wrote(compressed):
    import scipy.io

    data = layouts.meta_mat(compressed)
    theirs = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
    ours = devkit.read_synsets(data)
    assert len(ours) == len(theirs) == 4
    for mine, their in zip(ours, theirs, strict=True):
        assert mine["WNID"] == their["WNID"]
        assert mine["words"] == their["words"]
        assert mine["ILSVRC2012_ID"] == [their["ILSVRC2012_ID"]]


def test_devkit_gives_names_and_labels_in_the_order_of_the_images(tmp_path):
    layouts.archives(tmp_path)
    names, labels = devkit.read_devkit(str(tmp_path))
    assert labels == [wnid for wnid, _ in layouts.VALIDATION.values()]
    assert layouts.WNIDS.items() <= names.items()


def test_devkit_that_is_not_there_is_none(tmp_path):
    assert devkit.read_devkit(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({devkit.TRUTH: b"1\n"}, "lacks meta.mat"),
        ({devkit.META: b"MATLAB", devkit.TRUTH: b"1\n"}, "cannot be read"),
        ({devkit.META: layouts.meta_mat()[:-50], devkit.TRUTH: b"1\n"}, "cannot be read"),
        ({devkit.META: layouts.meta_mat(), devkit.TRUTH: b"99\n"}, "cannot be read .*99"),
        ({devkit.META: layouts.meta_mat(), devkit.TRUTH: b"one\n"}, "cannot be read .*one"),
    ],
)
def test_broken_devkit_is_named(tmp_path, files, words):
    for name, data in files.items():
        write(tmp_path / name, data)
    with pytest.raises(ValueError, match=rf"devkit .*{words}.*get it again"):
        devkit.read_devkit(str(tmp_path))
