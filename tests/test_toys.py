"""Three systems written against the interface alone: boxes, text to layout, an editor by diffusion.

What they can do they can do everywhere: in grids, samples, evaluations, plans and the Python API.
"""

import gc
import io
import json
import pathlib
import shutil
import tracemalloc

import jax
import numpy as np
import pytest
from PIL import Image

from jaxt2i import api, evaluate, sample
from jaxt2i.config import ConfigError
from jaxt2i.data import show
from jaxt2i.data.drawn import meaning
from jaxt2i.data.schema import DataError
from jaxt2i.engine import draw
from jaxt2i.engine import state as states
from jaxt2i.evaluation import beside, object_plan, objects, sets, soa
from jaxt2i.evaluation.detection import Detection, Detector
from jaxt2i.metrics.score import MetricError
from jaxt2i.run import borrow, checkpoint, facts, folder
from jaxt2i.run.open import open_run
from tests.toys import box_gan, edit, layout

pytestmark = pytest.mark.xdist_group("toys")

TOYS = {"box_gan": box_gan, "layout": layout, "edit": edit}
OBJECTS = [{"label": "cat", "box": [0.1, 0.2, 0.4, 0.5]}, {"label": "dog", "box": [0.5, 0, 0.5, 1]}]


@pytest.fixture(scope="module")
def runs(toy_runs):
    return toy_runs


@pytest.fixture(scope="module")
def systems(runs):
    return {name: api.load(folder) for name, folder in runs.items()}


@pytest.fixture(scope="module")
def labels(systems):
    return list(systems["layout"].run.facts.names["box_label"])


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def rows_for(name, labels, photo):
    things = [t | {"label": labels[i]} for i, t in enumerate(OBJECTS)]
    return {
        "box_gan": [{"prompt": f"scene {i}", "objects": things[: 1 + i % 2]} for i in range(3)],
        "layout": [{"prompt": f"scene {i}"} for i in range(3)],
        "edit": [
            {
                "prompt": f"scene {i}",
                "image": str(photo),
                "edit_region": [[0, 0, 0.5, 0.5 + 0.1 * i]],
            }
            for i in range(3)
        ],
    }[name]


def equal(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("chunk", [1, 8])
def test_the_law_of_drawing(runs, labels, photo, name, chunk):
    """To the bit: alone, in three, among nineteen, on one device and on four."""
    rows = rows_for(name, labels, photo)
    one = api.load(runs[name], chunk=chunk, device=devices(1))
    many = api.load(runs[name], chunk=chunk, device=devices(4))
    three = one.sample(rows, seed=5).outputs
    alone = [one.sample([row], seed=5).outputs[0] for row in rows]
    crowd = one.sample([*rows[::-1] * 6, rows[0]], seed=5).outputs
    spread = many.sample(rows, seed=5).outputs
    assert equal(three, alone)
    assert equal(three[0], crowd[-1])
    assert equal(three[1], crowd[7])
    assert equal(three, spread)
    assert not equal(three[0], three[1])


def devices(count):
    return api.mesh.Layout(api.mesh.make(count, 1, 1, jax.devices()[:count]))


def test_the_grid_the_command_and_the_api_draw_the_same(runs, systems, tmp_path):
    """The grid's first picture has seed 0 and the first held-out row.

    A picture that is to be edited stands before what was drawn from it.
    """
    from jaxt2i.run import log

    for name in ("box_gan", "edit"):
        system = systems[name]
        rows = list(api.from_split(system.run, "val:0:3"))
        found = [system.sample([row], seed=i).outputs[0]["image"] for i, row in enumerate(rows)]
        given = [system.words.arrays(r, ("image",))["image"] for r in rows if "image" in r]
        shown = [x for pair in zip(given, found, strict=True) for x in pair] if given else found
        captions = [r["prompt"] for r in rows for _ in range(len(shown) // len(rows))]
        log.save_grid(tmp_path / "own.png", np.stack(shown), captions)
        kept = np.asarray(Image.open(runs[name] / "samples" / "00000002.png"))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "own.png")), kept)
        out = tmp_path / name
        sample.main(["--workdir", str(runs[name]), "--from-split", "val:0:1", "--out", str(out)])
        np.testing.assert_array_equal(np.asarray(Image.open(out / "000000.png")), found[0])
        drawn = sets.of_system(
            system,
            [rows[0]["prompt"]],
            name="x",
            seed=0,
            rule="",
            conditions=lambda n, rows=rows: rows[0] | {"seed": 0},
        )
        np.testing.assert_array_equal(drawn.pictures([0])[0], found[0])
        assert drawn.rows([0])[0]["prompt"] == rows[0]["prompt"]


