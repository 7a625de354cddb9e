"""Colour emoji of a bitmap font, named in a dozen languages."""

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxt2i.data.builders.base import Builder, Files, Item, Need
from jaxt2i.data.builders.record import Caption, Record
from jaxt2i.data.images import Unreadable
from jaxt2i.data.schema import DataError

# The font of most Linux desktops, and where they keep it.
FONT = "NotoColorEmoji.ttf"
PLACES = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
REPOSITORY = "https://github.com/googlefonts/noto-emoji"
# A version with Unicode 16's emoji; a file of git is known by the hash of its blob.
RELEASE = f"{REPOSITORY}/raw/b3e3051a088047d19fd4d49b1c3ac42fb8c3aaf8/fonts/{FONT}"
BLOB = "5fb11512fc4f062c56fb2cc41899a19eb656bdc8"
BITMAPS = Need(
    FONT, f"Debian's fonts-noto-color-emoji or {REPOSITORY} (fonts/), or --from FILE with any "
    "font that has a CBDT table", instead=("fonts/" + FONT, "noto/" + FONT),
)  # fmt: skip
CLDR = tuple(
    Need(name, "https://github.com/unicode-org/cldr (common/), or Debian's unicode-cldr-core",
         optional=True)
    for name in ("annotations", "annotationsDerived")
)  # fmt: skip

# One of this many emoji is held out, with all its variants.
HELD_OUT = 10
TONES = range(0x1F3FB, 0x1F400)
JOINER, VARIATION = "\u200d", "\ufe0f"
# Women, men and signs of gender are variants of people; so are girls and boys of children, and
# everything that looks to the right of what looks to the left.
SAME = {"👨": "🧑", "👩": "🧑", "👦": "🧒", "👧": "🧒", "👴": "🧓", "👵": "🧓"}
DROPPED = "♀♂➡"
# Why an emoji is left out.
NOT_IN_FONT = "emoji that the font does not draw"


@dataclasses.dataclass(eq=False, kw_only=True)
class Ground(tfds.core.BuilderConfig):
    """The colour behind the emoji.

    Attributes:
      rgb: of 255.
    """

    rgb: tuple[int, int, int]


