"""Opening a run: what belongs together is checked before anything is computed."""

import pytest

from jaxt2i.config import ConfigError
from jaxt2i.configs import df_gan
from jaxt2i.run import open as runs


@pytest.mark.parametrize(
    ("perception", "tokenizer", "words"),
    [
        ("mclip_tiny", "clip", r"ids of the kind 'clip', but .*df_gan reads 'xlm_r'"),
        ("mini", "words", r"ids of the kind 'words', but .* reads 'clip' or 'pieces'"),
        ("damsm", "mini", r"ids of the kind 'pieces', but .* reads 'words'"),
        ("mini", "clip", r"gives token ids up to 49407, but .* knows 640"),
    ],
)
def test_a_tokenizer_of_another_kind_than_the_encoder_is_refused(perception, tokenizer, words):
    config = df_gan.get_config("tiny")
    config.model.perception, config.model.weights = perception, "random"
    config.data.tokenizer = tokenizer
    with pytest.raises(ConfigError, match=words):
        runs.open_run(config)
