"""What was measured, for a person: a table, JSON, curves over training, one HTML page."""

import base64
import dataclasses
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxt2i import places
from jaxt2i.data.show import Tile, drawn
from jaxt2i.evaluation import bars
from jaxt2i.metrics import published
from jaxt2i.metrics.protocols import PARTS, Protocol, settings
from jaxt2i.metrics.score import MetricError, Score
from jaxt2i.run import log
from jaxt2i.run.curves import Curve, draw_curves

LOWER_IS_BETTER = (
    "fid",
    "fid_inf",
    "kid",
    "cmmd",
    "lpips",
    "memorised",
    "recognised_frechet",
    "independent_frechet",
    "mini_clip_frechet",
)


@dataclasses.dataclass
class Result:
    """Everything about one evaluation.

    Attributes:
      name: of what was judged.
      step: of the run; None for folders.
      scores: in the order they were asked for.
      measured: how, as it was done, under the first protocol.
      records: {protocol: how, as it was done}.
      breakdowns: {title: {row: {column: value}}}.
      bars: {title of a breakdown: what `bars.svg` draws of it}.
      facts: images a second, what could not be read, ...
      notes: what else to know about all scores.
      grid: pictures, uint8 [H, W, 3] of any size.
      sheet: the first hundred pictures, the grid among them.
      captions: of the sheet; none where there are none.
      rows: of the grid, in words: each picture can be drawn again.
      drawn: with what; see `api.System.about`.
      listed: what every picture was drawn for.
      neighbours: (a picture, its nearest training picture, their distance) of a few.
      layouts: judged ones, each with the data's own behind it.
      layout_rows: the judged ones in words, to be changed and drawn from by `sample --conditions`.
    """

    name: str
    step: int | None
    scores: list[Score]
    measured: Protocol
    records: dict[str, Protocol] = dataclasses.field(default_factory=dict)
    breakdowns: dict[str, dict[str, dict[str, Any]]] = dataclasses.field(default_factory=dict)
    bars: dict[str, dict[str, tuple[float, float | None]]] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    grid: Sequence[np.ndarray] = ()
    sheet: Sequence[np.ndarray] = ()
    captions: Sequence[str] = ()
    rows: Sequence[dict[str, Any]] = ()
    drawn: dict[str, Any] = dataclasses.field(default_factory=dict)
    listed: Sequence[dict[str, Any]] = ()
    neighbours: Sequence[tuple[np.ndarray, np.ndarray, float]] = ()
    layouts: list[Tile] = dataclasses.field(default_factory=list)
    layout_rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def values(self) -> dict[str, float]:
        """{metric: value}; of several protocols, the first one's."""
        return {score.metric: score.value for score in reversed(self.scores)}

    def _repr_html_(self) -> str:
        """Shows itself in a notebook."""
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.said())
        return rows_tag(*scores_table(self)) + notes

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "step": self.step,
            "scores": [score.as_dict() for score in self.scores],
            "published": [dataclasses.asdict(x) for s in self.scores for x in beside(self, s)],
            "protocol": settings(self.measured),
            "protocols": {name: settings(how) for name, how in self.records.items()},
            "breakdowns": self.breakdowns,
            "facts": self.facts,
            "notes": self.said(),
            "drawn": self.drawn,
            "grid": [in_words(row) for row in self.rows],
        }

    def said(self) -> list[str]:
        """Notes and the warnings of all scores, each once."""
        warnings = [w for score in self.scores for w in score.warnings]
        return list(dict.fromkeys([*self.notes, *warnings]))


def in_words(value: Any) -> Any:
    """A row, or a part of it, without its pictures and masks, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {k: in_words(v) for k, v in value.items() if not isinstance(v, np.ndarray)}
    return [in_words(part) for part in value] if isinstance(value, list | tuple) else value


def beside(result: Result, score: Score) -> tuple[published.Published, ...]:
    """Published numbers that were measured in the same way, and no others."""
    how = result.records.get(str(score.facts.get("protocol")), result.measured)
    return published.beside(how, score.metric) if score.metric in PARTS else ()


def number(value: float | None) -> str:
    """Four digits that count."""
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}"


def columns(result: Result, score: Score) -> list[str]:
    """A score's row, under `HEAD`."""
    interval = score.interval
    between = f"{number(interval.low)} .. {number(interval.high)}" if interval else ""
    fed = [str(score.facts[key]) for key in ("network", "preprocessing") if key in score.facts]
    if "reference_says" in score.facts:
        fed.append(f"reference: {score.facts['reference_says']}")
    if "real_pictures" in score.facts:
        fed.append(f"real pictures: {number(score.facts['real_pictures'])}")
    if "real_layouts" in score.facts:
        fed.append(f"real layouts: {number(score.facts['real_layouts'])}")
    for kind in ("real", "shuffled"):
        if (key := f"from_{kind}_layouts") in score.facts:
            fed.append(f"drawn from {kind} layouts: {number(score.facts[key])}")
    if "shuffled_captions" in score.facts:
        fed.append(f"chance: {number(score.facts['shuffled_captions'])}")
    counts = [score.facts[key] for key in ("generated", "real") if key in score.facts]
    pictures = " / ".join(f"{n:,}" if isinstance(n, int) else str(n) for n in counts)
    known = "; ".join(map(quoted, beside(result, score)))
    spread = number(score.spread)
    name = score.metric
    if len(result.records) > 1:
        name += f" ({score.facts.get('protocol', 'no protocol')})"
    row = [name, number(score.value), spread, between, pictures, " / ".join(fed)]
    return [*row, known]


