import json
import shutil
import zipfile

import numpy as np
import pytest

from jaxt2i.data import schema
from jaxt2i.data.builders.visual_genome import Jaxt2iVisualGenome, VisualGenomeConfig
from jaxt2i.data.decoding import NOT_UTF8
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import records
from tests.data.builders.built import build
from tests.data.builders.pictures import cut, save

# id: folder; 5 lies in the second part.
PICTURES = {1: "VG_100K", 2: "VG_100K", 5: "VG_100K_2", 7: "VG_100K"}
# image: (object id, name, x, y, w, h); one leaves the 64 x 48 picture, one has no width.
OBJECTS = {
    1: [(11, "Tree", 2, 3, 20, 30), (12, "man ", 50, 40, 30, 20), (13, "kite", 1, 1, 5, 5)],
    2: [(21, "tree", 0, 0, 64, 48), (22, "trees", 4, 4, 8, 8), (23, "man", 9, 9, 0, 5)],
    5: [(51, "man", 1, 2, 3, 4), (52, "dog", 1, 2, 3, 4)],
    7: [],
}
# image: (subject id, predicate, object id); 999 is no object.
RELATIONSHIPS = {
    1: [(12, "Standing  NEAR", 11), (12, "holds", 13), (11, "by", 999)],
    2: [(22, "next to", 210)],
    5: [],
    7: [],
}
# image: (region id, phrase)
PHRASES = {
    1: [(103, "a man stands"), (101, " a tall\ntree"), (102, "a kite in the sky")],
    2: [(201, "trees")],
    5: [(501, "a man and a dog")],
    7: [(701, "an empty street")],
}
SMALL = VisualGenomeConfig(name="small", min_count=2, min_predicates=1, min_attributes=1)


def tree(root, old=False):
    """The official folders; `old` writes the keys of the first release."""
    image_key, object_key, region_key = (
        ("id",) * 3 if old else ("image_id", "object_id", "region_id")
    )
    sides = ("width", "height") if old else ("w", "h")

    def one(number, name, x, y, w, h):
        named = {"name": name} if old else {"names": [name], "synsets": []}
        merged = {"merged_object_ids": [210]} if number == 21 and not old else {}
        return {object_key: number, "x": x, "y": y, sides[0]: w, sides[1]: h, **named, **merged}

    def end(number):
        return {object_key: number, "name": "any", "x": 0, "y": 0, "w": 1, "h": 1}

    files = {
        "image_data": [
            {
                image_key: number,
                "url": f"https://cs.stanford.edu/people/rak248/{folder}/{number}.jpg",
                "width": 64,
                "height": 48,
                "coco_id": None if number == 2 else 1000 + number,
                "flickr_id": None,
            }
            for number, folder in PICTURES.items()
        ],
        "region_descriptions": [
            {
                "id": number,
                "regions": [
                    {region_key: i, "phrase": p, "x": 0, "y": 0, "width": 9, "height": 9}
                    for i, p in phrases
                ],
            }
            for number, phrases in PHRASES.items()
        ],
        "objects": [
            {image_key: number, "objects": [one(*o) for o in objects]}
            for number, objects in OBJECTS.items()
        ],
        "relationships": [
            {
                image_key: number,
                "relationships": [
                    {
                        "relationship_id": i,
                        "predicate": predicate,
                        "subject": end(subject),
                        "object": end(object_),
                    }
                    for i, (subject, predicate, object_) in enumerate(found)
                ],
            }
            for number, found in RELATIONSHIPS.items()
        ],
        "attributes": [
            {
                image_key: 1,
                "attributes": [
                    {object_key: 11, "attributes": ["green", "tall"]},
                    {object_key: 12},
                ],
            }
        ],
    }
    for number, folder in PICTURES.items():
        save(root / folder / f"{number}.jpg", 64, 48, number)
    for name, content in files.items():
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def with_splits(root, **splits):
    (root / "vg_splits.json").write_text(json.dumps(splits))
    return root


