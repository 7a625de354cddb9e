"""Every reader of files that people give, with valid files for it."""

import argparse
import hashlib
import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from jaxt2i.configs.common import base
from PIL import Image
from safetensors.numpy import save_file

from jaxt2i import sample
from jaxt2i.convert import files as weights
from jaxt2i.data import conditions, images, schema
from jaxt2i.data.images import Unreadable
from jaxt2i.data.pictures import Framing
from jaxt2i.data.sources import make_source
from jaxt2i.data.sources.folders import Folder
from jaxt2i.encoders import perception, pretrained
from jaxt2i.metrics import statistics
from jaxt2i.run import facts, settings
from jaxt2i.run import open as runs
from jaxt2i.systems.obj_gan_boxes import layouts
from jaxt2i.systems.obj_gan_boxes import method as boxes
from tests.data import shards
from tests.fuzz.engine import Case, Outcome

NAMES = ("ant", "bee", "cow")
TEXTS = {"ant": "a small ant", "bee": "a bee, “yellow” and black", "cow": 'a cow called "Emma"'}


def picture(shade: int, form: str = "PNG", **how) -> bytes:
    out = io.BytesIO()
    images.formats()
    noise = np.random.RandomState(shade).randint(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(noise).save(out, form, **how)
    return out.getvalue()


def digest(array) -> int:
    return int(hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12], 16)


# --- Pictures ----------------------------------------------------------------------------------

FORMS = {
    "a.jpg": ("JPEG", {"quality": 80}),
    "b.jpg": ("JPEG", {"progressive": True}),
    "c.png": ("PNG", {}),
    "d.webp": ("WEBP", {}),
    "e.gif": ("GIF", {}),
    "f.bmp": ("BMP", {}),
    "g.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "h.avif": ("AVIF", {}),
    "i.heic": ("HEIF", {}),
    "j.ppm": ("PPM", {}),
}


def write_pictures(folder: Path) -> None:
    for name, (form, how) in FORMS.items():
        (folder / name).write_bytes(picture(1, form, **how))
    rgba = Image.fromarray(np.random.RandomState(2).randint(0, 256, (20, 24, 4), np.uint8))
    rgba.save(folder / "k.png")
    rgba.convert("P").save(folder / "l.png", transparency=3)
    Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 99).save(folder / "m.png")


def read_pictures(folder: Path) -> Outcome:
    used, counted = {}, 0
    for name in (*FORMS, "k.png", "l.png", "m.png"):
        try:
            rgb = images.read_rgb(folder / name)
        except Unreadable:
            counted += 1
            continue
        assert rgb.mode == "RGB"
        pixels = np.asarray(rgb)
        assert pixels.shape == (*rgb.size[::-1], 3)
        used[name] = digest(pixels)
    return Outcome(used, counted)


# --- Folders -----------------------------------------------------------------------------------


def pngs(folder: Path) -> None:
    for i, name in enumerate(NAMES):
        (folder / f"{name}.png").write_bytes(picture(i))


def write_sidecars(folder: Path) -> None:
    pngs(folder)
    for name in NAMES:
        (folder / f"{name}.txt").write_text(f"{TEXTS[name]}\nanother {name}\nde.utf8=Ein Tier\n")


def write_jsonl(folder: Path) -> None:
    pngs(folder)
    rows = [json.dumps({"file_name": f"{n}.png", "text": TEXTS[n]}) for n in NAMES]
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")


def write_csv(folder: Path) -> None:
    pngs(folder)
    rows = [f'{n}.png,"{TEXTS[n].replace(chr(34), chr(34) * 2)}"' for n in NAMES]
    (folder / "metadata.csv").write_text("\n".join(["file_name,text", *rows]) + "\n")


PLAIN = {"compression": "none", "use_dictionary": False}


def write_parquet(folder: Path) -> None:
    pngs(folder)
    rows = {"file_name": [f"{n}.png" for n in NAMES], "text": [TEXTS[n] for n in NAMES]}
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "metadata.parquet", **PLAIN)


