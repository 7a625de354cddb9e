"""For which captions pictures are drawn whose objects are counted, and for which classes."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxt2i.data import object_captions
from jaxt2i.data.order import mix, permuted
from jaxt2i.data.readable import readable
from jaxt2i.metrics.score import MetricError

Named = Callable[[str], Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Caption:
    """One caption that names a class, or several.

    Attributes:
      text: what is drawn.
      labels: of the classes.
      image: the source's own number of its picture; None where that is not known.
      number: of the caption among its picture's.
    """

    text: str
    labels: tuple[int, ...]
    image: int | None
    number: int = 0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is drawn, and what each picture counts for.

    Attributes:
      captions: those that pictures are drawn for.
      caption: [N], number of each picture's caption among them.
      counted: {class: numbers of the pictures that count for it}; a picture counts for every class
        that its caption names, where the published protocol draws one for each.
      note: what else to know, in words; "" for nothing.
    """

    captions: tuple[Caption, ...]
    caption: np.ndarray
    counted: dict[int, np.ndarray]
    note: str = ""


def of_source(source: Any, size: int, named: Named, every: bool) -> list[Caption]:
    """Captions of a source that name classes.

    Args:
      source: of `jaxt2i.data`.
      size: of its pictures that are looked at.
      named: a caption -> the classes that it names.
      every: all captions of a picture; else one, each in its turn.
    """
    out = []
    for image, texts in readable(range(size), source.captions, "the captions"):
        for number in range(len(texts)) if every else (image % len(texts),):
            if labels := tuple(named(texts[number])):
                out.append(Caption(texts[number], labels, image, number))
    return out


def of_lists(lists: Mapping[int, Sequence[Mapping]], source: Any, size: int) -> list[Caption]:
    """Captions of published lists, each once.

    Args:
      lists: of `object_captions.read`.
      source: of `jaxt2i.data`, in which the captions' pictures are looked for, by the words: what
        the lists say of places differs from the captions' order in some pictures.
      size: of its pictures that are looked at.
    """
    places: dict[str, tuple[int, int]] = {}
    for image, texts in readable(range(size), source.captions, "the captions"):
        for number, text in enumerate(texts):
            places.setdefault(text.strip(), (image, number))
    found: dict[tuple, list[int]] = {}
    for label, entries in lists.items():
        for entry in entries:
            labels = found.setdefault((entry.get("image_id"), entry["caption"]), [])
            if label not in labels:
                labels.append(label)
    nowhere = (None, 0)
    return [
        Caption(text, tuple(labels), *places.get(text.strip(), nowhere))
        for (_, text), labels in found.items()
    ]


def whole(
    captions: Sequence[Caption], crowds: Mapping[int, int], seed: int = 0, note: str = ""
) -> Plan:
    """The published protocol: three pictures of every caption; of crowds, one of some.

    Args:
      captions: all that name a class.
      crowds: {class: captions that are drawn at random for it, a picture each}.
      seed: of that draw, which the published code leaves to chance.
      note: see `Plan`.
    """
    each = np.zeros(len(captions), int)
    chosen: dict[int, list[int]] = collections.defaultdict(list)
    for number, caption in enumerate(captions):
        for label in caption.labels:
            chosen[label].append(number)
    for label, most in crowds.items():
        own, key = chosen.get(label, []), mix(seed, 23, label)
        drawn = (permuted(place, len(own), key) for place in range(min(most, len(own))))
        chosen[label] = sorted(own[place] for place in drawn)
    for label, numbers in chosen.items():
        pictures = 1 if label in crowds else object_captions.PICTURES
        each[numbers] = np.maximum(each[numbers], pictures)
    first = np.cumsum(each) - each
    counted = {
        label: np.concatenate(
            [first[n] + np.arange(1 if label in crowds else each[n]) for n in numbers]
        )
        for label, numbers in sorted(chosen.items())
        if numbers
    }
    return _plan(captions, np.repeat(np.arange(len(captions)), each), counted, note)


def in_turn(captions: Sequence[Caption], count: int, rarest: Sequence[int], seed: int = 0) -> Plan:
    """So many pictures, each of another caption: classes take turns, so that all are seen.

    Args:
      captions: to choose from.
      count: pictures.
      rarest: the classes, those first that choose first.
      seed: of the choice.
    """
    order = [permuted(n, len(captions), mix(seed, 24)) for n in range(len(captions))]
    waiting = {label: collections.deque() for label in rarest}
    for number in order:
        for label in captions[number].labels:
            waiting.setdefault(label, collections.deque()).append(number)
    chosen: set[int] = set()
    while waiting and len(chosen) < count:
        for label, queue in list(waiting.items()):
            while queue and queue[0] in chosen:
                queue.popleft()
            if not queue:
                del waiting[label]
            elif len(chosen) < count:
                chosen.add(queue.popleft())
    kept = sorted(chosen)
    note = f"one picture of each of {len(kept):,} captions, classes in turn" if kept else ""
    counted = by_label([captions[n].labels for n in kept])
    return _plan([captions[n] for n in kept], np.arange(len(kept)), counted, note)


def by_label(labels: Iterable[Sequence[int]]) -> dict[int, np.ndarray]:
    """{class: numbers of the pictures that it is named for}, of the classes named for each."""
    out = collections.defaultdict(list)
    for number, those in enumerate(labels):
        for label in those:
            out[label].append(number)
    return {label: np.array(numbers) for label, numbers in sorted(out.items())}


def _plan(captions: Sequence[Caption], caption: np.ndarray, counted: dict, note: str = "") -> Plan:
    if not counted:
        raise MetricError(
            "no caption names a class that the detector knows: soa counts objects that captions "
            "name; choose other --metrics"
        )
    return Plan(tuple(captions), caption, counted, note)
