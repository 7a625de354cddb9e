"""What a run makes of its user's own data before it starts: a tokenizer, and a perception.

Both are written into the work directory once and stay what they are when the run is continued,
whatever becomes of where they came from.
"""

import json
from collections.abc import Mapping

import jax
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from jaxt2i import places
from jaxt2i.config import ConfigError
from jaxt2i.data import schema, sources, tokenize, words
from jaxt2i.data.readable import readable
from jaxt2i.data.sources import counts, mixture
from jaxt2i.encoders import pretrained
from jaxt2i.run import borrow, checkpoint, export, log, settings
from jaxt2i.run.open import COUNTS, LEARNED, Run

# Examples whose captions are read for it.
READ = 100_000
# Of a perception's folder: the run that it came from.
FROM = "from.json"
# Settings of a perception's networks, which who uses it must repeat.
SIZES = ("text_vocab", "embed", "width", "trunk", "align_corners", "base")


def prepared(config: ConfigDict, workdir: epath.Path) -> ConfigDict:
    """A configuration whose own tokenizer and perception are files of the work directory.

    Args:
      config: the configuration as a person gave it.
      workdir: the run's directory.

    Raises:
      ConfigError: for a `config.perception_from` that is no run of CLIP or DAMSM, or that the
        system has no use for.
      DataError: for captions that cannot be read.
    """
    config = config.copy_and_resolve_references()
    remixed(config, workdir)
    if config.get("perception_from"):
        perceive(config, workdir)
    if config.data.tokenizer in LEARNED:
        config.data.tokenizer = str(learned(config, workdir))
    return config


def remixed(config: ConfigDict, workdir: epath.Path) -> None:
    """Writes into `config.data.web.past` what a run that goes on mixed before, and tells a change.

    The run's own config.json remembers it from then on.
    """
    data, newest = config.data, max(checkpoint.steps_in(workdir), default=0)
    if data.source != "webdataset" or not (workdir / "config.json").is_file():
        return
    before = settings.read_config(workdir).data
    if before.source != "webdataset":
        return
    was, now, position = mixture.of(before), mixture.of(data), newest * config.batch_size
    data.web.past = mixture.changed(before.web.get("past", ()), was, now, position)
    if was != now:
        log.say(
            f"the mixture changes at step {newest:,}, position {position:,} of the stream: until "
            f"there {mixture.said(was)}; from there {mixture.said(now)}. Kept in config.json as "
            "config.data.web.past, so that whoever goes on sees the same"
        )


def inherit(run: Run, workdir: epath.Path) -> None:
    """Keeps the frozen networks that an earlier run trained in the work directory.

    They are this run's own from then on, whatever becomes of the earlier one.

    Raises:
      ConfigError: where there are none, or of other sizes.
    """
    config, folder = run.config, workdir / settings.INHERITED
    if not run.method.borrowed:
        return

    def make(part: epath.Path) -> None:
        part.mkdir()
        for net in run.method.borrowed:
            variables = borrow.borrowed(config, net, run.method)
            pretrained.save_variables(part / f"{net}.safetensors", variables)
        log.say(f"{', '.join(run.method.borrowed)}: from {config.init_from}, kept in {folder}")

    once(folder, make)
    config.inherited = str(folder)


def once(path: epath.Path, make) -> None:
    """Makes a file or folder in the first process, unless it is there; the others wait."""
    if jax.process_index() == 0:
        places.made_whole(path, make)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(str(path))


def learned(config: ConfigDict, workdir: epath.Path) -> epath.Path:
    """The tokenizer of the training captions, learned now where it is not there."""
    data = config.data
    file = workdir / "tokenizer" / LEARNED[data.tokenizer][0]

    def make(part: epath.Path) -> None:
        size = schema.height_and_width(data.resolution)
        shared = counts.Shared(workdir / COUNTS)
        source = sources.make_source(data, size, data.split, workdir, shared)
        count = min(source.size or READ, READ)
        found = readable(range(count), source.captions, "the tokenizer's captions")
        captions = [text for _, texts in found for text in texts]
        most = config.model.get("vocab") or config.model.get("text_vocab")
        if not most:
            raise ConfigError(
                f"config.data.tokenizer={data.tokenizer!r}: config.model has neither vocab nor "
                "text_vocab to say how many ids there are; use the tokenizer of the run that "
                "config.perception_from names"
            )
        if data.tokenizer == "own_words":
            known = words.WordTokenizer.build(captions, data.tokens, most=most)
            known.save(part)
            size = known.vocab_size
        else:
            tokenize.BpeTokenizer.train(captions, most, part)
            size = tokenize.BpeTokenizer(part, data.tokens).vocab_size
        log.say(f"tokenizer: {size} ids learned from {len(captions):,} captions, kept in {file}")

    once(file, make)
    return file


