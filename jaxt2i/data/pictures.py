"""Pictures to squares of the wanted size."""

import numpy as np

# Ways to resize, all with antialiasing, by Pillow's names; and which part of a picture is shown.
RESIZE = {"lanczos": "LANCZOS", "area": "BOX", "bilinear": "BILINEAR", "bicubic": "BICUBIC"}
CROPS = ("centre", "none", "random")


def center_crop_resize(
    image, resolution: int, resize: str = "lanczos", crop: str = "centre"
) -> np.ndarray:
    """Centre square, then a resize with antialiasing, as StyleGAN-T prepares its data.

    Args:
      image: uint8 [H, W, 3], or a PIL image in mode RGB.
      resolution: side of the result, pixels.
      resize: a key of `RESIZE`.
      crop: "centre" cuts the largest square, offsets rounded down; "none" keeps the whole image
        and not its aspect.

    Returns:
      uint8 [resolution, resolution, 3].
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if crop == "centre":
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    method = Image.Resampling[RESIZE[resize]]
    return np.asarray(image.resize((resolution, resolution), method))


def around_box(image, box: tuple[float, float, float, float]):
    """What surrounds an object: a square of 1.5 times its box's longer side, cut at the border.

    Args:
      image: a PIL image.
      box: x, y, width, height in pixels.

    Source: the preparation of CUB-200-2011 in StackGAN, which AttnGAN, DM-GAN and DF-GAN share.
    """
    x, y, w, h = (int(v) for v in box)
    reach = int(max(w, h) * 0.75)
    across, down = int((2 * x + w) / 2), int((2 * y + h) / 2)
    left, top = max(0, across - reach), max(0, down - reach)
    right, bottom = min(image.width, across + reach), min(image.height, down + reach)
    return image.crop((left, top, right, bottom))


def random_view(
    image, resolution: int, resize: str, view: tuple[float, float, float]
) -> np.ndarray:
    """The shorter side to 76/64 of the resolution, a crop of it, perhaps mirrored.

    Args:
      image: a PIL image in mode RGB.
      resolution: side of the result, pixels.
      resize: a key of `RESIZE`.
      view: numbers in [0, 1): where the crop lies across and down, and below 1/2 a mirror image.

    Returns:
      uint8 [resolution, resolution, 3].

    Source: the preparation of StackGAN, which AttnGAN, DF-GAN and GALIP share.
    """
    from PIL import Image

    # The longer side is rounded down, as torchvision does.
    size = [n * int(resolution * 76 / 64) // min(image.size) for n in image.size]
    image = image.resize(size, Image.Resampling[RESIZE[resize]])
    left, top = (int(u * (n - resolution + 1)) for u, n in zip(view, size, strict=False))
    out = np.asarray(image.crop((left, top, left + resolution, top + resolution)))
    return out[:, ::-1] if view[2] < 0.5 else out
