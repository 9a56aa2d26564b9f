r"""Variance-preserving initialization of residual stacks that are trained with dropout.

A layer $y = f(W(r \circ x)) + Sx$, or $r f(Wx) + Sx$ with stochastic depth, has a branch that is
kept with probability 1-p. Its factor r has the second moment $c = 1/(1-p)$ (or 1-p where kept
values are not rescaled): initializations that do not know of it let the activations of a stack
grow by it in every layer. With independent Gaussian weights of mean zero,

$$\mathrm{Var}[W_{ij}] = \frac{g\,s}{c\,n}, \qquad \mathrm{Var}[S_{ij}] = \frac{1-s}{n},$$

for fan-in n, g = 2 for ReLU and 1 for f linear, the mean square of an entry of y is that of an
entry of x, for every x, in training: the branch contributes the share s, the skip connection the
rest. The identity as skip connection cannot shrink: then the mean square grows by $(1+s)^L$ in L
layers, by less than e for the share s = 1/L. That is where the branch ends in its linear map, as
$W\,\mathrm{relu}(Vx)$ does; behind ReLU it would have a positive mean, which adds up with x.

Sources: He et al., "Delving deep into rectifiers" (ICCV 2015) for g; Hendrycks and Gimpel,
"Adjusting for dropout variance in batch normalization and weight initialization" (2016) for the
idea of the factor c; the shares are ours.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gnndrop.errors import ParameterError
from gnndrop.masks import check_rate, inverse_scale

Nonlinearity = Literal["relu", "linear"]

SQUARED_GAIN = {"relu": 2.0, "linear": 1.0}


def second_moment(p: float, rescale: str = "inverse") -> float:
    """Return the mean square of the factor that dropped values are multiplied by.

    Args:
        p: the rate, in [0, 1].
        rescale: `inverse` (default): 1/(1-p); `none` or `eval`: 1-p.

    Raises:
        ParameterError: if `p` is no rate, or `rescale` unknown.

    Example:
        >>> second_moment(0.5), second_moment(0.5, rescale="none")
        (2.0, 0.5)
    """
    if rescale not in ("inverse", "none", "eval"):
        raise ParameterError(f"rescale must be one of inverse, none, eval, got {rescale!r}")
    return inverse_scale(check_rate(p)) if rescale == "inverse" else 1 - check_rate(p)


def residual_growth(num_layers: int, share: float | None = None) -> float:
    """Return by how much identity skip connections let the mean square grow through a stack.

    Args:
        num_layers: the number L of layers.
        share: of a branch in its layer's output; None (default): 1/L.

    Returns:
        (1 + share)^L; below e by default.

    Example:
        >>> residual_growth(2)
        2.25
    """
    return float((1 + (1 / num_layers if share is None else share)) ** num_layers)


@torch.no_grad()
def initialize_residual_(
    branches: Sequence[nn.Module],
    skips: Sequence[nn.Module] | None = None,
    p: float | Sequence[float] = 0.5,
    share: float | None = None,
    rescale: str = "inverse",
    nonlinearity: Nonlinearity | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Initialize a residual stack so that training with dropout preserves the mean square.

    Biases become zero. The maths is that of fully connected branches; averaging over neighbours
    shrinks the mean square of a graph layer's branch besides.

    Args:
        branches: the layers' linear maps, each with a `weight` of shape (out, in): W. Of a branch
            of several maps it is the last; `torch.nn.init.kaiming_normal_` is for the others.
        skips: the linear maps of the skip connections, S, as many; None: the identity.
        p: the rate at which a branch or its input is dropped, in [0, 1), or one for each layer.
        share: of a branch in its layer's output, in (0, 1]; None: 1/2 with skip maps, else 1 over
            the number of layers.
        rescale: `inverse` (default) or `none`, as the operator's.
        nonlinearity: behind the branch's map: `relu` or `linear`; None: `relu` with skip maps,
            `linear` with the identity, where nothing else is possible.
        generator: to draw from; None: torch's global one, as `torch.nn.init` does.

    Raises:
        ParameterError: if lengths differ, a rate is not in [0, 1), a share not in (0, 1], the
            nonlinearity unknown, or `relu` with the identity, or a module has no weight matrix.

    Example:
        >>> from gnndrop.models import MLP
        >>> model = MLP(64, 64, 64, num_layers=9, residual=True)
        >>> initialize_residual_(model.layers[:-1], model.skips, p=0.5)
        >>> model.skips[0].weight.var() > 0.006  # (1-s)/n = 1/128
        tensor(True)
    """
    rates = [p] * len(branches) if isinstance(p, int | float) else list(p)
    if share is None:
        share = 0.5 if skips is not None else 1 / max(len(branches), 1)
    if nonlinearity is None:
        nonlinearity = "relu" if skips is not None else "linear"
    _check(branches, skips, rates, share, nonlinearity)
    for branch, rate in zip(branches, rates, strict=True):
        gain = SQUARED_GAIN[nonlinearity] / second_moment(rate, rescale)
        _draw(branch, gain * share, generator)
    for skip in skips or ():
        _draw(skip, 1 - share, generator)


def _check(
    branches: Sequence[nn.Module],
    skips: Sequence[nn.Module] | None,
    rates: Sequence[float],
    share: float,
    nonlinearity: str,
) -> None:
    lengths = {len(branches), len(rates), len(branches if skips is None else skips)}
    if len(lengths) > 1:
        raise ParameterError(
            f"every branch needs its rate and its skip connection, got {len(branches)} branches, "
            f"{len(rates)} rates and {len(skips or ())} skip connections"
        )
    if any(check_rate(rate) == 1 for rate in rates):
        raise ParameterError("p must be below 1 for a branch to be kept at all, got 1")
    if not 0 < share <= 1:
        raise ParameterError(f"share must be above 0 and at most 1, got {share}")
    if nonlinearity not in SQUARED_GAIN:
        raise ParameterError(f"nonlinearity must be relu or linear, got {nonlinearity!r}")
    if skips is None and nonlinearity == "relu":
        raise ParameterError(
            "identity skip connections need branches of mean zero, got relu behind their maps; "
            "end the branches in a linear map, or give linear skip connections"
        )
    for module in (*branches, *(skips or ())):
        weight = getattr(module, "weight", None)
        if not (isinstance(weight, Tensor) and weight.dim() == 2):
            raise ParameterError(
                f"a layer to initialize needs a weight matrix, got {type(module).__name__}; "
                "give its linear map, as conv.lin"
            )


def _draw(
    module: nn.Module, variance_times_fan_in: float, generator: torch.Generator | None
) -> None:
    weight = module.get_parameter("weight")
    std = (variance_times_fan_in / weight.size(1)) ** 0.5
    nn.init.normal_(weight, std=std, generator=generator)
    if isinstance(getattr(module, "bias", None), Tensor):
        nn.init.zeros_(module.get_parameter("bias"))