class Jaxt2iEmoji(Builder):
    """Emoji on white ("white"), grey or black, squares of the font's own size.

    An emoji's class is its group in Unicode's list ("Animals & Nature"). Its captions are its name
    and other names in up to a dozen languages, and with CLDR's annotation files its keywords too,
    separated by commas. Variants of an emoji (skin tone, gender, direction) share its split: one in
    ten is held out.
    """

    BUILDER_CONFIGS: ClassVar = [
        Ground(name="white", description="Emoji on white.", rgb=(255, 255, 255)),
        Ground(name="grey", description="Emoji on grey.", rgb=(128, 128, 128)),
        Ground(name="black", description="Emoji on black.", rgb=(0, 0, 0)),
    ]
    TITLE = "Emoji"
    TERMS = (
        "Noto Color Emoji comes under the SIL Open Font License 1.1; names and keywords are "
        "Unicode's (Unicode License v3)."
    )

    def needs(self) -> tuple[Need, ...]:
        return self._bitmaps, *CLDR

    @property
    def _bitmaps(self) -> Need:
        """The font: the file of --from, or the one that is looked for in its folder."""
        if self.source and self.source.is_file():
            return dataclasses.replace(BITMAPS, path=self.source.name, instead=())
        return BITMAPS

    def find(self) -> Path:
        """The font of this machine, or the release of it, fetched once."""
        for place in PLACES:
            if found := sorted(Path(place).expanduser().rglob(FONT)):
                return found[0]
        kept = Path(os.environ.get("JAXT2I_CACHE") or "~/.cache/jaxt2i").expanduser()
        try:
            file = Path(_fetched(kept / f"{BLOB[:12]}-{FONT}"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"there is no {FONT} in {', '.join(PLACES)}, and {RELEASE} could not be "
                f"downloaded ({error}). Install it (Debian: apt install fonts-noto-color-emoji), "
                "or give --from FILE"
            ) from error
        return file

    def names(self, files: Files) -> dict[str, list[str]]:
        return {"label": list(_groups()[0])}

    def items(self, files: Files) -> dict[str, list[Item]]:
        font = Font(files.first(self._bitmaps))
        names = _names(files)
        splits: dict[str, list[Item]] = {"train": [], "val": []}
        for text in sorted(names):
            glyph = font.glyph(text)
            if glyph is None:
                self.skips.add(text, NOT_IN_FONT)
                continue
            split = "val" if _held_out(text) else "train"
            content = {"text": text, "glyph": glyph, "captions": names[text]}
            splits[split].append(Item("-".join(f"{ord(c):x}" for c in text), "", content))
        if not splits["train"]:
            raise DataError(f"{font.file} draws none of {len(names)} emoji; {BITMAPS.where}")
        return splits

    def record(self, files: Files, item: Item) -> Record:
        text, group = item.content["text"], _group(item.content["text"])
        font = _opened(files.first(self._bitmaps))
        return Record(
            key=item.key,
            image=_square(font.picture(item.content["glyph"]), self.builder_config.rgb),
            filename=f"{item.key}.png",
            captions=[Caption(words, language=tag) for tag, words in item.content["captions"]],
            label=group,
            label_name=list(_groups()[0])[group] if group >= 0 else "",
            metadata={
                "emoji": text,
                "variant_of": _family(text),
                "font": font.version,
                "licence": self.TERMS,
            },
        )


def _fetched(path: Path) -> str:
    """The font of `RELEASE`, fetched unless it is there; raises ValueError for another file."""
    import pooch

    pooch.get_logger().setLevel("ERROR")
    found = pooch.retrieve(RELEASE, None, fname=path.name, path=path.parent)
    content = Path(found).read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if blob != BLOB:
        Path(found).unlink()
        raise ValueError(f"it is another file: git would call it {blob}, expected {BLOB}")
    return found


class Font:
    """A font with pictures for glyphs.

    Args:
      file: of it.

    Raises:
      DataError: where it is no such font.
    """

    def __init__(self, file: Path):
        try:
            from fontTools.ttLib import TTFont, TTLibError
        except ImportError as error:
            raise DataError("reading fonts needs fontTools: pip install fonttools") from error
        self.file = file
        try:
            font = TTFont(file, lazy=True)
            tables = set(font.keys())
            if not {"CBDT", "CBLC", "cmap"} <= tables:
                vectors = sorted(tables & {"COLR", "SVG ", "sbix", "glyf", "CFF "})
                raise DataError(
                    f"{file} has no bitmaps in colour (table CBDT); it has "
                    f"{', '.join(vectors) or 'none of the known kinds of glyph'}; {BITMAPS.where}"
                )
            # The largest of the sizes that it has.
            sizes = zip(font["CBLC"].strikes, font["CBDT"].strikeData, strict=True)
            self._pictures = max(sizes, key=lambda s: s[0].bitmapSizeTable.ppemX)[1]
            self._codes = font.getBestCmap()
            self._lookups = list(_ligatures(font["GSUB"].table)) if "GSUB" in tables else []
            self.version = font["name"].getDebugName(5) or "" if "name" in tables else ""
        except DataError:
            raise
        except (TTLibError, OSError, KeyError, AttributeError, ValueError, EOFError) as error:
            raise DataError(f"{file} cannot be read as a font ({error})") from error

    def glyph(self, text: str) -> str | None:
        """The glyph that has the picture of an emoji; None where there is none."""
        for kept in (text, text.replace(VARIATION, "")):
            glyphs = [self._codes.get(ord(c), "") for c in kept]
            for lookup in self._lookups:
                glyphs = _joined(glyphs, lookup)
            if len(glyphs) == 1 and glyphs[0] in self._pictures:
                return glyphs[0]
        return None

    def picture(self, glyph: str) -> Image.Image:
        """A glyph's picture with alpha.

        Raises:
          Unreadable: where it is not a PNG that can be decoded.
        """
        try:
            return Image.open(io.BytesIO(self._pictures[glyph].imageData)).convert("RGBA")
        except (OSError, SyntaxError, AttributeError) as error:
            raise Unreadable(glyph, "glyph whose picture cannot be decoded") from error


@functools.lru_cache(maxsize=2)
def _opened(file: Path) -> Font:
    return Font(file)


def _ligatures(table) -> Iterator[dict[str, list[tuple[tuple[str, ...], str]]]]:
    """{first glyph: [(the others, what they become)], longest first} of each lookup of GSUB."""
    for lookup in table.LookupList.Lookup:
        tables = [getattr(t, "ExtSubTable", t) for t in lookup.SubTable]
        rules: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for first, ligatures in itertools.chain.from_iterable(
            t.ligatures.items() for t in tables if hasattr(t, "ligatures")
        ):
            rules.setdefault(first, []).extend((tuple(x.Component), x.LigGlyph) for x in ligatures)
        if rules:
            yield {k: sorted(v, key=lambda rule: -len(rule[0])) for k, v in rules.items()}


def _joined(glyphs: list[str], rules: dict) -> list[str]:
    """Glyphs after one lookup of ligatures, from the left."""
    out, i = [], 0
    while i < len(glyphs):
        for others, whole in rules.get(glyphs[i], ()):
            if tuple(glyphs[i + 1 : i + 1 + len(others)]) == others:
                out.append(whole)
                i += 1 + len(others)
                break
        else:
            out.append(glyphs[i])
            i += 1
    return out


def _square(picture: Image.Image, rgb: tuple[int, int, int]) -> np.ndarray:
    """A picture on a colour, in the middle of a square: padded, not stretched."""
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), (*rgb, 255))
    at = (side - picture.width) // 2, (side - picture.height) // 2
    square.alpha_composite(picture, at)
    return np.asarray(square.convert("RGB"))


