"""Trying meshes, micro-batches and recomputation, and ranking what comes out."""

import dataclasses
from collections.abc import Iterator

from ml_collections import ConfigDict

from jaxt2i.planning import compiled, roofline
from jaxt2i.planning.compiled import Plan, remat, remat_line
from jaxt2i.planning.memory import Memory, memory
from jaxt2i.run.chips import Target
from jaxt2i.run.open import load_method


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the search varies.

    Attributes:
      fsdp: devices over which the state is split.
      accumulate: micro-batches.
      remat: policy of `config.remat` for all networks, "" for none; None where no network can
        compute activations again.
    """

    fsdp: int
    accumulate: int
    remat: str | None

    def lines(self) -> str:
        """As settings of the command line."""
        shown = f"--config.mesh.fsdp={self.fsdp} --config.accumulate={self.accumulate}"
        return shown if self.remat is None else f"{shown} {remat_line(self.remat)}"

    def apply(self, config: ConfigDict) -> ConfigDict:
        """The configuration with this setting."""
        c = compiled.prepared(config, 0, {"data": -1, "fsdp": self.fsdp})
        c.accumulate = self.accumulate
        if self.remat is not None:
            c.remat = remat(self.remat)
        return c


@dataclasses.dataclass(frozen=True)
class Trial:
    """A setting and what the compiler said of it.

    Attributes:
      setting: the setting.
      memory: of one chip.
      times: of a step; None where it does not fit.
      rate: images/s of the whole machine, messages overlapping with nothing; 0 where it does not
        fit.
      compiled: whether it took compiling to know.
    """

    setting: Setting
    memory: Memory
    times: roofline.Times | None
    rate: float
    compiled: bool


def settings(config: ConfigDict, target: Target, able: bool) -> list[Setting]:
    """Candidates, those that cost least time first.

    fsdp is 1 or grows by fours to a host, then to the machine; micro-batches grow by twos as long
    as every chip has a row of each.

    Args:
      config: the prepared configuration.
      target: the machine.
      able: whether some network can compute activations again.
    """
    count, host = target.count, min(target.chip.host, target.count)
    splits = [n for n in dict.fromkeys((1, 4, host, 4 * host, count)) if count % n == 0]
    rows = config.batch_size // count
    parts = [n for n in (1, 2, 4, 8) if rows and rows % n == 0]
    remats = ("", "products", "full") if able else (None,)
    out = [Setting(f, a, r) for f in splits for a in parts for r in remats]
    return sorted(out, key=lambda s: (bool(s.remat) + (s.accumulate > 1) + (s.fsdp > 1), s.fsdp))


def search(config: ConfigDict, target: Target, most: int, until: str = "code") -> Iterator[Trial]:
    """Compiles candidates one by one; those whose state alone is too big need no compiling.

    Args:
      config: the prepared configuration.
      target: the machine.
      most: compilations.
      until: how far, see `compiled.training`.
    """
    able = compiled.recomputable(load_method(config))
    for setting in settings(config, target, able):
        trial = attempt(setting, compiled.open_plan(setting.apply(config), target), until)
        yield trial
        most -= trial.compiled
        if not most:
            return


def attempt(setting: Setting, plan: Plan, until: str) -> Trial:
    """Compiles one candidate."""
    programs = compiled.training(plan, until)
    found = memory(plan.held(), programs, plan.target.chip)
    if any(p.shortfall for p in programs):
        return Trial(setting, found, None, 0.0, any(p.seconds for p in programs))
    times = roofline.times(programs, plan.target)
    rate = plan.config.batch_size / times.apart if found.fits else 0.0
    return Trial(setting, found, times, rate, True)


def ranked(trials: list[Trial]) -> list[Trial]:
    """Best first: what fits by images/s, the rest by how much is missing."""
    return sorted(trials, key=lambda t: (-t.rate, -t.memory.spare))
