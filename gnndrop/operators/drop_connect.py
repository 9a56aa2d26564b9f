"""DropConnect: a coin for every weight of a linear map."""

from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.kernels import masked_multiply
from gnndrop.masks import Mask
from gnndrop.operators._base import Operator, Share, _check_floating, declare


@declare
class DropConnect(Operator):
    r"""Drop weights of linear maps by themselves, and divide the kept ones by 1-p.

    $\tilde W_{oi} = m_{io} W_{oi} / (1-p)$ with $m_{io} \sim B(1-p)$ for input i and output o.

    All nodes see the same weights. Every call of a linear map has a mask of its own; the parameters
    themselves are never written, and only kept weights receive a gradient. Biases and vectors of
    attention stay whole.

    Attached it acts in every linear map of a message-passing layer, of an MLP inside of it too. The
    graph form, with a coin for every edge and block of channels, is `graph-drop-connect`.

    Source: Wan et al., "Regularization of neural networks using DropConnect" (ICML 2013).

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `inverse` (default) divides kept weights by 1-p, `none` leaves them.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> import torch
        >>> weight = torch.ones(20, 30)  # as of torch.nn.Linear(30, 20)
        >>> sorted(set(DropConnect(p=0.5)(weight).unique().tolist()))
        [0.0, 2.0]
    """

    name = "drop-connect"
    site = "weights"
    axes = ("in", "out")
    source = "Wan et al. 2013"

    def __init__(self, p: float = 0.5, share: Share = "layer", rescale: str = "inverse") -> None:
        super().__init__(p, share, rescale)

    def forward(self, weight: Tensor) -> Tensor:
        """Mask the weights of a linear map in training; the identity otherwise.

        Args:
            weight: floating, shape (outputs, inputs), as torch.nn.Linear has it.

        Returns:
            Shape of `weight`.

        Raises:
            ParameterError: if `weight` is no floating matrix.
        """
        return self.mask_weight(weight, self.next_mask()) if self.is_active else weight

    def mask_weight(self, weight: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to the weights of a linear map."""
        _check_floating(self, weight)
        if weight.dim() != 2:
            raise ParameterError(
                f"{self.name} needs weights of shape (outputs, inputs), got {tuple(weight.shape)}"
            )
        return masked_multiply(weight.t(), mask).t()
