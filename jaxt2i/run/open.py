"""Opening a run: from a configuration to a method, its data and its place on the devices.

The command lines share this, so that a run is the same whoever opens it.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jaxt2i.data import pipeline, schema, sources, stream, tokenize
from jaxt2i.encoders import pretrained
from jaxt2i.engine import loop, mesh, step
from jaxt2i.engine import method as methods
from jaxt2i.engine.method import ConfigError, Method
from jaxt2i.run import cache, checkpoint, flags, log, processes, profile, settings

# What a person can mend; everything else is a bug and keeps its traceback.
USER_ERRORS = (
    ConfigError,
    schema.DataError,
    pretrained.WeightsError,
    loop.NonFinite,
    FileNotFoundError,
    PermissionError,
)
MINI_CLIP = Path(__file__).parents[1] / "encoders" / "mini_clip"
CORPUS_WORDS = Path(__file__).parents[1] / "data" / "corpus_words.json"
# Fields that may change between an attempt and its continuation without a word.
FREE = (
    *("log_every_steps", "checkpoint_every_steps", "sample_every_steps", "keep_checkpoints"),
    *("profile.start_step", "profile.steps", "profile.python_tracer"),
)


def prepare_jax() -> None:
    """Sets what XLA reads, joins the other processes where there are any, turns the cache on.

    To be called before anything is computed; `jaxt2i.run.flags` holds the flags.
    """
    logging.set_verbosity(logging.WARNING)  # orbax tells its whole life at INFO
    several = processes.expected()
    flags.apply(several=several)
    cache.use(cache.home())
    if several:
        processes.join()


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that a configuration stands for.

    Attributes:
      config: the configuration.
      method: its method.
      tokenizer: captions to token ids.
      sizes: what batch shapes are made of.
    """

    config: ConfigDict
    method: Method
    tokenizer: Any
    sizes: schema.Sizes

    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the global training batch."""
        return schema.spec(self.sizes, self.method.needs)

    def to_uint8(self, image: np.ndarray) -> np.ndarray:
        """Pictures in [-1, 1] as the bytes of an image file."""
        return (self.method.quantize or schema.to_uint8)(image)

    def layout(self) -> loop.Layout:
        """The mesh and the rules on it."""
        c = self.config
        on = mesh.make(c.mesh.data, c.mesh.fsdp, c.mesh.tensor)
        mesh.check_batch(c.batch_size, c.accumulate, on)
        return loop.Layout(on, tuple(map(tuple, c.sharding)), c.mesh.fsdp_min_mb)

    def source(self, split: str, workdir: Path | None = None):
        """The data source of a split."""
        return sources.make_source(self.config.data, self.sizes.resolution, split, workdir)

    def pipeline(self, source, batch_size: int, needs: tuple[str, ...], **kw) -> pipeline.Pipeline:
        """Batches of a source for this process; `process_index` and `process_count` may differ."""
        place = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        return pipeline.Pipeline(
            source,
            self.tokenizer,
            dataclasses.replace(self.sizes, batch=batch_size),
            needs,
            seed=self.config.data.seed,
            workers=self.config.data.workers,
            **place | kw,
        )

    def prompts(self, captions: list[str]) -> dict[str, np.ndarray]:
        """A batch that `method.sample` can draw from."""
        return pipeline.prompts_batch(self.tokenizer, captions)


def open_run(config: ConfigDict) -> Run:
    """Builds the method and the tokenizer of a configuration.

    Raises:
      ConfigError: names the config line and the fix.
    """
    data = config.data
    tokenizer = tokenize.make_tokenizer(tokenizer_path(data.tokenizer), data.tokens)
    sizes = schema.Sizes(
        config.batch_size,
        data.resolution,
        tokenizer.length,
        data.objects,
        data.mask_resolution,
        data.captions,
    )
    method = methods.load(config)
    if method.vocab and tokenizer.vocab_size > method.vocab:
        raise ConfigError(
            f"config.data.tokenizer={data.tokenizer!r} gives token ids up to "
            f"{tokenizer.vocab_size - 1}, but the text encoder of {config.method} knows "
            f"{method.vocab}; the tokenizer must be the one that the encoder was trained with"
        )
    if method.borrowed:
        loaders = {
            n: functools.partial(borrowed, config.init_from, n, method) for n in method.borrowed
        }
        method = dataclasses.replace(method, pretrained={**method.pretrained, **loaders})
    return Run(config, method, tokenizer, sizes)


def borrowed(folder: str, net: str, method: Method) -> dict:
    """A frozen network's variables from an earlier run, or from converted weights.

    Raises:
      ConfigError: where there is none, or one of other sizes.
    """
    if not folder:
        raise ConfigError(
            f"config.init_from is empty, and the network {net!r} comes from there: give the work "
            "directory of the run that trained it (python -m jaxt2i.train --config "
            "configs/damsm.py), or a folder that python -m jaxt2i.convert damsm wrote. To measure "
            "speed without: --config.model.weights=random"
        )
    tree, where = lender(folder)
    if net not in tree["params"]:
        raise ConfigError(
            f"config.init_from={folder!r}: {where} holds no network {net!r}; it holds "
            f"{', '.join(tree['params'])}"
        )
    variables = {"params": tree["params"][net], **tree.get("extra", {}).get(net, {})}
    given = {k: tuple(x.shape) for k, x in checkpoint.named(variables).items()}
    wanted = checkpoint.named(pretrained.template(method.nets[net]))
    for name, want in wanted.items():
        if given.get(name) != tuple(want.shape):
            raise ConfigError(
                f"config.init_from={folder!r}: {net}/{name} is {given.get(name, 'absent')} there, "
                f"{tuple(want.shape)} here; config.model and config.data must describe the network "
                "as it was trained"
            )
    return variables


def tokenizer_path(name: str) -> str:
    """The file behind a tokenizer's name.

    "mini" is that of the shipped mini CLIP, "words" the procedural corpora's vocabulary, for
    encoders that read words; anything else names itself.
    """
    shipped = {"mini": MINI_CLIP / "tokenizer.json", "words": CORPUS_WORDS}
    return str(shipped.get(name, name))


def plain(config: ConfigDict) -> dict[str, Any]:
    """A configuration as JSON data."""
    return json.loads(config.to_json_best_effort())


def read_config(workdir: Path) -> ConfigDict:
    """The configuration that a run was started with.

    Raises:
      ConfigError: when the directory holds no run.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"{workdir} holds no run: there is no {path.name} in it. Give the --workdir of a "
            "training run; train prints it when it starts"
        )
    return ConfigDict(json.loads(path.read_text()))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a.b": value} of nested dictionaries."""
    out = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        out |= flat(value, name + ".") if isinstance(value, Mapping) else {name: value}
    return out


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Sentences on the fields in which two configurations differ."""
    old, new = flat(before), flat(now)
    return [
        f"config.{key}: {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and key not in FREE
    ]


def preset(file: str, name: str) -> ConfigDict:
    """The configuration of FILE:NAME as it stands in the file."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(name) if name else module.get_config()


