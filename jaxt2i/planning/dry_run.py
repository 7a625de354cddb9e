"""What a run would be, said before anything is compiled, downloaded or written.

python -m jaxt2i.train --config FILE[:preset] --dry-run
"""

import os
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from jaxt2i.data import schema
from jaxt2i.data.sources import SOURCES, files
from jaxt2i.engine import state as states
from jaxt2i.engine.method import ConfigError, Method
from jaxt2i.planning import compiled, fit
from jaxt2i.planning.compiled import Plan
from jaxt2i.run import checkpoint, chips, hlo, log, profile, settings
from jaxt2i.run import open as runs
from jaxt2i.run.chips import GIB

# What stays on a chip between steps, in the order in which it is said.
HELD = (*compiled.HELD, "frozen", "batch")
THERE = "which is there"
# Names of classes that are shown of many.
SHOWN = 3


def dry_run(config: ConfigDict, preset: ConfigDict, workdir: epath.Path) -> str:
    """Everything that is known of a run before its step is compiled.

    Data that is there is opened, as the run would; data and weights that are not are said to be
    missing.

    Args:
      config: the configuration.
      preset: what it was before the command line changed it.
      workdir: where the run would be written.

    Returns:
      Lines for a person.

    Raises:
      ConfigError: for impossible settings; names the config line and the fix.
      DataError: for data that is there and cannot be used.
      WeightsError: for weights that nobody knows, and those of other shapes, as far as the head of
        a file says them.
    """
    config, chosen = fit.settled(config, workdir)
    plan = compiled.laid_out(config, None, jax.devices())
    epoch, data = data_lines(config)
    parts = (
        ("settings", setting_lines(config, preset)),
        ("work directory", [workdir_line(workdir)]),
        ("data", data),
        ("weights", weight_lines(plan)),
        ("networks", log.parameter_table(plan.method, plan.state, plan.frozen).splitlines()),
        ("batch", [*batch_lines(plan), *chosen]),
        ("length", [length_line(config, epoch)]),
        ("a step", step_lines(plan)),
        ("drawing", drawing_lines(plan)),
        ("scores", score_lines(plan)),
        ("memory", memory_lines(plan)),
    )
    return "\n".join(f"{title}:\n" + "\n".join(f"  {x}" for x in lines) for title, lines in parts)


def setting_lines(config: ConfigDict, preset: ConfigDict) -> list[str]:
    """Every setting; those that the command line changed say what they were."""
    now, before = settings.flat(settings.plain(config)), settings.flat(settings.plain(preset))
    width = max(map(len, now))
    changed = {key: before.get(key) for key in now if before.get(key) != now[key]}
    return [
        f"config.{key:<{width}} {value!r}"
        + (f"   <- changed, the preset has {changed[key]!r}" if key in changed else "")
        for key, value in now.items()
    ]


def workdir_line(workdir: epath.Path) -> str:
    """Where the run would be written, and whether it would continue another."""
    steps = checkpoint.steps_in(workdir)
    begun = f", which holds step {max(steps)}: the run would continue it" if steps else ""
    return f"{workdir}{begun}"


def data_lines(config: ConfigDict) -> tuple[int | None, list[str]]:
    """(examples of an epoch, None where they are not known; lines on tokenizer and pictures)."""
    data, lines = config.data, []
    tokenizer = runs.tokenizer_path(data.tokenizer)
    # It may be a name that no file is behind, such as "clip".
    named = os.sep not in tokenizer and not epath.Path(tokenizer).suffix
    ready = named or epath.Path(tokenizer).exists()
    lines.append(f"tokenizer: {tokenizer}" + ("" if named else f", {there(tokenizer)}"))
    folders = list(places(config))
    lines += [f"pictures: {p or 'config.data.path is empty'}, {there(p)}" for p in folders]
    if data.source == "synthetic":
        lines.append(f"pictures: drawn as the run goes (corpus {data.corpus!r})")
    if not ready:
        return None, lines
    run = runs.open_run(config)
    if data.source in SOURCES and any(there(p) != THERE for p in folders):
        return None, lines
    source = run.source(data.split)
    lines += filter(None, [getattr(source, "cut_away", str)()])
    lines += class_lines(source, run.method)
    epoch = run.pipeline(source, config.batch_size, run.method.needs).order.size
    lines.append(f"{data.split}: {f'{epoch:,} examples an epoch' if epoch else 'no end'}")
    return epoch, lines


def class_lines(source: Any, method: Method) -> Iterator[str]:
    """How many classes the data counts in each row that the method reads, and the first of them."""
    for key, names in schema.names_of(source).items():
        if names and key in source.gives and key in method.scored:
            rest = ", ..." if len(names) > SHOWN else ""
            yield f"{key}: {len(names)} classes ({', '.join(names[:SHOWN])}{rest})"


def there(place: str) -> str:
    """Whether a file or folder is there; what is not on this machine is not looked at."""
    if files.remote(place):
        return "elsewhere, not looked at"
    return THERE if place and epath.Path(place).exists() else "NOT there"


def places(config: ConfigDict) -> Iterator[str]:
    """Folders and files that the pictures come from."""
    data = config.data
    if data.source == "synthetic":
        return
    mixed = data.web.mix if data.source == "webdataset" else ()
    for path in [path for path, *_ in mixed] or [data.path]:
        below = data.path if mixed and data.path and not files.remote(path) else ""
        yield os.path.join(below, path)


