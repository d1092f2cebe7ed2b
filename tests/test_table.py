"""labels.csv: what of it is read, and all that can be wrong with one, in a line."""

import unicodedata
from collections import Counter

import pytest
from images import index_of, jpeg, prepare

IMAGE = jpeg(8, 8)


def table(root, lines, *, files=(), name="labels.csv"):
    """Write the table, and the files that it lists or those given."""
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for file in files or [line.partition(",")[0] for line in lines[1:]]:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(IMAGE)
    return root


def read(raw_dir, fraction=0.5):
    return index_of(raw_dir, validation_fraction=fraction)


def listed(index):
    return sorted((i.split, index.classes[i.label].name, i.name) for i in index.images)


ROWS = ["a/1.jpg,cat", "a/2.jpg,cat", "b/3.jpg,dog", "b/4.jpg,dog"]


def test_paths_and_labels_are_enough(tmp_path):
    index = read(table(tmp_path, ["path,label", *ROWS]))
    assert index.layout == "table"
    counts = Counter((split, name) for split, name, _ in listed(index))
    assert counts == {(s, name): 1 for s in ("train", "validation") for name in ("cat", "dog")}
    assert {image.path for image in index.images} == {
        f"{tmp_path}/{row.partition(',')[0]}" for row in ROWS
    }
    assert all(image.size == len(IMAGE) for image in index.images)
    assert "validation_fraction of each class is held out" in index.missing[0]


def test_raw_dir_may_be_the_table_itself(tmp_path):
    table(tmp_path, ["path,label", *ROWS], name="mine.CSV")
    assert len(read(tmp_path / "mine.CSV").images) == 4
    written = prepare(tmp_path / "mine.CSV", tmp_path / "shards", validation_fraction=0.5)
    assert sum(part["images"] for part in written["splits"].values()) == 4
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    again = prepare(moved / "mine.CSV", moved / "shards", validation_fraction=0.5)
    assert again["fingerprint"] == written["fingerprint"]


@pytest.mark.parametrize("inside", ["wrapper", "one/two"])
def test_a_folder_around_the_table_is_entered(tmp_path, inside):
    table(tmp_path / inside, ["path,label", "1.jpg,a", "2.jpg,a", "3.jpg,b", "4.jpg,b"])
    (tmp_path / "readme.txt").write_text("photos of mine")
    index = read(tmp_path)
    assert index.layout == "table"
    assert len(index.images) == 4
    assert index.skipped == [(f"{tmp_path}/readme.txt", "not an image by its name (.txt)")]


def test_splits_are_as_the_table_says(tmp_path):
    splits = ("Training", "val", "TEST", "train")
    rows = [
        f"{n}.jpg,{label},{split}"
        for n, (label, split) in enumerate((label, split) for label in "ab" for split in splits)
    ]
    index = read(table(tmp_path, ["path,label,split", *rows]))
    counts = Counter((split, name) for split, name, _ in listed(index))
    assert counts == {
        (split, name): number
        for split, number in (("train", 2), ("validation", 1), ("test", 1))
        for name in "ab"
    }
    assert [i.split for i in index.images] == ["train"] * 4 + ["validation"] * 2 + ["test"] * 2


def test_a_group_is_on_one_side(tmp_path):
    rows = [f"{n}.jpg,{'ab'[n % 2]},patient {n // 4}" for n in range(40)]
    index = read(table(tmp_path, ["path,label,group", *rows]), fraction=0.2)
    sides = {}
    for image in index.images:
        sides.setdefault(int(image.name[:-4]) // 4, set()).add(image.split)
    assert all(len(side) == 1 for side in sides.values())
    assert Counter((i.split, i.label) for i in index.images) == {
        **{("train", label): 16 for label in (0, 1)},
        **{("validation", label): 4 for label in (0, 1)},
    }


def test_groups_hold_where_only_the_test_split_is_given(tmp_path):
    rows = [f"{n}.jpg,{'ab'[n % 2]},{'test' if n < 8 else 'train'},g{n // 4}" for n in range(40)]
    index = read(table(tmp_path, ["path,label,split,group", *rows]), fraction=0.25)
    assert {i.name for i in index.images if i.split == "test"} == {f"{n}.jpg" for n in range(8)}
    assert Counter(i.split for i in index.images) == {"train": 24, "validation": 8, "test": 8}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_spellings_of_spreadsheets_are_read(tmp_path, separator):
    """A mark of UTF-8, columns in any case and order, Windows' paths, quotes, an empty line."""
    lines = [["Label ", "PATH"], ['"a, b; c"', "x\\1.jpg"], ['"a, b; c"', "x\\2.jpg"]]
    lines += [["d", "./3.jpg"], ["d", str(tmp_path / "4.jpg")]]
    text = "\ufeff" + "\r\n".join(map(separator.join, lines)) + "\r\n\r\n"
    files = ("x/1.jpg", "x/2.jpg", "3.jpg", "4.jpg")
    table(tmp_path, [], files=files)
    (tmp_path / "labels.csv").write_bytes(text.encode())
    index = read(tmp_path)
    assert [name.name for name in index.classes] == ["a, b; c", "d"]
    assert sorted(image.name for image in index.images) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]


