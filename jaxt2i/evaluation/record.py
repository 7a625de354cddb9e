"""The protocol of an evaluation as a record of what was done, and what keeps it from a paper's.

Every field is filled by the code that did it: the sampler says its controls and weights, the data
set its name, split and framing, the reader its networks, the metrics their numbers. Nothing is
copied from the protocol that was asked for, and what nobody can know of a folder of pictures may be
stated by the user: such fields are listed.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxt2i.evaluation import corpora, sets
from jaxt2i.evaluation.reading import Seen
from jaxt2i.evaluation.reference import Compared
from jaxt2i.evaluation.subjects import Subject, cap_of
from jaxt2i.metrics import protocols, published
from jaxt2i.metrics.protocols import ANY, Protocol
from jaxt2i.metrics.score import MetricError, Score

UNKNOWN = "unknown"
# Fields that a line names at most.
NAMED = 8


def size_of(seen: Seen | None) -> int:
    """The side of all pictures that were read, pixels; 0: they differ, or are no squares."""
    if seen is None or len(seen.sizes) != 1:
        return 0
    across, _, down = next(iter(seen.sizes)).partition(" x ")
    return int(across) if across == down else 0


def samples_of(
    subject: Subject,
    data: corpora.Data | None,
    chosen: corpora.Chosen | None,
    fake: sets.Set,
    seen: Seen | None,
    size: int,
) -> protocols.Samples:
    """What was judged.

    Args:
      subject: what drew.
      data: on which data; None: a folder alone.
      chosen: for which captions; None: nobody knows.
      fake: the pictures.
      seen: what was read of them; None: nothing.
      size: to which networks saw them resized; 0: as they were.
    """
    drawn = size_of(seen)
    side = size or drawn
    return protocols.Samples(
        dataset=data.name if data else f"folder {fake.name}",
        split=data.split if data else UNKNOWN,
        resolution=side,
        count=len(seen.rows) if seen else fake.count,
        captions=chosen.rule if chosen else UNKNOWN,
        controls=fake.made.get("controls", UNKNOWN),
        quantise=fake.made.get("quantise", UNKNOWN),
        weights=fake.made.get("weights", UNKNOWN),
        cap=cap_of(subject.of.run.tokenizer) if subject.of else UNKNOWN,
        drawn=drawn,
        resize="lanczos" if size or fake.made.get("resolution") else "none",
        trained=data.trained if data else UNKNOWN,
        listed=data.listed if data else "",
    )


def reference_of(compared: Compared | None, then: int) -> protocols.Reference:
    """What was compared with; statistics of a file say little of their pictures."""
    if compared is None:
        return protocols.Reference(dataset="nothing", split="nothing")
    if compared.given is not None:
        unknown = {"file": compared.given.name, "dataset": ANY, "split": ANY, "then": ANY}
        return protocols.Reference(**(compared.given.said or unknown))
    made = dict(compared.real.made)
    count = len(compared.seen.rows) if compared.seen else compared.real.count
    side = made.pop("resolution", 0) or size_of(compared.seen)
    made = {"dataset": f"folder {compared.real.name}", "split": UNKNOWN} | made
    made = {"crop": "none", "resize": "none"} | made
    return protocols.Reference(count=count, resolution=side, then=then, **made)


def measured(
    protocol: Protocol,
    samples: protocols.Samples,
    reference: protocols.Reference,
    done: Mapping[str, Any],
) -> Protocol:
    """The record: parts that were not measured are absent."""
    names = dict.fromkeys(protocols.PARTS.values())
    return Protocol(protocol.name, samples, reference, **{n: done.get(n) for n in names})


def stated(record: Protocol, said: Mapping[str, str]) -> Protocol:
    """The record with what a user states where nobody else can know.

    Args:
      record: of what was done.
      said: {"samples.controls": "none"}.

    Raises:
      MetricError: for a field that does not exist, or one that is known otherwise.
    """
    known = protocols.settings(record)
    for field, value in said.items():
        if field not in known or field == "name":
            near = difflib.get_close_matches(field, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            fields = ", ".join(f for f in known if f.startswith("samples."))
            raise MetricError(f"--stated {field}: no such field; {hint}such as {fields}")
        now = known[field]
        free = now in (UNKNOWN, ANY, 0) or str(now).startswith("folder ")
        if not free and str(now) != value:
            raise MetricError(
                f"--stated {field}={value}: it is known to be {now}; only what nobody can know of "
                "the pictures may be stated"
            )
        part, _, name = field.partition(".")
        fields = dataclasses.replace(getattr(record, part), **{name: type(now)(value)})
        record = dataclasses.replace(record, **{part: fields})
    return record


def withheld(record: Protocol, found: Sequence[Score]) -> list[str]:
    """For each asked protocol with published numbers that do not print, one line that says why."""
    name, out = record.name, {}
    theirs = protocols.PROTOCOLS.get(name)
    if theirs is None:
        return []
    metrics = {x.metric for x in published.PUBLISHED if x.protocol == name}
    for score in found:
        if score.metric in metrics:
            apart = protocols.differences(record, theirs, score.metric)
            if apart:
                out[score.metric] = apart
    if not out:
        return []
    fields = {field: values for apart in out.values() for field, values in apart.items()}
    said = [f"{field} ({x} against {y})" for field, (x, y) in fields.items()]
    more = f" and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return [
        f"published numbers of {name} in {', '.join(out)} are left out, as this was measured "
        f"otherwise: {', '.join(said[:NAMED])}{more}"
    ]


def size_for(protocol: Protocol) -> int:
    """The size to which a protocol brings what was drawn; 0: it does not."""
    return protocol.samples.resolution if protocol.samples.resize == "lanczos" else 0