def perceive(config: ConfigDict, workdir: epath.Path) -> None:
    """Makes an earlier run the text tower, guide and tokenizer of a configuration, in place."""
    folder = workdir / settings.PERCEPTION
    source = places.of(config.perception_from, "config.perception_from")
    try:
        its = kept_settings(folder) or settings.read_config(source)
    except ConfigError as error:
        absent = not (source / "config.json").exists()
        how = settings.trained_by(source) if absent else ""
        raise ConfigError(f"config.perception_from={str(source)!r}: {error}{how}") from None
    kind = its.method.rpartition(".")[2]
    if kind not in ("clip", "damsm"):
        raise ConfigError(
            f"config.perception_from={str(source)!r} is a run of {its.method}; it must be one of "
            "CLIP (configs/clip.py) or DAMSM (configs/damsm.py), trained on the same kind of data"
        )

    def make(part: epath.Path) -> None:
        card = export.export(source, part)
        tokenizer = kept_tokenizer(source, its)
        if tokenizer:
            places.copy(tokenizer, part / tokenizer.name)
        about = {"kind": kind, "tokenizer": tokenizer.name if tokenizer else ""}
        (part / FROM).write_text(json.dumps(about | {"settings": settings.plain(its)}))
        scores = ", ".join(f"{k.partition('/')[2]} {v:.3g}" for k, v in card["scores"].items())
        log.say(
            f"perception: step {card['step']} of {source} ({scores or 'never scored'} on its own "
            f"held-out data), kept in {folder}"
        )

    once(folder, make)
    place(config, folder, its)


def kept_settings(folder: epath.Path) -> ConfigDict | None:
    """Those of the run that a perception came from: who goes on needs that run no more.

    None: nothing is kept yet, or by an earlier version.
    """
    file = folder / FROM
    found = json.loads(file.read_text()).get("settings") if file.is_file() else None
    return found and ConfigDict(found)


def kept_tokenizer(workdir: epath.Path, config: ConfigDict) -> epath.Path | None:
    """The tokenizer's file or folder of a run; None where its name says all."""
    name = epath.Path(config.data.tokenizer)
    for found in (workdir / "tokenizer" / name.name, name):
        if found.exists():
            return found
    return None


def place(config: ConfigDict, folder: epath.Path, its: Mapping) -> None:
    """Writes a perception's folder and sizes into the settings of who uses it.

    Raises:
      ConfigError: where the system has no use for it.
    """
    about = json.loads((folder / FROM).read_text())
    kind, model = about["kind"], config.model
    weights = next((name for name in ("clip_weights", "text_weights") if name in model), None)
    if "perception" in model and weights:
        known = {"clip": "mini", "damsm": "damsm"}[kind]
        if kind == "damsm" and weights == "clip_weights":
            raise ConfigError(
                f"config.perception_from={config.perception_from!r} is a run of DAMSM; "
                f"{config.method} needs an image tower to guide it, which CLIP has: train "
                "configs/clip.py"
            )
        model.perception, model[weights] = known, str(folder)
    elif kind == "damsm" and "init_from" in config and "damsm_weight" in model:
        given = borrow.folders(config.init_from)
        if plain := given.pop(borrow.EVERY, ""):
            log.say(
                f"config.init_from={plain!r} is not used: config.perception_from brings text and "
                "image; name other networks as NET=FOLDER"
            )
        every = {"text": str(folder), "image": str(folder)} | given
        config.init_from = ",".join(f"{net}={place}" for net, place in every.items())
        for name in SIZES:
            if name in model and name in its.model:
                model[name] = its.model[name]
    else:
        reads = "DAMSM (configs/damsm.py)"
        if "damsm_weight" not in model:
            reads = (
                "no perception: its config.model lacks perception and clip_weights (or "
                "text_weights), what it hands to jaxt2i.encoders.perception.make"
            )
        raise ConfigError(
            f"config.perception_from={config.perception_from!r} is a run of {kind}; "
            f"{config.method} reads {reads}"
        )
    if "text_vocab" in model and kind == "damsm":
        model.text_vocab = its.model.text_vocab
    tokenizer = str(folder / about["tokenizer"]) if about["tokenizer"] else its.data.tokenizer
    config.data.update(tokenizer=tokenizer, tokens=its.data.tokens)


def strangers(config: ConfigDict) -> list[str]:
    """What to say where the shipped perception is shown what it has never seen."""
    model = config.model
    own = any(model.get(name) for name in ("clip_weights", "text_weights"))
    if config.data.source == "synthetic" or model.get("perception") != "mini" or own:
        return []
    return [
        "the shipped mini CLIP has read captions of procedural pictures alone, none like these: "
        "train configs/clip.py on this data and set config.perception_from to its run, or choose "
        "another config.model.perception"
    ]
