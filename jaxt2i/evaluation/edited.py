"""Scores of a folder of edits, as `sample --edit` writes it: each beside its source and region."""

import collections
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i import places
from jaxt2i.data import images
from jaxt2i.evaluation.perceptual import BATCH
from jaxt2i.evaluation.reading import Look, Reader
from jaxt2i.evaluation.sets import Batch, Set, by_size
from jaxt2i.metrics import confidence, editing, retrieval
from jaxt2i.metrics.score import MetricError, Score
from jaxt2i.run.files import json_lines
from jaxt2i.run.folder import METADATA, TIMING

# As the protocol iir_net_coco looks at pictures.
CLIP, LPIPS = Look("openai_vit_b32", "pillow_bicubic_crop"), "alex"


@dataclasses.dataclass(frozen=True)
class Edit:
    """One edit.

    Attributes:
      row: of the set.
      edit: uint8 [H, W, 3].
      source: uint8 [H, W, 3].
      region: bool [H, W].
    """

    row: int
    edit: np.ndarray
    source: np.ndarray
    region: np.ndarray


def beside(folder: Path, name: str, what: str) -> np.ndarray:
    """A picture that lies beside an edit.

    Raises:
      MetricError: where it is not there, or no picture.
    """
    file = folder / f"{os.path.splitext(name)[0]}_{what}.png"
    if not file.is_file():
        raise MetricError(
            f"{file}: no such file; edits are judged beside their sources and regions, as "
            "python -m jaxt2i.sample --edit writes them"
        )
    try:
        return np.asarray(images.read_rgb(file.read_bytes(), name=str(file)))
    except images.Unreadable as error:
        raise MetricError(f"{file}: {error.reason}; draw it again") from None


def edits_of(fake: Set) -> Iterator[Edit]:
    """The edits of a folder, one after the other."""
    folder = places.here(fake.name)
    for row, name in enumerate(fake.names):
        found = fake.pictures([row])
        if row in found:
            source, region = (beside(folder, name, what) for what in ("source", "region"))
            yield Edit(row, found[row], source, region[..., 0] > 127)


def sources_of(fake: Set) -> Set:
    """The pictures that were edited, in the order of their edits."""
    folder = places.here(fake.name)

    def batches(batch: int, rows: Sequence[int]) -> Iterator[Batch]:
        pictures = ((int(r), beside(folder, fake.names[int(r)], "source")) for r in rows)
        return by_size(pictures, batch)

    return Set(f"{fake.name}, the sources", fake.count, batches, digest=fake.digest)


def by_pixels(fake: Set, reader: Reader) -> dict[str, np.ndarray]:
    """{score: of each edit}: LPIPS to the source, whole and outside the region; PSNR outside."""
    distance = reader.distance(LPIPS, BATCH)
    found: dict[str, list] = {"lpips": [], "lpips_outside": [], "psnr_outside": []}
    waiting: dict[tuple, list[Edit]] = collections.defaultdict(list)

    def measure(group: list[Edit]) -> None:
        source = np.stack([e.source for e in group])
        apart = [editing.outside(e.source, e.edit, e.region) for e in group]
        found["lpips"] += distance(source, np.stack([e.edit for e in group])).tolist()
        outer = distance(source, np.stack(apart))
        some = np.array([not e.region.all() for e in group])
        found["lpips_outside"] += np.where(some, outer, np.nan).tolist()
        group.clear()

    for edit in edits_of(fake):
        found["psnr_outside"].append(editing.psnr(edit.source, edit.edit, ~edit.region))
        group = waiting[edit.edit.shape]
        group.append(edit)
        if len(group) == BATCH:
            measure(group)
    for group in waiting.values():
        if group:
            measure(group)
    return {name: np.array(values) for name, values in found.items()}


def by_clip(fake: Set, reader: Reader) -> dict[str, np.ndarray]:
    """{score: of each edit}: its fit to the caption, and its direction where sources have one."""
    seen = reader.read(fake, [CLIP])
    edit = seen.features[CLIP]["embedding"]
    asked = reader.texts(CLIP.network, [fake.captions[row] for row in seen.rows])
    out = {"clip_score": retrieval.scaled(retrieval.cosines(edit, asked), "percent")}
    lines = json_lines(places.here(fake.name) / METADATA)
    before = {line.get("file_name"): line.get("source_prompt") for line in lines}
    said = [before.get(fake.names[row]) for row in seen.rows]
    if all(isinstance(text, str) and text for text in said):
        origin = reader.read(sources_of(fake), [CLIP])
        order = np.searchsorted(origin.rows, seen.rows)
        source = origin.features[CLIP]["embedding"][order]
        texts = reader.texts(CLIP.network, said)
        out["clip_direction"] = editing.directions(source, edit, texts, asked)
    return out


def by_edits(case: Any) -> list[Score]:
    """All scores of a `Case` that is a folder of edits.

    Raises:
      MetricError: for pictures that are no edits.
    """
    fake, reader = case.fake, case.reader
    if not fake.names:
        raise MetricError(
            "edits judges a folder that python -m jaxt2i.sample --edit drew: give --images DIR"
        )
    found = by_pixels(fake, reader) | by_clip(fake, reader)
    if "clip_direction" not in found:
        case.result.notes.append(
            "edit_clip_direction is left out: it needs the captions of the sources, "
            '"source_prompt" in the rows that were drawn (metadata.jsonl)'
        )
    seconds = by_clock(fake)
    if not seconds:
        case.result.notes.append(
            f"edit_seconds is left out: {TIMING} of {fake.name} times no picture beyond the first "
            "chunk, which waits for the compiler; draw more edits in one go"
        )
    networks = case.result.facts.setdefault("networks", {})
    for network in (f"lpips_{LPIPS}", CLIP.network):
        networks.update(reader.told(network))
    return [*(score_of(name, values) for name, values in found.items()), *seconds]


def by_clock(fake: Set) -> list[Score]:
    """Seconds a picture when the folder was last drawn into, compiling left out; none if unknown.

    They are of the machine that drew, named among the facts, and of nothing else.
    """
    file = places.here(fake.name) / TIMING
    try:
        told = json.loads(file.read_text())
        value = float(told["seconds_a_picture"])
        facts = {name: told[name] for name in ("device", "at_once")}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [Score("edit_seconds", value, facts={"generated": told.get("pictures"), **facts})]


def score_of(name: str, values: np.ndarray) -> Score:
    """The mean over those edits that have the score; others, such as those of a whole picture,
    which has no outside, are counted.
    """
    there = values[~np.isnan(values)]
    lacking = len(values) - len(there)
    warnings = (f"{lacking} of {len(values)} edits have no {name}",) if lacking else ()
    network = LPIPS if name.startswith("lpips") else CLIP.network
    facts = {"generated": len(there)} | ({} if "psnr" in name else {"network": network})
    value = float(there.mean()) if len(there) else float("nan")
    score = Score(f"edit_{name}", value, facts=facts, warnings=warnings)
    return score.with_interval(confidence.of_mean(there)) if len(there) > 1 else score