def test_edits_by_the_command_and_the_api(runs, systems, photo, tmp_path, capsys):
    """Pictures and regions on the command line; other sizes; a control's values side by side."""
    wide = tmp_path / "wide.png"
    pixels = np.random.default_rng(1).integers(0, 256, (24, 36, 3), np.uint8)
    Image.fromarray(pixels).save(wide)
    Image.fromarray(pixels[..., 0] // 128 * 255).save(tmp_path / "mask.png")
    place, out = ["--workdir", str(runs["edit"])], tmp_path / "out"
    few = ["--set", "steps=2", "--out", str(out), "--edit", str(photo), str(wide)]
    both = [*few, "--region", "0,0,8,8", str(tmp_path / "mask.png"), "--prompts", "snow"]
    sample.main([*place, *both, "--size", "17"])
    lines = [json.loads(x) for x in (out / "metadata.jsonl").read_text().splitlines()]
    by_number = {line["number"]: line for line in lines}
    assert by_number[0]["edit_region"] == [[0, 0, 8, 8]]
    assert by_number[0]["units"] == "pixels"
    sizes = {f.name: Image.open(f).size for f in out.glob("00*.png")}
    assert sizes["000000.png"] == (16, 16)
    assert sizes["000001.png"] == sizes["000001_seen.png"] == (24, 16)
    assert Image.open(out / "edits.png").width == 3 * (144 + 6) + 6
    again = systems["edit"].edit(
        [photo, wide], "snow", regions=["0,0,8,8", tmp_path / "mask.png"], size=17, steps=2
    )
    for i, found in enumerate(again.outputs):
        np.testing.assert_array_equal(found["image"], np.asarray(Image.open(out / f"00000{i}.png")))
        drawn_from = np.asarray(Image.open(out / f"00000{i}_source.png"))
        np.testing.assert_array_equal(found["source"], drawn_from)
    # One line: the source and three edits, then what was seen of it at each strength.
    swept = ["--edit", str(photo), "--prompts", "snow", "--sweep", "strength=0,400,999"]
    sample.main([*place, *swept, "--set", "steps=2", "--out", str(tmp_path / "swept")])
    lines = (tmp_path / "swept" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(x)["controls"]["strength"] for x in lines] == [0, 400, 999]
    seen = [np.asarray(Image.open(tmp_path / "swept" / f"00000{i}_seen.png")) for i in (0, 1, 2)]
    colour = [np.abs(np.diff(x.astype(int), axis=-1)).mean() for x in seen]
    assert colour[0] < 10 < colour[1] < colour[2], "grey, and then ever more noise"
    assert (tmp_path / "swept" / "edits.png").is_file()
    with pytest.raises(ConfigError, match="nearest is 16x16"):
        systems["edit"].edit(photo, "snow", size=(18, 16))
    with pytest.raises(ConfigError, match="draws 16x16 alone"):
        systems["layout"].sample(["a"], size=32)
    with pytest.raises(ConfigError, match="edits no pictures"):
        systems["layout"].edit(photo, "snow")
    with pytest.raises(ConfigError, match="2 regions for 1 pictures"):
        systems["edit"].edit(photo, "snow", regions=["all", "none"])
    for bad in (["--region", "all"], ["--edit", str(photo), "--sweep", "steps=1,"]):
        with pytest.raises(SystemExit):
            sample.main([*place, "--prompts", "a", *bad])
    said = capsys.readouterr().err
    assert "--region says where --edit PHOTO may act" in said
    assert "expected values, such as tau=0,200,600" in said


def test_a_layout_model_shows_layouts_and_a_gan_its_boxes(runs):
    assert (runs["layout"] / "samples" / "00000002_layout.png").is_file()
    assert not (runs["layout"] / "samples" / "00000002.png").exists()
    assert (runs["box_gan"] / "samples" / "00000002.png").is_file()
    assert (runs["box_gan"] / "samples" / "00000002_layout.png").is_file()


def test_a_layout_model_is_judged_by_its_layouts(runs, tmp_path, capsys):
    """LQS and relations, the data's own layouts and chance beside; rows that can be changed."""
    asked = ["--workdir", str(runs["layout"]), "--num", "48", "--out", str(tmp_path)]
    evaluate.main(asked)
    (file,) = tmp_path.glob("step_*2.json")
    found = json.loads(file.read_text())
    scores = {score["metric"]: score for score in found["scores"]}
    assert {"lqs", "lqs_label_set", "relations", "layout_classes", "layout_counts"} <= set(scores)
    assert scores["lqs"]["facts"]["real_layouts"] == pytest.approx(4)
    assert 0 < scores["lqs"]["facts"]["shuffled_captions"] < 3
    assert 0 <= scores["lqs"]["interval"]["low"] <= scores["lqs"]["value"] < 3
    # Of a sixth thing, which these five places do not hold, some captions speak.
    assert 0.7 < scores["relations"]["facts"]["real_layouts"] <= 1
    assert scores["layout_classes"]["value"] < scores["layout_classes"]["facts"]["real_layouts"]
    assert (tmp_path / f"{file.stem}_layouts.png").is_file()
    assert "<h2>Layouts</h2>" in (tmp_path / f"{file.stem}.html").read_text()
    rows = [
        json.loads(x)
        for x in (tmp_path / f"{file.stem}_layouts.jsonl").read_text().split("\n")
        if x
    ]
    assert len(rows) == 8
    kept = next(row for row in rows if row["objects"])
    again = api.load(runs["box_gan"]).sample([kept])
    assert [x["label"] for x in again.layouts[0]] == [x["label"] for x in kept["objects"]][:5]
    with pytest.raises(SystemExit, match=r"soa judge pictures, and .* draws layouts: ask for lqs"):
        evaluate.main([*asked, "--metrics", "lqs,soa"])


def test_a_chain_draws_a_picture_from_a_caption(
    runs, systems, labels, monkeypatch, tmp_path, capsys
):
    chain = api.load(runs["box_gan"], after=[runs["layout"]])
    assert list(chain.conditions) == ["prompt"]
    assert set(chain.controls) == {"temperature", "greedy", "psi"}
    found = chain.sample(["two cats and a dog"], num=2, temperature=0.5, psi=0.8)
    layouts = systems["layout"].sample(["two cats and a dog"], num=2, temperature=0.5)
    assert found.layouts == layouts.layouts
    # Both show themselves with the names of their classes, here and in a folder.
    shown, png = [], io.BytesIO()
    Image.new("RGB", (1, 1)).save(png, "png")
    png = png.getvalue()
    monkeypatch.setattr(show, "drawn", lambda tiles, **how: shown.append((tiles, how)) or png)
    assert found.layout_sheet().size == (1, 1) == layouts.layout_sheet().size
    assert layouts._repr_png_()[:4] == png[:4]
    layouts.save(tmp_path / "layouts")
    assert [how["beside"] for _, how in shown] == [True, False, False, False]
    assert all(tile.names == tuple(labels) for tiles, _ in shown for tile in tiles)
    assert (tmp_path / "layouts" / "layouts.png").is_file()
    again = systems["box_gan"].sample(layouts.rows, psi=0.8) if all(layouts.layouts) else found
    assert equal([o["image"] for o in found.outputs], [o["image"] for o in again.outputs])
    # The last system alone draws the same from what the chain wrote down.
    monkeypatch.setattr(systems["box_gan"], "_told", False)
    alone = systems["box_gan"].sample(found.rows[:1])
    assert equal([alone.outputs[0]["image"]], [found.outputs[0]["image"]])
    assert "does not have are left out: temperature" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="has no control 'temperature'"):
        systems["box_gan"].sample([{"prompt": "x", "controls": {"temperature": 1}}])
    # What a person says is not overwritten.
    mine = [{"label": labels[0], "box": [0.0, 0.0, 1.0, 1.0]}]
    assert chain.sample([{"prompt": "x", "objects": mine}]).layouts[0] == mine