def quoted(known: published.Published) -> str:
    """A published number, and why it should be looked up where there is a doubt."""
    spread = "" if known.spread is None else f" +- {number(known.spread)}"
    doubt = f" (in doubt: {known.doubt})" if known.doubt else ""
    return f"{known.model}: {number(known.value)}{spread}{doubt}"


HEAD = (
    "metric",
    "value",
    "+-",
    "95 % interval",
    "pictures / real",
    "network / preprocessing",
    "published, same protocol",
)


def scores_table(result: Result) -> tuple[list[str], list[list[str]]]:
    """(head, a row for every score), without columns that would be empty."""
    rows = [columns(result, score) for score in result.scores]
    kept = [i for i, _ in enumerate(HEAD) if i < 2 or any(row[i] for row in rows)]
    return [HEAD[i] for i in kept], [[row[i] for i in kept] for row in rows]


def show(result: Result) -> None:
    """Prints the table and what to know about it."""
    from rich.console import Console
    from rich.table import Table

    where = "" if result.step is None else f" at step {result.step:,}"
    names = ", ".join(result.records) or result.measured.name
    table = Table(title=f"{result.name}{where}, protocol {names}")
    heads, rows = scores_table(result)
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    for note in result.said():
        console.print(f"note: {note}")


def write(out: epath.Path, stem: str, result: Result) -> list[epath.Path]:
    """Writes everything about a result to a folder.

    Args:
      out: the folder.
      stem: of the files' names.
      result: what was measured.

    Returns:
      The files: JSON, page, contact sheet, list of captions.
    """
    files = [out / f"{stem}.json", out / f"{stem}.html"]
    write_json(files[0], result)
    curves = None
    if result.step is not None:
        lines = history(out)
        if len(lines) > 1:
            curves = out / "curves.png"
            write_curves(curves, lines)
    write_html(files[1], result, curves)
    if result.sheet and len({x.shape for x in result.sheet}) == 1:
        files.append(out / f"{stem}.png")
        said = list(result.captions) or [""] * len(result.sheet)
        log.save_grid(files[-1], np.stack(result.sheet), said, 0)
    if result.layouts:
        files += [out / f"{stem}_layouts.png", out / f"{stem}_layouts.jsonl"]
        files[-2].write_bytes(drawn(result.layouts))
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in result.layout_rows)
        files[-1].write_text("".join(lines), encoding="utf-8")
    if result.listed:
        files.append(out / f"{stem}_captions.jsonl")
        lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in result.listed)
        files[-1].write_text("".join(lines), encoding="utf-8")
    return files


def write_json(file: epath.Path, result: Result) -> None:
    """Writes everything but the pictures."""
    write_plain(file, result.as_dict())


def write_plain(file: epath.Path, found: Mapping[str, Any]) -> None:
    """Writes plain values, and the folder where it is not there."""
    places.make_folder(file.parent)
    file.write_text(json.dumps(found, indent=1, default=float) + "\n")


def history(folder: epath.Path) -> list[dict[str, Any]]:
    """{"step", "intervals": {metric: [low, high]}, metric: value} of a run's evaluations, by step.

    Raises:
      MetricError: for a file that is none of ours.
    """
    out = []
    for file in places.matching(folder, "step_*.json"):
        try:
            found = json.loads(file.read_text())
            line = {"step": found["step"]}
            line |= {named(found, s): s["value"] for s in found["scores"]}
            known = {named(found, s): s.get("interval") for s in found["scores"]}
            line["intervals"] = {k: [x["low"], x["high"]] for k, x in known.items() if x}
        except (ValueError, KeyError, TypeError) as error:
            raise MetricError(f"{file} is no evaluation ({error!r}); move it away") from error
        out.append(line)
    return sorted(out, key=lambda line: line["step"])


def named(found: Mapping[str, Any], score: Mapping[str, Any]) -> str:
    """A metric's name in the history; with its protocol, where that is not the first of several."""
    first = found.get("protocol", {}).get("name")
    own = score.get("facts", {}).get("protocol", first)
    return score["metric"] if own == first else f"{score['metric']} ({own})"


