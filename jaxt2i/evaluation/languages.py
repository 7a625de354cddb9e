"""Whether captions of one picture in two languages draw the same: pairs with one latent.

A system that reads a caption in German as it reads the English one draws nearly the same from the
same seed. How alike two pictures are is the cosine of what a CLIP sees in them; beside it stands,
as a floor, how alike pictures of two different captions in the first language are.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxt2i.data.order import mix
from jaxt2i.data.readable import readable
from jaxt2i.evaluation import independent, judges, own, sets
from jaxt2i.evaluation.subjects import opened
from jaxt2i.metrics import confidence
from jaxt2i.metrics.score import MetricError, Score, unit_rows

# Pictures whose captions are drawn, where --num does not say.
COUNT = 100
# What the captions of another picture are called among the languages.
OTHER = ""
FEW = (
    "cross_lingual found {} pictures with captions in {} and in another language; expected two or "
    "more, of different captions"
)


def add_options(p: Any) -> None:
    """Options of this metric."""
    p.add_argument(
        "--languages",
        default="",
        metavar="A,B",
        help="of cross_lingual, the first held against; default the training's, or all",
    )


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One picture to draw.

    Attributes:
      of: number of the picture whose caption this is, among those chosen; it says the seed.
      language: of the caption; `OTHER`: that of another picture, in the first language.
      text: the caption.
    """

    of: int
    language: str
    text: str


def languages_of(asked: str, trained: Sequence[str], there: Sequence[str]) -> list[str]:
    """The languages, first the one that the others are held against.

    Args:
      asked: of --languages, by commas; "": those of the training, or all that there are.
      trained: config.data.languages of the run.
      there: of the data.

    Raises:
      MetricError: for fewer than two, or one that is not there.
    """
    named = [name for name in asked.split(",") if name] or [x for x in trained if x in there]
    if absent := [name for name in named if name not in there]:
        raise MetricError(f"--languages {absent[0]}: the data has {', '.join(there)}")
    if not asked and len(named) < 2:
        first = named or [name for name in ("en",) if name in there]
        named = [*first, *(name for name in there if name not in first)]
    if len(set(named)) < 2:
        raise MetricError(
            f"cross_lingual holds languages against each other: the data has {', '.join(there)}, "
            f"and {', '.join(named) or 'none'} is asked for; name two with --languages en,de"
        )
    return list(dict.fromkeys(named))


def chosen(
    source: Any, languages: Sequence[str], count: int, seed: int
) -> tuple[list[int], list[dict[str, str]], int]:
    """(pictures, {language: caption} of each, captions left out): pictures with a caption in the
    first language and in another one.

    Of each language the first caption is taken. One that says the same in the first language,
    letter by letter, would draw the same, and is left out.

    Args:
      source: records.
      languages: the first is held against.
      count: of pictures.
      seed: of the choice.
    """
    first, pictures, said, same = languages[0], [], [], 0
    order = np.random.default_rng(seed).permutation(source.size).tolist()
    for number, spoken in readable(order, source.by_language, "the captions"):
        found = {name: spoken[name][0] for name in languages if name in spoken}
        plain = found.get(first, "").casefold()
        other = {k: v for k, v in found.items() if k == first or v.casefold() != plain}
        same, found = same + len(found) - len(other), other
        if first in found and len(found) > 1:
            pictures.append(number)
            said.append(found)
        if len(said) == count:
            break
    return pictures, said, same