def _family(text: str) -> str:
    """What an emoji has in common with its variants."""
    kept = "".join(c for c in text if ord(c) not in TONES and c not in DROPPED + VARIATION)
    parts = [SAME.get(part, part) for part in kept.split(JOINER) if part]
    return JOINER.join(parts)


def _held_out(text: str) -> bool:
    """Whether an emoji and its variants are for evaluation: the same in every font and version."""
    return hashlib.sha256(_family(text).encode()).digest()[0] * HELD_OUT < 256


@functools.cache
def _groups() -> tuple[tuple[str, ...], dict[str, int]]:
    """(names of the groups, {emoji: its group})."""
    said = json.loads(Path(__file__).with_name("emoji_groups.json").read_text("utf-8"))["groups"]
    of = {text: i for i, texts in enumerate(said.values()) for text in texts.split()}
    return tuple(said), of


def _group(text: str) -> int:
    """The class of an emoji; -1 where Unicode's list was made before it."""
    _, of = _groups()
    plain = text.replace(VARIATION, "")
    return of.get(plain, of.get(plain[0], -1))


def _names(files: Files) -> dict[str, list[tuple[str, str]]]:
    """{emoji: [(language, caption)]}, English first, nothing twice."""
    try:
        import emoji
    except ImportError as error:
        raise DataError("the names of emoji need the package emoji: pip install emoji") from error
    emoji.config.load_language()
    tags = ["en", *sorted(set(emoji.LANGUAGES) - {"en", "alias"})]
    whole = emoji.STATUS["fully_qualified"]
    names: dict[str, list[tuple[str, str]]] = {}
    for text, about in emoji.EMOJI_DATA.items():
        if about["status"] == whole and not (len(text) == 1 and ord(text) in TONES):
            said = [("en", about["en"])] + [("en", name) for name in about.get("alias", ())]
            said += [(tag, about[tag]) for tag in tags[1:] if tag in about]
            names[text] = [(tag, _words(name)) for tag, name in said]
    short = {text.replace(VARIATION, ""): text for text in names}
    for need in CLDR:
        if files.has(need.path):
            for file in sorted((files / need.path).glob("*.xml")):
                for text, words in _annotations(file):
                    if text in short:
                        names[short[text]].append((file.stem.replace("_", "-"), words))
    return {text: list(dict.fromkeys(said)) for text, said in names.items()}


def _words(name: str) -> str:
    """The words of a name such as :red_apple:."""
    return name.strip(":").replace("_", " ").strip()


def _annotations(file: Path) -> Iterator[tuple[str, str]]:
    """(emoji without variation selectors, name or keywords) of a file of CLDR."""
    try:
        root: Any = xml.etree.ElementTree.parse(file).getroot()
    except (xml.etree.ElementTree.ParseError, OSError) as error:
        raise DataError(f"{file} cannot be read as annotations of CLDR ({error})") from error
    for node in root.iter("annotation"):
        words = ", ".join(part.strip() for part in (node.text or "").split("|") if part.strip())
        # Arrows stand for "the same as in the language that this one is a variety of".
        if words and "↑" not in words:
            yield node.get("cp", "").replace(VARIATION, ""), words
