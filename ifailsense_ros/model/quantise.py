"""The decoder's weights in eight bits, for cards of 8 GB: by torchao, which is an extra."""

from __future__ import annotations

from torch import nn

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.model.vlm import base_of

QUANTISATIONS = ("none", "int8")


def check_quantisation(quantisation: str) -> None:
    """Raises ConfigError for one that does not exist."""
    if quantisation not in QUANTISATIONS:
        raise ConfigError(f"quantisation {quantisation!r}: must be {' or '.join(QUANTISATIONS)}")


def quantise(model: nn.Module, quantisation: str) -> None:
    """Round the weights of the decoder's linear layers to eight bits, a scale each row; in place.

    The vision tower, the projector and the vocabulary stay as they are: the first two see the
    picture's detail, the last decides between words. Arithmetic stays in the model's type.

    Raises:
        ConfigError: there is no such quantisation, or torchao is not installed.
    """
    check_quantisation(quantisation)
    if quantisation == "none":
        return
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError:
        raise ConfigError(
            "quantisation int8 needs the package torchao: pip install '.[quantise]' in the checkout"
        ) from None
    decoder = base_of(model).model.language_model
    quantize_(decoder, Int8WeightOnlyConfig(set_inductor_config=False))
