"""Variational dropout: feature dropout with one mask for all layers and steps."""

from gnndrop.operators._base import declare
from gnndrop.operators.dropout import Dropout


@declare
class LockedDropout(Dropout):
    r"""Feature dropout with one mask for the whole forward pass: `dropout:share=forward`.

    $\tilde x_{ic}^{(l)} = m_{ic} x_{ic}^{(l)} / (1-p)$ with the same $m_{ic} \sim B(1-p)$ in every
    layer and step l, so that two layers have the expectation $E[\tilde A \tilde A]$, not
    $E[\tilde A]^2$. Layers of different width share the coins of the channels they both have.

    Stand-alone, `start_pass()` and `end_pass()` say which calls share the mask.

    Source: Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural
    networks" (NeurIPS 2016).

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros.
        rescale: `inverse` (default), `none` or `eval`; see `Dropout`.

    Raises:
        ParameterError: if an option is out of its range; by a call, if it belongs to no pass.

    Example:
        >>> import torch
        >>> dropout = LockedDropout().start_pass(0)
        >>> x = torch.ones(10, 10)
        >>> bool((dropout(x) == dropout(x)).all())
        True
    """

    name = "locked-dropout"
    source = "Gal and Ghahramani 2016"
    alias_of = "dropout"

    def __init__(self, p: float = 0.5, rescale: str = "inverse") -> None:
        super().__init__(p, "forward", rescale)
