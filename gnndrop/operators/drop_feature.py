"""Spatial dropout: one coin for every channel, shared by all nodes."""

from gnndrop.operators._base import FeatureOperator, declare


@declare
class DropFeature(FeatureOperator):
    r"""Drop whole channels, the same for all nodes: spatial dropout.

    $\tilde x_{ic} = m_c x_{ic} / (1-p)$ with $m_c \sim B(1-p)$.

    The spatial dropout of convolutional nets; the column mask of graph contrastive learning, which
    leaves out the rescaling (`rescale=none`).

    Source: Tompson et al., "Efficient object localization using convolutional
    networks" (CVPR 2015).

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `inverse` (default) divides kept entries by 1-p, `none` leaves them, `eval` leaves
            them and multiplies all entries by 1-p in evaluation.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> import torch
        >>> x = DropFeature(p=0.5)(torch.ones(4, 50))
        >>> bool((x == x[0]).all())
        True
    """

    name = "drop-feature"
    axes = ("channel",)
    source = "Tompson et al. 2015"
