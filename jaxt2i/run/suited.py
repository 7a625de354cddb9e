"""Settings that suit a folder of captioned pictures, each with its reason.

What is known: how many pictures and captions there are, how large, of which shapes, how long the
captions and how many their words; and whether there is an accelerator.
"""

import collections
import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from jaxt2i.config import ConfigError
from jaxt2i.data import schema, sources
from jaxt2i.data.sources.folders import split_folder
from jaxt2i.run import settings

# Systems that read through a CLIP of one's own, with presets `emoji` and `emoji64`.
SYSTEMS = ("galip", "df_gan", "souza", "stylegan_t")
# Perceptions that are fetched, and their tokenizer's name and length.
FETCHED = ("clip_b32", "clip_b16", "clip_l14")
# Captions that are read for their length and their words.
READ = 5000
# Fewer pictures are learned by heart, fewer still fill no batch.
FEW, LEAST = 500, 8
# Fewer pictures to score by cannot tell whether anything is still learned.
JUDGED = 100
# Pictures that CLIP is shown: each about so often, but in all within these; none more often.
EPOCHS, SHOWN, MOST = 20, (16_000, 256_000), 50
# Ids of a tokenizer that is learned; the stand-in that a dry run reads with has 612.
VOCAB = (1024, 8192)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a folder holds.

    Attributes:
      pictures: that can be used for training.
      held_out: of a folder val/ or test/; 0: none.
      short: the side that nine pictures in ten reach at least, pixels.
      cut: share of the pictures that lose more than a quarter of a side to a square crop.
      captions: per picture, on average.
      longest: words of the longest caption but for one in a hundred.
      words: different words in the captions that were read.
      left_out: {reason: pictures and files that cannot be used}.
    """

    pictures: int
    held_out: int
    short: int
    cut: float
    captions: float
    longest: int
    words: int
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A setting that was chosen.

    Attributes:
      key: below config.
      value: of it.
      why: in words.
    """

    key: str
    value: Any
    why: str

    @property
    def argument(self) -> str:
        """As the command line of train takes it."""
        return f"--config.{self.key}={self.value}"


def look(path: str, workdir: epath.Path) -> Seen:
    """What a folder of pictures holds; every file is decoded once, and the report kept.

    Args:
      path: the folder.
      workdir: for `data_report.json`, which a training there then need not make again.

    Raises:
      DataError: where nothing in it can be used.
    """
    data = settings.preset("clip", "emoji").data
    data.update(source="folder", path=path, languages=())
    size = schema.height_and_width(data.resolution)
    source = sources.make_source(data, size, data.split, workdir)
    divided = split_folder(source.root, data.split) != split_folder(source.root, data.eval_split)
    held = sources.make_source(data, size, data.eval_split, workdir).size if divided else 0
    lengths: collections.Counter[int] = collections.Counter()
    words: set[str] = set()
    for number in range(min(source.size, READ)):
        for text in source.captions(number):
            found = re.findall(r"\w+", text.casefold())
            lengths[len(found)] += 1
            words.update(found)
    report = source.report
    each = {int(n): count for n, count in report["captions_per_image"].items()}
    cut = sum(n for ratio, n in report["aspects"].items() if not 0.75 <= float(ratio) <= 1 / 0.75)
    return Seen(
        pictures=source.size,
        held_out=held,
        short=report["short_sides"]["10 %"],
        cut=cut / max(sum(report["aspects"].values()), 1),
        captions=sum(n * count for n, count in each.items()) / max(sum(each.values()), 1),
        longest=max(1, _all_but_one_percent(lengths)),
        words=len(words),
        left_out=report["skipped"],
    )


def _all_but_one_percent(lengths: collections.Counter[int]) -> int:
    left = sum(lengths.values()) * 0.01
    for length in sorted(lengths, reverse=True):
        left -= lengths[length]
        if left < 0:
            return length
    return 0


def data_choices(seen: Seen, path: str, accelerator: bool) -> list[Choice]:
    """Settings of the data that every training shares.

    Raises:
      ConfigError: for a folder that fills no batch.
    """
    if seen.pictures < LEAST:
        raise ConfigError(
            f"{path}: {seen.pictures} pictures with captions fill no batch; give {LEAST} or more"
        )
    size = side(seen, accelerator)
    why = "an accelerator is here" if accelerator else "what CPUs train in minutes"
    if seen.short < size:
        why += f"; a tenth of the pictures have a side below {seen.short + 1} and are enlarged"
    elif accelerator and size < 64:
        why = f"a tenth of the pictures have a side below {seen.short + 1}"
    out = [
        Choice("data.source", "folder", "pictures beside their captions"),
        Choice("data.path", path, f"{seen.pictures:,} pictures"),
        Choice("data.languages", "()", "every caption"),
        Choice("data.resolution", size, why),
    ]
    if seen.cut > 1 / 3:
        why = f"{seen.cut:.0%} of the pictures would lose more than a quarter of a side to a crop"
        out.append(Choice("data.crop", "pad", why))
    return out


