"""A linear map of features, dense or sparse."""

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from gnndrop.graph import Graph, Memo, csr_pattern
from gnndrop.kernels import aggregate


class Linear(pyg.Linear):  # type: ignore[misc]  # PyG publishes no types
    """PyG's linear layer that also takes sparse CSR inputs, at the cost of their stored entries.

    Args:
        in_channels: size of an input.
        out_channels: size of an output.
        bias: whether to learn an additive bias; default True.

    Example:
        >>> layer = Linear(3, 2)
        >>> from gnndrop.graph import to_csr
        >>> x = torch.eye(3)
        >>> torch.allclose(layer(to_csr(x)), layer(x))
        True
    """

    weight: nn.Parameter

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, bias, "glorot", "zeros")
        # Laid out column by column: the sparse product and its derivative then copy nothing.
        self.weight = nn.Parameter(self.weight.detach().t().contiguous().t())
        self._prepare = Memo(csr_pattern)

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (N, in_channels), dense or sparse CSR, to (N, out_channels)."""
        if x.layout == torch.strided:
            result: Tensor = super().forward(x)
            return result
        product = aggregate(self.pattern(x), self.weight.t(), x.values())
        return product if self.bias is None else product + self.bias

    def pattern(self, x: Tensor) -> Graph:
        """Return the pattern of a sparse CSR x, remembered."""
        return self._prepare(x.crow_indices(), x.col_indices(), x.size(1))


def is_product(linear: nn.Module) -> bool:
    """Whether calling this is multiplying by `linear.weight`, as far as can be told from outside.

    Not where there is a bias, a hook, another method in the place of `forward`, or a class of its
    own, like those of parametrized modules.

    Example:
        >>> is_product(Linear(3, 2, bias=False)), is_product(Linear(3, 2))
        (True, False)
    """
    state = linear.__dict__
    return (
        type(linear) in (Linear, pyg.Linear)
        and state["_parameters"].get("bias") is None
        and "forward" not in state
        and not any(map(state.get, _HOOKS))
        and not _has_any_global_hook()  # type: ignore[no-untyped-call]  # untyped in torch
    )


_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
