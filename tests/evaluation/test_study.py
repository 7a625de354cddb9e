"""A study of pairs: the plan, the page, the answers of raters, and the page in a real browser."""

import collections
import json
import re

import numpy as np
import pytest
from PIL import Image

from jaxt2i import evaluate
from jaxt2i.evaluation import ratings, study
from tests.evaluation import small

CAPTIONS = tuple(f"caption {i}" for i in range(24))


def failure(capsys, *args):
    with pytest.raises(SystemExit) as exit_:
        evaluate.main([str(a) for a in args])
    return f"{exit_.value} {capsys.readouterr().err}"


# --- The plan ----------------------------------------------------------------------------------


@pytest.mark.parametrize("systems", [2, 3])
def test_orders_and_sides_are_balanced(systems):
    plan = study.plan(CAPTIONS, systems, checks=6, seed=3)
    assert len(plan.forms) == study.FORMS
    pairs = range(len(CAPTIONS))
    for form in plan.forms:
        assert sorted(t for t, *_ in form) == list(range(len(CAPTIONS) + 6))
        left, met = collections.Counter(), collections.Counter()
        for t, a, b in form:
            assert {a, b} == set(plan.trials[t].pictures)
            if t in pairs:
                (one, c), (other, d) = plan.shown[a], plan.shown[b]
                assert c == d == t
                assert one != other
                left[one] += 1
                met[frozenset((one, other))] += 1
        assert max(left.values()) - min(left.values()) <= systems * (systems - 1) / 2
        assert max(met.values()) - min(met.values()) <= 1
        # Checks are spread, and never come first or last.
        places = [i for i, (t, *_) in enumerate(form) if t not in pairs]
        assert study.BEFORE <= places[0] < places[-1] < len(form) - study.BEFORE
    # Over the forms every pair stands both ways as often, and as early as late.
    for t in pairs:
        sides = [a for form in plan.forms for u, a, _ in form if u == t]
        assert set(collections.Counter(sides).values()) == {study.FORMS // 2}
        when = [[u for u, *_ in form].index(t) for form in plan.forms]
        assert np.mean(when) == pytest.approx((len(CAPTIONS) + 5) / 2)


def test_checks_have_one_right_answer_and_the_text_says_so():
    plan = study.plan(CAPTIONS, 2, checks=6, seed=0)
    checks = plan.trials[len(CAPTIONS) :]
    assert len(checks) == 6
    for check in checks:
        assert check.right in check.pictures
        broken = [p for p in check.pictures if plan.shown[p][0] < 0]
        told = re.search("picture on the (left|right)", check.text)
        assert bool(told) == (not broken)
        if told:
            for form in plan.forms:
                _, left, right = next(x for x in form if plan.trials[x[0]] is check)
                assert check.right == (left if told[1] == "left" else right)
        else:
            assert check.right not in broken


def test_numbers_of_pictures_do_not_tell_systems_apart():
    shown = [study.plan(CAPTIONS, 2, 0, seed).shown for seed in range(60)]
    first = np.mean([[s for s, _ in plan[: len(plan) // 2]] for plan in shown])
    assert 0.4 < first < 0.6
    assert shown[0] != shown[1]
    assert shown[0] == study.plan(CAPTIONS, 2, 0, 0).shown


# --- The page and its answers ------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a study of two folders of pictures."""
    root = tmp_path_factory.mktemp("study")
    captions = [f"a <b>thing</b> & number {i}" for i in range(13)]
    for name, shade in (("dark", 60), ("bright", 200)):
        (root / name).mkdir()
        for i, text in enumerate(captions):
            picture = np.full((16, 16, 3), shade, np.uint8)
            picture[:8, :8] = 10 * i
            Image.fromarray(picture).save(root / name / f"{i:02d}.png")
            (root / name / f"{i:02d}.txt").write_text(text)
    # One that only one of them has.
    (root / "bright" / "12.txt").write_text("something else")
    places = (str(root / "dark"), str(root / "bright"))
    evaluate.main(["--study", *places, "--out", str(root / "out"), "--checks", "4", "--ties"])
    return root / "out"


def page_of(folder):
    return (folder / study.PAGE).read_text()


def test_the_page_stands_alone_and_is_blind(made):
    page = page_of(made)
    assert not re.search(r'(src|href)="(?!data:)|https?://', page)
    assert "dark" not in page
    assert "bright" not in page
    assert "<b>thing" not in page
    inside = json.loads(re.search(r"const STUDY = (.*);\n", page)[1])
    key = ratings.read_key(made)
    assert inside["study"] == key["study"]
    assert [t["text"] for t in inside["trials"]] == [t["text"] for t in key["trials"]]
    assert inside["trials"][0].keys() == {"text"}
    assert key["systems"] == [str(made.parent / name) for name in ("dark", "bright")]
    assert "1 of 13 captions" in " ".join(key["notes"])
    assert len(key["captions"]) == 12


def answers(key, choose, rater="ann", form=0, careless=False):
    """What the page would save for a rater who chooses by choose(trial, left, right)."""
    told = []
    for trial, left, right in key["forms"][form]:
        correct = key["trials"][trial]["right"]
        picked = choose(trial, left, right) if correct is None else correct
        if careless and correct is not None:
            picked = left + right - correct
        told.append({"trial": trial, "left": left, "right": right, "picked": picked, "ms": 900})
    return {"study": key["study"], "rater": rater, "form": form, "answers": told}


def prefers(key, system, share, rng):
    """Prefers a system in a share of pairs."""

    def choose(trial, left, right):
        mine = left if key["pictures"][left]["system"] == system else right
        return mine if rng.random() < share else left + right - mine

    return choose


def written(folder, *told):
    folder.mkdir(exist_ok=True)
    for i, one in enumerate(told):
        (folder / f"{i}.json").write_text(json.dumps(one))
    return folder


def results(made, place, *args):
    out = str(place / "found")
    evaluate.main(
        ["--study-results", str(place), "--key", str(made), "--out", out, *map(str, args)]
    )
    return json.loads((place / "found" / "results.json").read_text())


def test_answers_become_strengths_and_careless_raters_are_named(made, tmp_path, capsys):
    key, rng = ratings.read_key(made), np.random.default_rng(0)
    told = [answers(key, prefers(key, 1, 0.8, rng), f"r{i}", i) for i in range(6)]
    told.append(answers(key, prefers(key, 0, 1.0, rng), "careless", 3, careless=True))
    told.append(told[0])
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    for name, (fid, clip) in {"a": (30.0, 0.2), "b": (10.0, 0.3)}.items():
        scores = [{"metric": "fid", "value": fid}, {"metric": "clip_score", "value": clip}]
        (metrics / f"{name}.json").write_text(json.dumps({"scores": scores}))
    place = written(tmp_path / "answers", *told)
    found = results(made, place, "--scores", metrics / "a.json", metrics / "b.json")
    dark, bright = found["systems"]
    assert bright["strength"] > 0.3
    assert bright["interval"]["low"] > 0 > dark["interval"]["high"]
    assert [r["name"] for r in found["excluded"]] == ["careless"]
    assert found["excluded"][0]["checks_failed"] == 4
    assert len(found["raters"]) == 6
    assert found["agreement"]["items"] == 12
    # The lower FID is the better one: both metrics rank as people do.
    assert found["metrics"]["fid"]["kendall"] == found["metrics"]["clip_score"]["kendall"] == 1
    assert found["metrics"]["fid"]["chance"] == 1
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "excluded: careless",
        "once more, left out",
        "order of 2 systems",
        "1 of 7 raters",
    ):
        assert words in said
    assert "careless" in (place / "found" / "results.html").read_text()


def test_ties_count_half_and_sides_are_watched(made, tmp_path):
    key = ratings.read_key(made)
    told = [answers(key, lambda t, a, b: None, "tied"), answers(key, lambda t, a, b: a, "left", 1)]
    found = results(made, written(tmp_path / "answers", *told))
    assert found["wins"] == [[0, 12], [12, 0]]
    assert found["systems"][0]["strength"] == pytest.approx(0, abs=1e-9)
    assert found["left"]["share"] == 1


def test_what_is_wrong_is_said(made, tmp_path, capsys):
    key = ratings.read_key(made)
    told = answers(key, lambda t, a, b: a)
    place = written(tmp_path / "x", told | {"study": "another"})
    said = ("--study-results", place, "--key", made)
    assert "answers the study another" in failure(capsys, *said)
    told["answers"][0]["picked"] = 999
    written(tmp_path / "x", told)
    assert "was it changed?" in failure(capsys, *said)
    written(tmp_path / "x", {"some": "json"})
    assert "holds no answers" in failure(capsys, *said)
    written(tmp_path / "x", answers(key, lambda t, a, b: a, careless=True))
    assert "no answers count" in failure(capsys, *said)
    assert "is no key" in failure(capsys, "--study-results", place, "--key", place)
    small.pictures(tmp_path / "a", 8)
    small.pictures(tmp_path / "b", 8, size=24)
    both = (tmp_path / "a", tmp_path / "b")
    out = ("--out", tmp_path / "out")
    assert "tell the systems apart" in failure(capsys, "--study", *both, *out)
    assert "no run is among" in failure(capsys, "--study", tmp_path / "a", "real", *out)
    assert "no such run or folder" in failure(capsys, "--study", tmp_path / "a", "none", *out)
    small.pictures(tmp_path / "c", 8, captions=False)
    assert "no captions" in failure(capsys, "--study", tmp_path / "a", tmp_path / "c", *out)
    assert "another study" in failure(capsys, "--study", *both, "--resolution", "16", "--out", made)


# --- In a browser ------------------------------------------------------------------------------


def test_a_person_fills_the_page_in(browser, made, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    key = ratings.read_key(made)
    form = key["forms"][2]
    address = f"{(made / study.PAGE).as_uri()}?form=2"

    def at(name):
        return browser.find_element(By.ID, name)

    def wait(until):
        WebDriverWait(browser, 60, 0.02).until(lambda _: until())

    def start(rater):
        browser.get(address)
        assert not at("go").is_enabled()
        box = at("rater")
        box.clear()
        box.send_keys(rater)
        assert not at("go").is_enabled()  # without consent
        at("agree").click()
        at("go").click()

    def press(what, number):
        wait(lambda: at("at").text == f"{number + 1} of {len(form)}")
        browser.find_element(By.TAG_NAME, "body").send_keys(what)

    def wanted(number):
        trial, left, right = form[number]
        correct = key["trials"][trial]["right"]
        bright = left if key["pictures"][left]["system"] == 1 else right
        best = bright if correct is None else correct
        return Keys.ARROW_LEFT if left == best else Keys.ARROW_RIGHT

    tied = next(i for i, (t, *_) in enumerate(form) if i > 3 and key["trials"][t]["right"] is None)
    start("Zoë")
    for number in range(tied + 1):
        press(wanted(number), number)
    # Back by one, then the page is closed: answers are still there.
    press(Keys.BACKSPACE, tied + 1)
    wait(lambda: at("at").text == f"{tied + 1} of {len(form)}")
    browser.save_screenshot(str(tmp_path / "page.png"))
    browser.get("about:blank")
    start("Zoë")
    press(Keys.ARROW_DOWN, tied)
    for number in range(tied + 1, len(form)):
        press(wanted(number), number)
    wait(lambda: at("save").is_displayed())
    at("save").click()
    place = tmp_path / "downloads"
    wait(lambda: list(place.glob("answers-*.json")))
    found = results(made, place)
    assert [r["name"] for r in found["raters"]] == ["Zoë"]
    assert found["raters"][0]["checks_failed"] == 0
    assert found["raters"][0]["answers"] == 12
    assert found["wins"][1][0] == 11.5
    at("next").click()
    wait(lambda: at("rater").is_displayed())
    assert at("rater").get_attribute("value") == ""
