"""Feature dropout: an independent coin for every node and channel."""

from gnndrop.operators._base import FeatureOperator, declare


@declare
class Dropout(FeatureOperator):
    r"""Feature dropout: drop every entry by itself, and divide the kept ones by 1-p.

    $\tilde x_{ic} = m_{ic} x_{ic} / (1-p)$ with $m_{ic} \sim B(1-p)$.

    For a linear layer with fixed weights the mean is the clean output and the variance
    $p/(1-p) \sum_j w_{ij}^2 x_{jc}^2$; channels are uncorrelated, nodes with a common neighbour
    are not. Where x is sparse CSR, only stored entries need coins: the distribution is the same.

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting"
    (JMLR 2014), in the inverted form; its own is `rescale=eval`.

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `inverse` (default) divides kept entries by 1-p, `none` leaves them, `eval` leaves
            them and multiplies all entries by 1-p in evaluation.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> import torch
        >>> dropout = Dropout(p=0.5)
        >>> sorted(set(dropout(torch.ones(100, 10)).unique().tolist()))
        [0.0, 2.0]
        >>> dropout.eval()(torch.ones(1, 2))
        tensor([[1., 1.]])
        >>> Dropout(p=0.25, rescale="eval").eval()(torch.ones(1, 2))
        tensor([[0.7500, 0.7500]])
    """

    name = "dropout"
    axes = ("node", "channel")
    source = "Srivastava et al. 2014"
