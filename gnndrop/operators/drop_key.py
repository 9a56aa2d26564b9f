"""Key dropout: a coin for every edge and head, before the softmax."""

from typing import ClassVar

from torch import Tensor

from gnndrop.operators._attention import AttentionOperator
from gnndrop.operators._base import Share, declare


@declare
class DropKey(AttentionOperator):
    r"""Drop edges from single heads before the softmax: what is kept still sums to one.

    $\tilde\alpha_{eh} = m_{eh} \alpha_{eh} / \sum_{e'} m_{e'h} \alpha_{e'h}$ over the edges e' of
    the same target, with $m_{eh} \sim B(1-p)$.

    That is a softmax over the kept scores, the others at minus infinity. A target that loses all
    edges of a head receives nothing by it, where a plain softmax would be NaN. Nothing is rescaled,
    and the mean is not the clean output: under uniform attention over d edges it is $1-p^d$ times
    that. The edge of a node to itself is dropped like any other; each direction of an edge has its
    own coins. Attached it acts in GATConv, GATv2Conv and TransformerConv, where their own attention
    dropout is 0.

    Source: Li et al., "DropKey for vision transformer" (CVPR 2023).

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros.
        share: `layer` (default) or `forward`; see `Operator`.

    Raises:
        ParameterError: if an option is out of its range; by a call, if the edges are missing.

    Example:
        >>> import torch
        >>> edge_index = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0]])
        >>> attention = torch.tensor([[0.1], [0.2], [0.3], [0.4]])
        >>> DropKey(p=0.5).start_pass(1)(attention, edge_index).sum().round(decimals=4)
        tensor(1.)
    """

    name = "drop-key"
    source = "Li et al. 2023"
    rescales = ("renormalize",)
    before_softmax = True
    needs_graph: ClassVar[bool] = True
    is_product = False

    def __init__(self, p: float = 0.5, share: Share = "layer") -> None:
        super().__init__(p, share, "renormalize")

    def mean_factors(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Return the mean of the factors of every target's sum, float64 of shape (num_nodes,).

        Of attention that is the same for all edges of a target.
        """
        degrees = edge_index[1].bincount(minlength=num_nodes).double()
        return 1 - self.p**degrees
