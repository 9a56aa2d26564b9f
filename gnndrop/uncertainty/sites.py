"""The sites of a model that draw at random: what fires, what stays silent, and why."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from gnndrop.errors import ParameterError
from gnndrop.operators import Operator
from gnndrop.operators.combined import CompositeOperator
from gnndrop.registry import did_you_mean, parse_spec

Status = Literal["stochastic", "off", "p=0", "silent", "cached"]
RATES = ("dropout", "dropout_p", "drop_prob", "p")


@dataclass(frozen=True)
class Site:
    """One place of a model that could draw at random.

    Args:
        name: the module, as in `model.named_modules()`; `model` for the model itself.
        operator: spec of a gnndrop operator, else the function that draws (`F.dropout`,
            `torch.rand`), or the module's class where nothing was seen to draw.
        status: `stochastic`: it draws in every sample; `off`: it would, but `operators` leaves it
            out; `p=0`: its rate is zero; `silent`: it never drew, because the forward pass does not
            reach it or guards it; `cached`: the layer keeps the graph of its first call.
        p: its rate, where it is known.
        calls: how often it draws in one forward pass.
    """

    name: str
    operator: str
    status: Status
    p: float | None = None
    calls: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """By what `operators` may choose it: its module, what draws, or that without options."""
        bare = parse_spec(self.operator)[0] if ":" in self.operator else self.operator
        return self.name, self.operator, bare

    def __str__(self) -> str:
        return f"{self.operator} at {self.name}: {self.status}"


class Watch:
    """Counts the random draws of a forward pass, by place.

    Its `path` is the stack of the modules at work.
    """

    def __init__(self) -> None:
        self.path: list[str] = []
        self.begin()

    def begin(self) -> None:
        """Start a pass."""
        self.path.clear()
        self.calls: Counter[tuple[str, str]] = Counter()
        self.rates: dict[tuple[str, str], float | None] = {}
        self.draws = 0

    @property
    def place(self) -> str:
        """The innermost module at work."""
        return self.path[-1] if self.path else "model"

    def note(self, operator: str, p: float | None = None, place: str | None = None) -> int:
        """Count a draw; return how many came before it from the same place in this pass."""
        key = place or self.place, operator
        if not self.rates.get(key):  # of several calls, one that draws
            self.rates[key] = p
        if p != 0:
            self.draws += 1
        self.calls[key] += 1
        return self.calls[key] - 1

    def sites(self) -> list[Site]:
        """Return what the pass has shown."""
        return [
            Site(name, operator, "p=0" if p == 0 else "stochastic", p, self.calls[name, operator])
            for (name, operator), p in self.rates.items()
        ]


def single_operators(model: nn.Module) -> Iterator[tuple[str, Operator]]:
    """Yield the operators in a model that draw, with their names: parts, not what they make up.

    Example:
        >>> from gnndrop.operators import make_operator
        >>> [name for name, _ in single_operators(make_operator("dropout+drop-edge"))]
        ['parts.0', 'parts.1']
    """
    for name, module in model.named_modules():
        if isinstance(module, Operator) and not isinstance(module, CompositeOperator):
            yield name or "model", module


def audit(model: nn.Module, seen: list[Site]) -> tuple[Site, ...]:
    """Return the sites that were seen, then those that one would expect and that stayed silent."""
    found, names = list(seen), {site.name for site in seen}
    for name, module in model.named_modules():
        name = name or "model"
        if isinstance(module, CompositeOperator) or name in names:
            continue
        if isinstance(module, Operator):
            status: Status = "silent" if module.p > 0 else "p=0"
            if module.site != "none":
                found.append(Site(name, module.spec, status, module.p))
            continue
        p = _rate(module)
        if p is not None:
            found.append(Site(name, type(module).__name__, "silent" if p > 0 else "p=0", p))
    cached = [
        Site(name or "model", type(module).__name__, "cached")
        for name, module in model.named_modules()
        if getattr(module, "cached", False) is True
    ]
    return tuple(found + cached)


def _rate(module: nn.Module) -> float | None:
    """Return the rate that a module says it has."""
    for name in RATES:
        p = getattr(module, name, None)
        if isinstance(p, float) and 0 <= p <= 1:
            return p
    return None


def choose(sites: Iterable[Site], wanted: Iterable[str] | None) -> list[Site]:
    """Return the sites, with those `off` that `wanted` does not name.

    Args:
        sites: stochastic ones and others.
        wanted: names of operators (`drop-edge`), specs, functions (`F.dropout`) or modules; None
            for all.

    Raises:
        ParameterError: if a name fits no stochastic site.

    Example:
        >>> sites = [Site("conv", "drop-edge:p=0.3", "stochastic")]
        >>> choose(sites, ["drop-edge"])[0].status
        'stochastic'
    """
    sites = list(sites)
    if wanted is None:
        return sites
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    stochastic = [site for site in sites if site.status == "stochastic"]
    known = list(dict.fromkeys(name for site in stochastic for name in site.names))
    for name in wanted:
        if name not in known:
            raise ParameterError(
                f"operators must name stochastic sites, got {name!r}, {did_you_mean(name, known)}"
            )
    return [
        site
        if site.status != "stochastic" or set(site.names) & set(wanted)
        else replace(site, status="off")
        for site in sites
    ]