def test_a_chain_is_judged_by_what_it_draws_itself(runs, systems, tmp_path, monkeypatch, capsys):
    """The data's layouts are drawn from only where they are asked for, and then as by one run."""
    names = systems["layout"].run.facts.names["box_label"]

    def detect(images):
        sums = [int(x.sum()) for x in images]
        return [
            [Detection(n, (0.2, 0.2, 0.5, 0.5), 1.0) for n in range(17) if total >> n % 7 & 1]
            for total in sums
        ]

    def named(text):
        return [names.index(t.name) for t in meaning.read(text, "scenes").things if t.name]

    detector = Detector("by pixels", names, detect, named, rarest=tuple(range(17)))
    monkeypatch.setattr(soa, "detector_of", lambda *given: detector)

    def scores(name, *more):
        out = tmp_path / f"{name}{len(more)}"
        asked = ["--workdir", str(runs[name]), "--metrics", "soa,lqs", "--num", "24"]
        evaluate.main([*asked, "--no-intervals", "--out", str(out), *more])
        (file,) = out.glob("step_*2.json")
        return {s["metric"]: s for s in json.loads(file.read_text())["scores"]}

    after = ["--after", str(runs["layout"])]
    alone = scores("box_gan", "--layouts", "shuffled")
    chain = scores("box_gan", *after, "--layouts", "real", "shuffled")
    shown = "drawn from shuffled layouts"
    assert shown in " ".join(capsys.readouterr().out.split())
    for metric in ("soa_i", "soa_i_iou", "lqs"):
        one, both = alone[metric], chain[metric]
        assert both["facts"]["from_real_layouts"] == one["value"] != both["value"]
        key = "from_shuffled_layouts"
        assert both["facts"][key] == one["facts"][key] != one["value"]
    for given, said in (
        (["--layouts", "real"], "without a layout model in front"),
        (["--layouts", "shuffled", "--metrics", "fid"], "it is of soa, recognised, lqs and"),
    ):
        with pytest.raises(SystemExit, match=said):
            scores("box_gan", *given)
    with pytest.raises(SystemExit, match="--layouts is of pictures"):
        evaluate.main(["--workdir", str(runs["layout"]), "--layouts", "shuffled"])


