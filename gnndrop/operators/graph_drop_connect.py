"""Graph DropConnect: relaxed coins for every edge and block of channels, at learnt rates."""

from dataclasses import replace

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.kernels.noise import uniforms
from gnndrop.kernels.reference import relax
from gnndrop.masks import Mask
from gnndrop.operators._base import MessageOperator, Share, _along, declare
from gnndrop.operators._relaxed import RelaxedMask, RelaxedOperator


@declare
class GraphDropConnect(RelaxedOperator, MessageOperator):
    r"""Drop edges for blocks of channels by relaxed coins, through whose rates gradients flow.

    $y_{ic} = \sum_{e:j \to i} z_{eb} w_e x_{jc} / (1-p_{lb})$ for channel c of block b in layer l,
    $z_{eb} = \sigma((\mathrm{logit}\, u_{eb} - \mathrm{logit}\, p_{lb}) / t)$ and
    $u_{eb} \sim U(0, 1)$.

    Of C channels, c is of the block $\lfloor c B / C \rfloor$. One block is an edge dropout behind
    the normalization, C blocks are `drop-message`, both relaxed. Every layer and block has its own
    rate, in the parameter `logit`, and `rates` tells them; a weight decay on that parameter would
    pull rates to 1/2. Each direction of an edge has its own coins; loops are dropped like others.
    At $t > 0$ nothing is dropped entirely, and the mean factor is 1 at p = 1/2 alone.

    Where the paper puts a prior on the rates, `regularization` has the entropy of concrete dropout,
    with one coin of each block for an edge; weights are left to the optimizer's weight decay. The
    paper samples in evaluation, too; here evaluation is clean, and sampling is asked for. Graph
    diffusion (also GDC) has nothing to do with it.

    Source: Hasanzadeh et al., "Bayesian graph neural networks with adaptive connection sampling"
    (ICML 2020), whose code does not rescale (`rescale=none`) and has two blocks and this
    temperature.

    Args:
        p: the rate before training, in [0, 1]; default 0.5. At 0 and at 1 nothing is learnt: the
            identity, and zeros.
        share: `layer` (default) or `forward`, where all layers share one mask and hence one rate.
        rescale: `inverse` (default) divides entries by 1-p, `none` leaves them.
        blocks: B, 1 or more; default 2.
        temperature: t, above 0; default 0.67.
        strength: what `regularization` is multiplied by, 0 or more; default 1.
        max_layers: how many layers may have rates of their own; default 16.

    Raises:
        ParameterError: if an option is out of its range; by a call, if there are more layers.

    Example:
        >>> operator = GraphDropConnect(p=0.3).start_pass(0)
        >>> operator(torch.ones(100, 4)).sum().backward()
        >>> bool((operator.logit.grad[0] != 0).all()), operator.rates[0].round(decimals=3).tolist()
        (True, [0.30000001192092896, 0.30000001192092896])
    """

    name = "graph-drop-connect"
    axes = ("edge", "block")
    source = "Hasanzadeh et al. 2020"

    def __init__(
        self,
        p: float = 0.5,
        share: Share = "layer",
        rescale: str = "inverse",
        blocks: int = 2,
        temperature: float = 0.67,
        strength: float = 1.0,
        max_layers: int = 16,
    ) -> None:
        if type(blocks) is not int or blocks < 1:
            raise ParameterError(f"blocks must be 1 or more, got {blocks}")
        rest = temperature, strength, max_layers
        super().__init__(p, share, rescale, *rest, shape=(blocks,))
        self.blocks = blocks

    def edge_factors(self, graph: Graph, mask: Mask) -> Tensor:
        """Return the factor of every edge and block, of shape (E, blocks)."""
        return self._of_coordinates(graph.directed_coordinates, mask)

    def mask_messages(
        self, messages: Tensor, coordinates: Tensor, mask: Mask, edge_dim: int = 0
    ) -> Tensor:
        """Apply a given mask along the edges of `messages`."""
        if mask.drops_all:
            return super().mask_messages(messages, coordinates, mask, edge_dim)
        factors = self._of_coordinates(coordinates, mask).to(messages.dtype)

        def multiply(matrix: Tensor) -> Tensor:
            width = matrix.size(1)
            places = torch.arange(width, device=matrix.device) * self.blocks // max(width, 1)
            return matrix * factors[:, places]

        return _along(messages, edge_dim, multiply)

    def _of_coordinates(self, coordinates: Tensor, mask: Mask) -> Tensor:
        if not isinstance(mask, RelaxedMask) or mask.drops_all:
            return self.logit.new_zeros(len(coordinates), self.blocks)
        like = self.logit.new_empty(len(coordinates), self.blocks)
        numbers = uniforms(like, replace(mask, by_row=True, by_column=True), coordinates)
        return relax(numbers, self.logit[mask.layer], *self._relaxation)
