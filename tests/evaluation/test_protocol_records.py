"""The protocol as a record of what was done: published numbers stand beside it, or a line says why.

One tiny system draws for every protocol with published numbers. What makes numbers large is made
small in the protocols themselves; everything else is as the papers did.
"""

import dataclasses
import functools
import json

import numpy as np
import pytest
from PIL import Image

from jaxt2i import api, evaluate
from jaxt2i.data.builders.cub import Jaxt2iCub
from jaxt2i.data.builders.multi30k import Jaxt2iMulti30k
from jaxt2i.data.schema import DataError
from jaxt2i.encoders import features
from jaxt2i.evaluation import corpora, judge, reading, record, report, subjects
from jaxt2i.metrics import protocols, published
from jaxt2i.metrics import statistics as stats
from jaxt2i.metrics.score import MetricError, Score
from tests.data import shards
from tests.data.builders import test_cub, test_multi30k
from tests.data.builders.built import build
from tests.evaluation import small

pytestmark = pytest.mark.xdist_group("evaluate")
COUNT, SIDE = 24, 16
# Names of metrics by those of scores.
ASKED = {"pool_precision": "r_precision"}
WITH_NUMBERS = sorted({x.protocol for x in published.PUBLISHED})


def made_small(protocol):
    """A protocol of few and small pictures."""
    sizes = {"count": COUNT, "resolution": SIDE, "drawn": SIDE and protocol.samples.drawn and SIDE}
    of = {"samples": dataclasses.replace(protocol.samples, **sizes)}
    there = protocol.reference
    of["reference"] = dataclasses.replace(
        there,
        resolution=there.resolution and SIDE + 4 * bool(there.then),
        then=there.then and SIDE,
        count=there.count and COUNT,
    )
    if protocol.fid:
        of["fid"] = dataclasses.replace(protocol.fid, whole_batches=1)
    if protocol.inception:
        of["inception"] = dataclasses.replace(protocol.inception, splits=4, first=0)
    if protocol.retrieval:
        of["retrieval"] = dataclasses.replace(protocol.retrieval, candidates=6, folds=3)
    return dataclasses.replace(protocol, **of)


class Words:
    """A tokenizer that says how long captions may be."""

    def __init__(self, own, kind, length):
        self._own, self.kind, self.length = own, kind, length

    def __call__(self, captions):
        return self._own(captions)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return api.load(small.untrained(tmp_path_factory.mktemp("run") / "df_gan", steps=(1,)))