def test_what_a_chain_is_given(runs, systems, tmp_path):
    chain = api.load(runs["box_gan"], after=[runs["layout"]])
    assert chain.asked == ("tokens", "token_mask")
    assert {"boxes", "box_label", "box_mask"} <= set(systems["box_gan"].asked)
    source, images = chain.run.source("val"), [4, 4, 7, None]
    of = {kind: beside.rows(chain, source, images, kind) for kind in ("", "real", "shuffled")}
    real = [x["objects"] for x in chain.run.rows_of(source, [4, 7])]
    assert [set(of[""](n)) for n in range(4)] == [{"prompt"}] * 3 + [set()]
    assert [of["real"](n).get("objects") for n in range(4)] == [real[0], real[0], real[1], None]
    assert [of["shuffled"](n).get("objects") for n in range(4)] == [real[1], real[1], real[0], None]
    assert of["shuffled"](2)["prompt"] == of[""](2)["prompt"]
    with pytest.raises(MetricError, match="judge two or more"):
        beside.rows(chain, source, [4, 4], "shuffled")
    # Rows of a split bring no layout where one is to be drawn.
    command = ["--workdir", str(runs["box_gan"]), "--from-split", "val:4:5", "--after"]
    sample.main([*command, str(runs["layout"]), "--out", str(tmp_path / "drawn")])
    (row,) = (tmp_path / "drawn" / "metadata.jsonl").read_text().splitlines()
    assert json.loads(row)["objects"] != real[0]


def test_a_drawn_folder_is_drawn_again_from_its_own_metadata(
    runs, systems, labels, photo, tmp_path
):
    for name in TOYS:
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows_for(name, labels, photo))))
        first, second = tmp_path / f"{name}-a", tmp_path / f"{name}-b"
        command = ["--workdir", str(runs[name]), "--conditions"]
        sample.main([*command, str(file), "--num", "2", "--seed", "7", "--out", str(first)])
        sample.main([*command, str(first / "metadata.jsonl"), "--out", str(second)])
        lines = [
            [json.loads(line) for line in (f / "metadata.jsonl").read_text().splitlines()]
            for f in (first, second)
        ]
        assert [line["seed"] for line in lines[0]] == [7, 8] * 3
        for a, b in zip(*lines, strict=True):
            assert a.get("objects") == b.get("objects")
        for picture in sorted(first.glob("00000?.png")):
            assert picture.read_bytes() == (second / picture.name).read_bytes()


