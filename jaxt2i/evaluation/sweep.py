"""Scores over the values of one control: what truncation or guidance buys, and what it costs."""

import argparse
import copy
import dataclasses
from typing import Any

from etils import epath

from jaxt2i import api
from jaxt2i.config import ConfigError
from jaxt2i.evaluation import extra, report, subjects
from jaxt2i.evaluation.judge import judge
from jaxt2i.run import log
from jaxt2i.run.curves import Curve, draw_curves

# What is measured of runs that look through the shipped CLIP, where nothing is asked for.
EMBEDDED = (extra.MINI_FRECHET,)


@dataclasses.dataclass
class Sweep:
    """What was measured.

    Attributes:
      control: its name.
      results: {value: result}, in order.
    """

    control: str
    results: dict[Any, report.Result]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        first = next(iter(self.results.values()))
        return {
            "name": first.name,
            "step": first.step,
            "control": self.control,
            "values": [
                {self.control: value, "scores": [score.as_dict() for score in result.scores]}
                for value, result in self.results.items()
            ],
            "protocol": first.as_dict()["protocol"],
            "facts": {k: v for k, v in first.facts.items() if k in ("captions", "networks")},
            "notes": first.said(),
        }

    def panels(self) -> list[Curve]:
        """A curve for each metric."""
        names = dict.fromkeys(s.metric for r in self.results.values() for s in r.scores)
        return [self._curve(name) for name in names]

    def _curve(self, name: str) -> Curve:
        found = [(v, s) for v, r in self.results.items() for s in r.scores if s.metric == name]
        lower = name in report.LOWER_IS_BETTER
        return Curve(
            f"{name} ({'lower' if lower else 'higher'} is better)",
            [(value, score.value) for value, score in found],
            [(value, s.interval.low, s.interval.high) for value, s in found if s.interval],
        )


def values_of(text: str, system: api.System) -> tuple[str, list[Any]]:
    """(control, its values) of "psi=0.5,0.7,1".

    Raises:
      ConfigError: for a control that there is not, and values that it cannot have.
    """
    name, _, said = text.partition("=")
    if not said:
        raise ConfigError(f"--sweep {text}: expected CONTROL=A,B,C, such as psi=0.5,0.7,1")
    system.check({name: ""})
    values = sorted({system.controls[name].read(part) for part in said.split(",")})
    if len(values) < 2 or isinstance(values[0], str | bool):
        raise ConfigError(f"--sweep {text}: expected two numbers or more")
    return name, values


def sweep(args: argparse.Namespace) -> Sweep:
    """Judges the same captions and seeds with every value of a control.

    Args:
      args: of `jaxt2i.evaluate`, of a run or an export; `sweep` names the control.

    Raises:
      ConfigError: see `values_of`.
    """
    given = args.system is not None
    system = args.system or api.load(
        args.workdir,
        step=subjects.agreed(args.workdir, args.step),
        use_ema=not args.raw,
        chunk=args.chunk,
        after=args.after,
    )
    how = copy.copy(args)
    how.system = system
    if not given:  # what was said of loading is done
        how.step, how.raw, how.chunk, how.after = "newest", False, 0, []
    if not how.metrics and system.run.config.model.get("perception", "") == "mini":
        how.metrics = list(EMBEDDED)
    name, values = values_of(args.sweep, system)
    found = {}
    for value in values:
        how.set = [*((k, v) for k, v in args.set if k != name), (name, value)]
        found[value] = judge(how)
        scores = ", ".join(f"{s.metric} {report.number(s.value)}" for s in found[value].scores)
        log.say(f"{name}={value}: {scores}")
    return Sweep(name, found)


def write(out: epath.Path, found: Sweep) -> list[epath.Path]:
    """Writes sweep_CONTROL.json and its figure to a folder."""
    files = [out / f"sweep_{found.control}{end}" for end in (".json", ".png")]
    report.write_plain(files[0], found.as_dict())
    draw_curves(files[1], found.panels(), found.control)
    return files