def drawings(said: Sequence[Mapping[str, str]], first: str) -> list[Drawing]:
    """What is drawn of each picture: its captions, and that of another one.

    Raises:
      MetricError: where there are no two different captions.
    """
    out, count = [], len(said)
    if not said:
        raise MetricError(FEW.format(0, first))
    for of, captions in enumerate(said):
        others = (said[(of + count // 2 + k) % count][first] for k in range(count))
        other = next((text for text in others if text != captions[first]), None)
        if other is None:
            raise MetricError(FEW.format(count, first))
        out += [Drawing(of, language, text) for language, text in captions.items()]
        out.append(Drawing(of, OTHER, other))
    return out


def seen_by(case: Any, drawn: sets.Set) -> tuple[str, np.ndarray]:
    """(who looks, unit rows [N, S] of the pictures): --weights clip=RUN, else a published CLIP, or
    the shipped one where the run looks through that.
    """
    if place := case.args.weights.get("clip"):
        judge = opened(place, precise=True)
        by = independent.of_run(judge.run, judge.state, judge.frozen, place)
        independent.check_apart(
            judge.state.params["image"],
            {**case.subject.of.frozen, **case.subject.of.state.params},
            place,
            case.subject.name,
        )
        return place, by.see(own.pixels_of(drawn, case.data.size))
    mini = case.subject.of.run.config.model.get("perception", "") == "mini"
    look = judges.look_of(judges.MINI if mini else "clip_similarity", case.reader)
    found = case.reader.read(drawn, [look])
    case.result.facts.setdefault("networks", {}).update(case.reader.told(look.network))
    return look.network, unit_rows(found.features[look]["embedding"], "pictures")


def compared(
    asked: Sequence[Drawing], seen: np.ndarray, first: str
) -> tuple[dict[str, dict[int, float]], dict[int, float]]:
    """({language: {picture: how alike both are}}, {picture: how alike another caption's is})."""
    at = {(d.of, d.language): x for d, x in zip(asked, seen, strict=True)}
    alike: dict[str, dict[int, float]] = {}
    for (of, language), x in at.items():
        if language != first:
            alike.setdefault(language, {})[of] = float(x @ at[of, first])
    return alike, alike.pop(OTHER)


def by_languages(case: Any) -> list[Score]:
    """The score of a `Case`, with its floor, and a table of the languages.

    Raises:
      MetricError: for data that does not say the languages of its captions.
    """
    args, run, source = case.args, case.subject.of.run, case.data.source
    if not hasattr(source, "by_language"):
        raise MetricError(
            f"cross_lingual needs captions that say their language, and {case.data.name} has none: "
            "give --data DIR with records, such as those of python -m jaxt2i.prepare emoji"
        )
    there = source.index.language_names.tolist()
    languages = languages_of(args.languages, tuple(run.config.data.languages), there)
    first = languages[0]
    pictures, said, same = chosen(source, languages, args.num or COUNT, args.seed)
    asked = drawings(said, first)

    def conditions(number: int) -> dict[str, Any]:
        of = asked[number].of
        row = next(run.rows_of(source, [pictures[of]], case.system.asked))
        return {**row, "seed": mix(args.seed, 22, of) & 0xFFFFFFFF}

    drawn = sets.of_system(
        case.system,
        [d.text for d in asked],
        name=f"{case.subject.name}, captions in {len(languages)} languages",
        seed=args.seed,
        rule="",
        conditions=conditions,
        controls=dict(args.set),
    )
    network, seen = seen_by(case, drawn)
    alike, floor = compared(asked, seen, first)
    title = f"Captions in other languages, held against {first}"
    case.result.breakdowns[title] = table(alike, floor)
    facts = {
        "network": network,
        "pictures": len(pictures),
        "language": first,
        "held_against_it": sorted(alike),
        "same_words_left_out": same,
        "another_caption": mean_of(floor.values()),
    }
    means = [np.mean([found[of] for found in alike.values() if of in found]) for of in floor]
    score = Score("cross_lingual", float(np.mean(means)), facts=facts)
    return [score.with_interval(confidence.of_mean(np.array(means)))]


def table(
    alike: Mapping[str, Mapping[int, float]], floor: Mapping[int, float]
) -> dict[str, dict[str, float]]:
    """{language: {column: value}} of what `compared` gives."""
    return {
        language: {
            "pictures": len(found),
            "similarity": mean_of(found.values()),
            "another caption": mean_of(floor[of] for of in found),
            "nearer than another caption": mean_of(x > floor[of] for of, x in found.items()),
        }
        for language, found in sorted(alike.items())
    }


def mean_of(values: Iterable[float]) -> float:
    """Their mean, to four digits."""
    return round(float(np.mean(list(values))), 4)