def by_id(rows):
    return {json.loads(row["metadata"])["image_id"]: row for row in rows}


@pytest.fixture(scope="module")
def built_vg(tmp_path_factory):
    root = tree(tmp_path_factory.mktemp("vg") / "in")
    (root / "object_alias.txt").write_text("tree,trees, Tree s\nman,men\n")
    (root / "relationship_alias.txt").write_text("beside,next to,near\n")
    skips = {}
    return root, build(Jaxt2iVisualGenome, root, root.parent / "out", skips, config=SMALL), skips


def test_phrases_are_captions_in_order_of_region_ids(built_vg):
    _, made, _ = built_vg
    assert list(made) == ["train"]
    rows = by_id(made["train"])
    assert set(rows) == {1, 2, 5, 7}
    assert rows[1]["id"] == "jaxt2i_visual_genome/train/1"
    assert rows[1]["captions"]["text"] == ["a tall tree", "a kite in the sky", "a man stands"]
    assert rows[1]["captions"]["id"].tolist() == [101, 102, 103]


def test_frequent_names_are_classes_and_others_are_counted(built_vg):
    root, made, skips = built_vg
    rows = by_id(made["train"])
    # "tree" 3 times, with its alias, "man" 3 times: by letters; "kite" and "dog" once.
    names = Jaxt2iVisualGenome(data_dir=root.parent / "out", config=SMALL).info.metadata["objects"]
    assert names == ["man", "tree"]
    objects = rows[1]["objects"]
    assert (objects["id"].tolist(), objects["label"].tolist()) == ([11, 12], [1, 0])
    assert objects["name"] == ["tree", "man"]
    assert rows[2]["objects"]["id"].tolist() == [21, 22]
    assert rows[2]["objects"]["name"] == ["tree", "tree"]
    assert len(rows[7]["objects"]["id"]) == 0
    assert skips == {
        "object of no class": 2,
        "object without area": 1,
        "relationship of an object left out": 2,
    }


def test_boxes_are_fractions_cut_at_the_border(built_vg):
    boxes = by_id(built_vg[1]["train"])[1]["objects"]["bbox"]
    np.testing.assert_allclose(boxes[0], [3 / 48, 2 / 64, 33 / 48, 22 / 64], rtol=1e-6)
    np.testing.assert_allclose(boxes[1], [40 / 48, 50 / 64, 1, 1], rtol=1e-6)


def test_relationships_are_indices_into_the_kept_objects(built_vg):
    rows = by_id(built_vg[1]["train"])
    found = rows[1]["relationships"]
    assert (found["subject"].tolist(), found["object"].tolist()) == ([1], [0])
    assert found["predicate"] == ["standing near"]
    # 210 was merged into 21; "next to" is spelled "beside".
    found = rows[2]["relationships"]
    assert (found["subject"].tolist(), found["object"].tolist()) == ([1], [0])
    assert found["predicate"] == ["beside"]


def test_attributes_and_ids_go_into_metadata(built_vg):
    rows = by_id(built_vg[1]["train"])
    metadata = json.loads(rows[1]["metadata"])
    assert metadata["attributes"] == [["green", "tall"], []]
    assert (metadata["coco_id"], "flickr_id" in metadata) == (1001, False)
    assert "coco_id" not in json.loads(rows[2]["metadata"])


def test_pictures_of_both_folders_are_kept_byte_for_byte(built_vg):
    root, made, _ = built_vg
    for number, row in by_id(made["train"]).items():
        assert row["image"] == (root / PICTURES[number] / f"{number}.jpg").read_bytes()


