"""What raters of a study answered, evaluated: strengths, agreement, checks, metrics beside them."""

import collections
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i.evaluation.report import LOWER_IS_BETTER
from jaxt2i.evaluation.study import KEY
from jaxt2i.metrics import confidence, preference
from jaxt2i.metrics.preference import Choices
from jaxt2i.metrics.score import Interval, MetricError

# Share of failed checks above which a rater's answers are left out.
MOST_FAILED = 0.2
REPEATS = 1000


@dataclasses.dataclass(frozen=True)
class Rater:
    """One file of answers.

    Attributes:
      name: as given on the page; made unique.
      choices: {trial: the preferred picture, or None} of the pairs.
      lefts: of the answers that preferred one, how many preferred the left.
      checks: (answered rightly, answered).
      seconds: median time of an answer.
    """

    name: str
    choices: dict[int, int | None]
    lefts: int
    checks: tuple[int, int]
    seconds: float

    @property
    def failed(self) -> float:
        """Share of checks that were failed; 1 where none was answered."""
        right, seen = self.checks
        return 1 - right / seen if seen else 1.0


def read_key(place: Path) -> dict[str, Any]:
    """The key of a study.

    Raises:
      MetricError: where there is none.
    """
    file = place / KEY if place.is_dir() else place
    try:
        key = json.loads(file.read_text())
        key["study"], key["systems"], key["trials"], key["pictures"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MetricError(
            f"{file} is no key of a study ({error!r}); give --key FILE, the {KEY} that --study "
            "wrote beside the page"
        ) from error
    return key


def read_answers(file: Path, key: Mapping[str, Any]) -> Rater:
    """One file that the page saved.

    Raises:
      MetricError: for another file, of another study, or changed.
    """
    try:
        told = json.loads(file.read_text())
        answers = [(int(a["trial"]), a["picked"], a["left"], a["ms"]) for a in told["answers"]]
        name, study = str(told["rater"]), told["study"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MetricError(
            f"{file} holds no answers of a study ({error!r}); give the files that the page saved"
        ) from error
    if study != key["study"]:
        raise MetricError(
            f"{file} answers the study {study}, and the key is of {key['study']}: give the --key "
            "of that study, or leave the file out"
        )
    choices: dict[int, int | None] = {}
    lefts = right = seen = 0
    for trial, picked, left, _ in answers:
        known = key["trials"][trial] if 0 <= trial < len(key["trials"]) else {"pictures": []}
        of_it = picked in known["pictures"] or (picked is None and key["ties"])
        if not of_it or trial in choices or left not in known["pictures"]:
            raise MetricError(f"{file}: no page gave this answer to pair {trial}; was it changed?")
        choices[trial] = picked
        if known["right"] is not None:
            right, seen = right + (picked == known["right"]), seen + 1
        elif picked is not None:
            lefts += picked == left
    pairs = {t: p for t, p in choices.items() if key["trials"][t]["right"] is None}
    times = [ms for *_, ms in answers]
    seconds = float(np.median(times)) / 1000 if times else float("nan")
    return Rater(name, pairs, lefts, (right, seen), seconds)


def read_all(files: Sequence[Path], key: Mapping[str, Any]) -> tuple[list[Rater], list[str]]:
    """(every rater, what to know): the same answers twice are taken once.

    Raises:
      MetricError: where there is no file.
    """
    found: list[Path] = []
    for place in files:
        found += sorted(place.glob("*.json")) if place.is_dir() else [place]
    found = [f for f in found if f.name != KEY]
    if not found:
        raise MetricError(
            f"{' '.join(map(str, files))}: no files of answers; give those that the page saved"
        )
    raters, notes, names = [], [], collections.Counter()
    for file in found:
        rater = read_answers(file, key)
        if any(rater.choices == r.choices and rater.name == r.name for r in raters):
            notes.append(f"{file}: the same answers of {rater.name} once more, left out")
            continue
        names[rater.name] += 1
        if names[rater.name] > 1:
            rater = dataclasses.replace(rater, name=f"{rater.name} ({names[rater.name]})")
        raters.append(rater)
    return raters, notes


def choices_of(raters: Sequence[Rater], key: Mapping[str, Any]) -> Choices:
    """Answers as rows."""
    rows = []
    for number, rater in enumerate(raters):
        for trial, picked in rater.choices.items():
            pair = key["trials"][trial]["pictures"]
            a, b = (key["pictures"][p]["system"] for p in pair)
            won = 0.5 if picked is None else float(key["pictures"][picked]["system"] == min(a, b))
            rows.append((number, trial, min(a, b), max(a, b), won))
    columns = np.array(rows, np.float64).reshape(-1, 5).T
    return Choices(*(c.astype(int) for c in columns[:4]), columns[4])


# --- Metrics beside them -----------------------------------------------------------------------


def metrics_of(files: Sequence[Path], systems: Sequence[str]) -> dict[str, list[float | None]]:
    """{metric: its value for every system; None where it is not known}.

    Args:
      files: one `--compare` wrote, whose runs are looked up by name; or the results of an
        evaluation for each system, in their order.
      systems: their names.

    Raises:
      MetricError: for other files.
    """
    try:
        told = [json.loads(file.read_text()) for file in files]
        if len(told) == 1 and "runs" in told[0]:
            runs = {run["name"]: run["scores"] for run in told[0]["runs"]}
            tables = [runs.get(name, []) for name in systems]
            if not any(tables):
                raise MetricError(
                    f"{files[0]} compares {', '.join(runs)}, none of {', '.join(systems)}"
                )
        else:
            tables = [one["scores"] for one in told]
        found = [{s["metric"]: float(s["value"]) for s in table} for table in tables]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, MetricError):
            raise
        raise MetricError(
            f"--scores {' '.join(map(str, files))}: not results of an evaluation ({error!r}); give "
            "the JSON that evaluate or evaluate --compare wrote"
        ) from error
    if len(found) != len(systems):
        raise MetricError(
            f"--scores names {len(found)} files, and the study has {len(systems)} systems "
            f"({', '.join(systems)}): give one for each, in this order, or one of --compare"
        )
    names = dict.fromkeys(name for table in found for name in table)
    return {name: [table.get(name) for table in found] for name in names}


def correlations(
    metrics: Mapping[str, Sequence[float | None]], strength: np.ndarray, resampled: np.ndarray
) -> dict[str, dict[str, Any]]:
    """{metric: its rank correlations with the strengths}, +1 where it ranks as people do.

    Only systems whose value is known count. The interval is of resampled answers: other raters and
    other captions, the same values of the metric.
    """
    out = {}
    for name, values in metrics.items():
        known = [i for i, v in enumerate(values) if v is not None and np.isfinite(v)]
        if len(known) < 2:
            continue
        sign = -1 if name in LOWER_IS_BETTER else 1
        signed = sign * np.array([values[i] for i in known], np.float64)
        taus = [preference.kendall(signed, row[known]) for row in resampled]
        out[name] = {
            "systems": len(known),
            "kendall": preference.kendall(signed, strength[known]),
            "spearman": preference.spearman(signed, strength[known]),
            "kendall_interval": preference.between(np.array(taus), "resampled answers"),
            "chance": preference.chance(signed, strength[known]),
            "lower_is_better": sign < 0,
        }
    return out


# --- The result --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Ratings:
    """What a study found.

    Attributes:
      study: its name.
      question: that was asked.
      systems: names.
      strengths: log odds, mean zero, of each.
      intervals: of these.
      wins: [S, S], how often (a row) was preferred to (a column), ties half to each.
      differences: {(a, b): (strength of a - of b, its interval, share of answers for a)}.
      agreement: of raters.
      left: (share of answers for the left picture, its interval).
      raters: whose answers count.
      excluded: who failed too many checks.
      metrics: of `correlations`.
      notes: what else to know.
    """

    study: str
    question: str
    systems: tuple[str, ...]
    strengths: np.ndarray
    intervals: tuple[Interval, ...]
    wins: np.ndarray
    differences: dict[tuple[int, int], tuple[float, Interval, float]]
    agreement: preference.Agreement
    left: tuple[float, Interval]
    raters: tuple[Rater, ...]
    excluded: tuple[Rater, ...]
    metrics: dict[str, dict[str, Any]]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "study": self.study,
            "question": self.question,
            "systems": [
                {"name": n, "strength": float(s), "interval": i._asdict()}
                for n, s, i in zip(self.systems, self.strengths, self.intervals, strict=True)
            ],
            "wins": self.wins.tolist(),
            "differences": [
                {
                    "of": self.systems[a],
                    "and": self.systems[b],
                    "difference": value,
                    "interval": interval._asdict(),
                    "share_preferring_the_first": share,
                }
                for (a, b), (value, interval, share) in self.differences.items()
            ],
            "agreement": self.agreement._asdict(),
            "left": {"share": self.left[0], "interval": self.left[1]._asdict()},
            "raters": [about(r) for r in self.raters],
            "excluded": [about(r) for r in self.excluded],
            "metrics": {
                name: {**found, "kendall_interval": found["kendall_interval"]._asdict()}
                for name, found in self.metrics.items()
            },
            "notes": list(self.notes),
        }


