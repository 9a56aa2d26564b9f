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
            for module, training in flags:
                module.training = training
            for module, name, value in caches:
                module.__dict__[name] = value
            buffers.restore()


class Buffers:
    """The buffers of a model and what they held.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._registered = [
            (module, dict(module._buffers), set(module._non_persistent_buffers_set))
            for module in model.modules()
        ]
        self._held = [
            (module, buffer, buffer.data, buffer.detach().clone())
            for module, buffers, _ in self._registered
            for buffer in buffers.values()
            if buffer is not None
        ]

    def restore(self) -> list[nn.Module]:
        """Write back what was changed, and return the modules that it belongs to."""
        moved = []
        for module, buffers, transient in self._registered:
            if module._buffers.keys() != buffers.keys() or any(
                module._buffers[name] is not buffer for name, buffer in buffers.items()
            ):
                module._buffers.clear()
                module._buffers.update(buffers)
                module._non_persistent_buffers_set = transient.copy()
                moved.append(module)
        for module, buffer, memory, value in self._held:
            if buffer.shape != value.shape or buffer.data_ptr() != memory.data_ptr():
                buffer.data = memory
                moved.append(module)
            if not _equal(buffer, value):
                with torch.no_grad():
                    buffer.copy_(value)
                moved.append(module)
        return moved


def _equal(buffer: Tensor, value: Tensor) -> bool:
    """Whether they are the same to the bit: a NaN is equal to itself."""
    if buffer.layout != torch.strided:
        return torch.equal(buffer.to_dense(), value.to_dense())
    return bool(((buffer == value) | ((buffer != buffer) & (value != value))).all())
