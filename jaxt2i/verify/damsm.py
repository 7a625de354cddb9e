"""DAMSM's text encoder against the numbers that official code computed with it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import damsm as tables
from jaxt2i.convert import rules
from jaxt2i.encoders.damsm import DamsmText
from jaxt2i.verify.stylegan_t_ops import Arrays, convert_net


def network(golden, net: str) -> tuple[DamsmText, dict]:
    """The encoder that a network of the folder describes, and its variables."""
    module = DamsmText(**tables.infer("text", golden.weights(net)))
    return module, convert_net(golden, net, tables.TEXT, module, *module.example())


def captions(case, prefix: str = "in_") -> tuple[jax.Array, jax.Array]:
    """(tokens [B, T], mask [B, T]) of a case, T its longest caption."""
    lengths = case.inputs[f"{prefix}cap_lens"]
    tokens = case.inputs[f"{prefix}captions"][:, : lengths.max()]
    return jnp.asarray(tokens, jnp.int32), jnp.arange(tokens.shape[1]) < lengths[:, None]


def text_encoder(golden, case) -> Arrays:
    """Sentences and words of captions in any order of lengths."""
    module, variables = network(golden, case.info["weights"][0])
    tokens, mask = captions(case)
    text = jax.jit(module.apply)(variables, tokens, mask)
    width = case.inputs["in_captions"].shape[1]
    words = np.pad(text.words, ((0, 0), (0, width - tokens.shape[1]), (0, 0)))
    return {"out_sent": text.sentence, "out_words": words.transpose(0, 2, 1)[:, ::4]}


def text_encoder_eval(golden, case) -> Arrays:
    """Two batches: every intermediate."""
    module, variables = network(golden, case.info["weights"][0])
    out = {}
    for name in "ab":
        found = module.apply(variables, *captions(case, f"in_{name}_"), method="stages")
        out |= {
            f"out_{name}_words_emb": np.moveaxis(np.asarray(found["words"]), 1, 2),
            f"out_{name}_sent_emb": found["sentence"],
            f"out_{name}_embedding_head": found["embedded"][:, :3],
            f"out_{name}_final_cell": found["cell"],
        }
    return out


class GivenDropout(DamsmText):
    """The encoder with a dropout mask that is given among the variables."""

    def setup(self):
        super().setup()
        keep = self.variable("given", "keep", lambda: None)
        self.drop = lambda x, deterministic: x * keep.value / (1 - self.dropout)


def text_encoder_train(golden, case) -> Arrays:
    """Training mode with the dropout mask given: gradients of every parameter."""
    net = case.info["weights"][0]
    _, variables = network(golden, net)
    module = GivenDropout(**tables.infer("text", golden.weights(net)))
    tokens, mask = captions(case)
    given = {"keep": jnp.asarray(case.inputs["in_keep_mask"][:, : tokens.shape[1]], jnp.float32)}
    target = np.moveaxis(case.inputs["in_target_words"], 1, 2)

    def loss(params):
        text = module.apply({"params": params, "given": given}, tokens, mask, train=True)
        value = (text.words * target).mean()
        return value + (text.sentence * case.inputs["in_target_sent"]).mean(), text

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, text), gradients = step(variables["params"])
    named = rules.to_torch(tables.TEXT, {"params": gradients})
    order = golden.order(case.info["entries"]["out_grad_norms"])
    return {
        "out_words_emb": np.moveaxis(np.asarray(text.words), 1, 2)[:, ::4],
        "out_sent_emb": text.sentence,
        "out_loss": value,
        "out_grad_norms": np.float32([np.linalg.norm(named[k]) for k in order]),
        **{k: named[k.removeprefix("out_grad__")] for k in case.outputs if "_grad__" in k},
    }


CASES: dict[str, Callable[..., Arrays]] = {
    "text_encoder": text_encoder,
    "text_encoder_eval": text_encoder_eval,
    "text_encoder_train": text_encoder_train,
}
