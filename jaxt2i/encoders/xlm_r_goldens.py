"""XLM-RoBERTa with M-CLIP's head against transformers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxt2i.convert import rules
from jaxt2i.encoders import xlm_r_names as tables
from jaxt2i.encoders.xlm_r import XlmRText
from jaxt2i.losses.text import l2_normalize
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.golden import Case, Golden
from jaxt2i.verify.networks import convert_net

SERVES = ("xlm_r/*",)


def encoder(golden: Golden, name: str) -> tuple[XlmRText, dict]:
    """A folder's network, with the folder's weights."""
    weights = golden.weights(name)
    sizes = tables.infer("text", weights) | tables.from_config("text", golden.config(name))
    module = XlmRText(**sizes)
    return module, convert_net(golden, name, tables.M_CLIP, module)


def padded(golden: Golden, case: Case) -> dict[str, jax.Array]:
    """Captions of several lengths: every hidden state, the sentence, and gradients."""
    module, variables = encoder(golden, *case.info["weights"])
    tokens, mask = (jnp.asarray(case.inputs[f"in_{k}"]) for k in ("input_ids", "attention_mask"))

    def cosines(variables):
        stages = module.apply(variables, tokens, mask, method="stages")
        sentence = module.apply(variables, tokens, mask).sentence
        unit = l2_normalize(sentence)
        return (unit @ unit.T).sum(), (stages, sentence)

    run = compiled(jax.grad(cosines, has_aux=True))
    gradient, (stages, sentence) = run(variables)
    named = rules.to_torch(tables.M_CLIP, gradient)
    query = "transformer.encoder.layer.0.attention.self.query.weight"
    return {
        "out_hidden0": stages["embedded"],
        **{f"out_hidden{k + 1}": x for k, x in enumerate(stages["blocks"])},
        "out_pooled": stages["pooled"],
        "out_sentence": sentence,
        "out_grad_query": named[query],
        "out_grad_words": named["transformer.embeddings.word_embeddings.weight"],
    }


CASES: dict[str, Callable] = {"padded": padded}
