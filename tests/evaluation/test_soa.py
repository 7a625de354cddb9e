"""Semantic Object Accuracy: plans, folders, files, what is told; no network is compiled."""

import dataclasses
import json
import pickle
import re
import types

import numpy as np
import pytest
from PIL import Image

from jaxt2i import evaluate, recognise
from jaxt2i.data import object_captions
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.evaluation import detection, object_files, object_plan, objects, report, sets, soa
from jaxt2i.evaluation.detection import Detection
from jaxt2i.metrics import protocols
from jaxt2i.metrics.score import MetricError
from jaxt2i.verify.golden import Golden
from tests.verify.test_goldens import GOLDENS


def by_colour(images):
    """A detector that sees as many things as red says: a person, a bicycle, a car, ..."""
    left = (0.0, 0.0, 0.5, 1.0)
    return [[Detection(n, left, 0.5) for n in range(int(x[0, 0, 0]))] for x in images]


COCO = detection.of_coco("by colour", by_colour)


# --- Plans -------------------------------------------------------------------------------------

SAID = [
    ("a man on a bike there", (0, 1)),
    ("a man waits", (0,)),
    ("men wait", (0,)),
    ("a car stops", (2,)),
    ("a red car stops", (2,)),
    ("a car and a bike stop", (1, 2)),
]
CAPTIONS = [object_plan.Caption(text, labels, n) for n, (text, labels) in enumerate(SAID)]


def test_the_published_protocol_draws_three_pictures_of_a_caption_and_one_of_crowds():
    plan = object_plan.whole(CAPTIONS, {0: 2})
    count = np.bincount(plan.caption, minlength=6)
    assert count[[0, 3, 4, 5]].tolist() == [3, 3, 3, 3]
    people = plan.caption[plan.counted[0]]
    assert len(people) == 2 == len(set(people.tolist()))
    # Of a caption that only people are drawn for, and that was not drawn for them, there is none.
    assert {count[1], count[2]} <= {0, 1}
    assert sorted(plan.caption[plan.counted[1]].tolist()) == [0, 0, 0, 5, 5, 5]
    assert len(plan.counted[2]) == 9
    other = [object_plan.whole(CAPTIONS, {0: 2}, seed=n).counted[0].tolist() for n in range(9)]
    assert len({tuple(x) for x in other}) > 1


def test_classes_take_turns_where_pictures_are_few():
    many = [object_plan.Caption(f"car {n}", (2,), n) for n in range(90)]
    plan = object_plan.in_turn([*many, *CAPTIONS[:3]], 6, rarest=[1, 0, 2])
    assert len(plan.caption) == 6
    assert {label: len(rows) for label, rows in plan.counted.items()} == {0: 3, 1: 1, 2: 3}
    assert "one picture of each of 6 captions" in plan.note
    with pytest.raises(MetricError, match="no caption names a class"):
        object_plan.in_turn([], 6, [1])


def test_published_lists_find_their_pictures_by_the_words():
    source = types.SimpleNamespace(captions=lambda n: [["a boat .", "x"], ["a car stops"]][n])
    entry = {"image_id": 7, "id": 1, "idx": [0, 0], "caption": "a car stops"}
    lists = {2: [entry], 8: [entry, entry | {"caption": "a ship sails"}]}
    found = object_plan.of_lists(lists, source, 2)
    assert found == [
        object_plan.Caption("a car stops", (2, 8), 1, 0),
        object_plan.Caption("a ship sails", (8,), None, 0),
    ]


def test_captions_come_from_the_data_or_from_the_published_lists(tmp_path):
    said = [["a car stops", "a lake"], ["a bike and a car stop"], ["a bus."]]
    source = types.SimpleNamespace(captions=said.__getitem__, size=3)
    data = types.SimpleNamespace(source=source, name="coco2014")
    args = types.SimpleNamespace(num=0, seed=0, soa_captions=None)
    plan = soa.plan_of(args, data, COCO)
    assert [c.text for c in plan.captions] == ["a car stops", "a bike and a car stop"]
    assert {label: len(rows) for label, rows in plan.counted.items()} == {1: 3, 2: 6}
    assert "80 of 80 classes are not as long" in plan.note
    assert "label_01_bicycle 1 for 1,920" in plan.note
    args.num = 1
    assert soa.plan_of(args, data, COCO).caption.tolist() == [0]

    entry = {"image_id": 7, "id": 1, "idx": [0, 0], "caption": "a bike and a car stop"}
    object_captions.write(tmp_path, {9: [entry]})
    args.num, args.soa_captions = 0, tmp_path
    plan = soa.plan_of(args, data, COCO)
    # A list is taken as it is.
    assert plan.captions == (object_plan.Caption(entry["caption"], (9,), 1, 0),)
    other = dataclasses.replace(COCO, classes=("ball",), name="recogniser of scenes")
    with pytest.raises(MetricError, match="not those of the recogniser of scenes"):
        soa.plan_of(args, data, other)


