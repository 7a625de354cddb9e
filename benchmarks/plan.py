"""Full configurations, compiled for TPUs that are not here: python benchmarks/plan.py [CASE ...].

Writes what `python -m jaxt2i.plan` finds, one file a case, as results/plan_CASE.json; without
arguments all of them, which takes hours on two cores. Every case says what it is there to show;
`checks` holds the answers.
"""

import argparse
import dataclasses
import os

from machine import report, show

os.environ["JAX_PLATFORMS"] = "cpu"

from jaxt2i import runs
from jaxt2i.planning import chips, compiled
from jaxt2i.planning import report as reports

# (configuration, preset, examples of an epoch); 0: its length is in images.
SYSTEMS = {
    "galip_coco": ("configs/galip.py", "coco", 82_783),
    "dm_gan_coco": ("configs/dm_gan.py", "coco", 82_783),
    "stylegan_t_full64": ("configs/stylegan_t.py", "full64", 0),
    "stylegan_t_full512": ("configs/stylegan_t.py", "full512", 0),
}
TOPOLOGIES = ("v5e:4x4", "v5p:2x2x4", "v6e:16x16")


@dataclasses.dataclass(frozen=True)
class Case:
    """One compilation.

    Attributes:
      system: key of `SYSTEMS`.
      topology: the machine.
      batch: global batch; 0: the configured one, or one row a chip where that is less.
      fsdp: chips over which the state is split.
    """

    system: str
    topology: str
    batch: int = 0
    fsdp: int = 1

    @property
    def name(self) -> str:
        """Of the result's file."""
        split = f"_fsdp{self.fsdp}" if self.fsdp > 1 else ""
        return f"{self.system}_{self.topology.replace(':', '_')}{split}"


# The 1 B generator's state is 20 GB: on v5e it needs fsdp, and fewer images a chip.
CASES = {
    case.name: case
    for case in (
        *(Case(s, t) for s in ("dm_gan_coco", "galip_coco") for t in TOPOLOGIES),
        Case("galip_coco", "v5e:4x4", 0, 16),
        Case("stylegan_t_full64", "v5e:4x4", 128),
        Case("stylegan_t_full64", "v5e:4x4", 128, 16),
        Case("stylegan_t_full64", "v5p:2x2x4", 128),
        Case("stylegan_t_full64", "v6e:16x16", 2048, 4),
        Case("stylegan_t_full512", "v5e:4x4", 32, 16),
        Case("stylegan_t_full512", "v5p:2x2x4", 64),
        Case("stylegan_t_full512", "v6e:16x16", 512, 8),
    )
}


def opened(case: Case, settings: dict) -> compiled.Plan:
    """The plan of one case, not yet compiled."""
    file, preset, _ = SYSTEMS[case.system]
    target = chips.target(case.topology)
    config = runs.preset(file, preset)
    config.model.update(settings)
    batch = case.batch or max(config.batch_size, target.count)
    config = compiled.prepared(config, batch, {"data": -1, "fsdp": case.fsdp})
    return compiled.open_plan(config, target)


def state_line(case: Case) -> dict:
    """Bytes that stay on a chip between steps: no compiling needed."""
    plan = opened(case, {})
    held, limit = plan.held(), plan.target.chip.hbm
    line = {"case": case.name, "mesh": plan.axes, "held": held, "state": sum(held.values())}
    return show(line | {"limit": limit, "left": limit - line["state"]})


def measure(case: Case, sample: bool, settings: dict) -> dict:
    """The report of one case, and whether it shows what it should."""
    file, preset, epoch = SYSTEMS[case.system]
    plan = opened(case, settings)
    programs = compiled.training(plan)
    possible = sample and not any(p.shortfall for p in programs)
    drawn = compiled.sampling(plan) if possible else None
    found = reports.report(plan, programs, drawn, epoch)
    return {"case": case.name, "preset": f"{file}:{preset}", "checks": checks(found, case), **found}


def checks(found: dict, case: Case) -> dict:
    """What a case is there to show: it fits, and sends no messages but those that it must."""
    sent = [c for p in found["programs"] for c in p["collectives"]]
    kinds = sorted({c["kind"] for c in sent})
    others = sorted({f"{c['kind']} {c['where']}" for c in sent if c["where"] != "gradient"})
    summed = sum(c["bytes"] for c in sent if c["where"] == "gradient" and c["kind"] == "all-reduce")
    out = {"fits": found["memory"]["fits"], "kinds": kinds, "beside gradients": others}
    # 1 where every gradient is summed once, in float32.
    out["gradient sums over parameters"] = summed / 4 / sum(found["parameters"].values())
    if case.fsdp > 1:
        out["gathers"] = bool({"all-gather", "reduce-scatter"} & set(kinds))
    return out


def main() -> None:
    """Compiles what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("case", nargs="*", choices=[*CASES, []], help="default: all")
    p.add_argument("--no-sample", dest="sample", action="store_false")
    p.add_argument("--remat", action="store_true", help="recompute activations")
    p.add_argument("--state", action="store_true", help="what stays between steps; seconds")
    args = p.parse_args()
    if args.state:
        report([state_line(CASES[name]) for name in args.case or CASES], "plan_state")
        return
    for name in args.case or CASES:
        line = measure(CASES[name], args.sample, {"remat": True} if args.remat else {})
        report([line], f"plan_{name}")
        show({k: line[k] for k in ("case", "checks")} | {"memory": line["memory"]["verdict"]})
        print(reports.text(line), flush=True)


if __name__ == "__main__":
    main()