def test_two_builds_agree_and_old_keys_give_the_same(built_vg, tmp_path):
    root, made, _ = built_vg
    again = build(Jaxt2iVisualGenome, root, tmp_path / "a", config=SMALL)
    assert [r["id"] for r in again["train"]] == [r["id"] for r in made["train"]]
    old = tree(tmp_path / "old", old=True)
    for name in ("object_alias.txt", "relationship_alias.txt"):
        shutil.copy(root / name, old)
    rows = by_id(build(Jaxt2iVisualGenome, old, tmp_path / "b", config=SMALL)["train"])
    for number, row in by_id(made["train"]).items():
        for key in ("id", "label", "name"):
            assert list(rows[number]["objects"][key]) == list(row["objects"][key])
        np.testing.assert_array_equal(rows[number]["objects"]["bbox"], row["objects"]["bbox"])
        assert rows[number]["captions"]["text"] == row["captions"]["text"]
        assert json.loads(rows[number]["metadata"]) == json.loads(row["metadata"])


def test_the_vocabulary_is_that_of_the_training_split(tmp_path):
    root = with_splits(tree(tmp_path / "in"), train=[1, 2], val=[5], test=[])
    skips = {}
    made = build(Jaxt2iVisualGenome, root, tmp_path / "out", skips, config=SMALL)
    assert {split: set(by_id(rows)) for split, rows in made.items()} == {
        "train": {1, 2},
        "val": {5},
    }
    # Without aliases "trees" is another name, and once only.
    assert by_id(made["val"])[5]["objects"]["name"] == ["man"]
    assert by_id(made["train"])[2]["objects"]["name"] == ["tree"]
    assert skips["picture in no split"] == 1


def test_ids_of_a_split_without_a_picture_are_counted(tmp_path):
    root = with_splits(tree(tmp_path / "in"), train=[1, 2, 5, 7, 8, 9])
    skips = {}
    made = build(Jaxt2iVisualGenome, root, tmp_path / "out", skips, config="all")
    assert len(made["train"]) == 4
    assert skips["split's id of no picture"] == 2
    assert by_id(made["train"])[5]["objects"]["name"] == ["man", "dog"]


def test_an_object_without_a_name_is_of_no_class(tmp_path):
    root = tree(tmp_path / "in")
    file = root / "objects.json"
    entries = json.loads(file.read_text())
    entries[2]["objects"][1]["names"] = []
    file.write_text(json.dumps(entries))
    skips = {}
    made = build(Jaxt2iVisualGenome, root, tmp_path / "out", skips, config="all")
    assert by_id(made["train"])[5]["objects"]["name"] == ["man"]
    assert skips["object of no class"] == 1


def test_pictures_of_too_few_or_too_many_objects_are_left_out_and_counted(tmp_path):
    root = tree(tmp_path / "in")

    def kept(**limits):
        config = VisualGenomeConfig(name="few", **{"min_count": 1, "min_predicates": 1} | limits)
        builder = Jaxt2iVisualGenome(data_dir=tmp_path, config=config)
        found = builder.items(builder.files(root))
        return {int(item.key) for item in found.get("train", ())}, builder.skips.counts

    # 1 has three objects, 2 two of which one is next to the other, 5 small ones, 7 none.
    found, skips = kept(objects=(2, 2), relations=(1, 1), min_side=5, min_image=48)
    assert found == {2}
    assert skips["picture with too many objects"] == 1
    assert skips["picture with too few objects"] == 2
    assert skips["object below the least side"] == 2
    found, skips = kept(relations=(1, 30), min_predicates=2)
    assert not found
    assert skips["picture with too few relationships"] == 4
    found, skips = kept(relations=(0, 1))
    assert skips["picture with too many relationships"] == 1
    found, skips = kept(min_image=49)
    assert not found
    assert skips["picture below the least side"] == 4


def test_lostgans_pictures_are_a_configuration(tmp_path):
    made = Jaxt2iVisualGenome(data_dir=tmp_path, config="lostgan")
    c = made.builder_config
    assert (c.min_count, c.min_side, c.objects, c.relations) == (2000, 32, (3, 30), (1, 30))
    assert made.EXPECTED["train"] == 62565


