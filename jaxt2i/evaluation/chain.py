"""The page of a chain of trainings: what was seen, chosen and run, and what came out."""

import base64
import dataclasses
import html
import shlex
from collections.abc import Sequence

from etils import epath

from jaxt2i import places
from jaxt2i.evaluation.report import STYLE, number, rows_tag
from jaxt2i.run import suited
from jaxt2i.run.files import json_lines

PAGE = "results.html"
# Sheets keep their own size.
FIT = "display: block; width: auto; max-width: 100%"
# What was seen, in words.
WORDS = {
    "pictures": "pictures to train on",
    "held_out": "held out",
    "short": "shorter side of nine in ten, at least",
    "cut": "share that a square crop cuts much of",
    "captions": "captions a picture",
    "longest": "words of 99 captions in 100, at most",
    "words": "different words",
    "left_out": "left out",
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training of the chain.

    Attributes:
      name: of the system.
      command: the whole command line.
      workdir: of the run.
      choices: what was chosen for it.
    """

    name: str
    command: tuple[str, ...]
    workdir: epath.Path
    choices: tuple[suited.Choice, ...]


def scores(workdir: epath.Path) -> list[list[str]]:
    """[score, first, last] of a run, of what it logged."""
    found: dict[str, list[float]] = {}
    for line in json_lines(workdir / "metrics.jsonl"):
        for name, value in line.items():
            if name.startswith(("score/", "pixels/")) and isinstance(value, int | float):
                found.setdefault(name.removeprefix("score/"), []).append(float(value))
    return [[name, number(values[0]), number(values[-1])] for name, values in found.items()]


def write(file: epath.Path, title: str, seen: suited.Seen, stages: Sequence[Stage]) -> None:
    """Writes the page, which needs nothing from elsewhere."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    facts = dataclasses.asdict(seen) | {"left_out": sum(seen.left_out.values())}
    parts += [
        "<h2>The pictures</h2>",
        rows_tag(["", ""], [[WORDS[k], v] for k, v in facts.items()]),
    ]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in suited.notes(seen)]
    for stage in stages:
        parts += [f"<h2>{html.escape(stage.name)}</h2>"]
        if found := scores(stage.workdir):
            parts += [rows_tag(["score", "first", "last"], found)]
        for picture in pictures(stage.workdir):
            content = base64.b64encode(picture.read_bytes()).decode()
            name = html.escape(f"{picture.parent.name}/{picture.name}")
            source = f'src="data:image/png;base64,{content}"'
            parts += [f'<p>{name}<img class="curves" style="{FIT}" {source}></p>']
        rows = [[c.key, str(c.value), c.why] for c in stage.choices]
        parts += [rows_tag(["setting", "chosen", "why"], rows)]
        parts += [f"<pre>{html.escape(shlex.join(stage.command))}</pre>"]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    page = f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>"
    places.write_whole(file, page)


def pictures(workdir: epath.Path) -> list[epath.Path]:
    """The newest grid of samples and the curves of a run, as far as they are there."""
    grids = [f for f in places.matching(workdir / "samples", "*.png") if f.stem.isdigit()]
    newest = sorted(grids, key=lambda file: int(file.stem))[-1:]
    return [*newest, *(f for f in (workdir / "curves.png",) if f.is_file())]
