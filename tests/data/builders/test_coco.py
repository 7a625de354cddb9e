import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from jaxt2i.data.builders.coco import Jaxt2iCoco
from jaxt2i.data.schema import DataError
from tests.data.builders.built import build
from tests.data.builders.pictures import cut, save

# Ids with gaps, as COCO's 1 to 90.
CATEGORIES = [(1, "person"), (13, "stop sign"), (90, "toothbrush")]
# id: width, height, mode; 167126 is cut off, as it long was in the official archive.
TRAIN = {9: (64, 48, "RGB"), 25: (80, 60, "L"), 30: (64, 48, "RGB"), 167126: (64, 48, "RGB")}
VAL = {42: (72, 48, "RGB"), 73: (64, 48, "RGB")}
CROWD = np.zeros((48, 64), np.uint8)
CROWD[5:20, 10:30] = 1
PACKED = np.zeros((48, 64), np.uint8)
PACKED[30:40, 0:12] = 1


def counts_of(mask):
    """Run lengths by a plain walk down the columns."""
    runs, value, length = [], 0, 0
    for pixel in mask.T.reshape(-1):
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    return [*runs, length]


def drawn(row, index):
    """The mask of a stored object, by its run lengths."""
    runs = row["objects"]["rle"][index]
    shape = (row["image/width"], row["image/height"])
    return np.repeat(np.arange(len(runs)) % 2, runs).reshape(shape).T


def packed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def instance(number, image, category, bbox, segmentation, crowd=0, area=100.5):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": bbox,
        "area": area,
        "iscrowd": crowd,
        "segmentation": segmentation,
    }


def file_name(year, split, number):
    return f"COCO_{split}2014_{number:012d}.jpg" if year == "2014" else f"{number:012d}.jpg"


def split_of(root, year, split, pictures, instances):
    """One split's folder of pictures and its two annotation files."""
    images = []
    for number, (width, height, mode) in pictures.items():
        name = file_name(year, split, number)
        save(root / f"{split}{year}" / name, width, height, number, mode)
        images.append(
            {
                "id": number,
                "file_name": name,
                "width": width,
                "height": height,
                "license": 3,
                "coco_url": f"http://images.cocodataset.org/{split}{year}/{name}",
            }
        )
    texts = [
        {"id": 10 * number + k, "image_id": number, "caption": f" Caption {k} of\n{number} "}
        for number in pictures
        for k in range(7 if number == 9 else 5)
    ]
    categories = [{"id": i, "name": n, "supercategory": "any"} for i, n in CATEGORIES]
    annotations = root / "annotations"
    annotations.mkdir(exist_ok=True)
    for kind, content in {
        "captions": {"images": images, "annotations": texts},
        "instances": {"images": images, "annotations": instances, "categories": categories},
    }.items():
        (annotations / f"{kind}_{split}{year}.json").write_text(json.dumps(content))


def tree(root, year="2014"):
    """The official folders with four and two pictures."""
    root.mkdir(parents=True)
    corner = [2, 3, 12, 3, 12, 13, 2, 13]
    apart = [40, 20, 50, 20, 50, 30, 40, 30]
    train = [
        instance(501, 9, 90, [2.0, 3.0, 48.0, 27.0], [corner, apart]),
        instance(502, 25, 1, [70.5, 50.0, 20.0, 10.0], [[70, 50, 80, 50, 80, 60, 70, 60]]),
        instance(
            500, 9, 1, [10, 5, 20, 15], {"size": [48, 64], "counts": counts_of(CROWD)}, crowd=1
        ),
        instance(503, 9, 13, [0, 30, 12, 10], packed(PACKED)),
    ]
    val = [instance(600, 42, 13, [0, 0, 72, 48], [[1, 1, 2, 2]])]
    split_of(root, year, "train", TRAIN, train)
    split_of(root, year, "val", VAL, val)
    cut(root / f"train{year}" / file_name(year, "train", 167126))
    return root