def test_the_default_takes_the_threshold_of_sg2im(tmp_path):
    builder = Jaxt2iVisualGenome(data_dir=tmp_path)
    assert (builder.builder_config.name, builder.builder_config.min_count) == ("sg2im", 2000)
    made = build(Jaxt2iVisualGenome, tree(tmp_path / "in"), tmp_path / "out")
    assert all(len(row["objects"]["id"]) == 0 for row in made["train"])


def test_broken_pictures_and_pictures_without_phrases_are_counted(tmp_path):
    root = tree(tmp_path / "in")
    cut(root / "VG_100K" / "7.jpg")
    file = root / "region_descriptions.json"
    entries = json.loads(file.read_text())
    file.write_text(json.dumps([e for e in entries if e["id"] != 5]))
    skips = {}
    made = build(Jaxt2iVisualGenome, root, tmp_path / "out", skips, config=SMALL)
    assert set(by_id(made["train"])) == {1, 2}
    assert skips["truncated or corrupt"] == 1
    assert skips["image without caption"] == 1


def test_archives_are_unpacked_and_one_folder_for_all_pictures_is_fine(tmp_path):
    root = tree(tmp_path / "in")
    packed = tmp_path / "packed"
    packed.mkdir()
    for archive, part in {"images.zip": "VG_100K", "images2.zip": "VG_100K_2"}.items():
        with zipfile.ZipFile(packed / archive, "w") as out:
            for file in (root / part).iterdir():
                out.write(file, file.relative_to(root))
    for file in root.glob("*.json"):
        with zipfile.ZipFile(packed / f"{file.name}.zip", "w") as out:
            out.write(file, file.name)
    assert len(build(Jaxt2iVisualGenome, packed, tmp_path / "a", config=SMALL)["train"]) == 4
    (root / "VG_100K_2" / "5.jpg").rename(root / "VG_100K" / "5.jpg")
    (root / "VG_100K_2").rmdir()
    assert len(build(Jaxt2iVisualGenome, root, tmp_path / "b", config=SMALL)["train"]) == 4


def test_what_is_missing_is_named(tmp_path):
    root = tree(tmp_path / "in")
    (root / "annotations").mkdir()
    (root / "objects.json").rename(root / "annotations" / "objects.json")
    with pytest.raises(DataError, match=r"objects\.json is missing; .*annotations.*looks like it"):
        build(Jaxt2iVisualGenome, root, tmp_path / "a", config=SMALL)
    (root / "annotations" / "objects.json").rename(root / "objects.json")
    (root / "VG_100K_2" / "5.jpg").unlink()
    with pytest.raises(DataError, match=r"1 pictures that are not there, .*VG_100K_2/5\.jpg"):
        build(Jaxt2iVisualGenome, root, tmp_path / "b", config=SMALL)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("objects", "[{", r"objects\.json is not JSON"),
        ("objects", "{}", r"objects\.json: expected a JSON list, found dict"),
        ("objects", '[{"image_id": 1}]', r"objects\.json: entry 0 .*KeyError\('objects'\)"),
        ("image_data", '[{"url": "a"}]', r"image_data\.json: entry 0 .*KeyError\('id'\)"),
        ("relationships", "[3]", r"relationships\.json: entry 0 "),
        ("vg_splits", '{"training": [1]}', r"vg_splits\.json: expected .*found training"),
        ("vg_splits", '{"train": ["1.jpg"]}', r"vg_splits\.json: expected .*image ids"),
        ("vg_splits", '{"train": [1, 2], "val": [2]}', r"vg_splits\.json: 1 ids are in it twice"),
    ],
)
def test_malformed_files_are_named(tmp_path, name, content, said):
    root = tree(tmp_path / "in")
    (root / f"{name}.json").write_text(content)
    with pytest.raises(DataError, match=said):
        build(Jaxt2iVisualGenome, root, tmp_path / "out", config=SMALL)