def table():
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    cells = [{"bytes": picture(i), "path": None} for i in range(len(NAMES))]
    texts = [TEXTS[n] for n in NAMES]
    return pyarrow.table({"image": pyarrow.array(cells, kind), "text": pyarrow.array(texts)})


def write_table(folder: Path) -> None:
    pyarrow.parquet.write_table(table(), folder / "train.parquet", row_group_size=2, **PLAIN)


def write_arrow(folder: Path) -> None:
    with (
        pyarrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, table().schema) as writer,
    ):
        writer.write_table(table(), max_chunksize=2)
    (folder / "state.json").write_text("{}")


def write_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for i, name in enumerate(NAMES):
            archive.writestr(f"{name}.png", picture(i))
            archive.writestr(f"{name}.txt", TEXTS[name])


def read_folder(folder: Path) -> Outcome:
    source = Folder(folder, Framing(16), report=folder.with_suffix(".report"))
    os.unlink(folder.with_suffix(".report"))
    report = source.report
    assert report["usable"] == source.size
    assert report["images"] == source.size + sum(report["unused_images"].values())
    used = {}
    for i in range(source.size):
        captions = source.captions(i)
        assert captions
        assert all(text.strip() for text in captions)
        used[source.name(i)] = (tuple(captions), digest(source.example(i)["image"]))
    return Outcome(used, sum(report["skipped"].values()))


def of_its_name(file: str, example: str) -> bool:
    """Whether a file lies beside an example, or holds many."""
    return Path(file).stem == Path(example).stem or not file.endswith((".png", ".txt"))


# --- Collections of the web --------------------------------------------------------------------


def rows_of(shard: int) -> list[dict]:
    return [shards.row(shard, i) for i in range(4)]


def write_tar(folder: Path) -> None:
    shards.write_tar(folder / "00000.tar", rows_of(0), parquet=False)


def write_tar_with_parquet(folder: Path) -> None:
    shards.write_tar(folder / "00000.tar", rows_of(0))


def write_tfrecord(folder: Path) -> None:
    shards.write_tfrecord(folder / "00000.tfrecord", rows_of(0), parquet=False)


def read_web(folder: Path) -> Outcome:
    data = base().data
    data.update(source="webdataset", path=str(folder))
    source = make_source(data, 16, "train")
    counted = sum(source.report["collections"][0]["skipped"].values())
    used = {}
    for i in range(source.size):
        try:
            value = (tuple(source.captions(i)), digest(source.example(i)["image"]))
            used[source.name(i).rpartition(":")[2]] = value
        except Unreadable:
            counted += 1
    return Outcome(used, counted)


# --- Weights and statistics --------------------------------------------------------------------


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.RandomState(0)
    return {"g.weight": rng.randn(4, 3).astype(np.float32), "g.bias": rng.randn(4).astype("f4")}


def write_npz(folder: Path) -> None:
    x = np.random.RandomState(0).randn(9, 3)
    np.savez(folder / "fid.npz", mu=x.mean(0), sigma=np.cov(x.T))
    np.savez_compressed(folder / "net.npz", **arrays())


def read_npz(folder: Path) -> Outcome:
    fid = statistics.load(folder / "fid.npz").gaussian
    moments = {"mu": digest(fid.mean), "sigma": digest(fid.covariance)}
    return Outcome({**moments, **net(folder / "net.npz")})


def net(file: Path) -> dict:
    found = weights.read_all(file)
    return {name: (digest(x), x.shape) for name, x in found.tensors.items()}


