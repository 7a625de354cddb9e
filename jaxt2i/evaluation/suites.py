"""Prompt suites: their prompts and skills, folders as their scorers read them, and their results.

A suite is shipped (`SHIPPED`), or read from files of its authors: .jsonl, .json, .csv or .tsv with
a column of prompts, .txt with a prompt a line, or a folder of several such files, whose names are
then a skill. Scores that we make of its pictures carry the names of our metrics; what the suite's
own scorer found is read from its result files, and said to be that.
"""

import csv
import dataclasses
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from jaxt2i.config import ConfigError, nearest
from jaxt2i.metrics import confidence
from jaxt2i.metrics.score import Interval, MetricError
from jaxt2i.places import of as place_of

FOLDER = Path(__file__).with_name("prompts")
# What the column of prompts is called, and columns that say what a prompt asks for.
PROMPTS = ("prompt", "prompts", "text", "caption")
SKILLS = ("tag", "category", "challenge", "skill", "style")
READABLE = (".jsonl", ".json", ".csv", ".tsv", ".txt")


@dataclasses.dataclass(frozen=True)
class Suite:
    """Prompts and what they test.

    Attributes:
      name: of a shipped suite, or of the file.
      rows: {"prompt", and what else the suite says of it}.
      skills: keys of the rows by which scores are averaged.
      pictures: a prompt, as its authors draw.
      layout: key of `LAYOUTS`, how its own scorer reads pictures; "": it has none.
    """

    name: str
    rows: tuple[dict[str, Any], ...]
    skills: tuple[str, ...]
    pictures: int = 1
    layout: str = ""

    @property
    def prompts(self) -> list[str]:
        """The prompts in order."""
        return [row["prompt"] for row in self.rows]


# {name: (skills, pictures a prompt, layout)}.
SHIPPED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "parti": (("category", "challenge"), 1, ""),
    "geneval": (("tag",), 4, "geneval"),
    "t2i_compbench": (("category",), 10, "t2i_compbench"),
    "dpg": ((), 4, "dpg"),
}


def load(name: str) -> Suite:
    """A suite by name, or from files.

    Raises:
      ConfigError: where there is no such suite, or a file holds no prompts.
    """
    if name in SHIPPED:
        skills, pictures, layout = SHIPPED[name]
        rows = rows_of(FOLDER / f"{name}.jsonl")
        return Suite(name, tuple(rows), skills, pictures, layout)
    path = place_of(name, "--suite")
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in READABLE)
        # Styles of HPSv2, for instance: the name of the file is what its prompts have in common.
        rows = [{**row, "style": f.stem} for f in files for row in rows_of(f)]
        layout = "hpsv2" if files and all(f.suffix == ".json" for f in files) else ""
    elif path.is_file():
        rows, layout = rows_of(path), ""
    else:
        raise ConfigError(
            f"--suite {name}: no such suite or file; {nearest(name, SHIPPED)}; DrawBench, "
            "GenEval 2 and HPSv2's prompts are read from files of yours: --suite FILE or DIR"
        )
    if not rows:
        raise ConfigError(f"--suite {name}: no prompts in it ({', '.join(READABLE)} are read)")
    skills = tuple(s for s in SKILLS if any(s in row for row in rows))
    return Suite(path.stem, tuple(rows), skills, layout=layout)


def rows_of(file: epath.Path) -> list[dict[str, Any]]:
    """The prompts of a file, with what else it says of them.

    Raises:
      ConfigError: for a file without prompts, or that cannot be read.
    """
    kind = file.suffix.lower()
    try:
        text = file.read_text("utf-8-sig")
        if kind == ".jsonl":
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        elif kind == ".json":
            found = json.loads(text)
        elif kind in (".csv", ".tsv"):
            found = list(
                csv.DictReader(io.StringIO(text), delimiter="\t" if kind == ".tsv" else ",")
            )
        elif kind == ".txt":
            found = [line.strip() for line in text.splitlines() if line.strip()]
        else:
            raise ConfigError(f"{file}: expected one of {', '.join(READABLE)}")
        return [row_of(one) for one in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{file} is no list of prompts ({error!r}): expected rows with one of the columns "
            f"{', '.join(PROMPTS)}, or a list of texts"
        ) from error


def row_of(found: Any) -> dict[str, Any]:
    """One prompt; names of columns in lower case."""
    if isinstance(found, str):
        return {"prompt": found}
    row = {str(k).lower(): v for k, v in found.items() if k is not None}
    name = next((n for n in PROMPTS if n in row), "")
    if not isinstance(row.get(name), str):
        raise TypeError(f"columns {', '.join(row)}")
    row["prompt"] = row.pop(name).strip()
    return row


# --- Which picture is of which prompt -----------------------------------------------------------