@pytest.fixture(scope="module")
def patched():
    """Tiny networks under all published names, as if their weights had been fetched."""
    with pytest.MonkeyPatch.context() as patch:
        small.stand_ins(patch)
        load = features.load
        patch.setattr(features, "load", lambda name, path, kind: load(name, "", "random"))
        for name in [n for n in features.NETWORKS if n.startswith("inception")]:
            inputs = features.make(name)["features"].inputs
            net = {"features": features.Net(small.Eye(), (), dict.fromkeys(inputs, small.plain))}
            patch.setitem(features.NETWORKS, name, functools.partial(dict, net))
        yield patch


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of pictures that are not square, with captions."""
    folder, rng = tmp_path_factory.mktemp("data") / "pictures", np.random.RandomState(0)
    folder.mkdir()
    for i in range(COUNT):
        pixels = rng.randint(0, 255, (3, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((24, 20)).save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(f"picture {i}\n")
    return folder


@pytest.fixture(scope="module")
def reader(patched):
    """One reader for all, so that each network compiles once."""
    found = reading.Reader({}, 8)
    found.lend(
        "damsm",
        lambda v, x: x.reshape(len(x), -1)[:, :64],
        lambda v, tokens, mask: np.float32(1) * tokens[:, :1] * np.ones((1, 64), np.float32),
        {},
        lambda said: (
            np.int32([[len(s) + i for i in range(4)] for s in said]),
            np.ones((len(said), 4), bool),
        ),
        protocols.CONVERTED,
    )
    return found


def evaluated(monkeypatch, protocol, system, place, reader, *args, metrics=()):
    """The result of judging the tiny system as if it were one that meets the protocol."""
    how = protocol.samples
    number, _, unit = how.cap.partition(" ")
    kind = unit or "tokens"
    words = Words(
        system.run.tokenizer,
        "words" if kind == "words" else "bytes",
        int(number or 0) if unit else 9,
    )
    run = dataclasses.replace(system.run, tokenizer=words)
    drawn = api.System.__new__(api.System)
    drawn.__dict__ |= system.__dict__
    drawn.run = run
    drawn.sampler = dataclasses.replace(
        system.sampler, latents=how.controls if how.controls != "none" else ""
    )
    weights = how.weights if how.weights != protocols.ANY else "averaged"
    drawn.about = system.about | {"weights": weights}
    of = subjects.Opened(run, system.weights[0], system.weights[1], 1)
    subject = subjects.Subject("x", 1, of, drawn, None)
    monkeypatch.setattr(subjects, "subject_of", lambda *a: subject)
    monkeypatch.setattr(subjects, "lend_damsm", lambda *a: None)
    monkeypatch.setattr(judge, "Reader", lambda *a: reader)
    monkeypatch.setitem(protocols.PROTOCOLS, protocol.name, protocol)
    named = {str(place): how.dataset, "": how.dataset if how.trained != "no" else "scenes"}
    monkeypatch.setattr(corpora, "dataset_of", lambda data: named.get(data.path, "elsewhere"))
    metrics = metrics or {x.metric for x in published.PUBLISHED if x.protocol == protocol.name}
    asked = ",".join(dict.fromkeys(ASKED.get(m, m) for m in sorted(metrics)))
    monkeypatch.setattr(judge.References, "_cache", None)
    given = ("--workdir", "x", "--data", str(place), "--metrics", asked, "--no-intervals")
    return judge.judge(evaluate.arguments([*given, "--protocol", protocol.name, *map(str, args)]))


def numbers(result):
    return {(x.model, x.metric) for s in result.scores for x in report.beside(result, s)}


@pytest.mark.parametrize("name", [n for n in WITH_NUMBERS if n != "iir_net_coco"])
def test_who_meets_a_protocol_sees_its_numbers(monkeypatch, name, system, place, reader, tmp_path):
    protocol = made_small(protocols.get(name))
    known = {(x.model, x.metric) for x in published.PUBLISHED if x.protocol == name}
    more = ()
    compares = {m for _, m in known} & set(protocols.COMPARING)
    if protocol.reference.file and compares:
        file = tmp_path / protocol.reference.file
        rows = np.random.RandomState(1).rand(50, 12)
        stats.save(file, stats.gaussian(stats.of_rows(rows)))
        more = ("--reference", file)
    result = evaluated(monkeypatch, protocol, system, place, reader, *more)
    assert known <= numbers(result), result.notes
    assert not any("measured otherwise" in note for note in result.notes)
    withdrawn(result.records[name], protocol, known)


def withdrawn(measured, protocol, known):
    """Asserts that any one field that differs takes the published numbers away, and is named."""
    for metric in sorted({m for _, m in known}):
        for part in protocols.parts(metric):
            for field in dataclasses.fields(getattr(measured, part)):
                key = f"{part}.{field.name}"
                theirs = getattr(getattr(protocol, part), field.name)
                mine = getattr(getattr(measured, part), field.name)
                if protocols.ANY in (theirs, mine) or (key in protocols.OPEN and not theirs * mine):
                    continue
                other = mine + 1 if isinstance(mine, (int, float)) else f"not {mine}"
                changed = dataclasses.replace(getattr(measured, part), **{field.name: other})
                changed = dataclasses.replace(measured, **{part: changed})
                beside = published.beside(changed, metric)
                assert protocol.name not in {x.protocol for x in beside}, key
                (line,) = record.withheld(changed, [Score(metric, 1.0)])
                assert f"{key} ({other} against {theirs})" in line


def test_edits_meet_a_protocol_by_what_is_stated(monkeypatch, reader, tmp_path):
    protocol = protocols.get("iir_net_coco")
    few = dataclasses.replace(protocol.samples, count=6, resolution=40)
    protocol = dataclasses.replace(protocol, samples=few)
    monkeypatch.setitem(protocols.PROTOCOLS, protocol.name, protocol)
    monkeypatch.setattr(judge, "Reader", lambda *a: reader)
    given = ["--protocol", protocol.name, "--metrics", "lpips,clip_score", "--no-intervals"]
    for option, start in (("--images", 0), ("--reference", 70)):
        given += [option, str(small.pictures(tmp_path / str(start), 6, start, size=40))]
    known = {(x.model, x.metric) for x in published.PUBLISHED if x.protocol == protocol.name}
    result = judge.judge(evaluate.arguments(given))
    assert not numbers(result)
    assert "samples.captions (unknown against distinct)" in " ".join(result.notes)
    fields = ("dataset", "split", "captions", "controls", "quantise")
    said = [f"samples.{name}={getattr(few, name)}" for name in fields]
    result = judge.judge(evaluate.arguments([*given, "--stated", *said]))
    assert known <= numbers(result), result.notes
    assert len(result.facts["stated"]) == len(said)
    withdrawn(result.records[protocol.name], protocol, known)


# --- Any combination ---------------------------------------------------------------------------

HERE = {"preset": "configs/df_gan.py:tiny", "corpus": "scenes", "nothing": ""}
# (data, reference) -> (data set, what was compared with), or what is refused.
DRAWN = {
    ("nothing", "nothing"): ("blooms", "blooms"),
    ("nothing", "data"): ("blooms", "blooms"),
    ("nothing", "folder"): ("blooms", "folder {folder}"),
    ("nothing", "npz"): ("blooms", "given.npz"),
    ("folder", "nothing"): ("folder:{folder}", "folder:{folder}"),
    ("folder", "npz"): ("folder:{folder}", "given.npz"),
    ("folder", "folder"): ("folder:{folder}", "folder {folder}"),
    ("list", "nothing"): ("list:{list}", "list:{list}"),
    ("list", "npz"): ("list:{list}", "given.npz"),
    ("web", "nothing"): ("webdataset:{web}", "webdataset:{web}"),
    ("records", "nothing"): ("cub", "cub"),
    ("preset", "nothing"): ("blooms", "blooms"),
    ("corpus", "nothing"): ("scenes", "scenes"),
    ("corpus", "folder"): ("scenes", "folder {folder}"),
    ("absent", "nothing"): "no such folder; give a folder of records",
    ("picture", "nothing"): "a file; give a folder of records",
    ("empty", "nothing"): "this preset names no folder; add --config.data.path=DIR",
    ("nothing", "absent"): "--reference .*no such folder; give a folder of pictures",
    ("nothing", "picture"): "--reference .*a file; give a folder of pictures",
}
FOLDERS = {
    ("nothing", "nothing"): "give --reference DIR or FILE.npz, or --data",
    ("nothing", "data"): "give --reference DIR or FILE.npz, or --data",
    ("nothing", "folder"): ("folder {images}", "folder {folder}"),
    ("nothing", "npz"): ("folder {images}", "given.npz"),
    ("folder", "nothing"): ("folder:{folder}", "folder:{folder}"),
    ("folder", "data"): ("folder:{folder}", "folder:{folder}"),
    ("list", "nothing"): ("list:{list}", "list:{list}"),
    ("corpus", "nothing"): ("scenes", "scenes"),
    ("preset", "nothing"): ("blooms", "blooms"),
    ("absent", "nothing"): "no such folder; give a folder of records",
}


@pytest.fixture(scope="module")
def words(place, tmp_path_factory):
    """{kind: the word of --data or --reference} of everything that there is."""
    root = tmp_path_factory.mktemp("words")
    lines = [{"file_name": str(place / f"{i:02d}.png"), "text": f"row {i}"} for i in range(12)]
    (root / "rows.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    shards.write_tar(root / "web" / "00000.tar", [shards.row(0, i) for i in range(12)])
    build(Jaxt2iCub, test_cub.tree(root / "in"), root / "records")
    rows = np.random.RandomState(1).rand(50, 12)
    stats.save(root / "given.npz", stats.gaussian(stats.of_rows(rows)))
    images = small.pictures(root / "images", 12)
    return HERE | {
        **{"folder": str(place), "list": str(root / "rows.jsonl"), "web": str(root / "web")},
        **{"npz": str(root / "given.npz"), "data": "data", "absent": str(root / "none")},
        **{"picture": str(place / "00.png"), "empty": "configs/galip.py:coco"},
        "images": str(images),
        "records": str(root / "records"),
    }


def test_captions_of_two_languages_are_drawn_with_one_seed(system, tmp_path, monkeypatch):
    build(Jaxt2iMulti30k, test_multi30k.tree(tmp_path / "in"), tmp_path / "out", config="task2")
    asked, stream = [], system.stream

    def noted(rows, **how):
        return stream((asked.append(row) or row for row in rows), **how)

    monkeypatch.setattr(system, "stream", noted)
    how = {"data": str(tmp_path / "out"), "split": "train", "metrics": "cross_lingual"}
    result = evaluate.evaluate(system, languages="en,de", cache=tmp_path, **how)
    seeds = {}
    # Each of three pictures in two languages, and another caption; the report's sheet was first.
    for row in asked[-9:]:
        seeds.setdefault(row["seed"], set()).add(row["prompt"][:2])
    assert list(seeds.values()) == [{"en", "de"}] * 3
    found = [row["seed"] for row in asked[-9:]]
    assert all(len(set(found[i : i + 3])) == 1 for i in (0, 3, 6))
    (score,) = result.scores
    assert -1 <= score.value <= 1
    assert score.facts["network"] == "mini_clip"
    assert -1 <= score.facts["another_caption"] <= 1
    (table,) = result.breakdowns.values()
    assert table["de"]["pictures"] == 3
    with pytest.raises(MetricError, match="captions that say their language, and blooms has none"):
        evaluate.evaluate(system, metrics="cross_lingual")


@pytest.fixture(scope="module")
def seeing(patched):
    """A reader of the one tiny network."""
    patched.setitem(features.NETWORKS, "inception_small", small.tiny_network)
    return reading.Reader({"inception_small": "random"}, 8)


def combined(monkeypatch, words, seeing, system, data, reference):
    """The result of --data and --reference together, for a system, or for a folder (None)."""
    small.use(monkeypatch)
    monkeypatch.setattr(judge, "Reader", lambda *a: seeing)
    monkeypatch.setattr(judge.References, "_cache", None)
    given = ["--images", words["images"]]
    if system is not None:
        of = subjects.Opened(system.run, *system.weights, 1)
        subject = subjects.Subject("x", 1, of, system, None)
        monkeypatch.setattr(subjects, "subject_of", lambda *a: subject)
        given = ["--workdir", "x", "--num", "6"]
    if data == "records":  # its other split has one picture
        given += ["--split", "train"]
    monkeypatch.setattr(corpora, "SYNTHETIC_COUNT", 12)
    for option, word in (("--data", data), ("--reference", reference)):
        given += [option, words[word]] if words[word] else []
    given += ["--protocol", "small", "--metrics", "fid", "--no-intervals"]
    return judge.judge(evaluate.arguments(given))


def expect(monkeypatch, words, seeing, system, asked, wanted):
    """Holds one combination against what is promised of it."""
    if isinstance(wanted, str):
        with pytest.raises((MetricError, DataError), match=wanted):
            combined(monkeypatch, words, seeing, system, *asked)
        return None
    result = combined(monkeypatch, words, seeing, system, *asked)
    (measured,) = result.records.values()
    dataset, compared = (text.format(**words) for text in wanted)
    assert measured.samples.dataset == dataset
    assert compared in (measured.reference.dataset, measured.reference.file)
    assert np.isfinite(result.scores[0].value)
    return measured


@pytest.mark.parametrize("asked", DRAWN, ids="-".join)
def test_what_is_drawn_is_judged_on_anything_against_anything(
    monkeypatch, words, seeing, system, asked
):
    measured = expect(monkeypatch, words, seeing, system, asked, DRAWN[asked])
    if measured is not None:
        dataset = measured.samples.dataset
        trained = {"blooms": "yes", "scenes": "no", "cub": "no"}.get(dataset, "unknown")
        known = "no" if dataset.startswith("webdataset") else trained
        assert measured.samples.trained == known
        assert measured.samples.split == ("train" if dataset == "cub" else "val")
        assert measured.samples.controls == "normal within 2, times 0.88"


@pytest.mark.parametrize("asked", FOLDERS, ids="-".join)
def test_folders_are_judged_on_anything_against_anything(monkeypatch, words, seeing, asked):
    wanted = FOLDERS[asked]
    measured = expect(monkeypatch, words, seeing, None, asked, wanted)
    if measured is not None:
        assert measured.samples.captions == measured.samples.weights == "unknown"


# --- What a user states ------------------------------------------------------------------------


def test_what_nobody_can_know_of_a_folder_may_be_stated(monkeypatch, words, seeing):
    measured = combined(monkeypatch, words, seeing, None, "nothing", "folder").records["small"]
    said = {"samples.dataset": "coco2014", "samples.weights": "averaged", "samples.captions": "all"}
    found = record.stated(measured, said).samples
    assert (found.dataset, found.weights, found.captions) == ("coco2014", "averaged", "all")
    with pytest.raises(MetricError, match=r"samples\.count=5: it is known to be 12"):
        record.stated(measured, {"samples.count": "5"})
    with pytest.raises(MetricError, match=r"did you mean 'samples\.split'"):
        record.stated(measured, {"samples.splits": "val"})