def program(protocol: int = 2) -> bytes:
    """What torch.save pickles of `arrays`, written by hand: names of torch, and no torch."""
    out = [pickle.PROTO + bytes([protocol]), pickle.EMPTY_DICT, pickle.MARK]
    for key, (name, x) in enumerate(arrays().items()):
        out += [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", pickle.MARK, pickle.MARK]
        out += [text("storage"), b"ctorch\nFloatStorage\n", text(str(key)), text("cpu")]
        out += [number(x.size), pickle.TUPLE, pickle.BINPERSID, number(0)]
        for sizes in (x.shape, [s // 4 for s in x.strides]):
            out += [pickle.MARK, *map(number, sizes), pickle.TUPLE]
        out += [pickle.NEWFALSE, pickle.EMPTY_DICT, pickle.TUPLE, pickle.REDUCE]
    return b"".join([*out, pickle.SETITEMS, pickle.STOP])


def text(said: str) -> bytes:
    return pickle.BINUNICODE + len(said).to_bytes(4, "little") + said.encode()


def number(value: int) -> bytes:
    return pickle.BININT + int(value).to_bytes(4, "little", signed=True)


def write_pth(folder: Path) -> None:
    with zipfile.ZipFile(folder / "net.pth", "w") as archive:
        archive.writestr("archive/data.pkl", program())
        for key, x in enumerate(arrays().values()):
            archive.writestr(f"archive/data/{key}", x.tobytes())


MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def write_legacy(folder: Path) -> None:
    system = {"protocol_version": PROTOCOL, "little_endian": True}
    out = [pickle.dumps(x, 2) for x in (MAGIC, PROTOCOL, system)]
    out += [program(), pickle.dumps([str(i) for i in range(len(arrays()))], 2)]
    out += [x.size.to_bytes(8, "little") + x.tobytes() for x in arrays().values()]
    (folder / "net.pth").write_bytes(b"".join(out))


def write_safetensors(folder: Path) -> None:
    save_file(arrays(), folder / "net.safetensors")
    pretrained.save_variables(folder / "own.safetensors", {"params": {"a": {"b": np.ones(3)}}})


def read_safetensors(folder: Path) -> Outcome:
    own = pretrained.load_variables(folder / "own.safetensors")
    return Outcome({**net(folder / "net.safetensors"), "own": str(own)})


# --- What command lines are given --------------------------------------------------------------


def write_prompts(folder: Path) -> None:
    (folder / "prompts.txt").write_text("a red bird\nein grüner Vogel\n\n  一只鸟\n" * 2)


def read_prompts(folder: Path) -> Outcome:
    args = argparse.Namespace(prompts_file=folder / "prompts.txt", prompts=None, suite="")
    prompts = sample.read_prompts(args)
    content = args.prompts_file.read_bytes()
    held = [content.decode(e, "ignore") for e in ("utf-8-sig", "utf-16", "utf-32")]
    counts = [sum(bool(line.strip()) for line in re.split(r"\r\n|\r|\n", x)) for x in held]
    assert len(prompts) in counts, "a line is lost"
    return Outcome({f"{prompt} {i}": prompt for i, prompt in enumerate(prompts)})


ROWS = (
    {"prompt": "a cat", "seed": 3, "objects": [{"label": "cat", "box": [0.1, 0.2, 0.3, 0.4]}]},
    {"prompt": "ein Hund", "negative": "unscharf", "label": 1, "controls": {"psi": 0.5}},
    {"prompt": "two", "objects": [], "image": "a.png", "units": "pixels", "size": [24, 20]},
)


def write_rows(folder: Path) -> None:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    (folder / "rows.json").write_text(json.dumps(ROWS, indent=1))
    (folder / "a.png").write_bytes(picture(1))


def read_rows(folder: Path) -> Outcome:
    used = {}
    sizes = schema.Sizes(batch=1, height=16, width=16, tokens=4, objects=3)
    words = conditions.Conditions(
        tokenizer=lambda texts: (np.zeros((len(texts), 4), np.int32), np.ones((1, 4), bool)),
        sizes=sizes,
        class_names=("cat", "dog"),
        root=folder,
    )
    for name in ("rows.jsonl", "rows.json"):
        for i, row in enumerate(conditions.read_file(folder / name)):
            needs = ["tokens", "negative_tokens"]
            needs += [k for k in ("boxes", "box_label") if "objects" in row]
            needs += [k for k in ("label", "image") if k in row]
            found = words.arrays(row, needs)
            used[f"{name} {i}"] = tuple(digest(found[k]) for k in needs)
    return Outcome(used)


def write_configs(folder: Path) -> None:
    config = settings.preset("configs/df_gan.py", "tiny")
    settings.write_config(folder, config, "a test")
    (folder / "command.txt").unlink()
    facts.write(folder, facts.Facts({"label": ("a", "b")}, {"train": 3}), "mini")


def read_configs(folder: Path) -> Outcome:
    config, known = settings.read_config(folder), facts.read(folder)
    runs.open_run(config, known)
    return Outcome({"config": 1})


def write_card(folder: Path) -> None:
    card = (perception.MINI / "card.json").read_text()
    (folder / "card.json").write_text(card)


def read_card(folder: Path) -> Outcome:
    perception.make("mini", clip_weights=str(folder))
    return Outcome({"card": 1})


def write_config_file(folder: Path) -> None:
    (folder / "own.py").write_text(Path("configs/damsm.py").read_text())


def read_config_file(folder: Path) -> Outcome:
    settings.configuration(f"{folder / 'own.py'}:tiny", [])
    return Outcome({"config": 1})


LAYOUTS = {
    "mean": [128.0, 130.5, 60.0, 1.2],
    "deviation": [60.0, 55.0, 40.0, 0.5],
    "captions": 50,
    **{"counts": [20, 3, 0], "often": [1.5, 1, 1], "spread": [0.5, 0, 0]},
}
LABELS = {"<pad>": 0, "<sos>": 1, "<eos>": 2, "<unk>": 3, "44": 4, "1": 5, "90": 6}


def write_layouts(folder: Path) -> None:
    (folder / "facts.json").write_text(json.dumps({"statistics": {"layouts": LAYOUTS}}))
    (folder / "labels.json").write_text(json.dumps(LABELS))
    (folder / "labels.pt").write_bytes(pickle.dumps(LABELS))


def read_layouts(folder: Path) -> Outcome:
    model = boxes.Model(classes=3, statistics=str(folder / "facts.json"))
    boxes.statistics_of(model, {})
    for name in ("labels.json", "labels.pt"):
        layouts.class_numbers(boxes.vocabulary(str(folder / name)), 3)
    return Outcome({"layouts": 1})


CASES = (
    Case("pictures", 200, write_pictures, read_pictures, lambda file, example: file == example),
    Case("sidecars", 70, write_sidecars, read_folder, of_its_name),
    Case("csv", 80, write_csv, read_folder, of_its_name, hidden=(".png",)),
    Case("jsonl", 80, write_jsonl, read_folder, of_its_name, hidden=(".png",)),
    Case("parquet", 40, write_parquet, read_folder, of_its_name, hidden=(".png",), packed=True),
    Case("table", 40, write_table, read_folder, packed=True),
    Case("arrow", 40, write_arrow, read_folder, packed=True),
    Case("zip", 40, write_zip, read_folder, packed=True),
    Case("tar", 60, write_tar, read_web, packed=True),
    Case("tar_parquet", 40, write_tar_with_parquet, read_web, packed=True),
    Case("tfrecord", 40, write_tfrecord, read_web, packed=True),
    Case("npz", 40, write_npz, read_npz),
    Case("pth", 40, write_pth, lambda folder: Outcome(net(folder / "net.pth"))),
    Case("legacy", 30, write_legacy, lambda folder: Outcome(net(folder / "net.pth")), strict=False),
    Case("safetensors", 30, write_safetensors, read_safetensors, strict=False),
    Case("prompts", 40, write_prompts, read_prompts, strict=False),
    Case("rows", 50, write_rows, read_rows, strict=False),
    Case("configs", 30, write_configs, read_configs, strict=False),
    Case("card", 20, write_card, read_card, strict=False),
    Case("layouts", 20, write_layouts, read_layouts, strict=False),
    Case("config_file", 20, write_config_file, read_config_file, strict=False),
)
