"""Captions as word ids: the vocabulary of the attentional family (AttnGAN, DM-GAN, DF-GAN, ...)."""

import json
import pickle
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxt2i.convert import unpickle
from jaxt2i.data.schema import DataError

END = "<end>"
PICKLES = (".pickle", ".pkl")


def words_of(caption: str) -> list[str]:
    """The words of a caption: lower case, runs of letters, digits and "_", ASCII alone.

    Source: taoxugit/AttnGAN code/datasets.py (load_captions).
    """
    runs = re.findall(r"\w+", caption.replace("\ufffd\ufffd", " ").lower())
    plain = (run.encode("ascii", "ignore").decode() for run in runs)
    return [word for word in plain if word]


class WordTokenizer:
    """Captions to word ids, without a start token; id 0 is "<end>" and pads.

    Words that the vocabulary does not know are left out. Of a caption with more than `length`
    words, a random subset of that size is kept in order, as the original does; which one follows
    from the caption itself, so that the same caption always gives the same ids.

    Attributes:
      length: padded length of a caption, T.
      vocab_size: ids are below it.
      eot: 0.
      words: the words by id.
    """

    eot, kind = 0, "words"

    def __init__(self, words: Sequence[str], length: int):
        """Args:
          words: by id, "<end>" first.
          length: T.

        Raises:
          DataError: for a vocabulary that is not one.
        """
        if not words or words[0] != END:
            raise DataError(f"a vocabulary starts with {END!r} as word 0, this one does not")
        if length < 1:
            raise DataError(f"captions of {length} words; set --config.data.tokens to 1 or more")
        self.words, self.length, self.vocab_size = tuple(words), length, len(words)
        self._ids = {word: i for i, word in enumerate(words) if i}

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes captions.

        Returns:
          (tokens int32 [n, T], mask bool [n, T], True at words; a caption of which no word is
          known is one "<end>").
        """
        tokens = np.zeros((len(captions), self.length), np.int32)
        mask = np.zeros((len(captions), self.length), bool)
        for row, caption in enumerate(captions):
            ids = [self._ids[w] for w in words_of(caption) if w in self._ids] or [self.eot]
            if len(ids) > self.length:
                ids = [ids[i] for i in self._subset(caption, len(ids))]
            tokens[row, : len(ids)] = ids
            mask[row, : len(ids)] = True
        return tokens, mask

    def left_out(self, caption: str) -> str:
        """What of a caption its ids do not hold, as the end of a sentence; "": nothing."""
        found = words_of(caption)
        strange = [word for word in dict.fromkeys(found) if word not in self._ids]
        count = sum(word in self._ids for word in found)
        if not count:
            return "no word is known: all such captions are the same to this run"
        if count > self.length:
            return f"{count} words are known and {self.length} of them are read, as many as can be"
        if strange:
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            return f"the vocabulary does not know {', '.join(map(repr, strange[:5]))}{more}"
        return ""

    def _subset(self, caption: str, count: int) -> np.ndarray:
        seed = zlib.crc32(caption.encode("utf-8", "replace"))
        order = np.random.RandomState(seed).permutation(count)
        return np.sort(order[: self.length])

    @classmethod
    def build(
        cls, captions: Iterable[str], length: int, least: int = 1, most: int = 0
    ) -> "WordTokenizer":
        """The vocabulary of captions: every word that occurs `least` times, in order of letters.

        Args:
          captions: texts.
          length: T.
          least: how often a word must occur.
          most: ids at most, of the most frequent words; 0: any number.
        """
        counts: dict[str, int] = {}
        for caption in captions:
            for word in words_of(caption):
                counts[word] = counts.get(word, 0) + 1
        kept = [word for word, n in counts.items() if n >= least]
        if most:
            kept = sorted(kept, key=lambda word: (-counts[word], word))[: most - 1]
        return cls([END, *sorted(kept)], length)

    def save(self, file: str | Path) -> None:
        """Writes the vocabulary as JSON."""
        Path(file).write_text(json.dumps({"words": list(self.words)}) + "\n")


def read_plain_pickle(file: str | Path) -> Any:
    """A pickle of containers, numbers and strings, written by any Python, executing nothing.

    Raises:
      DataError: names the file and what was found.
    """
    try:
        with Path(file).open("rb") as stream:
            return unpickle.load(stream, {})
    except unpickle.UnsafeFileError as error:
        raise DataError(
            f"{file}: {error}: a data set's pickle holds lists, dictionaries, numbers and strings "
            "alone"
        ) from None
    except unpickle.UnreadableFileError as error:
        raise DataError(f"{file}: {error}") from error


def read_captions_pickle(file: str | Path) -> dict[str, Any]:
    """The published captions.pickle of a dataset, read without executing code.

    Args:
      file: holds [train captions, test captions, words by id, ids by word].

    Returns:
      {"train": lists of ids, "test": lists of ids, "words": words by id}.

    Raises:
      DataError: names the file and what was found.
    """
    content = read_plain_pickle(file)
    if not isinstance(content, list) or len(content) != 4 or not isinstance(content[2], dict):
        raise DataError(
            f"{file}: expected [train captions, test captions, {{id: word}}, {{word: id}}], found "
            f"{type(content).__name__}"
        )
    train, test, by_id, _ = content
    if sorted(by_id) != list(range(len(by_id))):
        raise DataError(f"{file}: word ids are not 0 to {len(by_id) - 1} without a gap")
    return {"train": train, "test": test, "words": [by_id[i] for i in range(len(by_id))]}


def write_captions_pickle(
    file: str | Path, tokenizer: WordTokenizer, train: Sequence[str], test: Sequence[str]
) -> None:
    """Writes the published layout, which the official repositories read."""
    by_id = dict(enumerate(tokenizer.words))
    ids = {word: i for i, word in by_id.items()}
    known = [[[ids[w] for w in words_of(c) if w in ids] for c in part] for part in (train, test)]
    with Path(file).open("wb") as stream:
        pickle.dump([*known, by_id, ids], stream, protocol=2)


def make_word_tokenizer(file: str | Path, length: int) -> WordTokenizer:
    """The tokenizer of a vocabulary file: a captions pickle, or {"words": [...]} as JSON.

    Raises:
      DataError: names the file and what is wrong with it.
    """
    file = Path(file)
    if not file.is_file():
        raise DataError(
            f"config.data.tokenizer={file}: no such vocabulary. Published text encoders need the "
            "captions.pickle that came with them (in the dataset's metadata archive)"
        )
    if file.suffix in PICKLES:
        return WordTokenizer(read_captions_pickle(file)["words"], length)
    try:
        words = json.loads(file.read_text())["words"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{file}: expected {{"words": [...]}} as JSON ({error!r})') from error
    return WordTokenizer(words, length)
