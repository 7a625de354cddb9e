import io
import json
import multiprocessing
import pickle

import h5py
import numpy as np
import pytest
from PIL import Image

from jaxt2i.data.builders.fashiongen import Jaxt2iFashionGen
from jaxt2i.data.schema import DataError
from tests.data.builders.built import build
from tests.data.builders.pictures import cut, picture

TRAIN, VAL = "fashiongen_256_256_train.h5", "fashiongen_256_256_validation.h5"
# (category, description, brand, product id)
CLOTHES = {
    TRAIN: [
        (b"TOPS", b"Long sleeve t-shirt in black.<br>Rib knit collar.", b"Kenzo", 11),
        (b"JEANS", "Caf\u00e9 racer denim.<BR />Fading throughout.".encode("latin-1"), b"A", 12),
        (b"TOPS", b"Long sleeve t-shirt in black.<br>Rib knit collar.", b"Kenzo", 11),
        (b"TOPS", b"<br>", b"Nobody", 13),
    ],
    VAL: [
        (b"SHOES", "Sneakers by Acn\u00e9 \u2013 white.".encode(), "Acn\u00e9".encode(), 14),
        (b"JEANS", b"Slim jeans.", b"B", 15),
    ],
}


def pixels(file, row):
    return np.asarray(picture(256, 256, row + 10 * (file == VAL)))


def tree(root):
    """Both official files: each column [N, 1], strings of fixed length, pictures in chunks."""
    root.mkdir(parents=True)
    for name, rows in CLOTHES.items():
        count = len(rows)
        with h5py.File(root / name, "w") as file:
            images = np.stack([pixels(name, row) for row in range(count)])
            file.create_dataset("input_image", data=images, chunks=(1, 256, 256, 3), compression=4)
            text = {
                "input_category": [row[0] for row in rows],
                "input_description": [row[1] for row in rows],
                "input_brand": [row[2] for row in rows],
                "input_pose": [f"id_gridfs_{i + 1}".encode() for i in range(count)],
                "input_season": [b"SS2015"] * count,
            }
            for key, values in text.items():
                file[key] = np.array(values, "S64")[:, None]
            file["input_productID"] = np.array([[row[3]] for row in rows], np.int64)
            file["input_msrpUSD"] = np.full((count, 1), 195.5)
            file["index"] = np.arange(count)[:, None]
    return root


def test_stores_pictures_descriptions_and_categories(tmp_path):
    skips = {}
    made = build(Jaxt2iFashionGen, tree(tmp_path / "in"), tmp_path / "out", skips)
    assert {split: len(rows) for split, rows in made.items()} == {"train": 3, "val": 2}
    assert skips == {"image without caption": 1}
    rows = {row["id"]: row for row in made["train"] + made["val"]}
    row = rows["jaxt2i_fashiongen/train/000000"]
    assert row["captions"]["text"] == ["Long sleeve t-shirt in black. Rib knit collar."]
    assert row["captions"]["language"] == ["en"]
    assert row["image/filename"] == f"{TRAIN}/000000"
    # JEANS, SHOES, TOPS over both files.
    assert (row["label"], row["label_name"]) == (2, "TOPS")
    assert rows["jaxt2i_fashiongen/val/000001"]["label"] == 0
    assert rows["jaxt2i_fashiongen/val/000000"]["label"] == 1
    for name, file in {"train/000002": TRAIN, "val/000001": VAL}.items():
        stored = Image.open(io.BytesIO(rows[f"jaxt2i_fashiongen/{name}"]["image"]))
        np.testing.assert_array_equal(np.asarray(stored), pixels(file, int(name[-1])))


def test_text_is_read_in_either_encoding(tmp_path):
    made = build(Jaxt2iFashionGen, tree(tmp_path / "in"), tmp_path / "out")
    texts = {row["captions"]["text"][0] for row in made["train"] + made["val"]}
    assert "Caf\u00e9 racer denim. Fading throughout." in texts
    assert "Sneakers by Acn\u00e9 \u2013 white." in texts


