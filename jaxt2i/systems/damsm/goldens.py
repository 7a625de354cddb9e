"""DAMSM's encoders, losses and a training step against the official code's numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.convert import rules
from jaxt2i.losses import damsm as losses
from jaxt2i.metrics import retrieval
from jaxt2i.systems.damsm import method as damsm
from jaxt2i.verify.arrays import Arrays, nchw, nhwc, norm, norms, strided, summary
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.encoders import captions, damsm_image, damsm_text, given_dropout
from jaxt2i.verify.networks import captured
from jaxt2i.verify.step import Networks

SERVES = ("damsm/*", "df_gan/text_encoder")


def text_encoder(golden, case) -> Arrays:
    """Sentences and words of captions in any order of lengths."""
    module, variables, _ = damsm_text(golden, case.info["weights"][0])
    tokens, mask = captions(case)
    text = compiled(module.apply)(variables, tokens, mask)
    width = case.inputs["in_captions"].shape[1]
    words = np.pad(text.words, ((0, 0), (0, width - tokens.shape[1]), (0, 0)))
    return {"out_sent": text.sentence, "out_words": words.transpose(0, 2, 1)[:, ::4]}


def text_encoder_eval(golden, case) -> Arrays:
    """Two batches: every intermediate."""
    module, variables, _ = damsm_text(golden, case.info["weights"][0])
    run, out = compiled(lambda *args: module.apply(*args, method="stages")), {}
    for name in "ab":
        found = run(variables, *captions(case, f"in_{name}_"))
        out |= {
            f"out_{name}_words_emb": np.moveaxis(np.asarray(found["words"]), 1, 2),
            f"out_{name}_sent_emb": found["sentence"],
            f"out_{name}_embedding_head": found["embedded"][:, :3],
            f"out_{name}_final_cell": found["cell"],
        }
    return out


def text_encoder_train(golden, case) -> Arrays:
    """Training mode with the dropout mask given: gradients of every parameter."""
    module, variables, table = damsm_text(golden, case.info["weights"][0])
    tokens, mask = captions(case)
    batch = {
        "keep": jnp.asarray(case.inputs["in_keep_mask"][:, : tokens.shape[1]], jnp.float32),
        "words": jnp.moveaxis(jnp.asarray(case.inputs["in_target_words"]), 1, 2),
        "sentence": jnp.asarray(case.inputs["in_target_sent"]),
    }

    def turn(ctx, batch):
        with given_dropout(batch["keep"]):
            text = ctx("text", tokens, mask, train=True)
        value = (text.words * batch["words"]).mean()
        return value + (text.sentence * batch["sentence"]).mean(), text

    at = Networks({"text": (module, variables)}, {"text": table}, batch)
    value, text, gradients, *_ = at.play(text=(turn, ("text",)))["text"]
    named = at.named(gradients)
    order = golden.order(case.info["entries"]["out_grad_norms"])
    return {
        "out_words_emb": np.moveaxis(np.asarray(text.words), 1, 2)[:, ::4],
        "out_sent_emb": text.sentence,
        "out_loss": value,
        "out_grad_norms": norms(named[k] for k in order),
        **{k: named[k.removeprefix("out_grad__")] for k in case.outputs if "_grad__" in k},
    }


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
    module, variables, _ = damsm_image(golden)
    (regions, code), at = captured(module, variables, nhwc(case.inputs["in_image"]))
    out = {"out_cnn_code": code, "out_pooled": np.asarray(at("trunk/Mixed_7c")).mean((1, 2))}
    for name, (channels, pixels) in LAYERS.items():
        x = at(f"trunk/{name}")
        out[f"out_{name}"] = strided(x, channels, pixels)
        out |= summary(f"out_{name}", nchw(x))
    regions = nchw(regions)
    return out | {"out_regions": regions[:, ::4], **summary("out_regions", regions)}


def image_encoder_eval256(golden, case) -> Arrays:
    """Pictures of 256 pixels, with both meanings of bilinear."""
    image, out = nhwc(case.inputs["in_image"]), {}
    module, variables, _ = damsm_image(golden)

    @compiled
    def both(variables, image):
        found = {}
        for name, corners in (("alignTrue", True), ("alignFalse", False)):
            own = module.clone(align_corners=corners)
            found[name] = own.apply(variables, image), own.resized(image)
        return found

    for name, ((regions, code), resized) in both(variables, image).items():
        out[f"out_{name}_cnn_code"] = code
        parts = {"resized": (resized, 1, 9), "regions": (regions, 16, 2)}
        for part, (x, channels, pixels) in parts.items():
            out[f"out_{name}_{part}"] = strided(x, channels, pixels)
            out |= summary(f"out_{name}_{part}", nchw(x))
    return out


def image_encoder_train(golden, case) -> Arrays:
    """Batch statistics, the running ones behind them, and the gradients of what learns."""
    module, variables, table = damsm_image(golden)
    at = Networks(
        {"image": (module, variables)}, {"image": table}, {"image": nhwc(case.inputs["in_image"])}
    )

    def turn(ctx, batch):
        regions, code = ctx("image", batch["image"], train=True)
        return jnp.square(regions).mean() + jnp.square(code).mean(), (regions, code)

    value, (regions, code), gradients, extra, _ = at.play(image=(turn, ("image",)))["image"]
    named = rules.to_torch(table, {"params": gradients["image"], **extra["image"]})
    regions = nchw(regions)
    order = golden.order(case.info["entries"]["out_grad_norms"])
    return {
        "out_regions": regions[:, ::8, ::2, ::2],
        **summary("out_regions", regions),
        "out_cnn_code": code,
        "out_loss": value,
        "out_grad_norms": norms(named[k] for k in order),
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
    flat = given["regions"].reshape(6, -1, 256)
    lengths = get["in_cap_lens"]

    @compiled
    def run(given, flat, label):
        def total(given, label):
            parts = (given[k] for k in ("regions", "cnn_code", "words_emb", "sent_emb"))
            return losses.damsm(*parts, mask, label)

        turn = jax.value_and_grad(total, has_aux=True)
        turns = {}
        for name, own in (("cls", label), ("nocls", None)):
            (_, logs), found = turn(given, own)
            turns[name] = logs, found
        twelve = given["words_emb"][1:2, :12], np.ones((1, 12), bool)
        share = losses.attention(flat, *twelve, 4.0)[:, 0]
        return turns, {
            "share": losses.attention(flat, given["words_emb"], mask, 4.0),
            "twelve": share,
            "context": jnp.einsum("btr,brs->bst", share, flat),
            "words": losses.word_scores(flat, given["words_emb"], mask),
            "sentences": losses.sentence_scores(given["cnn_code"], given["sent_emb"]),
        }

    turns, parts = run(given, flat, jnp.asarray(get["in_class_ids"]))
    out = {}
    for name in ("cls", "nocls"):
        logs, found = turns[name]
        out |= {f"out_{name}_{k[0]}_loss{k[1]}": x for k, x in logs.items()}
        shown = {k: np.asarray(x) for k, x in found.items()}
        shown["words_emb"] = np.moveaxis(shown["words_emb"], 1, 2)
        shown["regions"] = nchw(shown["regions"])
        out |= {
            f"out_{name}_grad_words_emb": shown["words_emb"][:, ::8],
            f"out_{name}_grad_regions": shown["regions"][:, ::16, ::4, ::4],
            f"out_{name}_grad_sent_emb": shown["sent_emb"][:, ::4],
            f"out_{name}_grad_cnn_code": shown["cnn_code"][:, ::4],
            f"out_{name}_grad_norms": norms(shown[k] for k in golden.order("damsm_losses")),
        }
    for i in (0, 4):
        out[f"out_att_map_{i}"] = parts["share"][i, i, : lengths[i]].reshape(-1, 17, 17)
    return out | {
        "out_word_scores": parts["words"],
        "out_sent_scores": parts["sentences"],
        "out_func_attention_context": parts["context"][:, ::4],
        "out_func_attention_map": parts["twelve"].reshape(6, 12, 17, 17)[:, :, ::2, ::2],
    }


class GivenGame(damsm.Losses):
    """The method's own game on given pictures, with the dropout mask given."""

    def pictures(self, batch) -> jax.Array:
        """The given pictures."""
        return batch["real"]

    def encode(self, ctx, batch, train: bool) -> tuple:
        """The method's own passes, one mask for every one."""
        with given_dropout(batch["keep"]):
            return super().encode(ctx, batch, train)