def side(seen: Seen, accelerator: bool) -> int:
    """The side of the pictures that are trained on, that of a preset."""
    return 64 if accelerator and seen.short >= 64 else 32


def preset(size: int) -> str:
    """The preset of that side."""
    return "emoji" if size == 32 else f"emoji{size}"


def clip_choices(seen: Seen) -> list[Choice]:
    """Settings of a CLIP that is trained on these pictures."""
    batch = min(128, max(LEAST, 2 ** ((seen.pictures // 4).bit_length() - 1)))
    shown = min(max(EPOCHS * seen.pictures, SHOWN[0]), SHOWN[1], MOST * seen.pictures)
    steps = shown // batch
    tokens = min(max(2 * seen.longest, 8), 77)
    vocab = min(max(VOCAB[0], 2 ** (256 + 3 * seen.words // 2).bit_length()), VOCAB[1])
    judged = min(300, seen.held_out or seen.pictures)
    often = max(1, steps // 5)
    return [
        Choice("batch_size", batch, "each caption is found among so many pictures"),
        Choice("total_steps", steps, f"{shown:,} pictures, each {shown / seen.pictures:.0f} times"),
        Choice("optim.decay_steps", steps, "to the end"),
        Choice("optim.warmup_steps", min(100, steps // 10), "of a short run, a tenth at most"),
        Choice("checkpoint_every_steps", often, "five of them"),
        Choice("sample_every_steps", often, "five scores"),
        Choice("score_images", judged, "held out" if seen.held_out else "none are held out"),
        Choice("data.tokenizer", "own_pieces", "pieces of words, learned from these captions"),
        Choice("data.tokens", tokens, f"99 captions in 100 have {seen.longest} words or fewer"),
        Choice("model.vocab", vocab, f"{seen.words:,} different words"),
        *patience(judged),
    ]


def system_choices(seen: Seen, system: str, perception: str) -> list[Choice]:
    """Settings of the system, beside its preset's.

    Args:
      seen: the folder.
      system: one of `SYSTEMS`.
      perception: folder of a CLIP's run, or one of `FETCHED`.

    Raises:
      ConfigError: for a perception that the system cannot take.
    """
    out = []
    if perception in FETCHED:
        if system == "stylegan_t":
            raise ConfigError(
                f"--perception {perception}: stylegan_t needs a guide beside CLIP; leave it out, "
                "or choose --system galip"
            )
        fetched = "OpenAI's, fetched once"
        out += [
            Choice("perception_from", "", "not trained here"),
            Choice("model.perception", perception, fetched),
            Choice("data.tokenizer", "clip", fetched),
            Choice("data.tokens", 77, fetched),
        ]
        if system == "galip":
            out.append(Choice("model.taps", "(1,4,8)", "the published blocks"))
    else:
        out.append(Choice("perception_from", perception, "the CLIP of these pictures"))
    judged = seen.held_out or seen.pictures
    if judged < settings.preset(system, "emoji").score_images:
        out.append(Choice("score_images", judged, "as many as there are to compare with"))
    return out + patience(judged)


def patience(judged: int) -> list[Choice]:
    """Whether a run may end itself when its scores stand still."""
    if judged >= JUDGED:
        return []
    return [Choice("stop_when_dead", False, f"scores of {judged} pictures say too little")]


def notes(seen: Seen) -> list[str]:
    """What to know of the folder before anything is trained."""
    out = []
    if seen.left_out:
        listed = ", ".join(f"{n} {reason}" for reason, n in seen.left_out.items())
        out.append(f"left out: {listed}; data_report.json names them")
    if not seen.held_out:
        out.append(
            "no folder val/ beside train/: scores are of pictures that were trained on, and say "
            "nothing of new captions"
        )
    if seen.pictures < FEW:
        out.append(
            f"{seen.pictures} pictures are few: expect them learned by heart; {FEW} or more would "
            "do better"
        )
    return out


def command(system: str, size: int, choices: Sequence[Choice], workdir: epath.Path) -> list[str]:
    """Arguments of `python -m jaxt2i.train`."""
    settled = {choice.key: choice.argument for choice in choices}
    return ["--config", f"{system}:{preset(size)}", *settled.values(), "--workdir", str(workdir)]


def kept(seen: Seen, choices: dict[str, Sequence[Choice]]) -> str:
    """What was seen and chosen, as JSON."""
    chosen = {name: [dataclasses.asdict(c) for c in some] for name, some in choices.items()}
    return json.dumps({"seen": dataclasses.asdict(seen), "chosen": chosen}, indent=1) + "\n"
