"""Opening a run: from a configuration to a method, its data and its place on the devices.

The command lines and the Python API share this, so that a run is the same whoever opens it.
"""

import dataclasses
import functools
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from jaxt2i import places
from jaxt2i.config import ConfigError, micro_batches
from jaxt2i.data import conditions, pipeline, schema, sources, tokenize
from jaxt2i.data.pictures import BACKGROUND
from jaxt2i.data.readable import readable
from jaxt2i.data.sources import counts
from jaxt2i.encoders import pretrained
from jaxt2i.engine import draw, loop, mesh
from jaxt2i.engine import state as states
from jaxt2i.engine.method import Method
from jaxt2i.nn.remat import POLICIES
from jaxt2i.run import (
    borrow,
    cache,
    flags,
    health,
    machine,
    numbers,
    placement,
    processes,
    settings,
    written,
)
from jaxt2i.run import facts as facts_of
from jaxt2i.run.facts import Facts

# What a person can mend; everything else is a bug and keeps its traceback.
USER_ERRORS = (
    ConfigError,
    schema.DataError,
    pretrained.WeightsError,
    loop.NonFinite,
    health.Dead,
    FileNotFoundError,
    PermissionError,
)
PACKAGE = Path(__file__).parents[1]
# Rows of the schema that say which objects are where.
LAYOUT = ("boxes", "box_label", "box_mask")
# Folder of a work directory with counts of its data's files.
COUNTS = "counts"
# Tokenizers that are shipped: of the mini CLIP, and the procedural corpora's words, for encoders
# that read words.
SHIPPED = {
    "mini": PACKAGE / "encoders" / "mini_clip" / "tokenizer.json",
    "words": PACKAGE / "data" / "corpus_words.json",
}
# Tokenizers that a run learns from its captions when it starts: (its file in the work directory,
# what stands in for it until then, where only sizes are asked for).
LEARNED = {
    "own_pieces": ("own_pieces.json", "mini"),
    "own_words": ("own_words.json", "words"),
}


