"""A vocabulary in XLM-R's published layout, small enough to read."""

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyzäöüßE,<>/"]
PIECES += ["▁ein", "▁roter", "▁Vogel", "▁a", "▁red", "▁bird"]


def make_folder(folder):
    """Writes tokenizer.json: unigrams, NFKC, XLM-R's special ids, a mask token behind them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    # Longer pieces are likelier, and special ones, as published, likeliest.
    scores = [(p, 0.0 if i < 4 else -8.0 / len(p)) for i, p in enumerate(PIECES)]
    backend = Tokenizer(models.Unigram(scores, 3, False))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    ends = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", None, ends)
    backend.add_special_tokens([*PIECES[:4], "<mask>"])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    return folder
