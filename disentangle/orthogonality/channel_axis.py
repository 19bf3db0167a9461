"""The axis that holds the channels of a tensor, given the layer that takes or returns it."""

from torch import Tensor, nn

_SEQUENCES = (
    nn.Linear,
    nn.Embedding,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
    nn.RNN,
    nn.LSTM,
    nn.GRU,
)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm)
_SPATIAL = (
    "Conv",
    "ConvTranspose",
    "InstanceNorm",
    "AvgPool",
    "MaxPool",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
)

CHANNEL_AXES: dict[type[nn.Module], int] = {
    **dict.fromkeys(_SEQUENCES, -1),
    **dict.fromkeys(_NORMS, 1),
    # Counted from the end: these layers also take one sample without a batch axis, (C, H, W).
    **{getattr(nn, f"{kind}{n}d"): -1 - n for kind in _SPATIAL for n in (1, 2, 3)},
}


def layer_kind(module: nn.Module) -> type[nn.Module] | None:
    """The class in `CHANNEL_AXES` whose forward pass a module runs; `None` if there is none.

    A subclass with a forward pass of its own is of no known kind: torchvision's `LayerNorm2d` is an
    `nn.LayerNorm` over the channels of images, which are second.

    Examples:
        >>> layer_kind(nn.LazyConv2d(4, 3)).__name__
        'Conv2d'
    """
    for kind in CHANNEL_AXES:
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return kind
    return None


def find_channel_axis(module: nn.Module, features: Tensor) -> int | None:
    """The axis of the channels in what a layer takes or returns; `None` if it is ambiguous.

    A module can state it in an integer attribute `channel_axis`. Otherwise it is the last axis for
    layers of sequences (linear, embedding, attention, recurrent, layer and RMS norm) and the second
    for convolutions, pooling, batch, instance and group norms (the first for a single sample
    without a batch axis). With any other layer only 2 dimensions, `(N, C)`, are unambiguous.

    Args:
        module: The layer.
        features: Its input or output.

    Examples:
        >>> import torch
        >>> find_channel_axis(nn.Linear(3, 4), torch.ones(5, 7, 3))
        -1
        >>> find_channel_axis(nn.Conv2d(3, 4, 1), torch.ones(5, 3, 8, 8))
        -3
        >>> find_channel_axis(nn.ReLU(), torch.ones(5, 3, 8, 8))
    """
    stated = getattr(module, "channel_axis", None)
    if type(stated) is int:  # True is no axis
        return stated
    kind = layer_kind(module)
    # Normalised over several axes at once: any of them can be that of the channels.
    joint = isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) > 1
    if kind is not None and not joint:
        return CHANNEL_AXES[kind]
    return 1 if features.ndim == 2 else None