def weight_lines(plan: Plan) -> list[str]:
    """Where the weights of each network come from, and whether they are there."""
    method, init_from = plan.method, plan.config.init_from
    lines, own = [], plan.config.get("perception_from", "")
    if own:
        lines.append(
            f"config.perception_from={own!r}, {there(own)}: it replaces the frozen ones below"
        )
    for net in method.nets:
        loader = method.pretrained.get(net)
        if net in method.borrowed:
            lines.append(f"{net}: config.init_from={init_from!r}, {there(init_from)}")
        elif loader:
            known = getattr(loader, "where", lambda: "a file that config.model names")
            lines.append(f"{net}: {known()}")
            if not own:
                getattr(loader, "check", lambda: None)()
        elif net in method.frozen:
            lines.append(f"{net}: random")
    if init_from and not method.borrowed:
        lines.append(f"trained networks: config.init_from={init_from!r}, {there(init_from)}")
    elif set(method.trained) - set(method.pretrained):
        fresh = [net for net in method.trained if net not in method.pretrained]
        lines.append(f"drawn with config.seed={plan.config.seed}: {', '.join(fresh)}")
    return lines


def batch_lines(plan: Plan) -> list[str]:
    """Names, types and shapes of the global batch."""
    axes = plan.axes
    rows = plan.config.batch_size // (axes["data"] * axes["fsdp"])
    split = f"{rows} rows a device; mesh {' x '.join(f'{k} {n}' for k, n in axes.items())}"
    width = max(map(len, plan.batch))
    return [
        split,
        *(
            f"{key:<{width}}  {x.dtype} {list(x.shape)}: {schema.FIELDS[key].meaning}"
            for key, x in plan.batch.items()
        ),
    ]


def length_line(config: ConfigDict, epoch: int | None) -> str:
    """Steps and images of the run.

    Raises:
      ConfigError: where it has no length, or a profile beyond it.
    """
    if epoch is None and not (config.total_steps or config.total_images) and config.total_epochs:
        return f"{config.total_epochs} epochs of data that is not there to be counted"
    total = settings.steps(config, "total", batch_size=config.batch_size, epoch_images=epoch)
    if total <= 0:
        raise ConfigError("the run has no length: set config.total_steps or config.total_images")
    profile.Window(**config.profile).check(total)
    images = total * config.batch_size
    epochs = f", {images / epoch:.1f} epochs" if epoch else ""
    return f"{total:,} steps of {config.batch_size}: {images:,} images{epochs}"


def step_lines(plan: Plan) -> list[str]:
    """FLOPs of the average step, of its programs as they are traced."""
    flops = 0.0
    for every, program in compiled.lower_step(plan):
        flops += hlo.flops(program) / every
    lines = [f"{flops / 1e9:,.3f} GFLOP, all devices together, as traced"]
    device = jax.devices()[0]
    peak = chips.peak_flops(device)
    if peak:
        seconds = flops / peak / plan.layout.mesh.size
        lines.append(f"{seconds * 1e3:,.2f} ms at least, at the peak of {device.device_kind}")
    return lines


def drawing_lines(plan: Plan) -> list[str]:
    """What is drawn and from what, as the sampler is traced for one row."""
    sampler, data = plan.method.sampler, plan.config.data
    if sampler is None:
        return ["nothing"]
    sizes = schema.sizes_of(data, batch=plan.config.batch_size, tokens=data.tokens)
    out = runs.outputs(plan.method, (plan.state, plan.frozen), sizes)
    out = jax.tree.map(list, out, is_leaf=is_shape)
    lines = [f"{name}: {shape}" for name, shape in out.items()]
    controls = [f"{c.name}={c.default!r}" for c in sampler.controls]
    return [*lines, f"from {', '.join(sampler.needs)}", *filter(None, [", ".join(controls)])]


def score_lines(plan: Plan) -> list[str]:
    """What held-out pictures are judged by, as it is traced for as many as there will be."""
    method, config = plan.method, plan.config
    if not (method.score and config.score_images):
        return ["none" + (": config.score_images=0" if method.score else "")]
    sizes = schema.sizes_of(config.data, batch=config.score_images, tokens=config.data.tokens)

    def score(state, frozen, batch):
        with method.products():
            ctx = states.context(method, state, frozen, key=states.init_key(config.seed))
            return method.score(ctx, batch)

    found = jax.eval_shape(score, plan.state, plan.frozen, schema.spec(sizes, method.scored))
    ways = ", ".join(f"{name} ({method.better[name]} is better)" for name in found)
    return [f"{ways}; of {config.score_images} held-out examples"]


def is_shape(tree: object) -> bool:
    """Whether a tree is the shape of one array."""
    return isinstance(tree, tuple) and all(isinstance(n, int) for n in tree)


def memory_lines(plan: Plan) -> list[str]:
    """What stays on a device between steps, and what it has."""
    held = plan.held()
    lines = [f"{name:<12}{held[name] / GIB:>9.3f} GiB" for name in HELD if held[name]]
    total, limit = sum(held.values()), chips.memory(jax.devices()[0])
    has = f" of {limit / GIB:.2f} GiB" if limit else ""
    lines.append(f"{total / GIB:.3f} GiB{has} stay on a device between steps")
    if limit and total > limit:
        lines.append("which is more than it has: set config.mesh.fsdp, or use more devices")
    return [
        *lines,
        "activations and gradients come on top: python -m jaxt2i.plan compiles and counts them",
    ]
