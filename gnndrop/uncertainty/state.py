"""A model's state, as it was before: flags, buffers, caches of graphs, torch's generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# What PyG's layers keep with cached=True, and what our `Normalization` hands over in its place.
CACHES = ("_cached_edge_index", "_cached_adj_t", "_cached_x", "_cached_h")


@contextmanager
def preserved(model: nn.Module, device: torch.device) -> Iterator["Buffers"]:
    """Restore all of a model's state in the end, also after an exception.

    Args:
        model: the model; inside of the context it may be changed at will.
        device: whose generator is restored, beside the CPU's.

    Yields:
        Its buffers, to see which ones a forward pass has moved.

    Example:
        >>> model = nn.BatchNorm1d(2)
        >>> with preserved(model, torch.device("cpu")):
        ...     _ = model.train()(torch.rand(5, 2))
        >>> int(model.num_batches_tracked)
        0
    """
    flags = [(module, module.training) for module in model.modules()]
    caches = [
        (module, name, module.__dict__[name])
        for module in model.modules()
        for name in CACHES
        if name in module.__dict__
    ]
    buffers = Buffers(model)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            yield buffers
        finally:
            buffers.restore()
            for module, training in flags:
                module.training = training
            for module, name, value in caches:
                module.__dict__[name] = value


class Buffers:
    """The buffers of a model and what they held.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._held: list[tuple[nn.Module, str, Tensor, Tensor]] = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]

    def restore(self) -> list[nn.Module]:
        """Write back what was changed, and return the modules that it belongs to."""
        moved = []
        for module, name, buffer, value in self._held:
            if module._buffers.get(name) is buffer and _equal(buffer, value):
                continue
            with torch.no_grad():
                buffer.copy_(value)
            module._buffers[name] = buffer
            moved.append(module)
        return moved


def _equal(buffer: Tensor, value: Tensor) -> bool:
    """Whether they are the same to the bit: a NaN is equal to itself."""
    if buffer.layout != torch.strided:
        return torch.equal(buffer.to_dense(), value.to_dense())
    return bool(((buffer == value) | ((buffer != buffer) & (value != value))).all())
