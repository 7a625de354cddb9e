"""python -m jaxt2i.plan --config FILE[:preset] --topology v5e:16x16 [--mesh data=-1,fsdp=4] ...

Compiles the training step and the sampling step for a machine that is not here, from shapes
alone, and says what every chip would hold, compute, move and send: whether it fits, how fast it
can be at most, how it scales, what the run costs. TPUs need libtpu (pip install libtpu; Linux, no
TPU). GPUs (h100:32) are planned for from the program that the CPU's compiler makes, whose fusions
are not a GPU's: take their memory and traffic for estimates.

Memory, messages and traffic are settled before the TPU compiler generates code, which is most of
its work: compiling stops there unless --until code asks for the program's size and the compiler's
own estimate of the time, with the ten operations that most of it goes into.

--batch N, --mesh and --config.KEY=VALUE change the run; --search ranks meshes, micro-batches and
recomputation; --json FILE keeps everything; --plot FILE draws efficiency against chips.
"""

import json
import os
import re
import sys
from pathlib import Path

from absl import app, flags

from jaxt2i import train
from jaxt2i.run import log

TOPOLOGY = flags.DEFINE_string("topology", "v5e:4x4", "machine: v5e:16x16, v5p:2x2x4, h100:32 ...")
MESH = flags.DEFINE_string("mesh", "", "axis sizes, such as data=-1,fsdp=4; default config.mesh")
BATCH = flags.DEFINE_integer("batch", 0, "global batch; default config.batch_size", lower_bound=0)
SEARCH = flags.DEFINE_boolean("search", False, "rank meshes, micro-batches and recomputation")
TRIALS = flags.DEFINE_integer("trials", 8, "compilations of --search", lower_bound=1)
UNTIL = flags.DEFINE_enum("until", "buffers", ["buffers", "code"], "how far TPUs' programs go")
SAMPLE = flags.DEFINE_boolean("sample", True, "plan for sampling too")
EPOCH = flags.DEFINE_integer("epoch_images", 0, "examples of an epoch, for lengths in epochs")
JSON = flags.DEFINE_string("json", None, "file for everything that was found")
PLOT = flags.DEFINE_string("plot", None, "file for efficiency against the number of chips")


def mesh_sizes(text: str) -> dict[str, int]:
    """{axis: size} of --mesh.

    Raises:
      ValueError: shows the form.
    """
    out = {}
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"(data|fsdp|tensor)=(-1|[1-9]\d*)", part)
        if not match:
            raise ValueError(
                f"--mesh {text}: {part!r} is not AXIS=SIZE with an axis of data, fsdp, tensor; "
                "such as data=-1,fsdp=4"
            )
        out[match[1]] = int(match[2])
    return out


def fitting(asked, config, target):
    """(plan, its programs) of a configuration; with config.accumulate="auto" of one that fits.

    Args:
      asked: the configuration as a person gave it.
      config: the same, prepared.
      target: the machine.
    """
    from jaxt2i.config import AUTO
    from jaxt2i.planning import compiled, fit, memory, report

    while True:
        plan = compiled.open_plan(config, target)
        print(report.opening(plan), flush=True)  # compiling takes minutes
        programs = compiled.training(plan, UNTIL.value)
        found = memory.memory(plan.held(), programs, target.chip)
        rows = config.batch_size // fit.shards(plan)
        more = memory.parts_of(found, rows // config.accumulate)
        if asked.get("accumulate", 1) != AUTO or found.fits or not more:
            return plan, programs
        config = fit.with_parts(config, config.accumulate * more)
        said = (
            f"config.accumulate={AUTO!r}: {found.verdict()}; now {config.accumulate} micro-batches"
        )
        print(said, *fit.changes(plan.method, config.accumulate), sep="\n", flush=True)


def main(argv: list[str]) -> None:
    """Plans for what the command line asks."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; settings are --config.KEY=VALUE")
    os.environ["JAX_PLATFORMS"] = "cpu"  # whatever is here, it is not what is planned for
    import jax

    from jaxt2i.planning import compiled, report, search
    from jaxt2i.run import cache, chips
    from jaxt2i.run import open as runs

    try:
        target = chips.target(TOPOLOGY.value)
        cache.use(cache.home())
        if target.chip.platform == "gpu":
            jax.config.update("jax_num_cpu_devices", target.count)
        else:  # what was compiled for a TPU cannot be read back without one
            jax.config.update("jax_enable_compilation_cache", False)
        config = compiled.prepared(flags.FLAGS.config, BATCH.value, mesh_sizes(MESH.value))
        if SEARCH.value:
            trials = []
            for trial in search.search(config, target, TRIALS.value, UNTIL.value):
                trials.append(trial)
                print(f"{trial.setting.lines()}: {trial.memory.verdict()}", flush=True)
            print(report.search_text(search.ranked(trials)))
            keep(JSON.value, report.search_data(search.ranked(trials)))
            return
        plan, programs = fitting(flags.FLAGS.config, config, target)
        possible = SAMPLE.value and not any(p.shortfall for p in programs)
        sample = compiled.sampling(plan, UNTIL.value) if possible else None
    except (*runs.USER_ERRORS, ValueError) as error:
        log.fail(error)
    found = report.report(plan, programs, sample, EPOCH.value)
    print(report.text(found))
    keep(JSON.value, found)
    if PLOT.value and "scaling" in found:
        report.plot(Path(PLOT.value), found)


def keep(file: str | None, found: dict | list) -> None:
    """Writes --json."""
    if file:
        Path(file).write_text(json.dumps(found, indent=1) + "\n")
        print(f"written: {file}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main, flags_parser=train.parse)
