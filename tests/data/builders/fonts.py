"""A small font of colour bitmaps, made on the spot."""

import io
from pathlib import Path

from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import newTable
from fontTools.ttLib.tables import C_B_D_T_, E_B_L_C_
from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
from PIL import Image

SIDE, HEIGHT = 20, 16


def png(colour: tuple[int, int, int]) -> bytes:
    """A disc's bounding square: half of it transparent."""
    picture = Image.new("RGBA", (SIDE, HEIGHT), (0, 0, 0, 0))
    picture.paste((*colour, 255), (0, 0, SIDE // 2, HEIGHT))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def write(file: Path, pictures: dict[str, bytes], bitmaps: bool = True) -> Path:
    """Writes a font that draws each text as its picture, sequences by ligatures."""
    single = {text[0]: text for text in pictures if len(text) == 1}
    codes = sorted({c for text in pictures for c in text})
    names = {c: f"u{ord(c):X}" for c in codes}
    whole = {text: "_".join(names[c] for c in text) for text in pictures}
    order = [".notdef", *names.values(), *(n for t, n in whole.items() if len(t) > 1)]
    builder = FontBuilder(1024, isTTF=False)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap({ord(c): name for c, name in names.items()})
    builder.setupHorizontalMetrics(dict.fromkeys(order, (1024, 0)))
    builder.setupHorizontalHeader()
    builder.setupNameTable({"familyName": "Small", "version": "Version 0.1"})
    builder.setupPost()
    font = builder.font
    rules = "".join(
        f"sub {' '.join(names[c] for c in text)} by {name};"
        for text, name in whole.items()
        if len(text) > 1
    )
    if rules:
        addOpenTypeFeaturesFromString(font, f"feature ccmp {{ {rules} }} ccmp;")
    if bitmaps:
        _bitmaps(font, {whole[text]: data for text, data in pictures.items()})
    assert set(single) <= set(codes)
    font.save(file)
    return file


def _bitmaps(font, pictures: dict[str, bytes]) -> None:
    """The tables CBLC and CBDT with one size."""
    order = sorted(pictures, key=font.getGlyphID)
    index = E_B_L_C_.eblc_index_sub_table_1(b"", font)
    index.indexFormat, index.imageFormat = 1, 17
    index.names = order
    index.firstGlyphIndex, index.lastGlyphIndex = map(font.getGlyphID, (order[0], order[-1]))
    size = E_B_L_C_.BitmapSizeTable()
    size.ppemX = size.ppemY = HEIGHT
    size.colorRef, size.flags, size.bitDepth = 0, 1, 32
    size.hori, size.vert = E_B_L_C_.SbitLineMetrics(), E_B_L_C_.SbitLineMetrics()
    for line in (size.hori, size.vert):
        for field in ("ascender", "descender", "widthMax", "caretSlopeNumerator",
                      "caretSlopeDenominator", "caretOffset", "minOriginSB", "minAdvanceSB",
                      "maxBeforeBL", "minAfterBL", "pad1", "pad2"):  # fmt: skip
            setattr(line, field, 0)
    strike = E_B_L_C_.Strike()
    strike.bitmapSizeTable, strike.indexSubTables = size, [index]
    where, data = newTable("CBLC"), newTable("CBDT")
    where.version = data.version = 3.0
    where.strikes = [strike]
    glyphs = {}
    for name in order:
        glyph = glyphs[name] = C_B_D_T_.cbdt_bitmap_format_17(b"", font)
        glyph.metrics = SmallGlyphMetrics()
        metrics = {"height": HEIGHT, "width": SIDE, "BearingX": 0, "BearingY": 0, "Advance": SIDE}
        for field, value in metrics.items():
            setattr(glyph.metrics, field, value)
        glyph.imageData = pictures[name]
    data.strikeData = [glyphs]
    font["CBLC"], font["CBDT"] = where, data
