"""Operators made of operators: several at once, or another rate in every layer."""

from collections.abc import Sequence
from typing import Any, Self

from torch import nn

from gnndrop.errors import ParameterError
from gnndrop.masks import draw_seed
from gnndrop.operators._base import OPERATORS, Operator, Site, make_operator
from gnndrop.registry import format_spec, parse_spec


class CompositeOperator(Operator):
    """Base of operators that are made of others, which follow one seed.

    Args:
        operators: the parts, as operators or spec strings.

    Raises:
        ParameterError: if an operator is no single one, or is given twice.
    """

    site: Site = "several"
    axes = ()
    source = "its parts"

    def __init__(self, operators: Sequence[Operator | str]) -> None:
        super().__init__(p=0.0, share="layer", rescale=self.rescales[0])
        parts = [make_operator(operator) for operator in operators]
        if len({id(part) for part in parts}) < len(parts):
            raise ParameterError("the parts of an operator must differ, got one twice")
        self.parts = nn.ModuleList(parts)
        self.train(any(part.training for part in parts))

    @property
    def operators(self) -> list[Operator]:
        """The parts, in order."""
        return list(self.parts)  # type: ignore[arg-type]  # a list of modules knows no more

    @property
    def is_active(self) -> bool:
        """Whether a call of any part would change anything."""
        return any(part.is_active for part in self.operators)

    @property
    def is_unbiased(self) -> bool:
        """Whether the masked values have the clean ones as their expectation, in every part."""
        return all(part.is_unbiased for part in self.operators)

    def start_pass(self, seed: int | None = None, *others: int) -> Self:
        """Begin a forward pass of all parts, by one seed: see `Operator.start_pass`."""
        if seed is None:
            seed = draw_seed() if self.training else 0
        for part in self.operators:
            part.start_pass(seed, *others)
        return super().start_pass(seed, *others)

    def end_pass(self) -> None:
        """End the pass of all parts."""
        for part in self.operators:
            part.end_pass()
        super().end_pass()

    def extra_repr(self) -> str:
        """Show nothing beside the parts, which `print(model)` shows."""
        return ""


@OPERATORS.composes("+")
class Combined(CompositeOperator):
    """Several operators at once: the spec `dropout:p=0.5+drop-edge:p=0.2`.

    Every part acts at its own place, with coins of its own, and drops what the others left over;
    operators at one place act in the order given. Attached, a model must have a place for all of
    them.

    Args:
        operators: the parts, two or more, as operators or spec strings; no two of one name, whose
            coins would be the same.

    Raises:
        ParameterError: if there are fewer than two parts, or two of one name; by a call, if the
            parts act on different things.

    Example:
        >>> both = make_operator("dropout:p=0.5+drop-edge:p=0.2")
        >>> both.spec, [part.site for part in both.operators]
        ('dropout:p=0.5+drop-edge:p=0.2', ['features', 'edges'])
        >>> import torch
        >>> Combined(["dropout:p=1", "drop-node"])(torch.ones(1, 2))
        tensor([[0., 0.]])
    """

    def __init__(self, operators: Sequence[Operator | str]) -> None:
        super().__init__(operators)
        names = [part.alias_of or part.name for part in self.operators]
        if any(isinstance(part, Combined) for part in self.operators) or len(names) < 2:
            raise ParameterError(
                f"a combination must be of two single operators at least, got {', '.join(names)}"
            )
        if len(set(names)) < len(names):
            raise ParameterError(
                f"the parts of a combination must have coins of their own, got {', '.join(names)}"
            )
        self.name = "+".join(part.name for part in super().operators)

    @property
    def operators(self) -> list[Operator]:
        """The parts, in order; first those that look at features, which others drop."""
        return sorted(super().operators, key=lambda part: not getattr(part, "observes", False))

    @property
    def spec(self) -> str:
        """The spec string that builds this operator."""
        return "+".join(part.spec for part in super().operators)

    def forward(self, *values: Any) -> Any:
        """Apply the parts one after the other, where all act on the same thing.

        Args:
            values: what each of the parts takes.

        Returns:
            What the last one returns.

        Raises:
            ParameterError: if the parts act on different things.
        """
        sites = list(dict.fromkeys(part.site for part in self.operators))
        if len(sites) > 1:
            raise ParameterError(
                f"{self.name} acts on {' and '.join(sites)}: attach it to a model, "
                "or call its parts"
            )
        out: Any = values
        for part in self.operators:
            out = part(*values)
            values = out if isinstance(out, tuple) else (out, *values[1:])
        return out


@OPERATORS.composes("/")
class PerLayer(CompositeOperator):
    """One operator with a rate of its own in every layer: the spec `dropout:p=0.2/0.5`.

    Args:
        operators: one for each of the layers it will act in, in their order: operators of one kind
            and other rates.

    Raises:
        ParameterError: if there are fewer than two, or they differ in more than the rate; by a
            call, which belongs to no layer.
        AttachError: by `gnndrop.attach`, if it acts in more or fewer layers than it has rates.

    Example:
        >>> operator = make_operator("dropout:p=0.2/0.5")
        >>> operator.spec, [part.p for part in operator.operators]
        ('dropout:p=0.2/0.5', [0.2, 0.5])
    """

    def __init__(self, operators: Sequence[Operator | str]) -> None:
        super().__init__(operators)
        kinds = {
            (part.name, *((k, v) for k, v in part.options.items() if k != "p"))
            for part in self.operators
        }
        if len(kinds) > 1 or len(self.parts) < 2:
            raise ParameterError(
                "rates per layer must be of one operator that is the same otherwise, got "
                + ", ".join(part.spec for part in self.operators)
            )
        self.name, self.site = self.operators[0].name, self.operators[0].site

    @property
    def spec(self) -> str:
        """The spec string that builds this operator."""
        rates = "/".join(str(part.p) for part in self.operators)
        name, options = parse_spec(self.operators[0].spec)
        return format_spec(name, {**options, "p": rates})

    def forward(self, *values: Any) -> Any:
        """Refuse: a single call belongs to no layer.

        Raises:
            ParameterError: always.
        """
        raise ParameterError(
            f"{self.spec} has a rate for every layer of a model: attach it, or call its operators"
        )
