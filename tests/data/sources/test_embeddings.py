"""GAN-INT-CLS' hdf5 files: what is read of them, and what is refused."""

import io

import h5py
import numpy as np
import pytest
from PIL import Image

from jaxt2i.data import pipeline, schema, tokenize
from jaxt2i.data.images import Unreadable
from jaxt2i.data.pictures import Framing
from jaxt2i.data.schema import DataError
from jaxt2i.data.sources.embeddings import Embeddings
from jaxt2i.run.open import SHIPPED

COLOURS = ((200, 10, 10), (10, 200, 10), (10, 10, 200))


def written(path, splits=("train", "valid", "test"), width=4, img=None):
    """A file as the conversion scripts write it."""
    with h5py.File(path, "w") as file:
        for split in splits:
            group = file.create_group(split)
            for number, colour in enumerate(COLOURS):
                content = io.BytesIO()
                Image.new("RGB", (20, 10), colour).save(content, "PNG")
                one = group.create_group(f"{split}_bird_{number}")
                one.create_dataset("name", data=f"bird_{number}")
                one.create_dataset("img", data=np.void(img or content.getvalue()))
                one.create_dataset("embeddings", data=np.full(width, number, np.float64))
                one.create_dataset("class", data="001.Bird")
                text = h5py.special_dtype(vlen=str)
                one.create_dataset("txt", data=f"a bird of colour {number} .\n", dtype=text)
    return str(path)


def test_examples(tmp_path):
    source = Embeddings(written(tmp_path / "birds.hdf5"), "val", Framing(8, "none"), 4)
    assert source.split == "valid"
    assert source.size == 3
    assert source.captions(1) == ["a bird of colour 1 ."]
    example = source.example(2, source.gives)
    assert (example["image"] == COLOURS[2]).all()
    np.testing.assert_array_equal(example["text_vector"], np.full(4, 2, np.float32))
    needs = ("image", "text_vector")
    sizes = schema.Sizes(batch=3, height=8, width=8, text_width=4, tokens=8)
    words = tokenize.make_tokenizer(str(SHIPPED["mini"]), 8)
    batch = pipeline.Pipeline(source, words, sizes, needs, seed=0).batch_at(0)
    assert sorted(batch["text_vector"][:, 0]) == [0, 1, 2]
    for vector, image in zip(batch["text_vector"], batch["image"], strict=True):
        assert (image == COLOURS[int(vector[0])]).all()


def test_a_broken_picture_is_named(tmp_path):
    source = Embeddings(written(tmp_path / "a.hdf5", img=b"no picture"), "train", Framing(8), 4)
    with pytest.raises(Unreadable, match="train_bird_0"):
        source.example(0)


def test_what_cannot_be_read_is_refused(tmp_path):
    birds = written(tmp_path / "birds.hdf5")
    (tmp_path / "text.hdf5").write_text("no hdf5")
    (tmp_path / "icml" / "001.Bird").mkdir(parents=True)
    (tmp_path / "icml" / "001.Bird" / "a.t7").write_bytes(b"")
    with h5py.File(tmp_path / "keras.hdf5", "w") as file:
        file.create_group("train").create_dataset("kernel", data=np.zeros(2))
    for path, width, said in (
        (birds, 1024, r"shape \[4\].*--config\.data\.text_width=4"),
        (str(tmp_path / "text.hdf5"), 4, "not a readable hdf5 file"),
        (str(tmp_path / "none.hdf5"), 4, "no such file"),
        (str(tmp_path / "icml"), 4, r"Torch 7's files \(\.t7\).*convert_cub_to_hd5_script"),
        (str(tmp_path / "a.t7"), 4, r"Torch 7"),
        (str(tmp_path / "keras.hdf5"), 4, "holds no group and not img, embeddings, txt"),
        ("", 4, "which is no file"),
    ):
        with pytest.raises(DataError, match=said):
            Embeddings(path, "train", Framing(8), width)
