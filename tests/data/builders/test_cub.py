import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from jaxt2i.data.builders.cub import Jaxt2iCub
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import records
from tests.data.builders.built import build
from tests.data.builders.pictures import cut, save

# (folder, stem): the stems' capitals differ from the folders'.
BIRDS = [
    ("001.Black_footed_Albatross", "Black_Footed_Albatross_0001_1"),
    ("001.Black_footed_Albatross", "Black_Footed_Albatross_0002_2"),
    ("002.White_necked_Raven", "White_Necked_Raven_0070_102645"),
    ("003.Sooty_Albatross", "Sooty_Albatross_0001_3"),
]
BOXES = ["10.0 5.0 30.5 20.0", "50.0 40.0 30.0 20.0", "0.0 0.0 60.0 48.0", "1.0 2.0 3.0 4.0"]


def tree(root, captions="cvpr2016_cub"):
    """The official folders with four birds of three kinds."""
    cub = root / "CUB_200_2011"
    for i, (kind, stem) in enumerate(BIRDS):
        mode = "L" if "Raven" in kind else "RGB"
        save(cub / "images" / kind / f"{stem}.jpg", 64 + 8 * (i == 3), 48, i, mode)
    kinds = sorted({kind for kind, _ in BIRDS})
    (cub / "classes.txt").write_text("".join(f"{i} {k}\n" for i, k in enumerate(kinds, 1)))
    lists = {
        "images.txt": [f"{kind}/{stem}.jpg" for kind, stem in BIRDS],
        "image_class_labels.txt": [kinds.index(kind) + 1 for kind, _ in BIRDS],
        "bounding_boxes.txt": BOXES,
        "train_test_split.txt": [0, 1, 0, 1],
    }
    for name, rows in lists.items():
        (cub / name).write_text("".join(f"{i} {row}\n" for i, row in enumerate(rows, 1)))
    if captions == "birds":
        text, keys = root / "birds" / "text", [f"{k}/{s}" for k, s in BIRDS]
        for split, part in {"train": keys[:3], "test": keys[3:]}.items():
            (root / "birds" / split).mkdir(parents=True)
            with (root / "birds" / split / "filenames.pickle").open("wb") as stream:
                pickle.dump(part, stream, protocol=2)
    else:
        base = root / captions if captions else root
        text = base / "text_c10"
        base.mkdir(exist_ok=True)
        (base / "testclasses.txt").write_text("003.Sooty_Albatross\n")
        (base / "trainvalclasses.txt").write_text("\n".join(kinds[:2]) + "\n")
    for kind, stem in BIRDS:
        (text / kind).mkdir(parents=True, exist_ok=True)
        lines = [f"this bird has a wing, number {i} ." for i in range(8)]
        lines += ["", "it's a \ufffd\ufffd b\u00efrd ", "the last  one."]
        (text / kind / f"{stem}.txt").write_text("\n".join(lines), encoding="utf-8")
    return root


@pytest.mark.parametrize("captions", ["cvpr2016_cub", "", "birds"])
def test_joins_images_boxes_and_captions(tmp_path, captions):
    made = build(Jaxt2iCub, tree(tmp_path / "in", captions), tmp_path / "out")
    assert {split: len(rows) for split, rows in made.items()} == {"train": 3, "test": 1}
    rows = {row["image/filename"]: row for row in made["train"]}
    row = rows["001.Black_footed_Albatross/Black_Footed_Albatross_0001_1.jpg"]
    assert row["id"] == "jaxt2i_cub/train/001.Black_footed_Albatross/Black_Footed_Albatross_0001_1"
    assert len(row["captions"]["text"]) == 10
    assert row["captions"]["text"][8] == "it's a \ufffd\ufffd b\u00efrd"
    assert row["captions"]["text"][9] == "the last one."
    assert (row["label"], row["label_name"]) == (0, "Black footed Albatross")
    # ymin, xmin, ymax, xmax of x 10, y 5, w 30.5, h 20 in 64 x 48.
    np.testing.assert_allclose(row["bbox"], [5 / 48, 10 / 64, 25 / 48, 40.5 / 64], rtol=1e-6)
    outside = rows["001.Black_footed_Albatross/Black_Footed_Albatross_0002_2.jpg"]
    np.testing.assert_allclose(outside["bbox"], [40 / 48, 50 / 64, 1, 1], rtol=1e-6)
    assert made["test"][0]["label"] == 2


def test_pictures_are_kept_byte_for_byte(tmp_path):
    root = tree(tmp_path / "in")
    made = build(Jaxt2iCub, root, tmp_path / "out")
    for row in made["train"] + made["test"]:
        file = root / "CUB_200_2011" / "images" / row["image/filename"]
        assert row["image"] == file.read_bytes()
        with Image.open(file) as image:
            assert image.size == (row["image/width"], row["image/height"])


def test_two_builds_agree(tmp_path):
    root = tree(tmp_path / "in")
    first, again = (build(Jaxt2iCub, root, tmp_path / name) for name in "ab")
    assert [r["id"] for r in first["train"]] == [r["id"] for r in again["train"]]