def test_steps_are_data_and_schedulers_are_compiled_in(systems, photo):
    row = {"prompt": "snow", "image": str(photo)}
    by = systems["edit"]
    few, more = by.sample([row], steps=2), by.sample([row], steps=5)
    assert not equal(few.outputs, more.outputs)
    drawer = by.drawer([n for n in by.gives if n == "image"])
    one = by.sample([row | {"controls": {"steps": 2}}], steps=5)
    assert equal(one.outputs, few.outputs)
    assert not equal(by.sample([row], scheduler="ddpm", steps=2).outputs, few.outputs)
    assert drawer.chunk == 1
    told = {c["name"]: c for c in by.describe()["controls"]}
    assert told["steps"]["high"] == 1000
    assert told["scheduler"]["choices"] == ("ddim", "ddpm")


def test_networks_start_from_the_runs_that_are_named(runs, tmp_path):
    config = box_gan.get_config()
    config.init_from, config.total_steps = f"text={runs['layout']}", 1
    method = open_run(config).method
    fresh, _ = states.create(method, open_run(config).batch_spec(), 0, everywhere(method, config))
    filled = borrow.fresh_start(config, method)(fresh)
    earlier, _ = checkpoint.latest(runs["layout"])
    assert equal(filled.params["text"], earlier["params"]["text"])
    assert equal(filled.params["g"], fresh.params["g"])
    config.init_from = f"txt={runs['layout']}"
    with pytest.raises(ConfigError, match="names the network 'txt'; did you mean text"):
        borrow.fresh_start(config, method)
    config.init_from = f"g={runs['layout']}"
    with pytest.raises(ConfigError, match="holds no network 'g'; it holds decoder, text"):
        borrow.fresh_start(config, method)(fresh)
    assert borrow.folders({"g": "a"}) == {"g": "a"}
    assert borrow.folders("g=a,d=b") == {"g": "a", "d": "b"}
    assert borrow.folders("runs/a") == {borrow.EVERY: "runs/a"}


def everywhere(method, config):
    shapes = states.shapes(method, open_run(config).batch_spec())
    return tuple(map(devices(1).shardings, shapes))


def test_facts_of_the_data_are_kept_and_drawing_needs_no_data(runs, tmp_path):
    known = facts.read(runs["layout"])
    assert known.counts == {"train": None, "val": None}
    assert "cat" in known.names["box_label"]
    moved = shutil.copytree(runs["layout"], tmp_path / "moved")
    content = json.loads((moved / "config.json").read_text())
    content["data"]["source"], content["data"]["path"] = "folder", "/nowhere/at/all"
    (moved / "config.json").write_text(json.dumps(content))
    assert equal(
        api.load(moved).sample(["a cat"]).outputs,
        api.load(runs["layout"]).sample(["a cat"]).outputs,
    )
    (moved / "facts.json").write_text('{"names": 3')
    with pytest.raises(ConfigError, match=r"facts\.json is damaged"):
        api.load(moved)


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ({"step": 5}, "no control 'step'; did you mean steps"),
        ({"steps": 0}, "steps=0: expected 1 to 1000"),
        ({"steps": 2.5}, "steps=2.5: expected a whole number"),
        ({"guidance": float("nan")}, "guidance=nan: expected a finite number"),
        ({"scheduler": "ddimm"}, "did you mean ddim"),
    ],
)
def test_controls_that_cannot_be(systems, photo, controls, words):
    with pytest.raises(ConfigError, match=words):
        systems["edit"].sample([{"prompt": "a", "image": str(photo)}], **controls)


def test_conditions_that_cannot_be(systems, labels, tmp_path):
    gan, things = systems["box_gan"], [{"label": "kat", "box": [0, 0, 1, 1]}]
    assert repr(gan) == "<tests.toys.box_gan at step 2: draws from prompt, objects>"
    with pytest.raises(DataError, match="objects"):
        gan.sample(["a cat"])
    with pytest.raises(DataError, match="kat"):
        gan.sample([{"prompt": "a", "objects": things}])
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(DataError, match=r"no\.png"):
        systems["edit"].sample([{"prompt": "a", "image": str(tmp_path / "no.png")}])


