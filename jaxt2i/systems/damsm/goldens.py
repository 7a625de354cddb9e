"""DAMSM's encoders, losses and a training step against the official code's numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.encoders import damsm_names as tables
from jaxt2i.encoders.damsm import DamsmImage, DamsmText
from jaxt2i.engine.method import Ctx
from jaxt2i.losses import damsm as losses
from jaxt2i.metrics import retrieval
from jaxt2i.systems.damsm import method as damsm
from jaxt2i.systems.stylegan_t.goldens_ops import Arrays, captured, convert_net, nchw, nhwc
from jaxt2i.verify.board import Board


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


def seer(golden, net: str = "image_encoder", **fields) -> tuple[DamsmImage, dict]:
    """The image encoder of the folder, and its variables."""
    module = DamsmImage(**fields)
    return module, convert_net(golden, net, tables.IMAGE, module, *module.example())


def summary(name: str, x: np.ndarray) -> Arrays:
    """Mean and standard deviation of every example."""
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    return {f"{name}__mean": flat.mean(1), f"{name}__std": flat.std(1)}


# Layers that the case shows, with the strides of (channels, pixels).
LAYERS = {
    "Conv2d_1a_3x3": (8, 29),
    "Conv2d_4a_3x3": (48, 14),
    "Mixed_5b": (64, 7),
    "Mixed_5d": (72, 7),
    "Mixed_6a": (96, 4),
    "Mixed_6e": (96, 4),
    "Mixed_7a": (160, 3),
    "Mixed_7c": (256, 3),
}


def image_encoder_eval(golden, case) -> Arrays:
    """Pictures of 299 pixels: every part of the trunk."""
    module, variables = seer(golden)
    (regions, code), at = captured(module, variables, nhwc(case.inputs["in_image"]))
    out = {"out_cnn_code": code, "out_pooled": np.asarray(at("trunk/Mixed_7c")).mean((1, 2))}
    for name, (channels, pixels) in LAYERS.items():
        x = nchw(at(f"trunk/{name}"))
        out[f"out_{name}"] = x[:, ::channels, ::pixels, ::pixels]
        out |= summary(f"out_{name}", x)
    regions = nchw(regions)
    return out | {"out_regions": regions[:, ::4], **summary("out_regions", regions)}


def image_encoder_eval256(golden, case) -> Arrays:
    """Pictures of 256 pixels, with both meanings of bilinear."""
    image, out = nhwc(case.inputs["in_image"]), {}
    for name, corners in (("alignTrue", True), ("alignFalse", False)):
        module, variables = seer(golden, align_corners=corners)
        regions, code = jax.jit(module.apply)(variables, image)
        parts = {"resized": (nchw(module.resized(image)), 1, 9), "regions": (nchw(regions), 16, 2)}
        for part, (x, channels, pixels) in parts.items():
            out[f"out_{name}_{part}"] = x[:, ::channels, ::pixels, ::pixels]
            out |= summary(f"out_{name}_{part}", x)
        out[f"out_{name}_cnn_code"] = code
    return out


def named_image(tree: dict) -> dict[str, np.ndarray]:
    """{official key: array} of an image encoder's variables, gradients or statistics."""
    return rules.to_torch(tables.IMAGE, tree)


def image_encoder_train(golden, case) -> Arrays:
    """Batch statistics, the running ones behind them, and the gradients of what learns."""
    module, variables = seer(golden)
    image = nhwc(case.inputs["in_image"])

    def loss(params):
        (regions, code), changed = module.apply(
            {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )
        return jnp.square(regions).mean() + jnp.square(code).mean(), (regions, code, changed)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (regions, code, changed)), gradients = step(variables["params"])
    named, regions = named_image({"params": gradients, **changed}), nchw(regions)
    order = golden.order(case.info["entries"]["out_grad_norms"])
    return {
        "out_regions": regions[:, ::8, ::2, ::2],
        **summary("out_regions", regions),
        "out_cnn_code": code,
        "out_loss": value,
        "out_grad_norms": np.float32([np.linalg.norm(named[k]) for k in order]),
        **{k: named[k.removeprefix("out_")] for k in case.outputs if ".running_" in k},
    }


