import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy.io import savemat

from jaxt2i.data.builders.oxford102 import Jaxt2iOxford102
from jaxt2i.data.schema import DataError
from tests.data.builders.built import build
from tests.data.builders.pictures import cut, picture, save

# The class of each picture, counted from 1; class 3 is held out.
LABELS = [2, 1, 3, 2, 102, 3]


def tree(root, captions="cvpr2016_flowers", labels=LABELS):
    """The official files with six flowers of four kinds."""
    for number in range(1, len(labels) + 1):
        mode = "L" if number == 4 else "RGB"
        save(root / "jpg" / f"image_{number:05d}.jpg", 64, 48 + number, number, mode)
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    savemat(root / "setid.mat", {"trnid": [[1, 6]], "valid": [[2]], "tstid": [[3, 4, 5]]})
    names = [f"class_{kind:05d}/image_{i:05d}" for i, kind in enumerate(labels, 1)]
    if captions == "flowers":
        text = root / "flowers" / "text"
        keys = [f"jpg/{name.split('/')[1]}" for name in names]
        parts = {"train": [keys[i] for i in (4, 3, 1, 0)], "test": [keys[2], keys[5]]}
        for split, part in parts.items():
            (root / "flowers" / split).mkdir(parents=True)
            with (root / "flowers" / split / "filenames.pickle").open("wb") as stream:
                pickle.dump(part, stream, protocol=2)
    else:
        base = root / captions if captions else root
        text, keys = base / "text_c10", names
        base.mkdir(exist_ok=True)
        (base / "testclasses.txt").write_text("class_00003\n")
        if captions:
            (base / "trainvalclasses.txt").write_text("class_00001\nclass_00002\nclass_00102\n")
        else:
            (base / "trainclasses.txt").write_text("class_00102\nclass_00001\n")
            (base / "valclasses.txt").write_text("class_00002\n")
    for number, key in enumerate(keys, 1):
        (text / key).parent.mkdir(parents=True, exist_ok=True)
        lines = [f"flower {number} has petals, line {i} ." for i in range(10)]
        text.joinpath(f"{key}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("captions", ["cvpr2016_flowers", "", "flowers"])
def test_joins_pictures_labels_and_captions(tmp_path, captions):
    made = build(Jaxt2iOxford102, tree(tmp_path / "in", captions), tmp_path / "out")
    assert {split: len(rows) for split, rows in made.items()} == {"train": 4, "test": 2}
    rows = {row["image/filename"]: row for row in made["train"] + made["test"]}
    assert {name: row["label"] + 1 for name, row in rows.items()} == {
        f"image_{i:05d}.jpg": kind for i, kind in enumerate(LABELS, 1)
    }
    row = rows["image_00005.jpg"]
    assert row["id"] == "jaxt2i_oxford102/train/image_00005"
    assert row["captions"]["text"] == [f"flower 5 has petals, line {i} ." for i in range(10)]
    assert set(row["captions"]["language"]) == {"en"}
    assert (row["label"], row["label_name"]) == (101, "class_00102")
    assert (row["image/width"], row["image/height"]) == (64, 53)
    assert not row["has_bbox"]
    assert rows["image_00003.jpg"]["id"].startswith("jaxt2i_oxford102/test/")


def test_pictures_are_kept_byte_for_byte(tmp_path):
    root = tree(tmp_path / "in")
    for row in build(Jaxt2iOxford102, root, tmp_path / "out")["train"]:
        assert row["image"] == (root / "jpg" / row["image/filename"]).read_bytes()


def test_two_builds_agree(tmp_path):
    root = tree(tmp_path / "in")
    first, again = (build(Jaxt2iOxford102, root, tmp_path / name) for name in "ab")
    assert [r["id"] for r in first["train"]] == [r["id"] for r in again["train"]]


def test_the_own_division_of_the_data_set_is_kept_when_it_is_there(tmp_path):
    root = tree(tmp_path / "in")
    made = build(Jaxt2iOxford102, root, tmp_path / "a")
    found = {r["image/filename"]: json.loads(r["metadata"]) for r in made["train"]}
    assert found == {
        "image_00001.jpg": {"official_split": "train"},
        "image_00002.jpg": {"official_split": "val"},
        "image_00004.jpg": {"official_split": "test"},
        "image_00005.jpg": {"official_split": "test"},
    }
    (root / "setid.mat").unlink()
    made = build(Jaxt2iOxford102, root, tmp_path / "b")
    assert {row["metadata"] for row in made["train"]} == {"{}"}


def test_all_classes_are_named_in_the_metadata(tmp_path):
    builder = Jaxt2iOxford102(data_dir=tmp_path / "out")
    names = builder.names(builder.files(tree(tmp_path / "in")))["label"]
    assert (len(names), names[0], names[101]) == (102, "class_00001", "class_00102")


def test_the_blue_of_a_mask_becomes_void(tmp_path):
    root = tree(tmp_path / "in")
    drawn = Image.new("L", (64, 49))
    ImageDraw.Draw(drawn).ellipse((12, 8, 50, 40), fill=255)
    # Light purple: a flower's own blue must stay flower.
    flower = Image.blend(picture(64, 49, 3), Image.new("RGB", (64, 49), (150, 120, 230)), 0.7)
    blue = Image.new("RGB", (64, 49), (0, 0, 254))
    (root / "segmim").mkdir()
    Image.composite(flower, blue, drawn).save(root / "segmim" / "segmim_00001.jpg", quality=75)
    rows = {r["image/filename"]: r for r in build(Jaxt2iOxford102, root, tmp_path / "out")["train"]}
    stored = rows["image_00001.jpg"]["segmentation"][..., 0]
    assert set(np.unique(stored)) == {0, 255}
    # JPEG halves the colour's resolution: on a rim two pixels wide anything may be.
    far = [
        np.asarray(drawn.filter(kind(5))) > 0
        for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter)
    ]
    assert (stored[far[0]] == 0).all()
    assert (stored[~far[1]] == 255).all()
    assert rows["image_00002.jpg"]["segmentation"].shape == (1, 1, 1)