def test_a_sampler_that_would_mix_pictures_is_told_so(systems):
    system = systems["box_gan"]
    for bad, words in (
        (lambda ctx, *_, **__: {"image": ctx.rng("z")}, "row's own key"),
        (lambda ctx, rows, *_, **__: ctx("g", train=True), "train=True"),
    ):
        sampler = draw.dataclasses.replace(system.sampler, draw=bad)
        method = draw.dataclasses.replace(system.run.method, sampler=sampler)
        drawer = draw.Drawer(method=method, layout=system.layout)
        with pytest.raises(ConfigError, match=words):
            drawer.outputs(*system.weights, system.run.row_spec())


def test_a_plan_lowers_every_sampler(systems):
    for name, system in systems.items():
        spec = system.run.row_spec()
        rows = {k: jax.ShapeDtypeStruct((8, *v.shape[1:]), v.dtype) for k, v in spec.items()}
        placed = [system.layout.abstract(t) for t in system.weights]
        text = system.drawer().lower(*placed, system.layout.abstract(rows, system.layout.rows))
        assert "func.func public @main" in text.as_text(), name


def held():
    """Bytes that Python holds since it began to count.

    But for the table of interned strings, which pathlib fills and which grows by doubling: how
    large it is depends on the rest of the process.
    """
    gc.collect()
    found = tracemalloc.take_snapshot()
    kept = found.filter_traces([tracemalloc.Filter(False, pathlib.__file__)])
    return sum(trace.size for trace in kept.traces)


def watched(things, sizes):
    """Things, with what is held at each thousandth of them."""
    for number, thing in enumerate(things):
        if number % 1000 == 999:
            sizes.append(held())
        yield thing


@pytest.mark.parametrize("pictures", [3000, pytest.param(8000, marks=pytest.mark.full)])
def test_pictures_stream_in_constant_memory(runs, labels, tmp_path, pictures):
    """What is held does not grow with what is drawn and written."""
    system = api.load(runs["box_gan"], chunk=8)
    thing = {"label": labels[0], "box": [0.1, 0.1, 0.5, 0.5]}
    rows = ({"prompt": "a", "objects": [thing], "seed": i, "number": i} for i in range(pictures))
    stream = system.stream(rows)
    for _ in range(200):
        next(stream)
    place, sizes = folder.Folder(tmp_path / "out", {}), []
    place.open()
    tracemalloc.start()
    count = place.write(watched(stream, sizes))
    tracemalloc.stop()
    assert count == pictures - 200
    assert len(list((tmp_path / "out").glob("0*.png"))) == count
    # No more at the end than after the first thousand.
    assert max(sizes) < sizes[0] + 2**20, sizes
    assert max(sizes) < 8 * 2**20, sizes


def test_objects_are_counted_in_what_is_drawn_from_layouts(systems):
    """Real pictures, which the detector knows by heart, are the ceiling; their boxes are given."""
    system = systems["box_gan"]
    source = system.run.source("val")
    names = source.class_names
    known = {source.example(n)["image"].tobytes(): source.facts(n)["objects"] for n in range(40)}

    def detect(images):
        seen = [known.get(x.tobytes(), []) for x in images]
        return [[Detection(t["label"], tuple(t["box"]), 1.0) for t in things] for things in seen]

    def named(text):
        things = meaning.read(text, "scenes").things
        return [names.index(t.name) for t in things if t.name]

    detector = Detector("by heart", names, detect, named, rarest=tuple(range(len(names))))
    captions = object_plan.of_source(source, 40, named, every=False)
    plan = object_plan.in_turn(captions, 24, detector.rarest)
    how = {"name": "x", "seed": 0, "rule": "", "controls": {}}
    judged, pictures = objects.of_run(system, source, plan, detector, **how)
    assert len(pictures) == 24 == judged.pictures
    # What it was given is what the source has, of every picture.
    image = plan.captions[plan.caption[3]].image
    boxes = [tuple(map(float, t["box"])) for t in source.facts(image)["objects"]][:5]
    assert [label for label, _ in pictures[3].given] == [
        t["label"] for t in source.facts(image)["objects"]
    ][:5]
    np.testing.assert_allclose([box for _, box in pictures[3].given], boxes, atol=1e-4)
    found = {s.metric: s for s in objects.scores(judged)}
    assert found["soa_c"].value == found["soa_i"].value == 0
    assert found["soa_c"].facts["real_pictures"] == 100
    assert found["soa_c_iou"].facts["real_pictures"] > 95
    half = f"soa_c_bot{len(judged.order) // 2}_iou"
    assert found[half].value == 0