def damsm_losses(golden, case) -> Arrays:
    """Four losses with and without classes, their gradients, scores and attention."""
    get = case.inputs
    regions = np.moveaxis(get["in_U"] @ get["in_V"], 1, 2).reshape(-1, 17, 17, 256)
    words = np.moveaxis(get["in_words_emb"], 1, 2)
    mask = np.arange(words.shape[1]) < get["in_cap_lens"][:, None]
    given = {
        "words_emb": jnp.asarray(words * mask[..., None]),
        "regions": jnp.asarray(regions),
        "sent_emb": jnp.asarray(get["in_sent_emb"]),
        "cnn_code": jnp.asarray(get["in_cnn_code"]),
    }

    def total(given, label):
        return losses.damsm(
            given["regions"],
            given["cnn_code"],
            given["words_emb"],
            given["sent_emb"],
            mask,
            label,
        )

    out = {}
    for name, label in (("cls", jnp.asarray(get["in_class_ids"])), ("nocls", None)):
        (_, logs), found = jax.jit(jax.value_and_grad(total, has_aux=True))(given, label)
        out |= {f"out_{name}_{k[0]}_loss{k[1]}": x for k, x in logs.items()}
        shown = {k: np.asarray(x) for k, x in found.items()}
        shown["words_emb"] = np.moveaxis(shown["words_emb"], 1, 2)
        shown["regions"] = nchw(shown["regions"])
        out |= {
            f"out_{name}_grad_words_emb": shown["words_emb"][:, ::8],
            f"out_{name}_grad_regions": shown["regions"][:, ::16, ::4, ::4],
            f"out_{name}_grad_sent_emb": shown["sent_emb"][:, ::4],
            f"out_{name}_grad_cnn_code": shown["cnn_code"][:, ::4],
            f"out_{name}_grad_norms": np.float32(
                [np.linalg.norm(shown[k]) for k in golden.order("damsm_losses")]
            ),
        }
    flat, lengths = given["regions"].reshape(6, -1, 256), get["in_cap_lens"]
    share = losses.attention(flat, given["words_emb"], mask, 4.0)
    for i in (0, 4):
        out[f"out_att_map_{i}"] = share[i, i, : lengths[i]].reshape(-1, 17, 17)
    twelve = losses.attention(flat, given["words_emb"][1:2, :12], np.ones((1, 12), bool), 4.0)[:, 0]
    context = jnp.einsum("btr,brs->bst", twelve, flat)
    return out | {
        "out_word_scores": losses.word_scores(flat, given["words_emb"], mask),
        "out_sent_scores": losses.sentence_scores(given["cnn_code"], given["sent_emb"]),
        "out_func_attention_context": context[:, ::4],
        "out_func_attention_map": twelve.reshape(6, 12, 17, 17)[:, :, ::2, ::2],
    }


class GivenGame(damsm.Losses):
    """The method's own game on given pictures; the dropout mask is among the text's variables."""

    def pictures(self, batch) -> jax.Array:
        """The given pictures."""
        return batch["real"]


def pretrain_step(golden, case) -> Arrays:
    """One step of pretraining: losses, gradients, the clip, and what Adam changes."""
    get = case.inputs
    _, text = network(golden, "text_encoder")
    reader = GivenDropout(**tables.infer("text", golden.weights("text_encoder")))
    module, image = seer(golden)
    tokens, mask = captions(case)
    keep = jnp.asarray(get["in_keep_mask"][:, : tokens.shape[1]], jnp.float32)
    batch = {
        "real": nhwc(get["in_image"]),
        "tokens": tokens,
        "token_mask": mask,
        "label": jnp.asarray(get["in_class_ids"], jnp.int32),
    }
    variables = {"text": {**text, "given": {"keep": keep}}, "image": image}
    named = {"text": tables.TEXT, "image": tables.IMAGE}
    at = Board({"text": reader, "image": module}, variables, named, batch)
    game = GivenGame(damsm.Model())
    optim = damsm.Optim(lr=2e-3, decay_every_steps=0)
    _, metrics, gradients = at.gradient(game.loss, ("text", "image"))
    clipped, _ = optim.clip_text().update(gradients["text"], optim.clip_text().init(None))
    params, _ = at.play((game.player(optim),))
    moved = jax.tree.map(
        lambda new, old: new - old, params, {n: variables[n]["params"] for n in named}
    )

    def norms(tree) -> np.ndarray:
        both = {
            f"{official}.{key}": x
            for net, official in (("text", "text_encoder"), ("image", "image_encoder"))
            for key, x in rules.to_torch(named[net], {"params": tree[net]}).items()
        }
        return np.float32([np.linalg.norm(both[k]) for k in golden.order("pretrain")])

    def first_map(ctx: Ctx, batch) -> jax.Array:
        regions, _, found = game.encode(ctx, batch, train=True)
        flat = regions.reshape(len(regions), -1, regions.shape[-1])
        return losses.attention(flat[:1], found.words[:1], mask[:1], 4.0)[0, 0]

    four = [metrics[k] for k in ("w0", "w1", "s0", "s1")]
    share = at.run(first_map)[: get["in_cap_lens"][0]]
    total = np.sqrt(sum(np.square(np.asarray(x)).sum() for x in jax.tree.leaves(gradients["text"])))
    return {
        "out_losses": np.float32([*four, sum(four)]),
        "out_grad_norms": norms(gradients),
        "out_rnn_total_norm": total,
        "out_grad_norms_clipped": norms({**gradients, "text": clipped}),
        "out_delta_norms": norms(moved),
        "out_att_map_0": share.reshape(-1, 17, 17),
    }


def r_precision(golden, case) -> Arrays:
    """One caption among 99 of other classes, and the statistics over ten folds."""
    get = {k: jnp.asarray(x) for k, x in case.inputs.items()}
    others = jnp.broadcast_to(get["in_mismatched_sent_emb"], (6, 99, 256))
    scores = retrieval.own_among(get["in_cnn_code"], get["in_sent_emb"], others)
    hits = case.inputs["in_hits"]
    return {
        "out_scores": scores,
        "out_hit": np.asarray(scores.argmax(1) == 0, np.int64),
        "out_official_mean_std": retrieval.folds(hits, dropped=1),
        "out_full_fold_mean_std": retrieval.folds(hits),
    }


CASES: dict[str, Callable[..., Arrays]] = {
    "text_encoder": text_encoder,
    "text_encoder_eval": text_encoder_eval,
    "text_encoder_train": text_encoder_train,
    "image_encoder_eval": image_encoder_eval,
    "image_encoder_eval256": image_encoder_eval256,
    "image_encoder_train": image_encoder_train,
    "damsm_losses": damsm_losses,
    "pretrain_step": pretrain_step,
    "r_precision": r_precision,
}
