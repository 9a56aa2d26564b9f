"""Graph DropConnect: relaxed coins for every edge and block of channels, at learnt rates."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.masks import Mask, coin_bits, fractions, row_key
from gnndrop.operators._base import MessageOperator, Share, _along, declare

POINTS = 1 << 14  # of the midpoint rule


@declare
class GraphDropConnect(MessageOperator):
    r"""Drop edges for blocks of channels by relaxed coins, through whose rates gradients flow.

    $y_{ic} = \sum_{e:j \to i} z_{eb} w_e x_{jc} / (1-p_{lb})$ for channel c of block b in layer l,
    $z_{eb} = \sigma((\mathrm{logit}\, u_{eb} - \mathrm{logit}\, p_{lb}) / t)$ and
    $u_{eb} \sim U(0, 1)$.

    Of C channels, c is of the block $\lfloor c B / C \rfloor$. One block is an edge dropout behind
    the normalization, C blocks are `drop-message`, both relaxed. Every layer and block has its own
    rate, in the parameter `logit`, and `rates` tells them; a weight decay on that parameter would
    pull rates to 1/2. Each direction of an edge has its own coins; loops are dropped like others.
    At $t > 0$ nothing is dropped entirely, and the mean factor is 1 at p = 1/2 alone.

    Where the paper puts a prior on the rates, `penalty` is the entropy of concrete dropout. It
    samples in evaluation, too; here evaluation is clean, and sampling is asked for. Graph diffusion
    (also GDC) has nothing to do with it.

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
        entropy_strength: of the entropy in `penalty`, 0 or more; default 1e-5.
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
    distribution = "concrete"

    def __init__(
        self,
        p: float = 0.5,
        share: Share = "layer",
        rescale: str = "inverse",
        blocks: int = 2,
        temperature: float = 0.67,
        entropy_strength: float = 1e-5,
        max_layers: int = 16,
    ) -> None:
        super().__init__(p, share, rescale)
        if not 0 < temperature < math.inf:
            raise ParameterError(f"temperature must be above 0 and finite, got {temperature}")
        if not 0 <= entropy_strength < math.inf:
            raise ParameterError(f"entropy_strength must be 0 or more, got {entropy_strength}")
        if blocks < 1 or max_layers < 1:
            raise ParameterError(
                f"blocks and max_layers must be 1 or more, got {blocks} and {max_layers}"
            )
        self.blocks = blocks
        self.temperature = temperature
        self.entropy_strength = entropy_strength
        self.max_layers = max_layers
        start = torch.tensor(self.p, dtype=torch.float64).logit().to(torch.get_default_dtype())
        self.logit = nn.Parameter(start.repeat(max_layers, blocks), requires_grad=0 < self.p < 1)
        self._used: set[int] = set()

    @property
    def rates(self) -> Tensor:
        """The present rate of every layer and block, of shape (max_layers, blocks)."""
        return self.logit.detach().sigmoid()

    @property
    def is_unbiased(self) -> bool:
        """Whether the masked values have the clean ones as their expectation: never below p = 1."""
        return False

    @property
    def factor_cumulants(self) -> tuple[float, float, float]:
        """Mean, variance and fourth cumulant of the first factors, by quadrature."""
        if not 0 < self.p < 1:
            return 1.0 - self.p, 0.0, 0.0
        numbers = (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS
        factors = self._factors(numbers[:, None], 0).detach()[:, 0]
        squares = (factors - factors.mean()) ** 2
        fourth = (squares**2).mean() - 3 * squares.mean() ** 2
        return float(factors.mean()), float(squares.mean()), float(fourth)

    def start_pass(self, seed: int | None = None) -> Self:
        """Begin a forward pass: see `Operator.start_pass`."""
        self._used.clear()
        return super().start_pass(seed)

    def next_mask(self, layer: int = 0) -> Mask:
        """Return the mask of the next call of a layer; it knows whose rates to take.

        Raises:
            ParameterError: if there are more layers than rates.
        """
        mask = super().next_mask(layer)
        layer = 0 if self.share == "forward" else layer
        if layer >= self.max_layers:
            raise ParameterError(
                f"max_layers must be above the number of layers, got {self.max_layers} "
                f"for layer {layer}"
            )
        self._used.add(layer)
        return _BlockMask(**vars(mask), layer=layer)

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

    def penalty(self) -> Tensor:
        r"""Return the regularizer of the layers of the last pass, to be added to the loss.

        $\lambda \sum_{lb} p_{lb} \log p_{lb} + (1-p_{lb}) \log(1-p_{lb})$; the weights are left to
        the optimizer's weight decay.

        Returns:
            A scalar, differentiable by `logit`; 0 before any pass.
        """
        logits = self.logit[sorted(self._used)]
        entropies = logits.sigmoid() * logsigmoid(logits)
        entropies = entropies + (-logits).sigmoid() * logsigmoid(-logits)
        return self.entropy_strength * entropies.sum()

    def _of_coordinates(self, coordinates: Tensor, mask: Mask) -> Tensor:
        if not isinstance(mask, _BlockMask) or mask.drops_all:
            return self.logit.new_zeros(len(coordinates), self.blocks)
        columns = torch.arange(self.blocks, device=coordinates.device)
        bits = coin_bits(row_key(mask.key, coordinates)[:, None], columns)
        return self._factors(fractions(bits).to(self.logit.dtype), mask.layer)

    def _factors(self, numbers: Tensor, layer: int) -> Tensor:
        """Return the factors that uniform numbers, by column a block, make in a layer."""
        logit = self.logit[layer].to(numbers.dtype)
        factors = ((numbers.logit() - logit) / self.temperature).sigmoid()
        return factors / (-logit).sigmoid() if self.rescale == "inverse" else factors


@dataclass(frozen=True, kw_only=True)
class _BlockMask(Mask):
    """A mask whose rates are learnt.

    Args:
        layer: the layer whose rates it has.
    """

    layer: int
