"""Networks that read a picture together with its caption: ImageReward and VQAScore."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxt2i.data import t5_words, wordpiece
from jaxt2i.encoders import blip, clip_t5
from jaxt2i.evaluation.reading import Look, Reader, share_of, together
from jaxt2i.evaluation.sets import Set, on_local_devices
from jaxt2i.metrics.score import MetricError

# (rows that could be read, their values), in order.
Found = tuple[np.ndarray, np.ndarray]
BERT, T5 = "google-bert/bert-base-uncased", "google/flan-t5-xl"
# What VQAScore asks, and the answer whose likelihood it is.
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
BEFORE, AFTER = SYSTEM + " USER: ", "\n{question} ASSISTANT: "
QUESTION, ANSWER = 'Does this figure show "{caption}"? Please answer yes or no.', "Yes"
# Questions are filled up to a multiple of so many tokens.
STEP = 32


def vocabulary(weights: str, repo: str, names: Sequence[str], what: str) -> str:
    """The place of a vocabulary: beside a network's weights, else published.

    Args:
      weights: file or folder that was named for the network, the last one of several; "" for none.
      repo: where it is published, as tokenizer.json.
      names: files that may hold it.
      what: reads by it, for the message.

    Raises:
      MetricError: where it cannot be had.
    """
    import huggingface_hub as hub

    place = Path(weights.rpartition(",")[2])
    folder = place if place.is_dir() else place.parent
    if weights and any((folder / name).is_file() for name in names):
        return str(folder)
    try:
        return hub.hf_hub_download(repo, "tokenizer.json")
    except Exception as error:  # of many kinds: no network, no such file, no place
        raise MetricError(
            f"{what} reads captions by the vocabulary of {repo}, which is not on this machine and "
            f"could not be downloaded ({type(error).__name__}): `hf download {repo} tokenizer.json "
            "--local-dir DIR` where there is a network, with the weights in DIR too, then "
            "--weights NETWORK=DIR/FILE"
        ) from error


def read_each(
    pictures: Set,
    reader: Reader,
    look: Look,
    net: str,
    words: Callable[[np.ndarray], tuple[np.ndarray, ...]],
) -> Found:
    """Reads every picture with its words, each process its share.

    Args:
      pictures: with captions.
      reader: of networks.
      look: which network, and how pictures are fed to it.
      net: the name of its net.
      words: rows -> what else the network takes of them, [n, ...] each.
    """
    network = reader.network(look.network)
    split, whole = on_local_devices()
    read = jax.jit(network.reader(net, look.input), out_shardings=whole)
    placed = jax.device_put(network.variables[net], whole)
    rows, values = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for numbers, pixels in pictures.batches(reader.batch, share_of(pictures.count).tolist()):
        fill = reader.batch - len(numbers)
        arrays = (pixels, *words(numbers))
        filled = (np.concatenate([x, np.repeat(x[-1:], fill, 0)]) for x in arrays)
        given = [jax.device_put(x, split) for x in filled]
        reader.verified(look, read, placed, *given)
        rows.append(numbers)
        values.append(np.asarray(read(placed, *given))[: len(numbers)])
    mine, found = np.concatenate(rows), np.concatenate(values)
    order = np.argsort(mine, kind="stable")
    return together(mine[order]), together(found[order])


def rewards(pictures: Set, reader: Reader, look: Look) -> Found:
    """ImageReward of every picture."""
    place = vocabulary(reader.place(look.network), BERT, wordpiece.FILES, "ImageReward")
    tokenizer = wordpiece.BertTokenizer(place, blip.LENGTH)

    def words(numbers: np.ndarray) -> tuple[np.ndarray, ...]:
        return tokenizer([pictures.captions[n] for n in numbers])

    return read_each(pictures, reader, look, "reward", words)


def likelihoods(pictures: Set, reader: Reader, look: Look) -> Found:
    """VQAScore of every picture: the likelihood of "Yes"."""
    place = vocabulary(reader.place(look.network), T5, (t5_words.FILE,), "VQAScore")
    before, after, mask, answer = asked(t5_words.T5Tokenizer(place), pictures.captions)

    def words(numbers: np.ndarray) -> tuple[np.ndarray, ...]:
        count = (len(numbers), 1)
        return np.tile(before, count), after[numbers], mask[numbers], np.tile(answer, count)

    return read_each(pictures, reader, look, "answer", words)


def asked(tokenizer: Callable[[str], list[int]], captions: Sequence[str]) -> tuple[Any, ...]:
    """(tokens before the picture [P], behind it [N, T], which of these are there, the answer [K]).

    Each of the two parts ends in the end's token, as in the published code.
    """
    said = [AFTER.format(question=QUESTION.format(caption=text)) for text in captions]
    ids = [tokenizer(text) for text in said]
    length = -(-max(map(len, ids)) // STEP) * STEP
    after = np.full((len(ids), length), clip_t5.PAD, np.int32)
    for row, found in zip(after, ids, strict=True):
        row[: len(found)] = found
    mask = np.arange(length)[None] < np.array([[len(found)] for found in ids])
    return np.int32(tokenizer(BEFORE)), after, mask, np.int32(tokenizer(ANSWER))


READ: dict[str, Callable[[Set, Reader, Look], Found]] = {
    "image_reward": rewards,
    "vqa_score": likelihoods,
    "vqa_score_xl": likelihoods,
}