def pretrain_step(golden, case) -> Arrays:
    """One step of pretraining: losses, gradients, the clip, and what Adam changes."""
    get = case.inputs
    made = {"text": damsm_text(golden), "image": damsm_image(golden)}
    named = {net: table for net, (_, _, table) in made.items()}
    tokens, mask = captions(case)
    batch = {
        "real": nhwc(get["in_image"]),
        "tokens": tokens,
        "token_mask": mask,
        "label": jnp.asarray(get["in_class_ids"], jnp.int32),
        "keep": jnp.asarray(get["in_keep_mask"][:, : tokens.shape[1]], jnp.float32),
    }
    at = Networks(made, named, batch)
    game, optim = GivenGame(damsm.Model()), damsm.Optim(lr=2e-3, decay_every_steps=0)

    def first_map(ctx, batch) -> tuple:
        regions, _, found = game.encode(ctx, batch, train=True)
        flat = regions.reshape(len(regions), -1, regions.shape[-1])
        return (), losses.attention(flat[:1], found.words[:1], mask[:1], 4.0)[0, 0]

    turns = at.play(loss=(game.loss, ("text", "image")), share=(first_map, ()))
    metrics, gradients = turns["loss"].logs, turns["loss"].gradients
    clip = optim.clip_text()
    clipped = compiled(lambda tree: clip.update(tree, clip.init(None))[0])(gradients["text"])
    run = at.start((game.player(optim),))
    start = run.state.params
    run.step()
    moved = jax.tree.map(
        lambda new, old: np.asarray(new) - np.asarray(old), run.state.params, start
    )

    def all_norms(tree) -> np.ndarray:
        both = {
            f"{official}.{key}": x
            for net, official in (("text", "text_encoder"), ("image", "image_encoder"))
            for key, x in rules.to_torch(named[net], {"params": tree[net]}).items()
        }
        return norms(both[k] for k in golden.order("pretrain"))

    four = [metrics[k] for k in ("w0", "w1", "s0", "s1")]
    share = turns["share"].logs[: get["in_cap_lens"][0]]
    return {
        "out_losses": np.array([*four, sum(four)]),
        "out_grad_norms": all_norms(gradients),
        "out_rnn_total_norm": norm(norms(jax.tree.leaves(gradients["text"]))),
        "out_grad_norms_clipped": all_norms({**gradients, "text": clipped}),
        "out_delta_norms": all_norms(moved),
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
