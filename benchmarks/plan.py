"""Full configurations, compiled for TPUs that are not here: python benchmarks/plan.py [CASE ...].

Writes what `python -m jaxt2i.plan` finds, one file a case, as results/plan_CASE.json; without
arguments all of them, some minutes each on two cores; --until code takes ten times as long and
writes results/plan_CASE_code.json. Every case says what it is there to show; `checks` holds the
answers. --dearest [CASE ...] compiles training steps to their end, for the operations that the
compiler estimates to take the most of them, as results/dearest_CASE.json.
"""

import argparse
import dataclasses
import os
import re

from machine import report, show

os.environ["JAX_PLATFORMS"] = "cpu"

from jaxt2i.planning import compiled
from jaxt2i.planning import report as reports
from jaxt2i.run import chips, settings

# (configuration, preset, examples of an epoch); 0: its length is in images.
SYSTEMS = {
    "galip_coco": ("configs/galip.py", "coco", 82_783),
    "dm_gan_coco": ("configs/dm_gan.py", "coco", 82_783),
    "stylegan_t_full64": ("configs/stylegan_t.py", "full64", 0),
    "stylegan_t_full512": ("configs/stylegan_t.py", "full512", 0),
    "iir_net_coco": ("configs/iir_net.py", "coco", 118_287),
    "stylegan_t_lite64": ("configs/stylegan_t.py", "lite64", 0),
    "stylegan_t_lite256": ("configs/stylegan_t.py", "lite256", 0),
    "op_gan_coco_pod": ("configs/op_gan.py", "coco_pod", 82_783),
}
# Operations whose messages the maths asks for beside gradients, in data-parallel runs: statistics
# of the whole batch, negatives from it (DAMSM), captions of other pictures, means of losses; for
# full512 also those of StyleGAN-T's groups of 8, which lie on two chips where each has 4 images;
# for IIR-Net whether any picture's edges still grow.
ASKED = {
    "galip_coco": r"roll|reduce_sum",
    "dm_gan_coco": r"norm|/up\d|/refine|Damsm|token_mask|select_n|diagonal|reduce_max"
    r"|Critic\.together|softplus",
    "stylegan_t_full64": r"reduce_sum",
    "stylegan_t_full512": r"reduce_sum|DiscriminatorHeads",
    "iir_net_coco": r"reduce_sum|reduce_or",
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
      fits: whether it should.
      remat: policy of config.remat for all networks; "": the configured one.
    """

    system: str
    topology: str
    batch: int = 0
    fsdp: int = 1
    fits: bool = True
    remat: str = ""

    @property
    def name(self) -> str:
        """Of the result's file."""
        split = f"_fsdp{self.fsdp}" if self.fsdp > 1 else ""
        return f"{self.system}_{self.topology.replace(':', '_')}{split}"


# The 1 B generator leaves 16.3 GiB on a chip between steps: on v5e it needs fsdp, and fewer images.
CASES = {
    case.name: case
    for case in (
        *(Case(s, t) for s in ("dm_gan_coco", "galip_coco") for t in TOPOLOGIES),
        Case("galip_coco", "v5e:4x4", 0, 16),
        Case("stylegan_t_full64", "v5e:4x4", 128, fits=False),
        Case("stylegan_t_full64", "v5e:4x4", 128, 16),
        Case("stylegan_t_full64", "v5p:2x2x4", 128),
        Case("stylegan_t_full64", "v6e:16x16", 2048, 4),
        Case("stylegan_t_full512", "v5e:4x4", 32, 16),
        Case("stylegan_t_full512", "v5p:2x2x4", 64),
        Case("stylegan_t_full512", "v6e:16x16", 512, 8),
        Case("iir_net_coco", "v5e:4x4"),
        Case("iir_net_coco", "v6e:4x4"),
    )
}
# Eight pictures a chip are one of StyleGAN-T's groups.
DEAREST = {
    case.name: case
    for case in (
        Case("stylegan_t_lite64", "v5e:4x4", 128),
        Case("galip_coco", "v5e:4x4"),
        Case("dm_gan_coco", "v5e:4x4"),
        Case("op_gan_coco_pod", "v5e:4x4", remat="full"),
        Case("stylegan_t_lite256", "v5e:4x4", 128),
    )
}


def opened(case: Case, remat: str = "") -> compiled.Plan:
    """The plan of one case, not yet compiled; `remat` comes before the case's."""
    file, preset, _ = SYSTEMS[case.system]
    target = chips.target(case.topology)
    config = settings.preset(file, preset)
    config.remat = compiled.remat(remat or case.remat)
    batch = case.batch or max(config.batch_size, target.count)
    config = compiled.prepared(config, batch, {"data": -1, "fsdp": case.fsdp})
    return compiled.open_plan(config, target)


def state_line(case: Case) -> dict:
    """Bytes that stay on a chip between steps: no compiling needed."""
    plan = opened(case)
    held, limit = plan.held(), plan.target.chip.hbm
    line = {"case": case.name, "mesh": plan.axes, "held": held, "state": sum(held.values())}
    return show(line | {"limit": limit, "left": limit - line["state"]})


def measure(case: Case, sample: bool, remat: str = "", until: str = "buffers") -> dict:
    """The report of one case, and whether it shows what it should."""
    file, preset, epoch = SYSTEMS[case.system]
    plan = opened(case, remat)
    programs = compiled.training(plan, until)
    possible = sample and not any(p.shortfall for p in programs)
    drawn = compiled.sampling(plan, until) if possible else None
    found = reports.report(plan, programs, drawn, epoch)
    return {"case": case.name, "preset": f"{file}:{preset}", "checks": checks(found, case), **found}


def dearest(case: Case) -> dict:
    """The report of one case's training step, compiled to its end."""
    file, preset, epoch = SYSTEMS[case.system]
    plan = opened(case)
    found = reports.report(plan, compiled.training(plan, "code"), None, epoch)
    return {"case": case.name, "preset": f"{file}:{preset}", **found}


def checks(found: dict, case: Case) -> dict:
    """What a case is there to show: it fits, and sends no messages but those that it must."""
    sent = [c for p in found["programs"] for c in p["collectives"]]
    kinds = sorted({c["kind"] for c in sent})
    others = sorted({f"{c['kind']} {c['where']}" for c in sent if c["where"] != "gradient"})
    summed = [c for c in sent if c["where"] == "gradient" and c["kind"] == "all-reduce"]
    out = {"fits": found["memory"]["fits"], "kinds": kinds, "beside gradients": others}
    # Where every gradient is summed once, 1 in float32, 0.5 in bfloat16.
    size = 4 * sum(found["parameters"].values())
    out["gradient bytes over parameters'"] = sum(c["bytes"] for c in summed) / size
    out["gradients travel as"] = sorted({c["dtype"] for c in summed})
    if case.fsdp > 1:
        out["gathers"] = bool({"all-gather", "reduce-scatter"} & set(kinds))
        return out | {"as expected": out["fits"] == case.fits and out["gathers"]}
    out["not asked for"] = [x for x in others if not re.search(ASKED[case.system], x)]
    return out | {"as expected": out["fits"] == case.fits and not out["not asked for"]}


def main() -> None:
    """Compiles what the command line asks for."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("case", nargs="*", choices=[*CASES, *DEAREST, []], help="default: all")
    p.add_argument("--no-sample", dest="sample", action="store_false")
    p.add_argument("--until", choices=compiled.UNTIL, default="buffers", help="code: hours")
    p.add_argument("--remat", default="", help="policy of config.remat for all networks")
    p.add_argument("--state", action="store_true", help="what stays between steps; seconds")
    p.add_argument("--dearest", action="store_true", help="what takes the most cycles; hours")
    args = p.parse_args()
    cases = DEAREST if args.dearest else CASES
    if other := set(args.case) - set(cases):
        p.error(f"{', '.join(sorted(other))}: the cases here are {', '.join(cases)}")
    if args.dearest:
        for name in args.case or DEAREST:
            line = dearest(DEAREST[name])
            report([line], f"dearest_{name}")
            print(reports.text(line), flush=True)
        return
    if args.state:
        report([state_line(CASES[name]) for name in args.case or CASES], "plan_state")
        return
    for name in args.case or CASES:
        line = measure(CASES[name], args.sample, args.remat, args.until)
        report([line], f"plan_{name}{'_code' if args.until == 'code' else ''}")
        show({k: line[k] for k in ("case", "checks")} | {"memory": line["memory"]["verdict"]})
        print(reports.text(line), flush=True)


if __name__ == "__main__":
    main()
