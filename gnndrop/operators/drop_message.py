"""Message dropout: an independent coin for every edge and channel."""

from gnndrop.operators._base import MessageOperator, declare


@declare
class DropMessage(MessageOperator):
    r"""Drop every entry of every message by itself, and divide the kept ones by 1-p.

    $y_{ic} = \sum_{e:j \to i} m_{ec} w_e x_{jc} / (1-p)$ with $m_{ec} \sim B(1-p)$.

    Mean and variance equal those of feature dropout, but channels *and* nodes are uncorrelated. The
    mask follows the layer's normalization; each direction of an edge has its own coins; messages of
    self-loops are dropped like any other. Under max aggregation a dropped entry counts as zero.
    Attached to a layer that transforms before it propagates (GCN, GAT), the messages live in the
    transformed space; the paper's code propagates first.

    Source: Fang et al., "DropMessage: unifying random dropping for graph neural
    networks" (AAAI 2023).

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `inverse` (default) divides kept entries by 1-p, `none` leaves them.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> import torch
        >>> messages = DropMessage(p=0.5)(torch.ones(30, 8))
        >>> sorted(set(messages.unique().tolist()))
        [0.0, 2.0]
    """

    name = "drop-message"
    axes = ("edge", "channel")
    source = "Fang et al. 2023"
