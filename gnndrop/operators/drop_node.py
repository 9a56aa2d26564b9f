"""Row dropout: one coin for every node, shared by its channels."""

from typing import ClassVar

from gnndrop.masks import Mask
from gnndrop.operators._base import FeatureOperator, Presets, Share, declare, with_presets


@declare
class DropNode(FeatureOperator):
    r"""Drop the features of whole nodes, which keep their edges.

    $\tilde x_{ic} = m_i x_{ic} / (1-p)$ with $m_i \sim B(1-p)$.

    The node keeps its edges and still receives messages. Libraries give this name to two more
    things: removing a node with its edges (an induced subgraph), and GRAND's row mask, which acts
    on the model's input alone and leaves the scaling to evaluation: `preset=grand`.

    Source: Feng et al., "Graph random neural networks for semi-supervised learning on graphs"
    (NeurIPS 2020), in the inverted form of Fang et al., "DropMessage" (AAAI 2023).

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `inverse` (default) divides kept rows by 1-p, `none` leaves them, `eval` leaves
            them and multiplies all rows by 1-p in evaluation.
        input_only: attached, act on the input of the model's first layer alone; default False.
        preset: `grand` for `rescale=eval,input_only=true`, as the code of the paper has it; options
            that are given win.

    Raises:
        ParameterError: if an option is out of its range, or the preset unknown.

    Example:
        >>> import torch
        >>> x = DropNode(p=0.5)(torch.ones(50, 4))
        >>> bool((x == x[:, :1]).all())
        True
        >>> DropNode(p=0.75, preset="grand").eval()(torch.ones(1, 2))
        tensor([[0.2500, 0.2500]])
    """

    name = "drop-node"
    axes = ("node",)
    source = "Feng et al. 2020"
    presets: ClassVar[Presets] = {"grand": {"rescale": "eval", "input_only": True}}

    @with_presets
    def __init__(
        self,
        p: float = 0.5,
        share: Share = "layer",
        rescale: str = "inverse",
        input_only: bool = False,
        preset: str | None = None,
    ) -> None:
        super().__init__(p, share, rescale)
        self.input_only = input_only

    def next_mask(self, layer: int = 0) -> Mask:
        """Return the mask of the next call of a layer, which keeps all where none is to act."""
        if self.input_only and layer > 0:
            return Mask(key=0, p=0.0)
        return super().next_mask(layer)
