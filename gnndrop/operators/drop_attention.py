"""Attention dropout: a coin for every edge and head, behind the softmax."""

from gnndrop.operators._attention import AttentionOperator
from gnndrop.operators._base import declare


@declare
class DropAttention(AttentionOperator):
    r"""Drop shares of attention behind the softmax, and divide the kept ones by 1-p.

    $y_{ih} = \sum_{e:j \to i} m_{eh} \alpha_{eh} x_{jh} / (1-p)$ with $m_{eh} \sim B(1-p)$.

    All channels of a head share its coin: `drop-message` has one for each of them. What is kept no
    longer sums to one (see `drop-key`), but in expectation it does. The message of a node to itself
    is dropped like any other; each direction of an edge has its own coins. Its rate is apart from
    that of the features, and the layer's own dropout stays as it is.

    Attached it acts in GATConv, GATv2Conv and TransformerConv.

    Source: Veličković et al., "Graph attention networks" (ICLR 2018).

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `inverse` (default) divides what is kept by 1-p, `none` leaves it.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> import torch
        >>> attention = DropAttention(p=0.5)(torch.full((50, 4), 0.25))
        >>> sorted(set(attention.unique().tolist()))
        [0.0, 0.5]
    """

    name = "drop-attention"
    source = "Veličković et al. 2018"
