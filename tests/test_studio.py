"""The studio: what its page reads and draws, and the page in a real browser."""

import base64
import html
import io
import json
import socket
import threading
import urllib.error
import urllib.request
import zipfile

import numpy as np
import psutil
import pytest
from PIL import Image

from jaxt2i import api, studio
from jaxt2i.config import ConfigError
from jaxt2i.data import conditions
from jaxt2i.data.schema import DataError, Sizes
from jaxt2i.studio_page import drawing, reading

pytestmark = pytest.mark.xdist_group("toys")

SIZES = Sizes(batch=1, height=8, width=8, text_width=2)
BOX = [{"label": "cat", "box": [0.1, 0.2, 0.4, 0.5]}]


@pytest.fixture(scope="module")
def chain(toy_runs):
    return api.load(toy_runs["box_gan"], after=[toy_runs["layout"]])


@pytest.fixture(scope="module")
def gan(toy_runs):
    return api.load(toy_runs["box_gan"])


@pytest.fixture
def page_of(tmp_path):
    """Systems -> their page, without a server."""
    page = pytest.importorskip("jaxt2i.studio_page.page", reason="gradio is not installed")

    def make(*systems):
        made = page.Page(drawing.Systems(systems, tmp_path / "drawn"), tmp_path)
        made.build()
        return made

    return make


def filled(page, **given):
    """{component: value} as the page's form holds it: words, controls, and attributes by name."""
    out = {c: c.value for c in (page.seed, page.num, page.to, page.to_seed, page.steps)}
    out |= {page.visit: type(page.visit.value)(), page.views: []}
    out |= {component: component.value for component in page.words.values()}
    out |= {component: component.value for *_, component in page.controls}
    for name, value in given.items():
        named = {control["name"]: component for control, _, component in page.controls}
        out[page.words.get(name) or named.get(name) or getattr(page, name)] = value
    return out


def last(events):
    """All that a handler showed, the later over the earlier."""
    shown = {}
    for event in events:
        shown |= event
    return shown


def pixels(file):
    return np.asarray(Image.open(file))


def drawn_again(system, archive, out, inside=""):
    """(pictures of a zip, what its metadata.jsonl draws)."""
    with zipfile.ZipFile(archive) as content:
        content.extractall(out)
    rows = conditions.read_file(out / inside / "metadata.jsonl")
    kept = [pixels(out / inside / row["file_name"]) for row in rows]
    return kept, system.sample([dict(row) for row in rows]).arrays


# --- What a form says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{", "not JSON"),
        ('{"boxes": []}', "no list of objects"),
        ('{"objects": [], "colour": 1}', "'colour'"),
        (
            '[{"label": "cat", "box": [0, 0, 1, 1], "mask": "/etc/hostname"}]',
            "no file of this page",
        ),
    ],
)
def test_a_layout_that_is_none(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        reading.layout_of(text, tmp_path)


def test_a_layout_is_the_same_after_the_page(tmp_path):
    mask = np.eye(16, dtype=np.uint8) * 255
    row = {"objects": [{**BOX[0], "mask": mask}], "size": [32, 16], "units": "fractions"}
    again = reading.layout_of(reading.layout_text(row, tmp_path), tmp_path)
    file = again["objects"][0].pop("mask")
    np.testing.assert_array_equal(pixels(file), mask)
    assert again == {"objects": BOX, "size": [32, 16], "units": "fractions"}
    assert reading.layout_of(" ", tmp_path) == reading.layout_of("[]", tmp_path) == {}


def test_files_of_others_and_broken_regions_are_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "other.png").write_bytes(reading.png(np.zeros((4, 4, 3), np.uint8)))
    for name in ("../other.png", "missing.png"):
        with pytest.raises(DataError, match="no file of this page"):
            reading.words_of({"image": str(tmp_path / "mine" / name)}, tmp_path / "mine")
    for url in (
        "data:image/png;base64,AAAA",
        "http://example.org/x.png",
        "data:image/png;base64,ä",
    ):
        with pytest.raises(DataError, match="paint it again"):
            reading.region_of(url)
    # Nothing painted is no region.
    blank = reading.data_url(reading.png(np.zeros((4, 4), np.uint8)))
    assert reading.words_of({"edit_region": blank}, tmp_path) == {}


