"""Edge dropout: one coin for every edge, before the graph is normalized."""

from gnndrop.operators._base import EdgeOperator, declare


@declare
class DropEdge(EdgeOperator):
    r"""Drop edges, then normalize the kept graph.

    $\tilde A = A \odot M$ with $m_e \sim B(1-p)$.

    An edge's coin depends on its endpoints, not its position, and both directions of an undirected
    edge share it: $\tilde A$ stays symmetric. Self-loops stay. The default sees the kept graph in
    the normalization and is therefore not unbiased: an entry of the normalized adjacency has
    another expectation than the clean one. Under max aggregation a dropped edge is absent.

    Source: Rong et al., "DropEdge: towards deep graph convolutional networks on node
    classification" (ICLR 2020), whose code keeps an exact number of directed entries and one mask
    for all layers (`share=forward`).

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 leaves self-loops alone.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `renormalize` (default), `inverse` or `none`; see `EdgeOperator`.
        symmetric: one coin for both directions; by default where the graph is undirected.
        protect_self_loops: keep self-loops (default).

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> import torch
        >>> edge_index = torch.tensor([[0, 1, 2, 2], [1, 0, 1, 2]])
        >>> DropEdge(p=1.0)(edge_index)
        (tensor([[2],
                [2]]), None)
        >>> DropEdge(p=0.0)(edge_index)[0] is edge_index
        True
    """

    name = "drop-edge"
    axes = ("edge",)
    source = "Rong et al. 2020"