def default_workdir(config: ConfigDict, preset: ConfigDict, name: str) -> Path:
    """runs/NAME, with a mark when the command line changed the preset: the same command resumes."""
    changed = differences(plain(preset), plain(config))
    mark = "-" + hashlib.sha256("".join(changed).encode()).hexdigest()[:6] if changed else ""
    return Path("runs") / f"{name}{mark}"


def train(config: ConfigDict, workdir: Path, command: str) -> None:
    """Trains what a configuration describes.

    Args:
      config: the configuration.
      workdir: where everything is written; an earlier attempt there is continued.
      command: the command line, kept for the record.

    Raises:
      ConfigError: for impossible settings, before anything is compiled.
      ValueError, OSError: for unusable data, before anything is compiled.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_count() > 1:
        cache.use(workdir / "xla")
    run = open_run(config)
    method, layout = run.method, run.layout()
    source = run.source(config.data.split, workdir)
    train_data = run.pipeline(source, config.batch_size, method.needs)
    fed = stream.Stream(train_data, config.data, tokenizer_path(config.data.tokenizer))
    epoch = train_data.order.size
    total = settings.steps(config, "total", batch_size=config.batch_size, epoch_images=epoch)
    schedule = loop.Schedule(
        total,
        config.log_every_steps,
        config.checkpoint_every_steps,
        config.sample_every_steps,
        config.keep_checkpoints,
        config.keep_period_steps,
        profile.Window(**config.profile),
    )
    rules = step.Rules(
        config.seed, config.batch_size, total, config.accumulate, config.skip_nonfinite
    )
    held_out = run.source(config.data.eval_split, workdir)
    score_rows = config.score_images // layout.mesh.size * layout.mesh.size
    score_data = run.pipeline(held_out, score_rows, method.needs, caption="first")
    note_changes(workdir, config)
    log.say(f"work directory: {workdir}", *method.notes)
    write_config(workdir, config, command)

    def device_batches(first: int) -> Iterator:
        return pipeline.prefetch_to_device(
            fed.iterate(first), lambda rows: mesh.put_batch(rows, layout.mesh)
        )

    try:
        loop.train(
            method,
            rules=rules,
            schedule=schedule,
            layout=layout,
            batch=run.batch_spec(),
            batches=device_batches,
            workdir=workdir,
            config=plain(config),
            picture=grid_of(run, held_out) if method.sample else None,
            score_batch=(lambda: score_data.batch_at(0)) if score_rows else None,
            init_from=fresh_start(config, method),
        )
    except checkpoint.Mismatch as error:
        changed = differences(error.meta["config"], plain(config))
        raise ConfigError(
            f"{workdir} holds a run of another configuration. {error}\nThe fields that differ:\n  "
            + "\n  ".join(changed or ["none: the code has changed since"])
            + "\nUse another --workdir, or the old settings."
        ) from None
    if train_data.skipped:
        log.say(f"examples replaced because they could not be read: {dict(train_data.skipped)}")


def grid_of(run: Run, held_out) -> loop.Picture:
    """The prompts of the sample grids: the configured ones, else held-out captions."""
    grid = run.config.grid
    captions = tuple(grid.prompts) or tuple(
        held_out.captions(i)[0] for i in range(min(grid.count, held_out.size or grid.count))
    )
    return loop.Picture(run.prompts(list(captions)), captions, {}, run.to_uint8)


def lender(folder: str) -> tuple[dict, str]:
    """What `earlier` finds where frozen networks are borrowed.

    Raises:
      ConfigError: where there is nothing; says how the embedded networks are trained.
    """
    try:
        return earlier(folder)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. Frozen networks come from there; the embedded ones are trained by "
            "python -m jaxt2i.train --config configs/damsm.py"
        ) from None


def fresh_start(config: ConfigDict, method: Method) -> Callable[[], tuple[dict, str]] | None:
    """What fills a fresh state from config.init_from, if that has more than borrowed networks."""
    if not config.init_from:
        return None
    if method.borrowed and not set(lender(config.init_from)[0]["params"]) & set(method.trained):
        return None
    return lambda: earlier(config.init_from)


def earlier(folder: str) -> tuple[dict, str]:
    """Arrays of an earlier run, or of converted weights, for a fresh start."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        return checkpoint.latest(folder)
    out: dict[str, dict] = {"params": {}, "extra": {}}
    for file in files:
        variables = pretrained.load_variables(file)
        out["params"][file.stem] = variables.pop("params")
        out["extra"][file.stem] = variables
    return out, folder


