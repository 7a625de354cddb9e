"""Comparisons and studies for a person: tables on the screen, JSON, and one HTML page each."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxt2i.evaluation.compare import Comparison
from jaxt2i.evaluation.ratings import Ratings, about
from jaxt2i.evaluation.report import LOWER_IS_BETTER, STYLE, number, picture_tag, rows_tag
from jaxt2i.evaluation.suites import Mean
from jaxt2i.metrics.score import Interval

Table = tuple[str, list[str], list[list[str]]]


def signed(value: float) -> str:
    """A number with its sign."""
    return f"{'+' if value > 0 else '-' if value < 0 else ''}{number(abs(value))}"


def span(interval: Interval | None) -> str:
    """An interval of differences."""
    return f"{signed(interval.low)} .. {signed(interval.high)}" if interval else "too few captions"


def share(value: float) -> str:
    """A share in percent."""
    return "" if math.isnan(value) else f"{100 * value:.1f} %"


def direction(metric: str) -> str:
    """Which way is better."""
    return "lower is better" if metric in LOWER_IS_BETTER else "higher is better"


def comparison_tables(of: Comparison) -> list[Table]:
    """Scores of all sides, then differences."""
    metrics = dict.fromkeys(s.metric for found in of.scores for s in found)
    rows = []
    for metric in metrics:
        cells = []
        for found in of.scores:
            score = next((s for s in found if s.metric == metric), None)
            inside = score and score.interval
            low_high = f" ({number(inside.low)} .. {number(inside.high)})" if inside else ""
            cells.append(f"{number(score.value)}{low_high}" if score else "")
        rows.append([metric, *cells, direction(metric)])
    scores = "Scores (95 % interval of each alone)", ["metric", *of.names, ""], rows
    rows = [
        [
            d.metric,
            f"{of.names[d.first]} - {of.names[d.second]}",
            signed(d.value),
            span(d.interval),
            "" if d.better is None else of.names[d.better],
        ]
        for d in of.differences
    ]
    head = ["metric", "difference", "value", "95 % interval", "better"]
    return [scores, ("Differences, in pairs", head, rows)]


def ratings_tables(of: Ratings) -> list[Table]:
    """Strengths, differences, raters, and metrics beside people."""
    order = sorted(range(len(of.systems)), key=lambda i: -of.strengths[i])
    strengths = [[of.systems[i], signed(of.strengths[i]), span(of.intervals[i])] for i in order]
    head = ["system", "Bradley-Terry strength (log odds)", "95 % interval"]
    tables: list[Table] = [(f"Strengths: {of.question}", head, strengths)]
    rows = [
        [f"{of.systems[a]} - {of.systems[b]}", signed(value), span(interval), share(preferred)]
        for (a, b), (value, interval, preferred) in of.differences.items()
    ]
    head = ["pair", "difference", "95 % interval", "answers for the first"]
    tables.append(("Pairs", head, rows))
    if of.metrics:
        rows = [
            [
                name,
                f"{found['kendall']:+.2f}",
                span(found["kendall_interval"]),
                f"{found['spearman']:+.2f}",
                str(found["systems"]),
                "" if found["chance"] is None else f"{found['chance']:.2f}",
            ]
            for name, found in of.metrics.items()
        ]
        head = ["metric", "Kendall", "95 % interval", "Spearman", "systems", "by chance as far"]
        tables.append(("Metrics beside people: +1 ranks as they do", head, rows))
    rows = []
    for kept, raters in (("yes", of.raters), ("no", of.excluded)):
        for rater in raters:
            told = about(rater)
            checks = f"{told['checks_failed']} of {told['checks']}"
            seconds = f"{told['seconds_an_answer']:.1f}"
            rows.append([rater.name, str(told["answers"]), checks, seconds, kept])
    head = ["rater", "answers", "failed checks", "seconds an answer", "counts"]
    tables.append(("Raters", head, rows))
    return tables


def ratings_facts(of: Ratings) -> list[str]:
    """Agreement and sides, in words."""
    found = of.agreement
    out = [
        f"left picture preferred in {share(of.left[0])} of answers "
        f"({share(of.left[1].low)} .. {share(of.left[1].high)})"
    ]
    if found.items:
        alpha = "not defined" if math.isnan(found.alpha) else f"{found.alpha:.2f}"
        out.append(
            f"two raters agree on a pair in {share(found.share)} of cases ({found.items} pairs "
            f"with several answers; Krippendorff's alpha {alpha})"
        )
    failed = len(of.excluded)
    out.append(f"{failed} of {failed + len(of.raters)} raters excluded for failed checks")
    return out


def suite_tables(
    means: Mapping[str, Mapping[str, Mapping[str, Mean]]],
    theirs: Mapping[str, Mapping[str, float]],
) -> list[Table]:
    """A table for each column of skills, and one for each file of another scorer.

    Args:
      means: {metric: of `suites.by_skill`}.
      theirs: {file: of `suites.read_results`}.
    """
    tables: list[Table] = []
    for column in dict.fromkeys(c for found in means.values() for c in found):
        tables_of = {m: found[column] for m, found in means.items()}
        rows = []
        for skill in next(iter(tables_of.values())):
            cells = []
            for table in tables_of.values():
                mean = table[skill]
                inside = mean.interval
                span_of = f" ({number(inside.low)} .. {number(inside.high)})" if inside else ""
                cells.append(f"{number(mean.value)}{span_of}")
            prompts = next(iter(tables_of.values()))[skill].prompts
            rows.append([skill, str(prompts), *cells])
        name = f"By {column}" if column else "All prompts"
        tables.append((f"{name}, by our metrics", [column, "prompts", *tables_of], rows))
    for place, found in theirs.items():
        rows = [[skill, number(value)] for skill, value in found.items()]
        tables.append((f"What another scorer found: {place}", ["skill", "value"], rows))
    return tables


def show(title: str, tables: Sequence[Table], said: Sequence[str]) -> None:
    """Prints tables and sentences."""
    from rich.console import Console
    from rich.table import Table as Printed

    console = Console(width=None if Console().is_terminal else 160)
    console.print(title)
    for name, head, rows in tables:
        table = Printed(title=name, title_justify="left")
        for column in head:
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in said:
        console.print(f"note: {line}")


def write_json(file: Path, told: dict) -> None:
    """Writes plain values; what is not a number becomes null."""

    def plain(x):
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        if isinstance(x, list | tuple):
            return [plain(v) for v in x]
        return None if isinstance(x, float) and not math.isfinite(x) else x

    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(plain(told), indent=1, default=float) + "\n")


SIDE_BY_SIDE = """
table.side td { vertical-align: bottom; text-align: center } table.side img { width: 12em }
table.side td:first-child { text-align: left; width: 14em; white-space: normal }
"""


def page(file: Path, title: str, parts: Sequence[str]) -> None:
    """Writes one page that holds everything."""
    head = (
        f'<meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}{SIDE_BY_SIDE}</style>"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    body = "".join([f"<h1>{html.escape(title)}</h1>", *parts])
    file.write_text(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")


def tables_tag(tables: Sequence[Table], said: Sequence[str]) -> list[str]:
    """Tables and sentences of a page."""
    parts = [f'<p class="note">{html.escape(line)}</p>' for line in said]
    for name, head, rows in tables:
        parts += [f"<h2>{html.escape(name)}</h2>", rows_tag(head, rows)]
    return parts


def write_comparison(file: Path, of: Comparison) -> None:
    """The page of a comparison: tables, then pictures of the same captions side by side."""
    parts = tables_tag(comparison_tables(of), of.notes)
    for title, rows in (
        ("Where the first two differ most", list(of.apart)),
        (
            "Side by side: the same captions and seeds",
            [r for r in of.pictures if r not in of.apart],
        ),
    ):
        rows = [r for r in rows if r in of.pictures]
        if not rows:
            continue
        lines = ["<tr><th></th>" + "".join(f"<th>{html.escape(n)}</th>" for n in of.names)]
        for row in rows:
            said = html.escape(of.captions[row])
            if row in of.apart:
                metric, gap = of.apart[row]
                said += f"<br><small>{html.escape(metric)} {signed(gap)}</small>"
            cells = "".join(f"<td>{picture_tag(x)}</td>" for x in of.pictures[row])
            lines.append(f"<tr><td>{said}</td>{cells}")
        parts += [f"<h2>{title}</h2>", f'<table class="side">{"".join(lines)}</table>']
    facts = json.dumps({"facts": of.facts, **of.as_dict()["protocol"]}, indent=1, default=str)
    parts += ["<h2>How it was measured</h2>", f"<pre>{html.escape(facts)}</pre>"]
    page(file, f"{' and '.join(of.names)} compared", parts)


def write_ratings(file: Path, of: Ratings) -> None:
    """The page of a study's results."""
    said = [*ratings_facts(of), *of.notes]
    page(file, f"Study {of.study}", tables_tag(ratings_tables(of), said))