def test_every_other_column_is_metadata(tmp_path):
    made = build(Jaxt2iFashionGen, tree(tmp_path / "in"), tmp_path / "out")
    found = {row["id"][-8:]: json.loads(row["metadata"]) for row in made["train"] + made["val"]}
    assert found["n/000002"] == {
        "brand": "Kenzo",
        "index": 2,
        "msrpUSD": 195.5,
        "pose": "id_gridfs_3",
        "productID": 11,
        "season": "SS2015",
    }
    assert found["n/000000"]["productID"] == 11
    assert found["l/000000"]["brand"] == "Acn\u00e9"


def test_two_builds_agree(tmp_path):
    root = tree(tmp_path / "in")
    first, again = (build(Jaxt2iFashionGen, root, tmp_path / name) for name in "ab")
    assert [r["id"] for r in first["train"]] == [r["id"] for r in again["train"]]


def test_items_are_listed_without_pictures_and_made_in_a_forked_process(tmp_path):
    builder = Jaxt2iFashionGen(data_dir=tmp_path / "out")
    files = builder.files(tree(tmp_path / "in"))
    item = builder.items(files)["train"][1]
    assert len(pickle.dumps(item)) < 500
    sent = pickle.dumps((builder.record, files, item))
    # The parent holds the file open.
    child = multiprocessing.get_context("fork").Process(target=make_one, args=(sent,))
    child.start()
    child.join()
    assert child.exitcode == 0


def make_one(sent):
    record, files, item = pickle.loads(sent)
    np.testing.assert_array_equal(record(files, item).image, pixels(TRAIN, 1))


def test_a_broken_picture_is_counted(tmp_path):
    root = tree(tmp_path / "in")
    with h5py.File(root / TRAIN, "r") as file:
        chunk = file["input_image"].id.get_chunk_info(1)
    with (root / TRAIN).open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xff" * 200)
    skips = {}
    made = build(Jaxt2iFashionGen, root, tmp_path / "out", skips)
    assert len(made["train"]) == 2
    assert skips == {"truncated or corrupt": 1, "image without caption": 1}


def test_a_missing_and_a_misplaced_file_are_named_at_once(tmp_path):
    root = tree(tmp_path / "in")
    (root / TRAIN).unlink()
    (root / "val").mkdir()
    (root / VAL).rename(root / "val" / VAL)
    with pytest.raises(DataError, match=rf"{TRAIN} is missing; from https") as error:
        build(Jaxt2iFashionGen, root, tmp_path / "out")
    assert f"{root / 'val' / VAL} looks like it" in str(error.value)


def spoil(root, case):
    if case == "cut":
        cut(root / TRAIN)
        return
    if case == "foreign":
        (root / VAL).write_bytes(b"PK\x03\x04 and so on")
        return
    with h5py.File(root / TRAIN, "r+") as file:
        if case == "no text":
            del file["input_description"]
        elif case == "short column":
            del file["input_brand"]
            file["input_brand"] = np.array([[b"A"]])
        elif case == "other pictures":
            del file["input_image"]
            file["input_image"] = np.zeros((4, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("cut", rf"{TRAIN} is no HDF5 file or cut off"),
        ("foreign", rf"{VAL} is no HDF5 file or cut off"),
        ("no text", rf"{TRAIN}: expected input_description, found .*input_brand"),
        ("short column", r"input_image has 4 rows and input_brand 1"),
        ("other pictures", r"should be uint8 \[N, H, W, 3\], it is float32 \(4, 8, 8\)"),
    ],
)
def test_malformed_files_are_named(tmp_path, case, said):
    root = tree(tmp_path / "in")
    spoil(root, case)
    with pytest.raises(DataError, match=said):
        build(Jaxt2iFashionGen, root, tmp_path / "out")
