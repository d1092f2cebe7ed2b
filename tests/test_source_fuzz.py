"""Damaged tars and devkits: a result or one clear error, in bounded time."""

import gzip
import io

import layouts
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.prep import archives, devkit, imagenet

FEW, MANY = 100, 700  # cases of each kind: 2,800 in make test-all

TAR = layouts.tar({"a.JPEG": b"x" * 700, "deep/" * 30 + "b.JPEG": b"y"})


@st.composite
def damaged(draw, data: bytes):
    """Some bytes changed, some cut out or doubled, perhaps the end cut off."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(found)))
        end = min(len(found), at + draw(st.integers(0, 40)))
        found[at:end] = draw(
            st.one_of(
                st.binary(max_size=40),
                st.just(bytes(found[at:end]) * 3),
                st.sampled_from([b"\xff" * 8, b"\0" * 8, b"9" * 12, b"-1", b"nan", b"<!", b'"']),
            )
        )
    return bytes(found)


def read_tar(data, folder):
    for member in archives.read_members(io.BytesIO(data), 0, len(data)):
        assert 0 <= member.start <= member.start + member.size <= len(data)
        assert member.problem or ".." not in member.name.split("/")


def read_boxes(data, folder):
    path = folder / imagenet.BOXES_ARCHIVE
    path.write_bytes(data)
    try:
        imagenet.box_finder(str(path), [])
    except ValueError as error:
        assert imagenet.BOXES_ARCHIVE in str(error)
        raise


def read_devkit(data, folder):
    (folder / devkit.META).write_bytes(data)
    (folder / devkit.TRUTH).write_text("1\n2\n3\n")
    names, labels = devkit.read_devkit(str(folder))
    assert len(labels) == 3


KINDS = {
    "tar": (read_tar, TAR),
    "compressed tar": (read_boxes, gzip.compress(TAR, mtime=0)),
    "meta.mat": (read_devkit, layouts.meta_mat(compressed=False)),
    "compressed meta.mat": (read_devkit, layouts.meta_mat(compressed=True)),
}


def examine(kind, cases, folder):
    read, original = KINDS[kind]

    @settings(
        max_examples=cases,
        deadline=None,  # the machine may be busy; nothing here can wait
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(original))
    def one(data):
        try:
            read(data, folder)
        except ValueError as error:
            assert "\n" not in str(error)

    one()


@pytest.mark.parametrize("kind", KINDS)
def test_damage_gets_a_result_or_one_line(kind, tmp_path):
    examine(kind, FEW, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_much_damage_gets_a_result_or_one_line(kind, tmp_path):
    examine(kind, MANY, tmp_path)
