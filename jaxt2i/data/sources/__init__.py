"""Where examples come from: folders, records, web collections, procedural corpora.

A source is random access: it has `gives` (the batch keys it can make), `size` (None: unlimited),
`class_names`, `example(index, keys)` and `captions(index)`; it may have an `order` and a `framing`
of its own, and `holds`, plain data that is equal where two sources show the same pictures. The
kinds know nothing of each other; this is the one place that knows all of them.
"""

from pathlib import Path

from etils import epath

from jaxt2i.data import rare
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources import counts, embeddings, latents, records, web
from jaxt2i.data.sources.base import framing, write_report
from jaxt2i.data.sources.folders import Folder, split_folder


def make_source(
    data_config,
    resolution: int,
    split: str,
    workdir: epath.PathLike | None = None,
    shared: counts.Shared = counts.ALONE,
):
    """The source that `config.data` describes.

    A folder that is not divided into train/, val/ and so on serves every split as a whole.

    Args:
      data_config: `config.data`.
      resolution: side of the images, pixels.
      split: "train", "val" or "test".
      workdir: where `data_report.json` goes; None: nowhere.
      shared: who counts the examples of a web collection, see `jaxt2i.data.sources.counts`.

    Raises:
      DataError: names the config line and the fix.
    """
    if data_config.source not in SOURCES:
        raise DataError(
            f"config.data.source is {data_config.source!r}; known: {', '.join(SOURCES)}. Set "
            "--config.data.source=synthetic (nothing to download) or --config.data.source=folder "
            "with --config.data.path=DIR"
        )
    if data_config.get("rare", ""):
        check_rare(data_config)
    given = {"shared": shared} if data_config.source == "webdataset" else {}
    source = SOURCES[data_config.source](data_config, resolution, split, workdir, **given)
    # Runs from before this setting have none.
    if data_config.get("latents", ""):
        return latents.WithLatents(source, data_config, split)
    return source


def check_rare(data_config) -> None:
    """Refuses what cannot go with config.data.rare.

    Raises:
      DataError: names the config line and the fix.
    """
    kind = data_config.rare
    if kind not in rare.KINDS:
        raise DataError(
            f"config.data.rare is {kind!r}; known: {', '.join(rare.KINDS)}, or '' for every "
            "example as it comes"
        )
    if data_config.get("batches", ""):
        raise DataError(
            f"config.data.rare={kind!r} repeats pictures, and config.data.batches="
            f"{data_config.batches!r} orders each once an epoch; set one of them to ''"
        )
    if data_config.source not in ("synthetic", "records"):
        raise DataError(
            f"config.data.rare={kind!r} counts the classes of pictures, which config.data.source="
            f"{data_config.source} does not know; set --config.data.rare=''"
        )


def alike(source, other) -> bool:
    """Whether two sources show the same pictures, as far as they tell."""
    holds = getattr(source, "holds", None)
    return source is other or (holds is not None and holds == getattr(other, "holds", None))


def _synthetic(data_config, resolution: int, split: str, workdir):
    kind = data_config.get("rare", "") if split == "train" else ""
    source = Synthetic(
        data_config.corpus,
        resolution,
        split=split,
        seed=data_config.seed,
        objects=data_config.objects,
        mask_resolution=data_config.mask_resolution,
        rare=kind,
        rare_threshold=data_config.get("rare_threshold", 0.001),
        scarce=data_config.get("scarce", 1.0),
    )
    if kind and workdir is not None:
        write_report(epath.Path(workdir) / f"data_report_{split}.json", source.report)
    return source


def _folder(data_config, resolution: int, split: str, workdir):
    root = Path(data_config.path)
    part = split_folder(root, split) if data_config.path and root.is_dir() else ""
    name = f"data_report_{part}.json" if part else "data_report.json"
    return Folder(
        data_config.path,
        framing(data_config, resolution, split, data_config.cache_mb),
        report=epath.Path(workdir) / name if workdir is not None else None,
        part=part,
        languages=tuple(data_config.languages),
    )


def _records(data_config, resolution: int, split: str, workdir):
    source = records.Records(
        data_config.path,
        records.nearest_split(data_config.path, split),
        framing(data_config, resolution, split, data_config.cache_mb),
        records.Wanted(
            languages=tuple(data_config.languages),
            around_box=data_config.around_box,
            objects=data_config.objects,
            object_order=data_config.object_order,
            mask_resolution=data_config.mask_resolution,
            pairs=records.read_pairs(data_config.list) if split != "train" else (),
            rare=data_config.rare if split == "train" else "",
            rare_threshold=data_config.rare_threshold,
            relations=data_config.get("relations", 8),
            attributes=data_config.get("attributes", 0),
            object_attributes=data_config.get("object_attributes", 0),
        ),
    )
    if workdir is not None:
        write_report(epath.Path(workdir) / f"data_report_{split}.json", source.report)
    return source


def _webdataset(data_config, resolution: int, split: str, workdir, shared=counts.ALONE):
    frame = framing(data_config, resolution, split)  # nothing comes again soon: no cache
    source = web.Web(data_config, frame, split, shared)
    if workdir is not None:
        write_report(epath.Path(workdir) / f"data_report_{split}.json", source.report)
    return source


def _hdf5(data_config, resolution: int, split: str, workdir):
    source = embeddings.Embeddings(
        data_config.path,
        split,
        framing(data_config, resolution, split, data_config.cache_mb),
        data_config.text_width,
    )
    if workdir is not None:
        write_report(epath.Path(workdir) / f"data_report_{split}.json", source.report)
    return source


SOURCES = {
    "synthetic": _synthetic,
    "folder": _folder,
    "records": _records,
    "webdataset": _webdataset,
    "hdf5": _hdf5,
}