# --- Folders and files -------------------------------------------------------------------------


def folder(root, reds, size=8):
    """{name below root: red level} as pictures."""
    for name, red in reds.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), (red, 0, 0)).save(root / name)
    return root


def case(pictures, out, **more):
    args = types.SimpleNamespace(batch=4, out=out, intervals=True, seed=0, set=[], **more)
    subject = types.SimpleNamespace(name="x", out=out, step=None)
    result = report.Result("x", None, [], protocols.get("tf2015"))
    return types.SimpleNamespace(
        args=args,
        subject=subject,
        data=None,
        system=None,
        fake=pictures,
        reader=None,
        result=result,
    )


def values(scores):
    return {score.metric: round(score.value, 4) for score in scores}


def test_folders_of_classes_are_judged_and_their_files_read_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(soa, "detector_of", lambda *_: COCO)
    place = folder(
        tmp_path / "a",
        {
            **{f"label_00_person/{n}.png": n for n in range(4)},
            **{f"label_02_car/{n}.png": 3 * n for n in range(2)},
            "others/0.png": 80,
        },
    )
    # Of the cars one has a layout that the detector's box fills half of, and one a layout of none.
    layouts = {"0.png": [[], [], []], "1.png": [[], [2, 7], [[0, 0, 1, 1], [0, 0, 0.5, 1]]]}
    (place / "label_02_car/layout.pkl").write_bytes(pickle.dumps(layouts))
    of = case(sets.of_folder(place, strict=False), tmp_path / "out")
    scores = soa.by_objects(of)
    found = values(scores)
    assert found["soa_c"] == round(100 * (3 / 4 + 1 / 2) / 2, 4)
    assert found["soa_i"] == round(100 * 4 / 6, 4)
    assert (found["soa_c_top1"], found["soa_c_bot1"]) == (75, 50)
    assert found["soa_c_iou"] == 25
    assert found["soa_c_bot1_iou"] == 50
    assert all(s.interval.low <= s.value <= s.interval.high for s in scores)
    assert "pictures of 2 of 80 classes" in of.result.notes[0]
    tables = of.result.breakdowns
    assert tables[objects.RARER] == {
        "car": {"found": 50, "IoU with given boxes": 50, "pictures": 2}
    }
    page = tmp_path / "x.html"
    report.write_html(page, of.result)
    assert page.read_text().count("<rect") == 2
    assert ">car<" in page.read_text()

    made = tmp_path / "out" / "soa"
    assert {p.name for p in made.iterdir()} == {
        *(f"{kind}_{of}.pkl" for kind in ("detected", "ground_truth") for of in PLACES),
        "result_file.pkl",
    }
    dump = pickle.loads((made / "detected_label_02_car.pkl").read_bytes())
    names = ["person", "bicycle", "car"]
    assert dump["label_02_car/1.png"] == [names, [0, 1, 2], [[0.0, 0.0, 0.5, 1.0]] * 3]
    evaluate.main(["--detections", str(made)])
    again = json.loads((made / "scores.json").read_text())
    assert {s["metric"]: round(s["value"], 4) for s in again["scores"]} == found
    assert "soa_c_iou" in capsys.readouterr().out


PLACES = ("label_00_person", "label_02_car")