def test_a_broken_picture_and_a_missing_text_are_counted(tmp_path):
    root = tree(tmp_path / "in")
    cut(root / "jpg" / "image_00001.jpg")
    (root / "cvpr2016_flowers" / "text_c10" / "class_00001" / "image_00002.txt").unlink()
    skips = {}
    made = build(Jaxt2iOxford102, root, tmp_path / "out", skips)
    assert len(made["train"]) == 2
    assert skips == {"truncated or corrupt": 1, "image without caption": 1}


def test_archives_are_unpacked(tmp_path):
    root = tree(tmp_path / "in")
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "102flowers.tgz", "w:gz") as archive:
        archive.add(root / "jpg", "jpg")
    with tarfile.open(packed / "cvpr2016_flowers.tar.gz", "w:gz") as archive:
        archive.add(root / "cvpr2016_flowers", "cvpr2016_flowers")
    (root / "imagelabels.mat").rename(packed / "imagelabels.mat")
    assert len(build(Jaxt2iOxford102, packed, tmp_path / "out")["train"]) == 4


def test_everything_missing_or_misplaced_is_named_at_once(tmp_path):
    root = tree(tmp_path / "in")
    (root / "imagelabels.mat").unlink()
    (root / "stuff").mkdir()
    (root / "jpg").rename(root / "stuff" / "jpg")
    with pytest.raises(DataError, match=r"stuff/jpg looks like it.*102flowers\.tgz") as error:
        build(Jaxt2iOxford102, root, tmp_path / "out")
    assert "imagelabels.mat is missing" in str(error.value)


def test_a_partial_archive_is_named(tmp_path):
    root = tree(tmp_path / "in")
    (root / "jpg" / "image_00004.jpg").unlink()
    with pytest.raises(DataError, match=r"1 pictures that are not there, such as .*image_00004"):
        build(Jaxt2iOxford102, root, tmp_path / "out")


def spoil(root, case):
    base = root / "cvpr2016_flowers"
    if case == "no matlab":
        (root / "imagelabels.mat").write_bytes(b"<html>not found</html>" * 20)
    elif case == "cut matlab":
        cut(root / "setid.mat")
    elif case == "other key":
        savemat(root / "imagelabels.mat", {"classes": [[1, 2]]})
    elif case == "from zero":
        savemat(root / "imagelabels.mat", {"labels": [[0, 1, 2, 1, 101, 2]]})
    elif case == "no list":
        (base / "testclasses.txt").unlink()
    elif case == "in both":
        (base / "testclasses.txt").write_text("class_00003\nclass_00001\n")
    elif case == "in neither":
        (base / "trainvalclasses.txt").write_text("class_00001\nclass_00002\n")


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no matlab", r"imagelabels\.mat is no Matlab file.*robots\.ox"),
        ("cut matlab", r"setid\.mat is no Matlab file"),
        ("other key", r"imagelabels\.mat: expected labels, found classes"),
        ("from zero", r"imagelabels\.mat: expected labels from 1 to 102, found 0 to 101"),
        ("no list", r"testclasses\.txt missing: the 20 held-out"),
        ("in both", r"in both: \['class_00001'\]"),
        ("in neither", r"in neither: \['class_00102'\]"),
    ],
)
def test_malformed_files_are_named(tmp_path, case, said):
    root = tree(tmp_path / "in")
    spoil(root, case)
    with pytest.raises(DataError, match=said):
        build(Jaxt2iOxford102, root, tmp_path / "out")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["jpg/image_00001"], r"in both: \[1\]"),
        (["image_00099"], r"unknown: \[99\]"),
        (["001.Rose/rose_1"], r"expected keys such as image_00001, found '001\.Rose/rose_1'"),
        (None, r"test/filenames\.pickle is missing"),
    ],
)
def test_malformed_lists_of_pictures_are_named(tmp_path, keys, said):
    root = tree(tmp_path / "in", "flowers")
    file = root / "flowers" / "test" / "filenames.pickle"
    file.write_bytes(pickle.dumps(keys, protocol=2)) if keys else file.unlink()
    with pytest.raises(DataError, match=said):
        build(Jaxt2iOxford102, root, tmp_path / "out")
