"""Row dropout: one coin for every node, shared by its channels."""

from gnndrop.operators._base import FeatureOperator, declare


@declare
class DropNode(FeatureOperator):
    r"""Drop the features of whole nodes, which keep their edges.

    $\tilde x_{ic} = m_i x_{ic} / (1-p)$ with $m_i \sim B(1-p)$.

    The node keeps its edges and still receives messages. Libraries give this name to two more
    things: removing a node with its edges (an induced subgraph), and GRAND's row mask on the input
    alone with test-time scaling.

    Source: Feng et al., "Graph random neural networks for semi-supervised learning on graphs"
    (NeurIPS 2020), in the inverted form of Fang et al., "DropMessage" (AAAI 2023).

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `inverse` (default) divides kept rows by 1-p, `none` leaves them.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> import torch
        >>> x = DropNode(p=0.5)(torch.ones(50, 4))
        >>> bool((x == x[:, :1]).all())
        True
    """

    name = "drop-node"
    axes = ("node",)
    source = "Feng et al. 2020"
