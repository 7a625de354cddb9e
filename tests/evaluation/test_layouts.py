"""Layouts found in pictures, by a detector that knows the real ones by heart."""

import argparse
import json
import re
import types

import numpy as np
import pytest
from PIL import Image

from jaxt2i import evaluate
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.evaluation import detection, layouts, report, soa
from jaxt2i.evaluation.detection import Detection, Detector
from jaxt2i.metrics import protocols
from jaxt2i.metrics.score import MetricError

COUNT = 24
# Half of a picture.
LEFT = (0.0, 0.0, 0.5, 1.0)


def case(monkeypatch, **changes):
    """Pictures that were drawn for captions: the real ones, the second half of them exchanged."""
    source = Synthetic("scenes", 16, "val", objects=6)
    names = list(source.class_names)
    truth = {source.example(n)["image"].tobytes(): source.facts(n)["objects"] for n in range(COUNT)}

    def detect(images):
        seen = [truth[x.tobytes()] for x in images]
        return [[Detection(t["label"], tuple(t["box"]), 1.0) for t in things] for things in seen]

    # A class that the detector does not know.
    known = tuple("?" if name == "sun" else name for name in names)
    detector = Detector("by heart", known, detect, lambda text: [])
    monkeypatch.setattr(soa, "detector_of", lambda *given: detector)
    shown = [*range(COUNT // 2), *range(COUNT - 1, COUNT // 2 - 1, -1)]

    def batches(size, numbers):
        for n in numbers:
            yield np.array([n]), source.example(shown[n])["image"][None]

    said = tuple(source.captions(n)[2] for n in range(COUNT))
    fake = types.SimpleNamespace(
        count=COUNT,
        captions=said,
        batches=batches,
        rows=lambda numbers: [{"prompt": said[n], "seed": 3} for n in numbers],
    )
    config = types.SimpleNamespace(source="synthetic", corpus="scenes")
    given = {
        "args": types.SimpleNamespace(seed=0, intervals=True, captions="", lqs=[("sigma", 0.5)]),
        "system": None,
        "reader": None,
        "data": types.SimpleNamespace(source=source, config=config, name="scenes"),
        "chosen": types.SimpleNamespace(pairs=tuple((n, 2) for n in range(COUNT))),
        "fake": fake,
        "result": report.Result("x", None, [], protocols.get("tf2015")),
        "shared": {},
        "layouts": "",
    }
    return types.SimpleNamespace(**given | changes)


def test_half_of_the_layouts_are_those_of_other_captions(monkeypatch):
    made = case(monkeypatch)
    scores = {s.metric: s for s in (*layouts.by_quality(made), *layouts.by_relations(made))}
    lqs, relations = scores["lqs"], scores["relations"]
    assert lqs.facts["real_layouts"] > 3.9
    assert lqs.facts["shuffled_captions"] + 0.5 < lqs.value < lqs.facts["real_layouts"] - 0.5
    assert lqs.interval.low < lqs.value < lqs.interval.high
    assert lqs.facts["network"] == "by heart"
    assert scores["lqs_label_set"].facts["reading"] == "label_set"
    assert (lqs.facts["sigma"], lqs.facts["image_area"]) == (0.5, 1.0)
    assert 0.2 < relations.value < 0.8
    assert relations.facts["real_layouts"] == 1
    assert scores["layout_promises"].facts["promises"] > relations.facts["promises"]
    assert (
        "objects of the data have a class that the by heart does not know" in made.result.notes[0]
    )
    row = made.result.layout_rows[0]
    assert set(row) == {"prompt", "seed", "objects"}
    assert row["objects"][0]["label"] == layouts.read(made).judged[0][0][0]
    assert len(made.result.layouts) == 2 * len(made.result.layout_rows)


def test_what_cannot_be_judged(monkeypatch):
    made = case(monkeypatch, chosen=types.SimpleNamespace(pairs=()))
    with pytest.raises(MetricError, match="lqs compares with the layouts of the captions' own"):
        layouts.by_quality(made)
    made = case(monkeypatch)
    made.data.config.corpus = "blooms"
    with pytest.raises(MetricError, match="relations reads captions of the procedural scenes"):
        layouts.by_relations(made)
    made.data.source = types.SimpleNamespace(gives=("image",))
    with pytest.raises(MetricError, match="scenes has no boxes, with which lqs compares"):
        layouts.by_quality(made)


@pytest.mark.parametrize("text", ["sigma=0", "sigma=nan", "gamma_lc=1.5", "area=80", "sigma"])
def test_constants_that_cannot_be(text):
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(text)):
        layouts.constant(text)
    assert layouts.constant("image_area=80") == ("image_area", 80.0)


def test_a_folder_of_pictures_is_judged_by_what_is_found_in_it(monkeypatch, tmp_path):
    """By a made-up detector of COCO's classes, against the objects that its rows promised."""

    def by_red(images):
        """As many things as red says: a person, a bicycle, a car, ..."""
        return [[Detection(n, LEFT, 0.5) for n in range(int(x[0, 0, 0]))] for x in images]

    detector = detection.of_coco("by red", by_red)
    monkeypatch.setattr(soa, "detector_of", lambda *given: detector)
    drawn, rows = tmp_path / "drawn", []
    drawn.mkdir()
    for name, red, promised in (("0.png", 2, ("person", "bicycle")), ("1.png", 1, ("car",))):
        Image.new("RGB", (16, 16), (red, 0, 0)).save(drawn / name)
        things = [{"label": label, "box": list(LEFT)} for label in promised]
        rows.append({"file_name": name, "text": "x", "objects": things})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (drawn / "metadata.jsonl").write_text(lines)
    place = ["--images", str(drawn), "--out", str(tmp_path / "out"), "--no-intervals"]
    evaluate.main([*place, "--metrics", "lqs", "--lqs", "image_area=80"])
    found = json.loads((tmp_path / "out" / "scores.json").read_text())
    scores = {x["metric"]: x for x in found["scores"]}
    # One picture shows what was asked, one shows nothing of it.
    assert scores["lqs"]["value"] == pytest.approx(2, abs=1e-5)
    assert scores["lqs"]["facts"]["image_area"] == 80
    assert scores["lqs"]["facts"]["network"] == "by red"
    (drawn / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "x"}\n')
    with pytest.raises(SystemExit, match="says which objects its pictures were drawn with"):
        evaluate.main([*place, "--metrics", "lqs"])