def write_curves(file: epath.Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Draws every score over the steps of training, and what other examples may have made it."""
    metrics = (name for line in lines for name in line if name not in ("step", "intervals"))
    panels = [
        Curve(
            f"{name} ({'lower' if name in LOWER_IS_BETTER else 'higher'} is better)",
            [(line["step"], line[name]) for line in lines if name in line],
            [(x["step"], *x["intervals"][name]) for x in lines if name in x["intervals"]],
        )
        for name in dict.fromkeys(metrics)
    ]
    draw_curves(file, panels, "step")


def picture_tag(pixels: np.ndarray, least: int = 96) -> str:
    """A picture inside the page."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if max(image.size) < least:
        times = -(-least // max(image.size))
        image = image.resize([n * times for n in image.size], Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}">'


def rows_tag(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table."""

    def cell(kind: str, value: Any) -> str:
        text = number(value) if isinstance(value, float) else "" if value is None else str(value)
        return f"<{kind}>{html.escape(text)}</{kind}>"

    lines = ["".join(cell("th", x) for x in head)]
    lines += ["".join(cell("td", x) for x in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 72em; color: #222 }
table { border-collapse: collapse; margin: .6em 0 } h2 { margin-top: 1.6em }
th, td { text-align: left; padding: .25em .8em; border-bottom: 1px solid #ddd; vertical-align: top }
figure { display: inline-block; margin: .4em; width: 10em; vertical-align: top }
figcaption { font-size: 11px; color: #555 } img { width: 100%; image-rendering: pixelated }
td:nth-child(-n+5) { white-space: nowrap }
.pair { display: inline-block; margin: 0 1.2em .6em 0; white-space: nowrap }
.curves { image-rendering: auto }
.note { color: #855; margin: .2em 0 } pre { background: #f6f6f6; padding: .8em; overflow-x: auto }
"""


def figure_tag(pixels: np.ndarray, caption: str) -> str:
    """A picture with its caption."""
    inside = f"{picture_tag(pixels)}<figcaption>{html.escape(caption)}</figcaption>"
    return f"<figure>{inside}</figure>"


def breakdowns(result: Result) -> list[str]:
    """The tables of scores by kind, with bars where there are any."""
    parts = []
    for name, table in result.breakdowns.items():
        if not table:
            continue
        heads = list(dict.fromkeys(key for row in table.values() for key in row))
        rows = [[row, *(values.get(h) for h in heads)] for row, values in table.items()]
        parts += [f"<h2>{html.escape(name)}</h2>"]
        if name in result.bars:
            parts += [bars.svg(result.bars[name])]
            if any(best is not None for _, best in result.bars[name].values()):
                parts += ["<p>A mark: real pictures with the same captions.</p>"]
        parts += [rows_tag(["", *heads], rows)]
    return parts


def write_html(file: epath.Path, result: Result, curves: epath.Path | None = None) -> None:
    """Writes one page that holds everything, and nothing from elsewhere.

    Args:
      file: the page.
      result: what was measured.
      curves: a PNG of `write_curves`.
    """
    step = "" if result.step is None else f" at step {result.step:,}"
    title = f"{result.name}{step}"
    names = ", ".join(result.records) or result.measured.name
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [
        f"<p>Protocol <b>{html.escape(names)}</b>. Numbers of papers stand "
        "beside a score only where they were measured in the same way.</p>"
    ]
    parts += [rows_tag(*scores_table(result))]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in result.said()]
    if curves is not None and curves.is_file():
        picture = base64.b64encode(curves.read_bytes()).decode()
        parts += [
            "<h2>Over training</h2>",
            f'<img class="curves" src="data:image/png;base64,{picture}">',
        ]
    if result.grid:
        parts += ["<h2>Pictures</h2>"]
        said = list(result.captions)[: len(result.grid)] or [""] * len(result.grid)
        parts += [figure_tag(x, text) for x, text in zip(result.grid, said, strict=True)]
    if result.layouts:
        sheet = base64.b64encode(drawn(result.layouts)).decode()
        parts += [
            "<h2>Layouts</h2>",
            f'<img class="curves" src="data:image/png;base64,{sheet}">',
        ]
    parts += breakdowns(result)
    if result.neighbours:
        parts += [
            "<h2>Nearest training pictures</h2>",
            "<p>Left what was drawn, right the training picture that lies nearest.</p>",
        ]
        for picture, near, far in result.neighbours:
            pair = figure_tag(picture, "") + figure_tag(near, f"distance {number(far)}")
            parts += [f'<span class="pair">{pair}</span>']
    how = [settings(x) for x in result.records.values()] or [settings(result.measured)]
    described = json.dumps({"facts": result.facts, "protocols": how}, indent=1, default=str)
    every = [{"metric": s.metric, **s.facts} for s in result.scores]
    parts += [
        "<h2>How it was measured</h2>",
        f"<pre>{html.escape(described)}</pre>",
        f"<pre>{html.escape(json.dumps(every, indent=1, default=str))}</pre>",
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    places.make_folder(file.parent)
    file.write_text(f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>")