def test_names_are_compared_as_they_look(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    rows = [f"{nfc}.jpg,{nfc}", f"2.jpg,{nfd}", "3.jpg,b", "4.jpg,b"]
    files = (f"{nfd}.jpg", "2.jpg", "3.jpg", "4.jpg")
    index = read(table(tmp_path, ["path,label", *rows], files=files))
    assert [name.name for name in index.classes] == ["b", nfc]
    assert len(index.images) == 4


def test_images_that_the_table_leaves_out_are_counted(tmp_path):
    files = ("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg", "a/8.jpg", "b/9.png", "b/note.txt")
    index = read(table(tmp_path, ["path,label", *ROWS], files=files))
    assert index.skipped == [(str(tmp_path), "2 image files that the table does not list")]


def test_files_of_other_kinds_and_repeated_rows_are_counted(tmp_path):
    rows = [*ROWS, "a/5.txt,cat", "a/1.jpg,cat"]
    index = read(table(tmp_path, ["path,label", *rows]))
    assert sorted(reason for _, reason in index.skipped) == [
        "a second time in labels.csv",
        "not an image by its name (.txt)",
    ]
    assert len(index.images) == 4


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["path,label,colour,size", *ROWS], "unknown columns colour, size (known: path, label,"),
        (["path,class", *ROWS], "unknown columns class (known"),
        (["path,split", "1.jpg,train"], "no column label"),
        (["path,label,label", "1.jpg,a,a"], "no column label"),
        (["path,label"], "no images"),
        (["path,label", *ROWS, "7.jpg,fox"], "labels with one image: fox"),
        (["path,label", *ROWS[:2]], "one label, and telling apart takes two or more"),
        (["path,label", *ROWS, "7.jpg,"], "an empty cell in line 6"),
        (["path,label", *ROWS, "7.jpg,a,b"], "not 2 cells in line 6"),
        (["path,label,split", "1.jpg,a,dev", "2.jpg,a,train"], "unknown splits dev (known: train"),
        (["path,label", *ROWS, "a/1.jpg,dog"], "files in two rows that differ: a/1.jpg"),
        (
            ["path,label,split,group", "1.jpg,a,train,g", "2.jpg,a,val,g", "3.jpg,b,val,h"],
            "groups in more than one split: g",
        ),
        (
            ["path,label,split", "1.jpg,a,val", "2.jpg,a,test", "3.jpg,b,train", "4.jpg,b,train"],
            "labels without a row of the split train: a:",
        ),
        (["path,label", *ROWS, "7.jpg,a\x01b", "8.jpg,a\x02b"], "print alike: 'a\\x01b'"),
    ],
)
def test_each_fault_is_named(tmp_path, lines, words):
    with pytest.raises(ValueError) as caught:
        read(table(tmp_path, lines))
    assert words in str(caught.value)
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_are_named_at_once(tmp_path):
    rows = [*ROWS, *(f"gone{n}.jpg,cat" for n in range(9)), "a/5.jpg,fox", "7.jpg,"]
    files = ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg", "a/5.jpg"]
    with pytest.raises(ValueError) as caught:
        read(table(tmp_path, ["path,label", *rows], files=files))
    assert str(caught.value) == (
        f"{tmp_path}/labels.csv: an empty cell in line 16; 9 files that are not there: gone0.jpg, "
        "gone1.jpg, gone2.jpg, gone3.jpg, gone4.jpg and 4 more; labels with one image: fox: "
        "correct it, or rename the file"
    )


def test_groups_that_leave_no_validation_are_refused(tmp_path):
    rows = [f"{n}.jpg,{'ab'[n % 2]},{'gh'[n % 2]}" for n in range(8)]
    with pytest.raises(ValueError, match=r"the groups leave no validation image: .*: a, b"):
        read(table(tmp_path, ["path,label,group", *rows]))


def test_what_is_no_text_is_refused(tmp_path):
    table(tmp_path, [])
    (tmp_path / "labels.csv").write_bytes(b"path,label\n\xff.jpg,a\n")
    with pytest.raises(ValueError, match="cannot be read .*: save it as CSV in UTF-8"):
        read(tmp_path)