def test_captions_name_what_is_looked_for(tmp_path):
    place = folder(tmp_path / "a", {f"{n}.png": n for n in range(4)})
    for n in range(4):
        (place / f"{n}.txt").write_text("a car in a street\n" if n > 1 else "a lake\n")
    things = [{"label": "car", "box": [0, 0, 1, 1]}]
    lines = [{"file_name": "3.png", "text": "a car here", "objects": things}]
    (place / "metadata.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    judged, _, counted = objects.of_folder(sets.of_folder(place), COCO)
    assert {label: rows.tolist() for label, rows in counted.items()} == {2: [2, 3]}
    found = values(objects.scores(judged))
    assert (found["soa_c"], found["soa_c_iou"]) == (50, 50)
    (place / "metadata.jsonl").unlink()
    (place / "3.txt").unlink()
    with pytest.raises(MetricError, match=r"1 of 4 images have no caption.*label_XX_NAME"):
        objects.of_folder(sets.of_folder(place, strict=False), COCO)


def test_published_dumps_score_as_published(tmp_path):
    """The published code's own numbers, from its own pickles, numpy's numbers in them."""
    cases = Golden(GOLDENS / "soa").case("score_cases").data
    dump = next(x for x in cases if "ground_truth" in x and len(x["detections"]) == 80)
    for kind, start in (("detections", "detected_"), ("ground_truth", "ground_truth_")):
        for stem, pictures in dump[kind].items():
            held = {
                name: [names, labels, [[np.asarray(v) for v in box] for box in boxes]]
                for name, (names, labels, boxes) in pictures.items()
            }
            (tmp_path / f"{start}{stem}.pkl").write_bytes(pickle.dumps(held))
    judged = objects.of_files(tmp_path)
    want = dump["expected"]
    found = {s.metric: s.value / 100 for s in objects.scores(judged, intervals=False)}
    for name, theirs in (("soa_c", "SOA-C"), ("soa_i", "SOA-I")):
        assert found[name] == pytest.approx(want[theirs], abs=1e-12)
        assert found[f"{name}_iou"] == pytest.approx(want[f"{theirs}-IoU"], abs=1e-12)
    for label, x in want["per_label"].items():
        assert judged.found[int(label)].overlap == pytest.approx(x["iou"], abs=1e-12)


class Trap:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"0.png": Trap()}, "builtins.print, which is refused without running it"),
        ([1], "holds list; expected {name of a picture"),
        (
            {"0.png": [["car"], [2], [[0, 0, 1]]]},
            r"'0.png' has \[\['car'\], \[2\], \[\[0, 0, 1\]\]\]",
        ),
        ({"0.png": [["car"], [2], []]}, "expected {name of a picture"),
        (b"\x80\x04", "not a readable pickle"),
        ({}, r"no detected_label_\*.pkl there with a picture in it"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path, content, said, capsys):
    data = content if isinstance(content, bytes) else pickle.dumps(content)
    (tmp_path / "detected_label_02_car.pkl").write_bytes(data)
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["--detections", str(tmp_path)])
    shown = f"{stopped.value} {capsys.readouterr().err}"
    assert re.search(said, shown), shown
    assert "Traceback" not in shown


def test_layouts_must_hold_every_picture(tmp_path):
    object_files.write(tmp_path / "detected_label_02_car.pkl", {"0.png": []}, COCO.classes)
    object_files.write(tmp_path / "ground_truth_label_02_car.pkl", {}, COCO.classes)
    with pytest.raises(MetricError, match=r"no picture '0.png', which detected_label_02_car.pkl"):
        objects.of_files(tmp_path)


def test_boxes_are_read_in_pixels_and_by_cocos_names():
    things = [{"label": "airplane", "box": [16, 0, 16, 8]}, {"label": "owl", "box": [0, 0, 1, 1]}]
    row = {"objects": things, "units": "pixels", "size": [32, 16]}
    assert objects.layout_of(row, COCO) == [(4, (0.5, 0.0, 0.5, 0.5))]
    assert objects.layout_of({"prompt": "x"}, COCO) is None
    assert len(object_captions.RULES) == len(COCO.classes)


# --- The recogniser in the detector's place ----------------------------------------------------


def test_a_recogniser_detects_what_captions_of_its_corpus_name(monkeypatch):
    source = Synthetic("scenes", 32, "val")
    keys = ("box_label", "box_mask", "boxes", "box_attributes", "setting")
    true = [source.example(n, keys) for n in range(6)]
    images = np.stack([source.example(n)["image"] for n in range(6)])

    def read(pictures):
        seen = {key: np.stack([x[key] for x in true]) for key in keys}
        seen = {
            k: np.concatenate([x, np.repeat(x[-1:], len(pictures) - 6, 0)]) for k, x in seen.items()
        }
        return seen | {"sure": np.full(seen["box_mask"].shape, 0.5, np.float32)}

    monkeypatch.setattr(recognise, "eye", lambda *_: recognise.Eye("scenes", 32, read, {}))
    found = recognise.detector("scenes")
    for n, seen in enumerate(found.detect(images)):
        assert [d.label for d in seen] == true[n]["box_label"][true[n]["box_mask"]].tolist()
        np.testing.assert_allclose(seen[0].box, true[n]["boxes"][0], atol=1e-6)
        named = {label for text in source.captions(n) for label in found.named(text)}
        assert named <= {d.label for d in seen}
    assert sorted(found.rarest) == list(range(len(found.classes)))
    assert found.classes[found.named("a red ball and two balls left of a cat")[0]] == "ball"
