"""Image files of any kind to RGB, and the reasons why one cannot be used."""

import contextlib
import functools
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg

from jaxt2i.data.schema import DataError

# Pillow refuses more than this by itself.
MAX_PIXELS = 178_956_970
# What Pillow may decode; others, PostScript above all, can start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif", ".heic", ".heif", ".hif"),
)
WHITE = (255, 255, 255)
JPEG = b"\xff\xd8\xff"
# Its markers without a length, and those of the pixels and of what programs add.
BARE, SCAN, ADDED = (0x01, *range(0xD0, 0xDA)), 0xDA, 0xE1
# What the part that may tell the orientation begins with.
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
# EXIF orientation to the turn that undoes it.
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
# Why an image cannot be used.
EMPTY = "empty file"
NOT_IMAGE = "not an image"
CORRUPT = "truncated or corrupt"
BOMB = "too many pixels"
TINY = "too small"
FORMAT = "unsupported pixel format"
SYSTEM = "cannot be read"
NO_HEIC = "HEIC, which needs pillow-heif (pip install pillow-heif); or convert it to JPEG"
NO_AVIF = "AVIF, which this build of Pillow does not read; convert it to JPEG"
# Endings of pictures that are not read.
UNREAD = {
    suffix: f"{kind}, which is not read; convert it to JPEG"
    for suffix, kind in {
        ".jxl": "JPEG XL",
        ".jp2": "JPEG 2000",
        ".svg": "SVG",
        ".psd": "Photoshop file",
        **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw"), "raw photograph"),
    }.items()
}
# Brands of the container that both share: AVIF's own, and all that phones write for HEIC.
BRANDS = dict.fromkeys((b"avif", b"avis"), ("AVIF", NO_AVIF)) | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), ("HEIF", NO_HEIC)
)


class Unreadable(DataError):
    """A file cannot be used; `name` says which, `reason` is one of this module's constants."""

    def __init__(self, name: str | os.PathLike, reason: str):
        super().__init__(f"{os.fspath(name)}: {reason}")
        self.name, self.reason = os.fspath(name), reason


def read_rgb(
    file: str | os.PathLike | bytes,
    *,
    name: str = "",
    min_side: int = 1,
    max_pixels: int = MAX_PIXELS,
    upright: bool = True,
    background: tuple[int, int, int] = WHITE,
):
    """Decodes an image as a viewer shows it: upright, its first frame.

    Args:
      file: a file of any of `FORMATS`, or what it holds. Colour profiles are ignored.
      name: what errors call it; needed with bytes.
      min_side: least width and height, pixels.
      max_pixels: most width x height; checked against the header, before decoding.
      upright: turn it as its EXIF tag says; the data sets' own boxes ignore the tag.
      background: red, green and blue behind transparent parts, 0..255.

    Returns:
      PIL image in mode RGB.

    Raises:
      Unreadable: when it cannot be used.
    """
    from PIL import Image

    limits = {"min_side": min_side, "max_pixels": max_pixels, "upright": upright}
    rgb, _ = open_rgb(file, name=name, background=background, **limits)
    return Image.fromarray(rgb) if isinstance(rgb, np.ndarray) else rgb


def open_rgb(
    file: str | os.PathLike | bytes,
    need: Callable[[tuple[int, int]], tuple[int, int] | np.ndarray | None] | None = None,
    *,
    name: str = "",
    background: tuple[int, int, int] = WHITE,
    **limits,
):
    """`read_rgb` for one who may want less than all pixels.

    Args:
      file: see `read_rgb`.
      need: width and height of the picture -> those that are enough; a JPEG is then decoded at a
        half, a quarter or an eighth of its size where that is still as large, which takes a
        fraction of the time. None: every pixel is wanted. Where it returns None, a JPEG is wanted
        as it is; where it returns an array of all pixels, a JPEG is decoded into that.
      name: see `read_rgb`.
      background: see `read_rgb`.
      limits: the other arguments of `read_rgb`.

    Returns:
      (PIL image in mode RGB or uint8 [H, W, 3], whichever is there without a copy, or bytes; width
      and height of the whole picture).

    Raises:
      Unreadable: when it cannot be used.
    """
    name = name or os.fspath(file)
    content = _content(file, name)
    fast = _fast_jpeg(content, need, **limits)
    if fast is not None:
        return fast
    rgb = _any_format(content, name, functools.partial(to_rgb, background=background), **limits)
    return rgb, rgb.size


