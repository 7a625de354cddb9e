"""Prompt suites: what is shipped, files of others, scores by skill, folders for other scorers."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxt2i import evaluate, sample
from jaxt2i.config import ConfigError
from jaxt2i.encoders import clip, yolo
from jaxt2i.evaluation import detection, judges, promises, sets, suites
from jaxt2i.evaluation.reading import Reader
from jaxt2i.metrics.score import MetricError


@pytest.mark.parametrize(
    ("name", "count", "skills", "licence"),
    [
        ("parti", 1632, {"category": 12, "challenge": 11}, "Apache License"),
        ("geneval", 553, {"tag": 6}, "MIT License"),
        ("t2i_compbench", 2400, {"category": 8}, "MIT License"),
        ("dpg", 1065, {}, "Apache License"),
    ],
)
def test_shipped_prompts_are_whole_and_have_their_licences(name, count, skills, licence):
    suite = suites.load(name)
    assert len(suite.rows) == len(set(suite.prompts)) == count
    assert all(p == p.strip() and p for p in suite.prompts)
    assert {s: len({r[s] for r in suite.rows}) for s in suite.skills} == skills
    assert licence in (suites.FOLDER / f"{name}.LICENSE").read_text()
    assert f"`{name}.jsonl`" in (suites.FOLDER / "README.md").read_text()


def test_files_of_others_are_read(tmp_path):
    (tmp_path / "drawbench.csv").write_text('Prompts,Category\n"a cat, red",Colors\na dog,Text\n')
    found = suites.load(str(tmp_path / "drawbench.csv"))
    assert found.prompts == ["a cat, red", "a dog"]
    assert found.skills == ("category",)
    styles = tmp_path / "benchmark"
    styles.mkdir()
    for style in ("anime", "photo"):
        (styles / f"{style}.json").write_text(json.dumps([f"{style} {i}" for i in range(3)]))
    found = suites.load(str(styles))
    assert found.layout == "hpsv2"
    assert [r["style"] for r in found.rows] == ["anime"] * 3 + ["photo"] * 3
    (tmp_path / "two.jsonl").write_text('{"Prompt": "x", "tag": "a"}\n\n{"prompt": "y"}\n')
    assert suites.load(str(tmp_path / "two.jsonl")).prompts == ["x", "y"]
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    for place, words in {"none.csv": "no list of prompts", "absent": "no such suite"}.items():
        with pytest.raises(ConfigError, match=words):
            suites.load(str(tmp_path / place))


TINY = [
    {"prompt": "a red cat", "tag": "colors"},
    {"prompt": "two dogs", "tag": "counting"},
    {"prompt": "a bench", "tag": "counting"},
]


def test_scores_are_of_prompts_and_then_of_skills(tmp_path):
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in TINY))
    suite = suites.load(str(tmp_path / "t.jsonl"))
    captions = ["two  dogs", "a red cat", "something", "two dogs", "a bench", "a bench"]
    of = suites.places(suite, captions)
    assert of.tolist() == [1, 0, -1, 1, 2, 2]
    assert "1 pictures of captions" in " ".join(suites.missing(suite, of))
    known = of >= 0
    means = suites.by_skill(suite, of[known], np.array([1.0, 8, 3, 10, 20]))
    # Prompts count alike, however many pictures there are of each: 8, 2 and 15.
    assert means[""]["all"].value == pytest.approx(25 / 3)
    assert means["tag"]["colors"].value == 8
    assert means["tag"]["counting"].value == pytest.approx(8.5)
    assert means["tag"]["counting"].prompts == 2
    with pytest.raises(MetricError, match="sample --suite t"):
        suites.missing(suite, np.array([-1, -1]))
    assert "2 of 3 prompts" in " ".join(suites.missing(suite, np.array([0, 0])))


@pytest.fixture
def drawn(tmp_path):
    """Two pictures of each prompt of a tiny suite, as `sample` writes them."""
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in TINY))
    folder = tmp_path / "drawn"
    folder.mkdir()
    lines = []
    for n in range(6):
        picture = np.full((8, 8, 3), 40 * n, np.uint8)
        Image.fromarray(picture).save(folder / f"{n:06d}.png")
        text = TINY[n // 2]["prompt"]
        lines.append(json.dumps({"file_name": f"{n:06d}.png", "text": text, "number": n}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    # The sheet beside them is no picture of a prompt.
    (folder / "drawn.json").write_text("{}")
    Image.new("RGB", (30, 20)).save(folder / "grid.png")
    return tmp_path


def written(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def test_folders_are_as_scorers_read_them_and_their_results_join(drawn, monkeypatch):
    def verdicts(metrics, pictures, reader):
        rows = np.arange(pictures.count)
        return {m: judges.Verdicts(m, rows, rows.astype(float)) for m in metrics}

    monkeypatch.setattr(judges, "verdicts", verdicts)
    (drawn / "geneval.jsonl").write_text(
        "".join(
            json.dumps({"tag": tag, "correct": right}) + "\n"
            for tag, right in (("colors", True), ("counting", True), ("counting", False))
        )
    )
    blip = [{"question_id": 0, "answer": "0.5"}, {"question_id": 1, "answer": "0.7"}]
    (drawn / "vqa_result.json").write_text(json.dumps(blip))
    (drawn / "vqascore.json").write_text("[[0.2], [0.4]]")
    (drawn / "dpg.txt").write_text(
        "x.png, 1.0, 1.0\nL1 category scores:\n\tentity: 81.5\nDPG-Bench score: 74.25\n"
    )
    results = (
        drawn / "geneval.jsonl",
        f"color={drawn / 'vqa_result.json'}",
        drawn / "vqascore.json",
        drawn / "dpg.txt",
    )
    given = ("--suite", drawn / "t.jsonl", "--images", drawn / "drawn", "--out", drawn / "out")
    layouts = ("--layout", *suites.LAYOUTS)
    evaluate.main([str(a) for a in (*given, *layouts, "--results", *results)])
    out = drawn / "out"
    assert written(out / "geneval")[:3] == [
        "00000/metadata.jsonl",
        "00000/samples/0000.png",
        "00000/samples/0001.png",
    ]
    assert json.loads((out / "geneval" / "00001" / "metadata.jsonl").read_text()) == TINY[1]
    assert written(out / "t2i_compbench")[-1] == "all/samples/two dogs_000003.png"
    # What its scorers do with a name.
    for name in written(out / "t2i_compbench"):
        stem = name.split("/")[-1]
        assert stem.split("_")[0] in {r["prompt"] for r in TINY}
        assert int(stem.split("_")[-1].split(".")[0]) in range(6)
    sheet = Image.open(out / "dpg" / "1.png")
    assert sheet.size == (16, 16)
    assert [sheet.getpixel(at)[0] for at in ((0, 0), (8, 0))] == [80, 120]
    assert written(out / "hpsv2") == [f"all/{i:05d}.jpg" for i in range(3)]
    pairs = json.loads((out / "vqascore" / "pairs.json").read_text())
    assert [p["texts"] for p in pairs] == [[TINY[n // 2]["prompt"]] for n in range(6)]
    assert all((out / "vqascore" / p["images"][0]).is_file() for p in pairs)
    found = json.loads((out / "suite.json").read_text())
    assert found["scores"]["clip_similarity"]["tag"]["counting"]["value"] == 3.5
    theirs = {place.split("/")[-1]: x for place, x in found["results_of_other_scorers"].items()}
    assert theirs["geneval.jsonl"] == {"colors": 1.0, "counting": 0.5, "overall": 0.75}
    assert theirs["vqa_result.json"] == {"color": pytest.approx(0.6)}
    assert theirs["vqascore.json"] == {"overall": pytest.approx(0.3)}
    assert theirs["dpg.txt"] == {"entity": 81.5, "overall": 74.25}
    assert "2 pictures a prompt; the suite's authors draw 1" in found["notes"][0]
    page = (out / "suite.html").read_text()
    # Only what its own scorer found carries the name of a benchmark.
    assert "By tag, by our metrics" in page
    assert "What another scorer found" in page
    with pytest.raises(SystemExit) as exit_:
        evaluate.main([*map(str, given), "--results", str(drawn / "out" / "suite.html")])
    assert "no result of a scorer" in str(exit_.value)


def test_sample_draws_a_suite_as_often_as_its_authors():
    args, _ = sample.arguments(["--workdir", "x", "--suite", "geneval"])
    prompts = sample.read_prompts(args)
    assert len(prompts) == 553
    assert prompts[0] == "a photo of a bench"


# --- What rows ask for, by a detector ------------------------------------------------------------


def at(name, x, y, score=0.9, side=0.2):
    label = yolo.CLASSES.index(name)
    return detection.Detection(label, (x, y, side, side), score)


@pytest.mark.parametrize(
    ("row", "seen", "right"),
    [
        ({"include": [("dog", 1)]}, [at("dog", 0, 0)], True),
        ({"include": [("dog", 1)]}, [at("cat", 0, 0)], False),
        ({"include": [("dog", 2)], "exclude": [("dog", 3)]}, [at("dog", 0, 0)] * 2, True),
        ({"include": [("dog", 2)], "exclude": [("dog", 3)]}, [at("dog", 0, 0)] * 3, False),
        ({"include": [("dog", 1, "red")]}, [at("dog", 0, 0)], True),
        ({"include": [("dog", 1, "blue")]}, [at("dog", 0, 0)], False),
        # The surest of a class is the one whose colour and place count.
        ({"include": [("dog", 1, "red")]}, [at("dog", 0.5, 0), at("dog", 0, 0, 0.6)], False),
        (
            {"include": [("cat", 1), ("dog", 1, None, ["right of", 0])]},
            [at("cat", 0.1, 0.4), at("dog", 0.7, 0.4)],
            True,
        ),
        (
            {"include": [("cat", 1), ("dog", 1, None, ["above", 0])]},
            [at("cat", 0.1, 0.4), at("dog", 0.7, 0.4)],
            False,
        ),
        (  # Too near each other to be on any side.
            {"include": [("cat", 1), ("dog", 1, None, ["right of", 0])]},
            [at("cat", 0.4, 0.4), at("dog", 0.43, 0.4)],
            False,
        ),
    ],
)
def test_pictures_hold_what_rows_ask_for(row, seen, right, tmp_path):
    def named(things):
        keys = ("class", "count", "color", "position")
        return [{k: v for k, v in zip(keys, t, strict=False) if v is not None} for t in things]

    row = {k: named(v) for k, v in row.items()} | {"prompt": "a cat"}
    suite = suites.Suite("s", (row,), ())
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a cat")
    found = promises.verdicts(
        suite,
        np.zeros(1, int),
        sets.of_folder(tmp_path),
        Reader(),
        detection.of_coco("stub", lambda pixels: [seen] * len(pixels)),
        lambda pixels, objects, thing: ["red" if x.box[0] < 0.4 else "green" for x in objects],
    )
    assert found.values.tolist() == [float(right)]


def test_geneval_asks_for_classes_that_the_detector_knows():
    found = detection.of_coco("stub", lambda pixels: [[] for _ in pixels])
    rows = suites.load("geneval").rows
    names = {x["class"] for r in rows for x in (*r["include"], *r.get("exclude", ()))}
    assert all(found.number(promises.OTHER.get(n, n)) is not None for n in names)
    assert {x["color"] for r in rows for x in r["include"] if "color" in x} <= {*promises.COLOURS}
    assert "not a GenEval score" in promises.about(suites.load("geneval"))["rules"]
    with pytest.raises(MetricError, match="parti lists none"):
        promises.verdicts(suites.load("parti"), np.zeros(0, int), None, Reader())


def test_a_crop_is_what_clip_is_shown():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[10:20, 20:60] = 200
    inside = promises.crop(pixels, detection.Detection(0, (0.25, 0.25, 0.5, 0.25), 1.0))
    assert inside.shape == (224, 224, 3)
    assert (inside == 200).all()
    assert promises.crop(pixels, detection.Detection(0, (-0.5, 0.9, 0.5, 0.5), 1.0)).shape[0] == 224


def test_colours_are_told_by_clip(monkeypatch):
    size = clip.PRESETS["vit_l14"]._replace(joint=8, text_width=16, text_layers=1, text_heads=1)
    size = size._replace(width=16, layers=1, heads=1, patch=112)
    monkeypatch.setitem(clip.PRESETS, "vit_l14", size)
    tell = promises.painter(Reader({"openai_vit_l14": "random"}, 8))
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, 20:] = (250, 30, 30)
    objects = [at("dog", 0.1, 0.1, side=0.3), at("dog", 0.6, 0.1, side=0.3)]
    both = tell(pixels, objects, "dog")
    assert set(both) <= set(promises.COLOURS)
    assert both == [tell(pixels, [x], "dog")[0] for x in objects]
