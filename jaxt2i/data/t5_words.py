"""T5's pieces of words, as google/flan-t5-xl and -xxl have them."""

from pathlib import Path

from jaxt2i.data.schema import DataError
from jaxt2i.data.tokenize import encodable

FILE = "tokenizer.json"
SPECIAL = {"<pad>": 0, "</s>": 1, "<unk>": 2}


class T5Tokenizer:
    """Texts to ids, with the end behind them.

    Spaces are brought to single ones and none is left at the ends, as SentencePiece itself does;
    some published files of the fast tokenizer forget it.
    """

    def __init__(self, place: str | Path):
        """Opens a vocabulary.

        Args:
          place: a tokenizer.json, or the folder of one.

        Raises:
          DataError: where there is none of T5.
        """
        import tokenizers

        path = Path(place)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise DataError(
                f"{place}: no {FILE} of T5; `hf download google/flan-t5-xl {FILE} --local-dir DIR` "
                "fetches one"
            )
        try:
            self._backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for a bad file
            raise DataError(f"{path} is no tokenizer of T5 ({error}); fetch it again") from error
        ids = {name: self._backend.token_to_id(name) for name in SPECIAL}
        if ids != SPECIAL:
            raise DataError(
                f"{path}: special ids are {ids}, T5's are {SPECIAL}; give that of google/flan-t5-xl"
            )
        self._backend.no_truncation()
        self._backend.no_padding()
        added = self._backend.get_added_tokens_decoder()
        self._special = {*SPECIAL.values(), *(i for i, token in added.items() if token.special)}

    def __call__(self, text: str) -> list[int]:
        """Ids of the pieces, then that of the end."""
        found = self._backend.encode(" ".join(encodable(text).split()), add_special_tokens=False)
        # The names of special tokens are pieces of the vocabulary; in a text they are text.
        ids = [SPECIAL["<unk>"] if i in self._special else i for i in found.ids]
        return [*ids, SPECIAL["</s>"]]
