"""Captions to token ids: CLIP's byte pairs, XLM-R's pieces, and small trainable vocabularies.

A tokenizer is any object with `length`, `vocab_size`, `eot` and
`(captions) -> (tokens int32 [n, T], mask bool [n, T])`. Captions are data, never commands: a
special token's name inside a caption is encoded letter by letter like every other text, or, where
the vocabulary has it as a piece of text (XLM-R), as the unknown piece.
"""

import html
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from jaxt2i.data import words
from jaxt2i.data.schema import DataError

CLIP_START, CLIP_END, CLIP_VOCABULARY = 49406, 49407, 49408
# `instant_clip_tokenizer` would read these two as the special ids; cut behind "<" they are text.
CLIP_SPECIAL = re.compile(r"(?<=<)(?=(?:start|end)_of_text>)")
PAD, START, END = "<pad>", "<start>", "<end>"
XLM_R_SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}


class Tokenizer(Protocol):
    """What the pipeline and the samplers ask of a tokenizer.

    Attributes:
      kind: "clip", "pieces", "xlm_r" or "words": which text encoders read its ids.
      length: padded length of a caption, T.
      vocab_size: ids are below it.
      eot: id of the end token; each row of `tokens` holds it once, behind the text.
    """

    length: int
    vocab_size: int
    kind: str
    eot: int

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes captions.

        Args:
          captions: n texts of any length, in any script.

        Returns:
          (tokens int32 [n, T], mask bool [n, T]); the mask is True from the start token through
          the end token.
        """


def encodable(text: str) -> str:
    """The text with lone surrogates, which have no UTF-8 form, replaced by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def pack(
    texts: Iterable[Sequence[int]], length: int, start: int, end: int, pad: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Frames ids by start and end tokens and pads them; what is too long loses its tail.

    Args:
      texts: ids of n texts, special tokens excluded.
      length: T, at least 2.
      start: id in front of every text.
      end: id behind every text, however short it is cut.
      pad: id behind the end.

    Returns:
      (tokens int32 [n, T], mask bool [n, T]).
    """
    rows = [[start, *ids[: length - 2], end] for ids in texts]
    tokens = np.full((len(rows), length), pad, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
        mask[i, : len(row)] = True
    return tokens, mask


def check_length(length: int) -> None:
    """Refuses captions without room for text.

    Raises:
      DataError: names config.data.tokens.
    """
    if length < 3:
        raise DataError(
            f"captions of {length} tokens have no room for text between the start and the end "
            "token; set --config.data.tokens to 3 or more (CLIP: 77)"
        )


def clip_clean(text: str) -> str:
    """OpenAI's cleaning: mended encoding, HTML entities resolved twice, one space, lower case."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(encodable(text))))
    # An entity such as &#xD800; can bring a surrogate back.
    return " ".join(encodable(text).split()).lower()


class ClipTokenizer:
    """The byte pair encoding of OpenAI CLIP, id for id.

    The one difference: OpenAI's code turns the literal text "<|startoftext|>" or
    "<|endoftext|>" in a caption into the special id, which moves the pooling position. Here it is
    plain text.

    Attributes:
      length: T.
      vocab_size: 49,408 for the published vocabulary.
      eot: 49,407 for the published vocabulary; also the largest id.
    """

    kind = "clip"

    def __init__(self, length: int = 77, files: str | Path | None = None):
        """Opens a vocabulary.

        Args:
          length: T; CLIP's position table has 77 rows.
          files: a directory with `tokenizer.json`, or with `vocab.json` and `merges.txt`, as
            published beside the weights; None: the same merges from `instant_clip_tokenizer`.

        Raises:
          DataError: when the directory holds no vocabulary.
        """
        check_length(length)
        self.length = length
        if files is None:
            from instant_clip_tokenizer import Tokenizer as Merges

            self.vocab_size, self.start, self.eot = CLIP_VOCABULARY, CLIP_START, CLIP_END
            self._merges = Merges()
            self._ids = self._ids_of_merges
        else:
            if not holds_clip(Path(files)):
                raise DataError(
                    f"{files} holds no CLIP vocabulary (tokenizer.json, or vocab.json and "
                    "merges.txt) and no XLM-R vocabulary (tokenizer.json). Set "
                    "--config.data.tokenizer to a directory that does; 'clip' needs no files"
                )
            from transformers import CLIPTokenizer

            self._backend = CLIPTokenizer.from_pretrained(str(files)).backend_tokenizer
            self._backend.encode_special_tokens = True  # their names in a caption are text
            self.vocab_size = self._backend.get_vocab_size()
            self.start = self._backend.token_to_id("<|startoftext|>")
            self.eot = self._backend.token_to_id("<|endoftext|>")
            self._ids = self._ids_of_files

    def _ids_of_merges(self, text: str) -> list[int]:
        pieces = CLIP_SPECIAL.split(text)
        return list(itertools.chain.from_iterable(map(self._merges.encode, pieces)))

    def _ids_of_files(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        texts = (self._ids(clip_clean(caption)) for caption in captions)
        return pack(texts, self.length, self.start, self.eot)


class BpeTokenizer:
    """Byte-level pair encoding in one JSON file of the `tokenizers` library.

    The cleaning (NFKC, lower case, single spaces) is part of the file. Every byte has an id, so
    any text can be encoded. `<pad>` is 0 and `<end>` the largest id, so that pooling at
    argmax(tokens) finds the end as it does for CLIP.

    Attributes:
      length: T.
      vocab_size: size of the vocabulary, the three special tokens included.
      eot: id of `<end>`.
    """

    kind = "pieces"

    def __init__(self, file: str | Path, length: int):
        """Opens a file that `train` wrote.

        Args:
          file: the JSON file.
          length: T.

        Raises:
          DataError: when the file is missing or is no such tokenizer.
        """
        import tokenizers

        check_length(length)
        if not Path(file).is_file():
            raise DataError(
                f"no tokenizer file {file}; set --config.data.tokenizer to an existing file, or "
                "make one with BpeTokenizer.train(captions, vocab_size, path)"
            )
        try:
            self._backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for a bad file
            raise DataError(
                f"{file} is not a tokenizer of the `tokenizers` library ({error}); make one with "
                "BpeTokenizer.train(captions, vocab_size, path)"
            ) from error
        self._backend.encode_special_tokens = True  # their names in a caption are text
        self.length = length
        self.vocab_size = self._backend.get_vocab_size()
        pad, self.start, self.eot = map(self._backend.token_to_id, (PAD, START, END))
        if pad != 0 or self.start is None or self.eot != self.vocab_size - 1:
            raise DataError(
                f"{file}: {PAD} has id {pad}, {START} {self.start}, {END} {self.eot}; expected "
                f"{PAD} = 0 and {END} = {self.vocab_size - 1}, the largest id; make the file with "
                "BpeTokenizer.train(captions, vocab_size, path)"
            )

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encode = self._backend.encode
        texts = (encode(encodable(c), add_special_tokens=False).ids for c in captions)
        return pack(texts, self.length, self.start, self.eot)

    @staticmethod
    def train(captions: Iterable[str], vocab_size: int, path: str | Path) -> None:
        """Learns merges from captions and writes the tokenizer file.

        Args:
          captions: texts to learn from; the same texts give the same file.
          vocab_size: ids to make at most, 259 (bytes and special tokens) or more.
          path: the JSON file to write.

        Raises:
          DataError: when vocab_size has no room for the bytes.
        """
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        if vocab_size < len(alphabet) + 3:
            raise DataError(
                f"vocab_size {vocab_size}: 256 bytes and three special tokens need "
                f"{len(alphabet) + 3} or more"
            )
        backend = Tokenizer(models.BPE())
        backend.normalizer = normalizers.Sequence(
            [
                normalizers.NFKC(),
                normalizers.Lowercase(),
                normalizers.Replace(Regex(r"\s+"), " "),
                normalizers.Strip(),
            ]
        )
        # A space in front of the first word too: a word is the same piece wherever it stands.
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            special_tokens=[PAD, START],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        backend.train_from_iterator(map(encodable, captions), trainer)
        backend.add_special_tokens([END])  # behind the merges: the largest id
        backend.save(str(path))


class XlmRTokenizer:
    """XLM-RoBERTa's pieces of text in a hundred languages, which M-CLIP reads too.

    Case and punctuation are kept; what is cleaned (NFKC, spaces) is part of the file.

    Attributes:
      length: T; XLM-R's position table has room for 512.
      vocab_size: 250,002 for the published vocabulary.
      eot: 2.
    """

    kind = "xlm_r"

    def __init__(self, folder: str | Path, length: int):
        """Opens a vocabulary.

        Args:
          folder: a directory with `tokenizer.json`, as published beside the weights.
          length: T.

        Raises:
          DataError: when the directory holds no such vocabulary.
        """
        import tokenizers

        check_length(length)
        file = Path(folder) / "tokenizer.json"
        if not file.is_file():
            raise DataError(
                f"{folder} holds no tokenizer.json. It is published beside the weights, as in "
                "`hf download M-CLIP/XLM-Roberta-Large-Vit-B-32 tokenizer.json --local-dir DIR`; "
                "sentencepiece.bpe.model has the same vocabulary and is not read. Then set "
                "--config.data.tokenizer=DIR"
            )
        try:
            self._backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for a bad file
            raise DataError(
                f"{file} is not a tokenizer of the `tokenizers` library ({error}); fetch it again"
            ) from error
        ids = {name: self._backend.token_to_id(name) for name in XLM_R_SPECIAL}
        if ids != XLM_R_SPECIAL:
            raise DataError(
                f"{file}: special ids are {ids}, XLM-R's are {XLM_R_SPECIAL}; set "
                "--config.data.tokenizer to the directory of an XLM-R or M-CLIP model"
            )
        # Files of some models were saved with both switched on.
        self._backend.no_truncation()
        self._backend.no_padding()
        self.length = length
        self.vocab_size = self._backend.get_vocab_size()
        self.start, self.pad, self.eot, self._unknown = XLM_R_SPECIAL.values()
        added = self._backend.get_added_tokens_decoder()
        self._special = {*XLM_R_SPECIAL.values(), *(i for i, t in added.items() if t.special)}

    def _ids(self, caption: str) -> list[int]:
        found = self._backend.encode(encodable(caption), add_special_tokens=False).ids
        # The names of special tokens are pieces of the vocabulary; in a caption they are text.
        return [self._unknown if i in self._special else i for i in found]

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return pack(map(self._ids, captions), self.length, self.start, self.eot, self.pad)


def vocabulary(folder: Path) -> dict | list:
    """The vocabulary in a directory's tokenizer.json; empty where there is none."""
    try:
        return json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def holds_xlm_r(folder: Path) -> bool:
    """Whether a directory holds an XLM-R vocabulary in one of its two published forms."""
    # Pieces are a list of [text, score], byte pairs a dictionary.
    pieces = isinstance(vocabulary(folder), list)
    return pieces or (folder / "sentencepiece.bpe.model").is_file()


def holds_clip(folder: Path) -> bool:
    """Whether a directory holds a CLIP vocabulary in one of its two published forms."""
    both = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    return both or "<|endoftext|>" in vocabulary(folder)


def left_out(tokenizer: Tokenizer, caption: str) -> str:
    """What of a caption its ids do not hold, as the end of a sentence; "": nothing.

    Args:
      tokenizer: what reads it.
      caption: the text.
    """
    if isinstance(tokenizer, words.WordTokenizer):
        return tokenizer.left_out(caption)
    tokens, mask = tokenizer([caption])
    # Without the last letter the ids are others, unless they end before it.
    shorter = re.sub(r"\w\W*$", "", caption)
    if mask.all() and np.array_equal(tokens, tokenizer([shorter])[0]):
        return f"the end is not read: captions are cut at {tokenizer.length} tokens"
    return ""


def make_tokenizer(name_or_path: str | Path, length: int) -> Tokenizer:
    """The tokenizer that `config.data.tokenizer` names.

    Args:
      name_or_path: "clip"; a JSON file of `BpeTokenizer`; a directory with a CLIP or an
        XLM-R vocabulary, told apart by their content; or a vocabulary of words: a captions.pickle,
        or a file whose name ends in "words.json".
      length: T, `config.data.tokens`.

    Raises:
      DataError: names what was given, what is known, and the config line.
    """
    path = Path(name_or_path)
    if str(name_or_path) == "clip":
        return ClipTokenizer(length)
    if path.is_dir():
        return XlmRTokenizer(path, length) if holds_xlm_r(path) else ClipTokenizer(length, path)
    if path.suffix in words.PICKLES or path.name.endswith("words.json"):
        return words.make_word_tokenizer(path, length)
    if path.suffix == ".json":
        return BpeTokenizer(path, length)
    raise DataError(
        f"config.data.tokenizer is {str(name_or_path)!r}; expected 'clip', a .json file of a "
        "trained tokenizer, a directory with a CLIP vocabulary (tokenizer.json, or vocab.json and "
        "merges.txt) or an XLM-R vocabulary (tokenizer.json), or a captions.pickle. Set "
        "--config.data.tokenizer=clip"
    )