def test_a_picture_carries_its_row(tmp_path):
    row = {"prompt": "ein grüner 🐈", "seed": 7, "objects": BOX, "controls": {"psi": 0.5}}
    file = tmp_path / "a.png"
    file.write_bytes(reading.png(np.zeros((4, 4, 3), np.uint8), reading.plain(row)))
    assert reading.row_in(str(file)) == json.loads(reading.shown_row(row)) == row
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png holds no settings"):
        reading.row_in(str(tmp_path / "b.png"))
    told = reading.plain(row | {"image": "x.png", "edit_region": np.zeros((2, 2))})
    assert told["note"] == "without image, edit_region"


def test_what_a_row_holds_becomes_files_that_read_the_same(tmp_path):
    vector = [0.1, -2.5]
    file = reading.file_of(vector, tmp_path, "text_vector")
    words = conditions.Conditions(tokenizer=None, sizes=SIZES)
    for given in (vector, file):
        read = words.arrays({"text_vector": given}, ("text_vector",))["text_vector"]
        np.testing.assert_array_equal(read, np.float32(vector))
    photo = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(pixels(reading.file_of(photo, tmp_path, "image")), photo)
    assert reading.file_of("gone.png", tmp_path, "image") is None


# --- What a page draws -----------------------------------------------------------------------


def test_the_page_draws_what_the_api_draws(page_of, chain, tmp_path):
    page = page_of(chain)
    given = {"prompt": "a cat\na dog", "num": 2, "seed": 3, "psi": 0.5, "views": ["stages"]}
    shown = last(page.on_draw(filled(page, **given)))
    visit = shown[page.visit]
    expected = chain.sample(["a cat", "a dog"], num=2, seed=3, psi=0.5, also=("stages",))
    assert [p.row["seed"] for p in visit.now] == expected.seeds == [3, 4, 3, 4]
    for picture, out in zip(visit.now, expected, strict=True):
        np.testing.assert_array_equal(pixels(picture.file), out["image"])
        for file, stage in zip(picture.stages, out["stages"], strict=True):
            np.testing.assert_array_equal(pixels(file), stage)
    assert len(shown[page.history]) == 4
    kept, again = drawn_again(chain, shown[page.download].value["path"], tmp_path / "zip")
    np.testing.assert_array_equal(kept, again)
    np.testing.assert_array_equal(kept, expected.arrays)
    # A picture's settings, put back into the form, draw it again.
    closer = last(page.on_select(None, 3, visit))
    named = [part["caption"] for part in closer[page.parts].value]
    assert named == ["stage 1", "stage 2", "its layout"]
    form = last(page.on_again({page.visit: closer[page.visit]}))
    back = filled(page) | {c: form[c] for c in form if c not in (page.told, page.visit)}
    assert json.loads(back[page.words["objects"]])["objects"] == expected.layouts[3]
    once_more = last(page.on_draw(back))[page.visit].now
    np.testing.assert_array_equal(pixels(once_more[0].file), expected.arrays[3])


def test_a_proposed_layout_is_the_chains_and_can_be_changed(page_of, chain):
    page = page_of(chain)
    form = filled(page, prompt="a cat on a mat", seed=1)
    proposed = last(page.on_propose(form))[page.words["objects"]]
    plain = chain.sample("a cat on a mat", seed=1)
    assert json.loads(proposed)["objects"] == plain.layouts[0]

    def drawn(layout):
        return last(page.on_draw(form | {page.words["objects"]: layout}))[page.visit].now[0]

    np.testing.assert_array_equal(pixels(drawn(proposed).file), plain.arrays[0])
    changed = drawn(json.dumps(BOX))
    assert changed.row["objects"] == BOX
    assert np.any(pixels(changed.file) != plain.arrays[0])