def about(rater: Rater) -> dict[str, Any]:
    """A rater in plain values."""
    right, seen = rater.checks
    return {
        "name": rater.name,
        "answers": len(rater.choices),
        "checks": seen,
        "checks_failed": seen - right,
        "seconds_an_answer": rater.seconds,
    }


def evaluate(
    key: Mapping[str, Any],
    raters: Sequence[Rater],
    metrics: Mapping[str, Sequence[float | None]] | None = None,
    *,
    most_failed: float = MOST_FAILED,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Ratings:
    """What a study found.

    Args:
      key: of `read_key`.
      raters: of `read_all`.
      metrics: of `metrics_of`.
      most_failed: share of failed checks above which a rater is left out.
      repeats: resamples.
      seed: of them.

    Raises:
      MetricError: where nobody's answers count.
    """
    has_checks = any(t["right"] is not None for t in key["trials"])
    good = [r for r in raters if r.choices and not (has_checks and r.failed > most_failed)]
    bad = [r for r in raters if r not in good]
    if not good:
        said = ", ".join(f"{r.name} ({r.checks[0]} of {r.checks[1]} checks)" for r in bad)
        raise MetricError(
            f"no answers count: all {len(bad)} raters failed more than {most_failed:.0%} of the "
            f"checks or answered nothing ({said}); ask more people, or give --most-failed"
        )
    choices, count = choices_of(good, key), len(key["systems"])
    table = preference.wins(choices, count)
    strength = preference.bradley_terry(table)
    again = preference.resampled(choices, count, repeats=repeats, seed=seed)
    people = f"{len(good)} raters and " if len(good) > 1 else ""
    method = f"{repeats} resamples of {people}{len(set(choices.item))} pairs, seed {seed}"
    differences = {}
    for a, b in np.argwhere(np.triu(table + table.T, 1)).tolist():
        interval = preference.between(again[:, a] - again[:, b], method)
        share = float(table[a, b] / (table[a, b] + table[b, a]))
        differences[a, b] = float(strength[a] - strength[b]), interval, share
    lefts = np.array([r.lefts for r in good])
    said = np.array([sum(p is not None for p in r.choices.values()) for r in good])
    share = float(lefts.sum() / max(said.sum(), 1))
    return Ratings(
        study=key["study"],
        question=key["question"],
        systems=tuple(key["systems"]),
        strengths=strength,
        intervals=tuple(preference.between(again[:, i], method) for i in range(count)),
        wins=table,
        differences=differences,
        agreement=preference.agreement(choices),
        left=(share, of_lefts(lefts, said)),
        raters=tuple(good),
        excluded=tuple(bad),
        metrics=correlations(metrics or {}, strength, again),
        notes=tuple(notes_of(key, good, bad, count, bool(metrics), most_failed)),
    )


def of_lefts(lefts: np.ndarray, said: np.ndarray) -> Interval:
    """The interval of the share of answers for the left, with each rater's as one cluster."""
    if len(lefts) > 1 and said.sum():
        return confidence.of_share(lefts, said)
    each = np.repeat([1.0, 0.0], [lefts.sum(), said.sum() - lefts.sum()])
    return confidence.of_share(each) if len(each) else Interval(0.0, 1.0, 0.95, "no answers")


def notes_of(
    key: Mapping[str, Any],
    good: Sequence[Rater],
    bad: Sequence[Rater],
    systems: int,
    metrics: bool,
    most_failed: float,
) -> list[str]:
    """What a reader must know."""
    notes = list(key.get("notes", ()))
    pairs = sum(t["right"] is None for t in key["trials"])
    if short := [r for r in good if len(r.choices) < pairs]:
        notes.append(
            f"{len(short)} raters did not finish: "
            + ", ".join(f"{r.name} ({len(r.choices)} of {pairs})" for r in short)
        )
    for r in bad:
        right, seen = r.checks
        why = f"failed {seen - right} of {seen} checks" if seen else "answered no check"
        notes.append(f"excluded: {r.name}, who {why if r.choices else 'answered nothing'}")
    checks = len(key["trials"]) - pairs
    if checks:
        most = math.floor(most_failed * checks + 1e-9)
        passing = sum(math.comb(checks, k) for k in range(most + 1)) / 2**checks
        notes.append(
            f"up to {most} of {checks} checks may fail; who chooses blindly gets that far with a "
            f"chance of {passing:.2g}"
        )
    if len(good) == 1:
        notes.append("one rater: intervals are over captions alone, and say nothing of others")
    if metrics and systems < 4:
        notes.append(
            f"the order of {systems} systems is soon met by chance: see the column of chances; "
            "rank correlations tell something from some five systems on"
        )
    return notes