def test_texts_that_are_not_utf8_are_left_out_and_counted(tmp_path, capfd):
    root = tree(tmp_path / "in")
    damage = {
        "region_descriptions": (b"a man stands", b"a m\xe4nnlein"),
        "objects": (b'"tree"', b'"tr\xeae"'),
        "relationships": (b"holds", b"h\xf6lds"),
        "attributes": (b"green", b"gr\xfcn"),
    }
    for name, (before, after) in damage.items():
        file = root / f"{name}.json"
        assert before in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(before, after))
    (root / "object_alias.txt").write_bytes(b"tree,trees,Tree s\nman,h\xf6mbre\n")
    skips = {}
    config = VisualGenomeConfig(name="each", min_count=1)
    rows = by_id(build(Jaxt2iVisualGenome, root, tmp_path / "out", skips, config=config)["train"])
    assert rows[1]["captions"]["text"] == ["a tall tree", "a kite in the sky"]
    assert skips[NOT_UTF8] == 4  # a phrase, an object, a relationship and an attribute
    assert json.loads(rows[1]["metadata"])["attributes"][0] == ["tall"]
    assert "object_alias.txt:2: not UTF-8; no alias is taken of it" in capfd.readouterr().err
    assert "tr" not in "".join(rows[2]["objects"]["name"]).replace("tree", "")


def test_relations_are_rows_of_a_batch(built_vg):
    """Places among the objects as they are told, largest first, and numbers of predicates."""
    root, _, _ = built_vg
    out, wanted = str(root.parent / "out"), records.Wanted(objects=3, relations=2)
    source = records.Records(out, "train", Framing(48, "none"), wanted)
    assert source.predicate_names == ["beside", "by", "holds", "standing near"]
    assert schema.names_of(source)["relation_label"] == tuple(source.predicate_names)
    keys = ("box_label", *records.RELATIONS)
    found = {source.name(i).rpartition("/")[2]: source.example(i, keys) for i in range(4)}
    row = found["1"]
    (subject, object_), other = row["relation_objects"]
    names = [source.object_names[n] for n in row["box_label"]]
    assert (names[subject], names[object_]) == ("man", "tree")
    assert source.predicate_names[row["relation_label"][0]] == "standing near"
    assert row["relation_mask"].tolist() == [True, False]
    assert not other.any()
    assert not found["7"]["relation_mask"].any()
    for key in records.RELATIONS:
        sizes = schema.Sizes(batch=1, height=48, width=48, relations=2)
        spec = schema.spec(sizes, (key,))[key]
        assert (row[key].shape, row[key].dtype) == (spec.shape[1:], spec.dtype)


def test_attributes_of_objects_are_a_row_of_a_batch(built_vg):
    root, _, _ = built_vg
    out, wanted = str(root.parent / "out"), records.Wanted(objects=3, object_attributes=2)
    source = records.Records(out, "train", Framing(48, "none"), wanted)
    assert source.object_attribute_names == ["green", "tall"]
    keys = ("box_label", "object_attributes")
    found = {source.name(i).rpartition("/")[2]: source.example(i, keys) for i in range(4)}
    row = found["1"]
    tree = [source.object_names[n] for n in row["box_label"]].index("tree")
    assert row["object_attributes"][tree].tolist() == [True, True]
    assert row["object_attributes"].sum() == 2
    assert not found["2"]["object_attributes"].any()
    sizes = schema.Sizes(batch=1, height=48, width=48, objects=3, object_attributes=2)
    spec = schema.spec(sizes, keys)["object_attributes"]
    assert (row["object_attributes"].shape, row["object_attributes"].dtype) == (
        spec.shape[1:],
        spec.dtype,
    )
    wanted = records.Wanted(object_attributes=5)
    with pytest.raises(DataError, match=r"set --config\.data\.object_attributes=2"):
        records.Records(out, "train", Framing(48, "none"), wanted)