def test_masks_become_a_segmentation(tmp_path):
    root = tree(tmp_path / "in")
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 5:9] = 255
    mask[0, 0] = 51
    kind, stem = BIRDS[0]
    (root / "segmentations" / kind).mkdir(parents=True)
    Image.fromarray(mask).save(root / "segmentations" / kind / f"{stem}.png")
    rows = {r["image/filename"]: r for r in build(Jaxt2iCub, root, tmp_path / "out")["train"]}
    np.testing.assert_array_equal(
        rows[f"{kind}/{stem}.jpg"]["segmentation"][..., 0] == 0, mask == 255
    )
    kind, stem = BIRDS[1]
    assert rows[f"{kind}/{stem}.jpg"]["segmentation"].shape == (1, 1, 1)


def test_attributes_are_rows_of_a_batch(tmp_path):
    root = tree(tmp_path / "in")
    (root / "attributes.txt").write_text("1 has_bill_shape::curved\n2 has_wing_color::blue\n")
    marked = root / "CUB_200_2011" / "attributes" / "image_attribute_labels.txt"
    marked.parent.mkdir()
    marked.write_text("1 1 0 3 1.2\n1 2 1 4 1.2\n2 1 1 1 0 0.5\n2 2 1 2 3\n3 1 0 1 1\n")
    build(Jaxt2iCub, root, tmp_path / "out")
    wanted = records.Wanted(attributes=2)
    source = records.Records(str(tmp_path / "out"), "train", Framing(16), wanted)
    assert source.attribute_names == ["has_bill_shape::curved", "has_wing_color::blue"]
    found = {
        source.name(i)[-10:]: source.example(i, ("attributes",))["attributes"].tolist()
        for i in range(source.size)
    }
    assert sorted(found.values()) == [[False, False], [False, True], [True, True]]
    wanted = records.Wanted(attributes=312)
    with pytest.raises(DataError, match=r"has 2; set --config\.data\.attributes=2"):
        records.Records(str(tmp_path / "out"), "train", Framing(16), wanted)
    marked.write_text("1 one 0\n")
    with pytest.raises(DataError, match=r"labels\.txt:1: expected 'picture attribute 0-or-1"):
        build(Jaxt2iCub, root, tmp_path / "again")


def test_a_broken_picture_and_a_missing_text_are_counted(tmp_path):
    root = tree(tmp_path / "in")
    kind, stem = BIRDS[0]
    cut(root / "CUB_200_2011" / "images" / kind / f"{stem}.jpg")
    kind, stem = BIRDS[1]
    (root / "cvpr2016_cub" / "text_c10" / kind / f"{stem}.txt").unlink()
    skips = {}
    made = build(Jaxt2iCub, root, tmp_path / "out", skips)
    assert len(made["train"]) == 1
    assert skips == {"truncated or corrupt": 1, "image without caption": 1}


def test_what_is_missing_is_named_before_any_work(tmp_path):
    root = tree(tmp_path / "in")
    (root / "CUB_200_2011").rename(root / "elsewhere")
    (root / "stuff").mkdir()
    (root / "elsewhere").rename(root / "stuff" / "CUB_200_2011")
    with pytest.raises(DataError, match=r"CUB_200_2011 is missing.*stuff.*looks like it.*caltech"):
        build(Jaxt2iCub, root, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.tfrecord*"))


def test_a_partial_archive_is_named(tmp_path):
    root = tree(tmp_path / "in")
    kind, stem = BIRDS[0]
    (root / "CUB_200_2011" / "images" / kind / f"{stem}.jpg").unlink()
    with pytest.raises(DataError, match=rf"1 pictures that are not there, such as .*{stem}"):
        build(Jaxt2iCub, root, tmp_path / "out")


def test_a_foreign_list_of_classes_is_refused(tmp_path):
    root = tree(tmp_path / "in")
    (root / "cvpr2016_cub" / "testclasses.txt").write_text("009.Brewer_Blackbird\n")
    with pytest.raises(DataError, match=r"009\.Brewer_Blackbird"):
        build(Jaxt2iCub, root, tmp_path / "out")


def test_archives_are_unpacked(tmp_path):
    root = tree(tmp_path / "in")
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "CUB_200_2011.tgz", "w:gz") as archive:
        archive.add(root / "CUB_200_2011", "CUB_200_2011")
    with tarfile.open(packed / "cvpr2016_cub.tar.gz", "w:gz") as archive:
        archive.add(root / "cvpr2016_cub", "cvpr2016_cub")
    assert len(build(Jaxt2iCub, packed, tmp_path / "out")["train"]) == 3
    cut(packed / "CUB_200_2011.tgz")
    with pytest.raises(DataError, match=r"CUB_200_2011\.tgz cannot be unpacked"):
        build(Jaxt2iCub, packed, tmp_path / "other")


def test_a_pickle_with_code_is_refused(tmp_path):
    root = tree(tmp_path / "in", "birds")
    with (root / "birds" / "test" / "filenames.pickle").open("wb") as stream:
        pickle.dump(print, stream)
    with pytest.raises(DataError, match="refused without running it"):
        build(Jaxt2iCub, root, tmp_path / "out")