def read_numbers(file: str | os.PathLike | bytes, *, name: str = "") -> np.ndarray:
    """What each pixel of a grey image or one with a palette holds, not what it looks like.

    Args:
      file: see `read_rgb`; it is turned as its EXIF tag says.
      name: see `read_rgb`.

    Returns:
      int32 [H, W].

    Raises:
      Unreadable: when it cannot be used.
    """
    name = name or os.fspath(file)
    found = _any_format(_content(file, name), name, _numbered)
    return np.asarray(found).astype(np.int32)


def _content(file: str | os.PathLike | bytes, name: str) -> bytes:
    try:
        content = file if isinstance(file, bytes) else Path(file).read_bytes()
    except OSError as error:
        raise Unreadable(name, SYSTEM) from error
    if not content:
        raise Unreadable(name, EMPTY)
    return content


def _numbered(image):
    """The image, where a pixel is one whole number."""
    return image if image.mode in ("1", "L", "P") or image.mode.startswith("I") else None


def _fast_jpeg(content: bytes, need, *, min_side=1, max_pixels=MAX_PIXELS, upright=True):
    """The common case without Pillow: a JPEG in colour or grey that is upright already.

    The same library decodes it to the same pixels, a quarter faster. None: not that case, or
    something is wrong with it, which Pillow then says.
    """
    if not content.startswith(JPEG) or (upright and _may_be_turned(content)):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if min(width, height) < min_side or width * height > max_pixels:
            return None
        if colours not in ("YCbCr", "Gray"):
            return None
        least = {}
        if need is not None:
            wanted = need((width, height))
            if wanted is None:
                return content, (width, height)
            if isinstance(wanted, np.ndarray):
                simplejpeg.decode_jpeg(content, "RGB", buffer=wanted)
                return wanted, (width, height)
            least = {"min_width": wanted[0], "min_height": wanted[1], "min_factor": 2}
        return simplejpeg.decode_jpeg(content, "RGB", **least), (width, height)
    except ValueError:
        return None


def _may_be_turned(content: bytes) -> bool:
    """Whether Pillow would find an orientation in a JPEG: before the pixels, however far in.

    True too where the way there is odd; Pillow then says what to make of it.
    """
    at = 2
    while at + 4 <= len(content):
        marker = content[at + 1]
        if content[at] != 0xFF or marker == 0:
            return True
        if marker == SCAN:
            return False
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in BARE:
            at += 2
            continue
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        part = content[at + 4 : at + 2 + length]
        if length < 2 or len(part) < length - 2:
            return True
        if marker == ADDED and (
            part.startswith(EXIF) or (part.startswith(XMP) and b"Orientation" in part)
        ):
            return True
        at += 2 + length
    return True


def _any_format(
    content: bytes, name: str, convert: Callable, *, min_side=1, max_pixels=MAX_PIXELS, upright=True
):
    """Decodes what Pillow can, to RGB or by another rule."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=formats()) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise Unreadable(name, BOMB)
            if min(width, height) < min_side:
                raise Unreadable(name, TINY)
            image.load()
            rgb = convert(image)
            if rgb is None:
                raise Unreadable(name, FORMAT)
            turn = UPRIGHT.get(orientation(image)) if upright else None
        return rgb.transpose(Image.Transpose[turn]) if turn else rgb
    except Unreadable:
        raise
    except Image.DecompressionBombError:
        raise Unreadable(name, BOMB) from None
    except UnidentifiedImageError:
        brand = content[8:12] if content[4:8] == b"ftyp" else b""
        kind, reason = BRANDS.get(brand, ("", NOT_IMAGE))
        raise Unreadable(name, CORRUPT if kind in formats() else reason) from None
    except OSError as error:  # without a number it comes from a decoder
        raise Unreadable(name, SYSTEM if error.errno else CORRUPT) from error
    except Exception as error:  # malformed bytes raise nearly anything in the decoders
        raise Unreadable(name, CORRUPT) from error


@functools.cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this build of Pillow can decode."""
    from PIL import Image

    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def orientation(image) -> int:
    """EXIF orientation, 1 to 8; 1 where the tag is missing or unreadable, as viewers do."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # a damaged tag block raises nearly anything and spoils no pixel
        return 1


def to_rgb(image, background: tuple[int, int, int] = WHITE):
    """PIL image in any mode to RGB, on a background; None: no rule for the mode."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits a pixel, some of it in 32-bit words
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            return None
        return Image.fromarray(np.round(grey / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "LAB"):  # no agreed range; needs a colour profile
        return None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        behind = Image.new("RGBA", rgba.size, background)
        return Image.alpha_composite(behind, rgba).convert("RGB")
    return image.convert("RGB")
