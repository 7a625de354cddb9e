"""BERT's pieces of words, lower case, as bert-base-uncased has them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxt2i.data.schema import DataError
from jaxt2i.data.tokenize import encodable

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
FILES = ("tokenizer.json", "vocab.txt")


class BertTokenizer:
    """Captions to ids: [CLS] pieces [SEP], cut and filled up to one length.

    Attributes:
      length: T.
    """

    def __init__(self, place: str | Path, length: int):
        """Opens a vocabulary.

        Args:
          place: a tokenizer.json or vocab.txt, as published with bert-base-uncased, or the folder
            of one.
          length: T.

        Raises:
          DataError: where there is none.
        """
        import tokenizers

        path = Path(place)
        if path.is_dir():
            path = next((path / name for name in FILES if (path / name).is_file()), path)
        if not path.is_file():
            raise DataError(
                f"{place}: no BERT vocabulary ({' or '.join(FILES)}); `hf download "
                "google-bert/bert-base-uncased tokenizer.json --local-dir DIR` fetches one"
            )
        try:
            if path.suffix == ".json":
                self._backend = tokenizers.Tokenizer.from_file(str(path))
            else:
                self._backend = tokenizers.BertWordPieceTokenizer(str(path), lowercase=True)
        except Exception as error:  # the library raises bare Exception for a bad file
            raise DataError(f"{path} is no BERT vocabulary ({error}); fetch it again") from error
        ids = [self._backend.token_to_id(name) for name in SPECIAL]
        if None in ids or ids[0] != 0:
            said = dict(zip(SPECIAL, ids, strict=True))
            raise DataError(
                f"{path}: special ids are {said}, and a BERT vocabulary has them all, [PAD] as 0; "
                "give that of bert-base-uncased"
            )
        self.length = length
        self._backend.enable_truncation(length)
        self._backend.enable_padding(length=length, pad_id=0, pad_token=SPECIAL[0])

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids int32 [N, T], True where a piece of the caption is, bool [N, T])."""
        found = self._backend.encode_batch([encodable(c) for c in captions])
        ids = np.array([x.ids for x in found], np.int32).reshape(-1, self.length)
        mask = np.array([x.attention_mask for x in found], bool).reshape(-1, self.length)
        return ids, mask