def places(suite: Suite, captions: Sequence[str]) -> np.ndarray:
    """Int [N]: number of the prompt of each picture, by its caption; -1 for a caption of no prompt.

    Several pictures of a prompt that stands several times in the suite are dealt in turn.
    """
    numbers: dict[str, list[int]] = {}
    for i, prompt in enumerate(suite.prompts):
        numbers.setdefault(" ".join(prompt.split()), []).append(i)
    seen: dict[str, int] = {}
    out = []
    for text in captions:
        key = " ".join(text.split())
        turn = seen[key] = seen.get(key, -1) + 1
        out.append(numbers[key][turn % len(numbers[key])] if key in numbers else -1)
    return np.array(out, int)


def missing(suite: Suite, of: np.ndarray) -> list[str]:
    """What to know about pictures and prompts that do not belong together.

    Raises:
      MetricError: where no picture is of the suite.
    """
    known = of[of >= 0]
    if not len(known):
        raise MetricError(
            f"none of the {len(of)} captions is a prompt of {suite.name}: draw for it with "
            f"`sample --suite {suite.name}`"
        )
    out = []
    if lost := len(of) - len(known):
        out.append(f"{lost} pictures of captions that are no prompts of {suite.name} are left out")
    counts = np.bincount(known, minlength=len(suite.rows))
    if empty := int((counts == 0).sum()):
        out.append(
            f"{empty} of {len(counts)} prompts of {suite.name} have no picture: not to be compared "
            "with numbers of the whole suite"
        )
    full = counts[counts > 0]
    if full.min() != full.max() or full.max() != suite.pictures:
        some = f"{full.min()}" + (f" to {full.max()}" if full.min() != full.max() else "")
        out.append(f"{some} pictures a prompt; the suite's authors draw {suite.pictures}")
    return out


@dataclasses.dataclass(frozen=True)
class Mean:
    """A score of one skill.

    Attributes:
      value: mean over its prompts, each of which is the mean of its pictures.
      interval: of other prompts; None for a single one.
      prompts: how many.
    """

    value: float
    interval: Interval | None
    prompts: int


def by_skill(suite: Suite, of: np.ndarray, values: np.ndarray) -> dict[str, dict[str, Mean]]:
    """{skill column: {skill: its mean}}; "" has the mean over all prompts, under "all".

    Args:
      suite: the prompts.
      of: [N], of `places`, none of them -1.
      values: [N], of the pictures.
    """
    counts = np.bincount(of, minlength=len(suite.rows))
    total = np.bincount(of, np.asarray(values, np.float64), len(suite.rows))
    shown = np.flatnonzero(counts)
    mean = total[shown] / counts[shown]

    def over(rows: np.ndarray) -> Mean:
        interval = confidence.of_mean(mean[rows]) if rows.sum() > 1 else None
        return Mean(float(mean[rows].mean()), interval, int(rows.sum()))

    out = {"": {"all": over(np.ones(len(shown), bool))}}
    for column in suite.skills:
        names = np.array([str(suite.rows[i].get(column, "")) for i in shown])
        out[column] = {n: over(names == n) for n in dict.fromkeys(names.tolist())}
    return out


# --- Folders as scorers read them ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Picture:
    """One drawn picture.

    Attributes:
      file: where it lies.
      prompt: number of its prompt.
      turn: which of the pictures of this prompt.
    """

    file: Path
    prompt: int
    turn: int


def pictures_of(files: Sequence[Path], of: np.ndarray) -> list[Picture]:
    """Pictures with their turns, without those of no prompt."""
    turns: dict[int, int] = {}
    out = []
    for file, prompt in zip(files, of.tolist(), strict=True):
        if prompt >= 0:
            turns[prompt] = turns.get(prompt, -1) + 1
            out.append(Picture(file, prompt, turns[prompt]))
    return out


def place(file: Path, to: Path) -> None:
    """The same file under another name; a copy where a file system knows no links."""
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)


def _geneval(suite: Suite, pictures: Iterable[Picture], out: Path) -> None:
    """NNNNN/metadata.jsonl and NNNNN/samples/NNNN.png, as its evaluate_images.py reads."""
    for p in pictures:
        folder = out / f"{p.prompt:05d}"
        place(p.file, folder / "samples" / f"{p.turn:04d}.png")
        (folder / "metadata.jsonl").write_text(json.dumps(suite.rows[p.prompt]))


def _t2i_compbench(suite: Suite, pictures: Iterable[Picture], out: Path) -> None:
    """CATEGORY/samples/PROMPT_NNNNNN.png: each category is scored apart, by --out_dir=CATEGORY."""
    number: dict[str, int] = {}
    for p in sorted(pictures, key=lambda p: (p.prompt, p.turn)):
        row = suite.rows[p.prompt]
        text, category = row["prompt"], str(row.get("category", "all"))
        if re.search(r"[/_\0]", text) or len(text.encode()) > 240:
            raise MetricError(
                f"{text!r} cannot be part of a file's name as the scorers of T2I-CompBench read it "
                "(they split at '_'); leave the prompt out"
            )
        number[category] = number.get(category, -1) + 1
        place(p.file, out / category / "samples" / f"{text}_{number[category]:06d}.png")