def prepare_jax() -> None:
    """Sets what XLA reads, joins the other processes where there are any, turns the cache on.

    Says on stderr what is computed on. To be called before anything is computed;
    `jaxt2i.run.flags` holds the flags.
    """
    logging.set_verbosity(logging.WARNING)  # orbax tells its whole life at INFO
    several = processes.expected()
    flags.apply(several=several)
    cache.use(cache.home())
    if several:
        processes.join()
    machine.say()


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that a configuration stands for.

    Attributes:
      config: the configuration.
      method: its method.
      tokenizer: captions to token ids.
      sizes: what batch shapes are made of.
      facts: what is known of the training data.
      workdir: of the run, where there is one.
    """

    config: ConfigDict
    method: Method
    tokenizer: Any
    sizes: schema.Sizes
    facts: Facts = dataclasses.field(default_factory=Facts)
    workdir: epath.Path | None = None

    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the global training batch."""
        return schema.spec(self.sizes, self.method.needs)

    def row_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of one row of conditions."""
        return row_spec(self.method, self.sizes)

    def outputs(self) -> dict[str, Any]:
        """{what the method draws: its shape}."""
        return outputs(self.method, states.shapes(self.method, self.batch_spec()), self.sizes)

    def layout(self) -> mesh.Layout:
        """The mesh and the rules on it."""
        c = self.config
        on = mesh.make(c.mesh.data, c.mesh.fsdp, c.mesh.tensor)
        placement.check_batch(c.batch_size, micro_batches(c), on)
        return placement.layout(on, tuple(map(tuple, c.sharding)), c.mesh.fsdp_min_mb)

    def source(self, split: str, workdir: epath.Path | None = None):
        """The data source of a split."""
        size = self.sizes.height, self.sizes.width
        shared = counts.Shared(self.workdir and self.workdir / COUNTS)
        return sources.make_source(self.config.data, size, split, workdir, shared)

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
            # Runs from before this setting have none.
            mirror=self.config.data.get("mirror", "crop"),
            **place | kw,
        )

    def words(
        self, names: Mapping[str, tuple[str, ...]] | None = None, root: Path = Path()
    ) -> conditions.Conditions:
        """Between rows in words and arrays.

        Args:
          names: {key of the schema: class names}; None: those of the training data.
          root: where the files of a row lie.
        """
        names = self.facts.names if names is None else names
        data = self.config.data
        return conditions.Conditions(
            tokenizer=self.tokenizer,
            sizes=self.sizes,
            class_names=names,
            root=root,
            crop=data.crop,
            resize=data.resize,
            background=data.get("background", BACKGROUND),
            object_order=data.object_order,
        )

    def rows_of(
        self,
        source: Any,
        numbers: Iterable[int],
        keys: Sequence[str] | None = None,
        what: str = "the rows",
    ) -> Iterator[conditions.Row]:
        """Examples of a source as rows: first captions, and what else is asked for.

        Those that cannot be read are left out and told, see `jaxt2i.data.readable`.

        Args:
          source: of `jaxt2i.data`.
          numbers: its own, of the examples.
          keys: rows of the schema, as far as the source has them; None: what the sampler needs.
          what: what they are for.

        Raises:
          DataError: when none of them can be read.
        """
        words = self.words(schema.names_of(source))
        wanted = self.method.sampler.needs if keys is None else keys
        keys = tuple(k for k in wanted if k in source.gives)
        if set(keys) & {*LAYOUT, "shape_masks"}:
            keys = tuple(dict.fromkeys((*keys, *LAYOUT)))

        def read(number: int) -> conditions.Row:
            return words.row(source.example(number, keys), source.captions(number)[0])

        for _, row in readable(numbers, read, what):
            yield row


def known(config: ConfigDict, workdir: epath.Path | None = None) -> tuple[Facts, dict[str, Any]]:
    """(facts of a configuration's data, {split: its source} of training and held-out data)."""
    data = config.data
    size = schema.height_and_width(data.resolution)
    splits = dict.fromkeys((data.split, data.eval_split))
    shared = together(workdir) if workdir is not None else counts.ALONE
    made = {split: sources.make_source(data, size, split, workdir, shared) for split in splits}
    told = facts_of.of(made)
    if measure := getattr(module_of(config), "measure", None):
        found = measure(config, made[data.split])
        told = dataclasses.replace(told, statistics={**told.statistics, **found})
    return told, made


def together(workdir: epath.Path) -> counts.Shared:
    """All processes of this run, which count examples together; each must ask for the same."""
    wait = functools.partial(multihost_utils.sync_global_devices, "counts")
    return counts.Shared(workdir / COUNTS, jax.process_index(), jax.process_count(), wait)


def open_run(
    config: ConfigDict, facts: Facts | None = None, workdir: epath.Path | None = None
) -> Run:
    """Builds the method and the tokenizer of a configuration.

    Args:
      config: the configuration.
      facts: of the training data, where they are known.
      workdir: of the run, where there is one.

    Raises:
      ConfigError: names the config line and the fix.
    """
    settings.check_whole(config)
    data, facts = config.data, facts or Facts()
    path = tokenizer_path(data.tokenizer)
    if facts.tokenizer is not None and not epath.Path(path).exists():
        path = str(facts.tokenizer)
    tokenizer = tokenize.make_tokenizer(places.here(path), data.tokens)
    sizes = schema.sizes_of(data, batch=config.batch_size, tokens=tokenizer.length)
    words = tuple(getattr(tokenizer, "words", ()))
    method = load_method(config, dataclasses.replace(facts, words=words))
    reads = getattr(method.nets.get("text"), "reads", (tokenizer.kind,))
    if tokenizer.kind not in reads:
        raise ConfigError(
            f"config.data.tokenizer={data.tokenizer!r} makes ids of the kind {tokenizer.kind!r}, "
            f"but the text encoder of {config.method} reads {' or '.join(map(repr, reads))}; the "
            "tokenizer must be the one that the encoder was trained with"
        )
    if method.vocab and tokenizer.vocab_size > method.vocab:
        raise ConfigError(
            f"config.data.tokenizer={data.tokenizer!r} gives token ids up to "
            f"{tokenizer.vocab_size - 1}, but the text encoder of {config.method} knows "
            f"{method.vocab}; the tokenizer must be the one that the encoder was trained with"
        )
    if method.borrowed:
        loaders = {
            n: functools.partial(borrow.borrowed, config, n, method) for n in method.borrowed
        }
        method = dataclasses.replace(method, pretrained={**method.pretrained, **loaders})
    if folder := data.get("latents", ""):
        method = borrow.with_own_latents(method, folder)
    return Run(config, method, tokenizer, sizes, facts, workdir)


def tokenizer_path(name: str) -> str:
    """The file behind a tokenizer's name, `SHIPPED` or `LEARNED`; anything else names itself."""
    _, name = LEARNED.get(name, ("", name))
    return str(SHIPPED.get(name, name))


def load_method(config: ConfigDict, facts: Facts | None = None) -> Method:
    """Builds the method that a config names.

    Args:
      config: its `method` is the dotted path of a module with `build(config)` or
        `build(config, facts)`, or of a folder with such a `method.py`; with ANY_SHAPE = True, if
        its pictures need not be squares.
      facts: of the training data.

    Raises:
      ConfigError: when there is no such module, or it has no `build`; for impossible values of
        the settings that every method has.
    """
    numbers.check(config)
    module = module_of(config)
    if not getattr(module, "ANY_SHAPE", False):
        try:
            schema.square(config.data.resolution, config.method)
        except schema.DataError as error:
            raise ConfigError(str(error)) from None
    given = (config, facts or Facts()) if takes_facts(config) else (config,)
    with written.reading_settings(config.method), numbers.named(config):
        method = module.build(*given)
    method = numbers.naming(written.checked(method, config.method), config)
    # Runs from before these settings have none of them.
    names = ("param_dtype", "masters", "matmul_precision")
    storage = {name: config[name] for name in names if name in config}
    nets = recomputing(method.nets, config.get("remat", ()))
    return dataclasses.replace(method, nets=nets, **storage)


def row_spec(method: Method, sizes: schema.Sizes) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of one row of a method's conditions."""
    return schema.spec(dataclasses.replace(sizes, batch=1), method.sampler.needs)


def outputs(method: Method, shapes: tuple[Any, Any], sizes: schema.Sizes) -> dict[str, Any]:
    """{what a method draws: its shape}, drawing nothing.

    Args:
      method: with a sampler.
      shapes: of the state and the frozen weights.
      sizes: of a batch.

    Raises:
      ConfigError: for a name that means nothing to those who draw.
    """
    here = mesh.Layout(mesh.make(1, 1, 1, jax.local_devices()[:1]))
    out = draw.Drawer(method=method, layout=here).outputs(*shapes, row_spec(method, sizes))
    written.known_outputs(out)
    return out


def takes_facts(config: ConfigDict) -> bool:
    """Whether the method of a configuration is built from facts of the data, too."""
    return len(inspect.signature(module_of(config).build).parameters) > 1


def module_of(config: ConfigDict) -> ModuleType:
    """The module with the `build` of a configuration; raises as `load_method` does."""
    try:
        module = importlib.import_module(config.method)
        if not hasattr(module, "build"):  # a folder: its file is called method.py
            module = importlib.import_module(f"{config.method}.method")
    except ModuleNotFoundError as error:
        if error.name == f"{config.method}.method":
            raise ConfigError(
                f"config.method={config.method!r}: the module has no function build(config), and "
                "no method.py beside it has one"
            ) from None
        if error.name and f"{config.method}.method".startswith(error.name):
            raise ConfigError(
                f"config.method={config.method!r}: no module {error.name!r}; give the dotted path "
                "of a module with a function build(config), such as jaxt2i.systems.stylegan_t"
            ) from None
        raise
    if not hasattr(module, "build"):
        raise ConfigError(f"config.method={config.method!r}: the module has no build(config)")
    return module


def recomputing(
    nets: Mapping[str, nn.Module], rules: Sequence[tuple[str, str]]
) -> dict[str, nn.Module]:
    """Networks that keep less for the backward pass.

    Args:
      nets: the networks; those with a field `remat` hand it to their blocks.
      rules: (regular expression on a network's whole name, key of `POLICIES`); the first that
        matches decides.

    Raises:
      ConfigError: for an unknown policy, and where nothing that matches has such blocks.
    """
    able = [name for name, net in nets.items() if hasattr(net, "remat")]
    for pattern, policy in rules:
        if policy not in POLICIES:
            raise ConfigError(
                f"config.remat: {pattern!r} asks for the policy {policy!r}; "
                f"known: {', '.join(POLICIES)}"
            )
        if not any(re.fullmatch(pattern, name) for name in able):
            raise ConfigError(
                f"config.remat: {pattern!r} is no network whose blocks can be recomputed; "
                f"those of this method: {', '.join(able) or 'none'}"
            )
    out = dict(nets)
    for name in able:
        policy = next((p for pattern, p in rules if re.fullmatch(pattern, name)), None)
        if policy:
            out[name] = nets[name].clone(remat=POLICIES[policy])
    return out