def test_a_photograph_and_its_region(page_of, toy_runs, tmp_path):
    edit = api.load(toy_runs["edit"])
    page = page_of(edit)
    photo = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    Image.fromarray(noise).save(photo)
    shown = last(page.on_photo({page.words["image"]: str(photo)}))
    url = shown[page.words["edit_region"]].props["photo"]
    there = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert there.size == (reading.SHOWN, reading.SHOWN * 3 // 4)
    mask = np.zeros(there.size[::-1], np.uint8)
    mask[:, :500] = 255
    given = {"prompt": "a hat", "steps": 2, "image": str(photo)}
    painted = filled(page, **given, edit_region=reading.data_url(reading.png(mask)))
    shown = last(page.on_draw(painted))
    row = {"prompt": "a hat", "image": str(photo), "edit_region": mask}
    expected = edit.sample(row, steps=2).arrays
    np.testing.assert_array_equal(pixels(shown[page.visit].now[0].file), expected[0])
    photo.unlink()  # the zip stands alone
    kept, again = drawn_again(edit, shown[page.download].value["path"], tmp_path / "zip")
    np.testing.assert_array_equal(kept, again)
    np.testing.assert_array_equal(kept, expected)


def test_a_walk_and_two_runs_side_by_side(page_of, gan, chain, tmp_path):
    page = page_of(gan, chain)
    assert [sides for _, sides, _ in page.controls] == [(0, 1), (1,), (1,)]
    given = {"prompt": "a cat", "objects": json.dumps(BOX), "to": "a dog", "to_seed": 5}
    shown = last(page.on_walk(filled(page, **given, steps=3)))
    first = {"prompt": "a cat", "objects": BOX, "seed": 0}
    expected = gan.interpolate(first, {"prompt": "a dog", "seed": 5}, num=3)
    now = shown[page.visit].now
    assert [p.side for p in now] == [0, 0, 0, 1, 1, 1]
    for picture, image in zip(now, [*expected.arrays, *expected.arrays], strict=True):
        np.testing.assert_array_equal(pixels(picture.file), image)
    assert Image.open(shown[page.animation].value["path"]).n_frames == 4  # there and back
    archive = shown[page.download].value["path"]
    kept, again = drawn_again(gan, archive, tmp_path / "zip", "run_b")
    np.testing.assert_array_equal(kept, again)


def test_several_visitors_are_not_mixed(gan, tmp_path):
    systems, found = drawing.Systems([gan], tmp_path), {}
    start = threading.Barrier(3)

    def visit(seed):
        rows = [{"prompt": f"{seed}", "objects": BOX, "seed": seed + i} for i in range(4)]
        start.wait()
        *_, found[seed] = systems.draw(rows, [], [{}])

    visitors = [threading.Thread(target=visit, args=(100 * n,)) for n in range(3)]
    for thread in visitors:
        thread.start()
    for thread in visitors:
        thread.join()
    for seed in (0, 100, 200):
        pictures = found[seed].pictures
        assert [p.row["seed"] for p in pictures] == [seed + i for i in range(4)]
        expected = gan.sample([{"prompt": f"{seed}", "objects": BOX}], num=4, seed=seed).arrays
        np.testing.assert_array_equal([pixels(p.file) for p in pictures], expected)
    stop = threading.Event()
    stopped = systems.draw(
        [{"prompt": "a", "objects": BOX, "seed": i} for i in range(9)], [], [{}], stop
    )
    next(stopped)
    stop.set()
    (*_, end) = stopped
    assert (len(end.pictures), end.total) == (1, 9)
    drawing.remove(end.pictures, ())
    assert not end.archive.exists()


def test_a_caption_that_is_cut_is_said_as_the_api_says_it(page_of, gan, chain, capsys):
    page, boxes, long = page_of(gan), {"objects": json.dumps(BOX)}, "a cat on a mat " * 20

    def told(on_what, **given):
        return html.unescape(last(on_what(filled(page, **given, **boxes)))[page.told])

    cut = "the end is not read: captions are cut at 32 tokens"
    assert cut not in told(page.on_draw, prompt="a cat on a mat")
    found = told(page.on_draw, prompt=f"{long}\na cat\n{long}", num=2)
    assert found.count(cut) == 1
    assert f"{cut} (1 more)." in found, "two captions, however many pictures of each"
    capsys.readouterr()
    gan.sample({"prompt": long, "objects": BOX})
    sentence = capsys.readouterr().err.partition("conditions: ")[2].partition(";")[0]
    assert cut in sentence
    assert sentence in found
    assert cut in told(page.on_walk, prompt="a cat", to=long, steps=2), "the other end of a walk"
    proposing = page_of(chain)
    for prompt, count in (("a cat on a mat", 0), (long, 1)):
        shown = last(proposing.on_propose(filled(proposing, prompt=prompt, seed=1)))
        assert shown[proposing.told].count(cut) == count
    page = page_of(gan, chain)
    found = told(page.on_draw, prompt=long)
    assert all(f"{name}: {sentence}" in found for name in page.systems.names)


def test_what_is_wrong_is_said_in_a_sentence(page_of, gan, monkeypatch):
    page = page_of(gan)
    boxes = {"objects": json.dumps(BOX)}
    for given, words in (
        ({}, "there is no caption"),
        ({"prompt": "a"}, "there are no boxes"),
        ({"prompt": "a", "objects": '[{"label": "kat", "box": [0, 0, 1, 1]}]'}, "did you mean"),
        ({"prompt": "a", **boxes, "psi": 9}, "control psi=9: expected 0.0 to 2.0"),
        ({"prompt": "a", **boxes, "psi": None}, "the control psi is empty"),
        ({"prompt": "a", **boxes, "seed": None}, "the seed is None"),
        ({"prompt": "a", **boxes, "seed": 2**32}, "expected a whole number from 0"),
        ({"prompt": "a", **boxes, "num": 0}, "expected a whole number from 1"),
        ({"prompt": "a\n" * 9, **boxes, "num": 9}, "81 pictures are too many"),
        ({"prompt": "<b>&", "objects": "<b>"}, "the layout is not JSON"),
    ):
        told = last(page.on_draw(filled(page, **given)))[page.told]
        assert words in told.replace("&#x27;", "'"), told
        assert "alert" in told
        assert "Traceback" not in told
        assert "<b>" not in told

    def fails(*_, **__):
        raise RuntimeError("a secret of the program")

    monkeypatch.setattr(page.systems, "draw", fails)
    told = last(page.on_draw(filled(page, prompt="a", **boxes)))[page.told]
    assert "This should not happen (RuntimeError)" in told
    assert "secret" not in told


def test_the_command_line_says_what_is_wrong(capsys, monkeypatch, gan, tmp_path):
    for args, words in (
        ([], "give --workdir RUN, or"),
        (["--workdir", "a", "--port", "0"], "expected a number from 1"),
        (["--config", "a", "--weights", "b", "--raw"], "converted weights are as they are"),
    ):
        with pytest.raises(SystemExit):
            studio.main(args)
        assert words in capsys.readouterr().err
    assert studio.arguments(["--workdir", "a"]).host == "127.0.0.1"
    with pytest.raises(ConfigError, match="no earlier system"):
        gan.fill(["a cat"])
    monkeypatch.setattr(studio.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxt2i\[studio\]'"):
        studio.launched([gan], tmp_path, "127.0.0.1", None)


# --- In a browser ----------------------------------------------------------------------------


@pytest.fixture
def address(chain, tmp_path):
    """Where the studio of the chain is."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    page = studio.launched([chain], tmp_path / "studio", "127.0.0.1", None)
    yield page.local_url
    page.close()


def test_a_person_uses_the_page(browser, address, chain, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def at(selector):
        return browser.find_element(By.CSS_SELECTOR, selector)

    def wait(until):
        quiet = WebDriverWait(browser, 30, 0.05, ignored_exceptions=[Exception])
        return quiet.until(lambda _: until())

    def press(selector):
        """Once it lies still, and nothing above it."""
        wait(lambda: at(selector).click() or True)

    def told(words):
        return wait(lambda: words in at("#told").text and at("#told").text)

    def drag(start, *moves):
        """From a place of the canvas, in pixels from its centre, by several moves."""
        canvas = at("#boxes canvas")
        mouse = ActionChains(browser, duration=20)
        mouse.move_to_element_with_offset(canvas, *start).click_and_hold()
        for move in moves:
            mouse.move_by_offset(*move)
        mouse.release().perform()

    def layout():
        return json.loads(at("#boxes [data-part=text]").get_property("value") or "[]")

    browser.get(address)
    wait(lambda: at("#boxes canvas"))
    press("#draw")
    told("there is no caption")
    at("#prompts textarea").send_keys("a cat on a mat")
    # A box is drawn, moved, made larger at a corner, and gets another class.
    drag((-100, -100), (30, 30), (50, 30))
    (box,) = layout()
    drag((-60, -70), (20, 40), (50, 60))
    (moved,) = layout()
    assert moved["box"][0] > box["box"][0]
    assert moved["box"][2:] == pytest.approx(box["box"][2:], abs=2e-4)
    side = at("#boxes canvas").size["width"]
    drag([round((n - 0.5) * side) for n in moved["box"][:2]], (-20, -30))
    (larger,) = layout()
    assert larger["box"][2] > moved["box"][2]
    at("#boxes [data-part=label]").send_keys("cat")
    assert layout() == [larger | {"label": "cat"}]
    browser.save_screenshot(str(tmp_path / "page.png"))
    psi = at("#control-psi input[type=number]")
    psi.send_keys(Keys.CONTROL, "a")
    psi.send_keys("0.25", Keys.TAB)
    press("#draw")
    told("1 drawn in")
    press("#download")
    archive = tmp_path / "downloads" / "pictures.zip"
    wait(lambda: archive.exists() and zipfile.is_zipfile(archive))
    kept, _ = drawn_again(chain, archive, tmp_path / "zip")
    row = {"prompt": "a cat on a mat", "objects": layout()}
    np.testing.assert_array_equal(kept, chain.sample(row, psi=0.25).arrays)
    # What the layout model proposes comes into the same editor.
    press("#propose")
    told("A layout for")
    wait(lambda: layout()["objects"] == chain.fill("a cat on a mat")[0]["objects"])
    # The picture's settings bring the old one back.
    press("#gallery-0 img")
    wait(lambda: '"psi": 0.25' in at("#closer").text)
    press("#again")
    wait(lambda: layout() == row["objects"])
    # A second visitor has a page of their own.
    browser.switch_to.new_window("tab")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
    )
    browser.get(address)
    wait(lambda: at("#boxes canvas").size["width"] > 250)
    told("Nothing is drawn yet")
    assert not browser.find_elements(By.CSS_SELECTOR, "#history img, #gallery-0 img")
    wide = "return document.documentElement.scrollWidth"
    assert browser.execute_script(wide) == 390
    # Nothing comes from elsewhere, and no other file of this machine is given away.
    names = "return performance.getEntriesByType('resource').map((e) => e.name)"
    assert all(n.startswith((address, "data:")) for n in browser.execute_script(names))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{address}gradio_api/file=/etc/passwd")


def test_it_listens_on_the_loopback_alone(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    listens = psutil.Process().net_connections("tcp")
    found = {c.laddr.ip for c in listens if c.status == "LISTEN" and c.laddr.port == port}
    assert found == {"127.0.0.1"}
    with socket.create_connection(("127.0.0.1", port), 5):
        pass