def edit(file, change):
    """Rewrites a JSON file after `change` of its content in place."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def by_id(made, split="train"):
    return {json.loads(row["metadata"])["image_id"]: row for row in made[split]}


@pytest.fixture(scope="module")
def built_2014(tmp_path_factory):
    root = tree(tmp_path_factory.mktemp("coco") / "in")
    skips = {}
    made = build(Jaxt2iCoco, root, root.parent / "out", skips, config="2014")
    return root, made, skips


def test_counts_ids_and_the_truncated_picture(built_2014):
    _, made, skips = built_2014
    assert {split: len(rows) for split, rows in made.items()} == {"train": 3, "val": 2}
    assert skips == {"truncated or corrupt": 1}
    ids = {row["id"] for row in made["train"]}
    assert "jaxt2i_coco/train/COCO_train2014_000000000009" in ids
    assert not any("167126" in i for i in ids)


def test_all_captions_are_kept_with_their_ids(built_2014):
    rows = by_id(built_2014[1])
    captions = rows[9]["captions"]
    assert captions["text"] == [f"Caption {k} of 9" for k in range(7)]
    assert captions["id"].tolist() == [90 + k for k in range(7)]
    assert set(captions["language"]) == {"en"}
    assert len(rows[25]["captions"]["text"]) == 5


def test_objects_have_labels_without_gaps_and_keep_their_order(built_2014):
    rows = by_id(built_2014[1])
    objects = rows[9]["objects"]
    assert objects["id"].tolist() == [501, 500, 503]
    assert objects["label"].tolist() == [2, 0, 1]
    assert objects["category_id"].tolist() == [90, 1, 13]
    assert objects["name"] == ["toothbrush", "person", "stop sign"]
    assert objects["is_crowd"].tolist() == [False, True, False]
    np.testing.assert_allclose(objects["area"], 100.5)
    # ymin, xmin, ymax, xmax of x 2, y 3, w 48, h 27 in 64 x 48.
    np.testing.assert_allclose(objects["bbox"][0], [3 / 48, 2 / 64, 30 / 48, 50 / 64], rtol=1e-6)
    # x 70.5 to 90.5 of 80, y to the border.
    np.testing.assert_allclose(rows[25]["objects"]["bbox"][0], [50 / 60, 70.5 / 80, 1, 1])
    assert len(rows[30]["objects"]["id"]) == 0


def test_masks_of_all_three_forms_are_what_was_drawn(built_2014):
    row = by_id(built_2014[1])[9]
    polygons = np.zeros((48, 64), int)
    polygons[3:13, 2:12] = polygons[20:30, 40:50] = 1
    np.testing.assert_array_equal(drawn(row, 0), polygons)
    np.testing.assert_array_equal(drawn(row, 1), CROWD)
    np.testing.assert_array_equal(drawn(row, 2), PACKED)
    # Two points enclose nothing.
    assert len(by_id(built_2014[1], "val")[42]["objects"]["rle"][0]) == 0


def test_pictures_are_kept_byte_for_byte_and_gray_ones_too(built_2014):
    root, made, _ = built_2014
    for split in ("train", "val"):
        for row in made[split]:
            assert row["image"] == (root / f"{split}2014" / row["image/filename"]).read_bytes()
    with Image.open(root / "train2014" / file_name("2014", "train", 25)) as image:
        assert image.mode == "L"


def test_metadata_keeps_the_licence(built_2014):
    metadata = json.loads(by_id(built_2014[1])[9]["metadata"])
    assert metadata["license"] == 3
    assert metadata["coco_url"].endswith("COCO_train2014_000000000009.jpg")


def test_2017_has_other_names_and_counts(tmp_path):
    made = build(Jaxt2iCoco, tree(tmp_path / "in", "2017"), tmp_path / "out", config="2017")
    assert "jaxt2i_coco/train/000000000009" in {row["id"] for row in made["train"]}
    builder = Jaxt2iCoco(data_dir=tmp_path / "out", config="2017")
    assert builder.EXPECTED == {"train": 118287, "val": 5000}
    assert builder.info.metadata["objects"] == ["person", "stop sign", "toothbrush"]
    assert Jaxt2iCoco(data_dir=tmp_path, config="2014").EXPECTED == {"train": 82783, "val": 40504}


def test_two_builds_agree(built_2014, tmp_path):
    root, made, _ = built_2014
    again = build(Jaxt2iCoco, root, tmp_path, config="2014")
    assert [row["id"] for row in again["train"]] == [row["id"] for row in made["train"]]


def test_maps_of_either_folder_become_the_segmentation(tmp_path):
    root = tree(tmp_path / "in")
    labels = np.full((48, 64), 255, np.uint8)
    labels[:10], labels[10:20], labels[20:30] = 0, 90, 181
    for folder, number in (("val2017", 9), ("train2017", 73)):
        (root / "stuffthingmaps_trainval2017" / folder).mkdir(parents=True)
        image = Image.fromarray(labels)
        image.putpalette(bytes(range(256)) * 3)
        image.save(root / "stuffthingmaps_trainval2017" / folder / f"{number:012d}.png")
    (root / "labels.txt").write_text("".join(f"{i}: class {i}\n" for i in range(183)))
    made = build(Jaxt2iCoco, root, tmp_path / "out", config="2014")
    np.testing.assert_array_equal(by_id(made)[9]["segmentation"][..., 0], labels)
    np.testing.assert_array_equal(by_id(made, "val")[73]["segmentation"][..., 0], labels)
    assert by_id(made)[30]["segmentation"].shape == (1, 1, 1)
    names = Jaxt2iCoco(data_dir=tmp_path / "out", config="2014").info.metadata["segmentation"]
    assert (len(names), names[0], names[181]) == (182, "class 1", "class 182")


def test_what_joins_nothing_is_counted(tmp_path):
    root = tree(tmp_path / "in")

    def strays(content):
        content["annotations"] += [
            instance(700, 12345, 1, [0, 0, 1, 1], []),
            instance(701, 9, 12, [0, 0, 1, 1], []),
        ]

    edit(root / "annotations" / "instances_train2014.json", strays)

    def without_30(content):
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 30]
        content["annotations"].append({"id": 1, "image_id": 777, "caption": "nothing"})

    edit(root / "annotations" / "captions_train2014.json", without_30)
    skips = {}
    made = build(Jaxt2iCoco, root, tmp_path / "out", skips, config="2014")
    assert set(by_id(made)) == {9, 25}
    assert skips == {
        "annotation of no picture": 2,
        "annotation of no class": 1,
        "image without caption": 1,
        "truncated or corrupt": 1,
    }


def test_pictures_that_do_not_fit_their_annotations_are_counted(tmp_path):
    root = tree(tmp_path / "in")
    save(root / "train2014" / file_name("2014", "train", 30), 32, 24)

    def spoil(content):
        content["annotations"][0]["segmentation"] = {"size": [48, 64], "counts": [5, 7]}

    edit(root / "annotations" / "instances_val2014.json", spoil)
    skips = {}
    made = build(Jaxt2iCoco, root, tmp_path / "out", skips, config="2014")
    assert (set(by_id(made)), set(by_id(made, "val"))) == ({9, 25}, {73})
    assert skips["not of the size that was annotated"] == 1
    assert skips["malformed mask"] == 1


def test_archives_are_unpacked(tmp_path):
    root = tree(tmp_path / "in")
    maps = tmp_path / "maps" / "train2017"
    maps.mkdir(parents=True)
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(maps / "000000000009.png")
    archives = {
        "train2014.zip": (root, "train2014"),
        "val2014.zip": (root, "val2014"),
        "annotations_trainval2014.zip": (root, "annotations"),
        "stuffthingmaps_trainval2017.zip": (tmp_path / "maps", "train2017"),
    }
    packed_in = tmp_path / "packed"
    packed_in.mkdir()
    for archive, (base, folder) in archives.items():
        with zipfile.ZipFile(packed_in / archive, "w") as out:
            for file in (base / folder).iterdir():
                out.write(file, file.relative_to(base))
    made = build(Jaxt2iCoco, packed_in, tmp_path / "out", config="2014")
    assert len(made["train"]) == 3
    assert (by_id(made)[9]["segmentation"] == 7).all()


def test_what_is_missing_or_misplaced_is_named(tmp_path):
    root = tree(tmp_path / "in")
    (root / "images").mkdir()
    (root / "val2014").rename(root / "images" / "val2014")
    (root / "annotations" / "captions_train2014.json").unlink()
    with pytest.raises(DataError) as error:
        build(Jaxt2iCoco, root, tmp_path / "out", config="2014")
    said = str(error.value)
    assert "val2014 is missing" in said
    assert f"{root / 'images' / 'val2014'} looks like it" in said
    assert "captions_train2014.json is missing; it is in annotations_trainval2014.zip" in said


def test_a_partial_archive_is_named(tmp_path):
    root = tree(tmp_path / "in")
    (root / "val2014" / file_name("2014", "val", 42)).unlink()
    with pytest.raises(DataError, match=r"1 pictures that are not there, such as .*000000000042"):
        build(Jaxt2iCoco, root, tmp_path / "out", config="2014")


def test_annotation_files_that_are_none_are_named(tmp_path):
    root = tree(tmp_path / "in")
    captions = root / "annotations" / "captions_train2014.json"
    whole = captions.read_text()
    cut(captions)
    with pytest.raises(DataError, match=r"captions_train2014\.json is not JSON .*Get it again"):
        build(Jaxt2iCoco, root, tmp_path / "a", config="2014")
    captions.write_text("[]")
    with pytest.raises(DataError, match=r"captions_train2014\.json: expected a JSON dict.*list"):
        build(Jaxt2iCoco, root, tmp_path / "b", config="2014")
    captions.write_text(json.dumps({"info": {}}))
    with pytest.raises(DataError, match=r'captions_train2014\.json: expected a list "images".*inf'):
        build(Jaxt2iCoco, root, tmp_path / "c", config="2014")
    captions.write_text(whole.replace('"caption"', '"text"'))
    with pytest.raises(DataError, match='entry 0 of "annotations" should have id, image_id, capt'):
        build(Jaxt2iCoco, root, tmp_path / "d", config="2014")


def test_a_list_of_classes_with_gaps_is_refused(tmp_path):
    root = tree(tmp_path / "in")
    (root / "stuffthingmaps_trainval2017").mkdir()
    (root / "labels.txt").write_text("0: unlabeled\n1: person\n")
    with pytest.raises(DataError, match=r"labels\.txt: expected lines .*181 are not there.* 2"):
        build(Jaxt2iCoco, root, tmp_path / "out", config="2014")