def _dpg(suite: Suite, pictures: Iterable[Picture], out: Path) -> None:
    """ITEM.png, the four pictures of a prompt in a square of two by two; one alone as it is."""
    from PIL import Image

    groups: dict[int, list[Picture]] = {}
    for p in pictures:
        groups.setdefault(p.prompt, []).append(p)
    for prompt, group in groups.items():
        to = out / f"{suite.rows[prompt].get('item', prompt)}.png"
        if len(group) == 1:
            place(group[0].file, to)
            continue
        tiles = [Image.open(p.file).convert("RGB") for p in sorted(group, key=lambda p: p.turn)[:4]]
        width, height = tiles[0].size
        sheet = Image.new("RGB", (2 * width, 2 * height))
        for i, tile in enumerate(tiles):
            sheet.paste(tile, (i % 2 * width, i // 2 * height))
        to.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(to)


def _hpsv2(suite: Suite, pictures: Iterable[Picture], out: Path) -> None:
    """STYLE/NNNNN.jpg, numbered within a style; the first picture of every prompt."""
    from PIL import Image

    number, seen = {}, {}
    for i, row in enumerate(suite.rows):
        style = str(row.get("style", "all"))
        number[i] = style, seen.get(style, 0)
        seen[style] = seen.get(style, 0) + 1
    for p in pictures:
        if p.turn == 0:
            style, at = number[p.prompt]
            (out / style).mkdir(parents=True, exist_ok=True)
            Image.open(p.file).convert("RGB").save(out / style / f"{at:05d}.jpg", quality=95)


def _vqascore(suite: Suite, pictures: Iterable[Picture], out: Path) -> None:
    """pairs.json, [{"images": [FILE], "texts": [PROMPT]}], as t2v_metrics' batch_forward takes."""
    pairs = []
    for p in pictures:
        name = f"{p.prompt:06d}_{p.turn:02d}{p.file.suffix}"
        place(p.file, out / "images" / name)
        pairs.append({"images": [f"images/{name}"], "texts": [suite.rows[p.prompt]["prompt"]]})
    (out / "pairs.json").write_text(json.dumps(pairs, indent=1, ensure_ascii=False) + "\n")


LAYOUTS = {
    "geneval": _geneval,
    "t2i_compbench": _t2i_compbench,
    "dpg": _dpg,
    "hpsv2": _hpsv2,
    "vqascore": _vqascore,
}


def write_layout(layout: str, suite: Suite, pictures: Sequence[Picture], out: Path) -> Path:
    """Writes pictures as a scorer reads them, and returns the folder.

    Raises:
      MetricError: for an unknown layout, or a folder that holds something else.
    """
    if layout not in LAYOUTS:
        raise MetricError(f"no layout {layout!r}; {nearest(layout, LAYOUTS)}")
    if out.exists() and not out.is_dir():
        raise MetricError(f"{out}: a file of that name is there; give a folder")
    out.mkdir(parents=True, exist_ok=True)
    LAYOUTS[layout](suite, pictures, out)
    return out


# --- What their scorers found --------------------------------------------------------------------


def read_results(given: str) -> dict[str, float]:
    """{skill or "overall": value} of the result file of another scorer, by its form.

    Args:
      given: FILE, or NAME=FILE where NAME is to stand for "overall": GenEval's results.jsonl;
        T2I-CompBench's vqa_result.json, one a category; DPG-Bench's results .txt; the scores of
        VQAScore for `pairs.json`, a JSON list of numbers.

    Raises:
      MetricError: for a file of no such form.
    """
    name, _, rest = given.rpartition("=")
    file = Path(given) if Path(given).exists() else Path(rest)
    found = _results(file)
    return {name if name and key == "overall" else key: v for key, v in found.items()}


def _results(file: Path) -> dict[str, float]:
    try:
        text = file.read_text()
        if file.suffix == ".txt":
            return dpg_results(text)
        if file.suffix == ".jsonl":
            return geneval_results([json.loads(line) for line in text.splitlines() if line.strip()])
        found = json.loads(text)
        if isinstance(found, Mapping):
            found = found["scores"]
        if isinstance(found[0], Mapping):
            return {"overall": float(np.mean([float(x["answer"]) for x in found]))}
        return {"overall": float(np.mean(np.ravel(np.array(found, np.float64))))}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise MetricError(
            f"{file} is no result of a scorer that is known here ({error!r}): GenEval's .jsonl, "
            "T2I-CompBench's vqa_result.json, DPG-Bench's .txt, or a JSON list of VQAScores"
        ) from error


def geneval_results(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Share of correct pictures by tag, and their mean, as its summary_scores.py."""
    tags: dict[str, list[bool]] = {}
    for line in lines:
        tags.setdefault(str(line["tag"]), []).append(bool(line["correct"]))
    out = {tag: float(np.mean(right)) for tag, right in tags.items()}
    return out | {"overall": float(np.mean(list(out.values())))}


def dpg_results(text: str) -> dict[str, float]:
    """The categories and the score at the end of the file."""
    found = re.findall(r"^\t(.+): ([\d.]+)$", text, re.MULTILINE)
    overall = re.findall(r"^DPG-Bench score: ([\d.]+)$", text, re.MULTILINE)
    out = {name: float(value) for name, value in found}
    return out | {"overall": float(overall[-1])}
