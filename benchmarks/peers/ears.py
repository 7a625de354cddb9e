"""Ears on official training loops: losses that they compute and do not give away."""

import torch

# In which the loops of DF-GAN and GALIP ask for the discriminator's terms.
ORDER = ("real", "mismatched", "fake")


def one_way(loop, critic: torch.nn.Module, penalty: str) -> dict[str, torch.Tensor]:
    """What is heard of the loop that DF-GAN and GALIP share, step by step.

    Args:
      loop: their module `lib.modules`.
      critic: the network that scores; its last call in a step is the generator's.
      penalty: name of the function of the gradient penalty.

    Returns:
      A dict to be cleared before each step, which then fills with "real", "mismatched", "fake",
      "penalty" and "adversarial".
    """
    predict, magp, noted = loop.predict_loss, getattr(loop, penalty), {}

    def predict_loss(*args, **kw):
        out, loss = predict(*args, **kw)
        noted[ORDER[len(noted.keys() & set(ORDER))]] = loss.detach()
        return out, loss

    def penalised(*args):
        loss = magp(*args)
        noted["penalty"] = loss.detach()
        return loss

    def heard(module, inputs, output):
        noted["adversarial"] = -output.detach().mean()

    loop.predict_loss = predict_loss
    setattr(loop, penalty, penalised)
    critic.register_forward_hook(heard)
    return noted


def summed(noted: dict[str, torch.Tensor]) -> dict[str, float]:
    """The terms of `one_way` as numbers, and "d", which is made of them."""
    out = {name: float(value) for name, value in noted.items()}
    return out | {"d": out["real"] + (out["fake"] + out["mismatched"]) / 2 + out["penalty"]}