def export(workdir: Path, folder: Path, half: bool = False) -> dict[str, Any]:
    """Writes the networks of a run's newest checkpoint as NET.safetensors with a card.json.

    Args:
      workdir: a training run.
      folder: where to write.
      half: store float16.

    Returns:
      The card: the command, the seed, the steps, the last scores, and the settings of the model.
    """
    config = read_config(workdir)
    tree, where = checkpoint.latest(workdir)
    best = {**tree["params"], **tree.get("ema", {})}
    for net, params in best.items():
        variables = {"params": params, **tree.get("extra", {}).get(net, {})}
        pretrained.save_variables(
            folder / f"{net}.safetensors", variables, np.float16 if half else None
        )
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    scores = [x for x in lines if any(k.startswith("score/") for k in x)] or [{}]
    card = {
        "command": (workdir / "command.txt").read_text().strip(),
        "seed": config.seed,
        "step": int(Path(where).name),
        "images": int(Path(where).name) * config.batch_size,
        "scores": {k: v for k, v in scores[-1].items() if k.startswith("score/")},
        "tokens": config.data.tokens,
        "resolution": config.data.resolution,
        "model": plain(config.model),
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def note_changes(workdir: Path, config: ConfigDict) -> None:
    """Says which fields differ from those of the attempt that is being continued."""
    if (workdir / "config.json").is_file():
        changed = differences(plain(read_config(workdir)), plain(config))
        if changed:
            log.say("continuing with changed settings:", *(f"  {line}" for line in changed))


def write_config(workdir: Path, config: ConfigDict, command: str) -> None:
    """Keeps the configuration and the command in the work directory."""
    if jax.process_index() == 0:
        (workdir / "command.txt").write_text(command + "\n")
        (workdir / "config.json").write_text(json.dumps(plain(config), indent=2) + "\n")


def fail(error: Exception) -> None:
    """Ends the program with a message instead of a traceback."""
    sys.exit(f"error: {error}")
