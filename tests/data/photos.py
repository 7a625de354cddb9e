"""A folder of real photographs: those that scikit-image, scikit-learn and matplotlib ship."""

import importlib.util
import json
import shutil
from pathlib import Path

# Name: (file inside its package, captions).
PHOTOS = {
    "astronaut": (
        "skimage/data/astronaut.png",
        ["a smiling woman in an orange space suit", "an astronaut in front of a flag"],
    ),
    "bricks": ("skimage/data/brick.png", ["a grey brick pavement in rows"]),
    "cat": (
        "skimage/data/chelsea.png",
        ["a close photo of a brown tabby cat", "a cat with green eyes looks to the side"],
    ),
    "coffee": (
        "skimage/data/coffee.png",
        ["a red cup of coffee on a wooden table", "an espresso with a spoon on a red saucer"],
    ),
    "coins": ("skimage/data/coins.png", ["four rows of old coins on a dark ground"]),
    "flower": (
        "sklearn/datasets/images/flower.jpg",
        ["an orange dahlia against dark green leaves", "a round orange flower in full bloom"],
    ),
    "galaxies": ("skimage/data/hubble_deep_field.jpg", ["many small galaxies in a black sky"]),
    "grass": ("skimage/data/grass.png", ["a grey photo of long grass"]),
    "gravel": ("skimage/data/gravel.png", ["a grey photo of gravel"]),
    "horse": ("skimage/data/horse.png", ["the black outline of a standing horse"]),
    "moon": ("skimage/data/moon.png", ["craters on the grey surface of the moon"]),
    "motorcycle": (
        "skimage/data/motorcycle_left.png",
        ["a red motorcycle in a garage", "a motorbike parked in front of shelves"],
    ),
    "officer": (
        "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
        ["an officer in a dark uniform before a flag", "a portrait of a woman with glasses"],
    ),
    "pagoda": (
        "sklearn/datasets/images/china.jpg",
        ["a red and green pagoda between trees", "a chinese temple above a lake"],
    ),
    "photographer": ("skimage/data/camera.png", ["a man in a dark coat behind a camera"]),
    "present": (
        "matplotlib/mpl-data/sample_data/Minduka_Present_Blue_Pack.png",
        ["a blue present with a silver ribbon"],
    ),
    "retina": ("skimage/data/retina.jpg", ["a red retina with fine blood vessels"]),
    "rocket": (
        "skimage/data/rocket.jpg",
        ["a white rocket on its pad at dusk", "a rocket between two towers and bright lamps"],
    ),
}


def photo(name: str) -> Path:
    """The installed file of a photograph."""
    package, _, inside = PHOTOS[name][0].partition("/")
    return Path(importlib.util.find_spec(package).origin).parent / inside


def make_folder(folder: Path, layout: str = "text", names: tuple[str, ...] = ()) -> list[str]:
    """Fills a folder with photographs and captions.

    Args:
      folder: is made if need be.
      layout: "text" (a.jpg and a.txt), "jsonl" or "csv" (metadata files).
      names: of `PHOTOS`; none: all of them.

    Returns:
      file names of the images, sorted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, rows = [], []
    for name in names or tuple(PHOTOS):
        source, captions = photo(name), PHOTOS[name][1]
        file = name + source.suffix
        shutil.copyfile(source, folder / file)
        files.append(file)
        rows.append((file, captions))
        if layout == "text":
            (folder / f"{name}.txt").write_text("\n".join(captions) + "\n")
    if layout == "jsonl":
        lines = [json.dumps({"file_name": file, "text": captions}) for file, captions in rows]
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    if layout == "csv":
        lines = [f'{file},"{caption}"' for file, captions in rows for caption in captions]
        (folder / "metadata.csv").write_text("\n".join(["file_name,text", *lines]) + "\n")
    return sorted(files)
