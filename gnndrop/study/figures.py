"""The figures of a report as geometry: which values stand where; the template draws them.

Coordinates are in units of a figure that is 340 wide, which a phone shows one to one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gnndrop.registry import parse_spec, split_spec
from gnndrop.study.statistics import MINIMUM_PAIRS, Verdict

WIDTH = 340.0
# An interval of two pairs is twelve errors wide: beyond this many times the rest it is cut.
LONGEST = 3.0


@dataclass(frozen=True)
class Axis:
    """A linear scale.

    Args:
        low: the value at `start`.
        high: the value at `end`, above `low`.
        start: coordinate of the low end.
        end: coordinate of the high end.

    Example:
        >>> axis = Axis(-1.0, 1.0, start=0.0, end=100.0)
        >>> axis.at(0.0), axis.at(9.0), axis.ticks
        (50.0, 100.0, (-1.0, -0.5, 0.0, 0.5, 1.0))
    """

    low: float
    high: float
    start: float = 8.0
    end: float = WIDTH - 8.0

    def at(self, value: float) -> float:
        """Return where a value stands; beyond an end, the end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def holds(self, value: float) -> bool:
        """Tell whether a value lies between the ends."""
        return self.low <= value <= self.high

    @property
    def ticks(self) -> tuple[float, ...]:
        """Multiples of 1, 2 or 5 times a power of ten, at most six of them."""
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span / 5))
        step = next(power * unit for unit in (1, 2, 5, 10) if span / (power * unit) <= 5)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(round(place * step, 12) for place in range(first, last + 1))


@dataclass(frozen=True)
class Rate:
    """One point of a curve.

    Args:
        rate: the drop rate.
        verdict: what was found there.
    """

    rate: float
    verdict: Verdict


@dataclass(frozen=True)
class Curve:
    """An operator over its rate, all else equal.

    Args:
        operator: its spec without the rate.
        rates: its points by ascending rate, at least two.
    """

    operator: str
    rates: tuple[Rate, ...]


def difference_axis(
    verdicts: Iterable[Verdict], margin: float, start: float = 8.0, end: float = WIDTH - 8.0
) -> Axis:
    """Return an axis of differences in points, that holds zero and the margin on both sides.

    Intervals of too few pairs are cut at three times what else there is to show.

    Args:
        verdicts: what is to be shown.
        margin: half-width of the region of equivalence, in units of the metric.
        start: coordinate of the low end.
        end: coordinate of the high end.
    """
    known = [verdict for verdict in verdicts if verdict.difference is not None]
    must = [margin, -margin, *(verdict.difference or 0.0 for verdict in known)]
    ends = [end for verdict in known for end in verdict.interval or ()]
    sure = [
        end for verdict in known if verdict.pairs >= MINIMUM_PAIRS for end in verdict.interval or ()
    ]
    longest = LONGEST * max(map(abs, [*must, *sure]))
    low = max(min(*must, *sure, *ends), -longest)
    high = min(max(*must, *sure, *ends), longest)
    room = 0.04 * (high - low)
    return Axis(100 * (low - room), 100 * (high + room), start, end)


def curves(verdicts: Sequence[Verdict]) -> list[Curve]:
    """Return the operators that differ from one another by their rate p alone, as curves.

    Args:
        verdicts: those of one dataset and model.

    Example:
        >>> curves([])
        []
    """
    families: dict[str, list[Rate]] = {}
    for verdict in verdicts:
        name, options = _parse_one(verdict.operator)
        try:
            rate = float(options.pop("p", ""))
        except ValueError:  # no rate, or one for each layer
            continue
        rest = ",".join(f"{key}={value}" for key, value in sorted(options.items()))
        family = f"{name}:{rest}" if rest else name
        if verdict.difference is not None:
            families.setdefault(family, []).append(Rate(rate, verdict))
    return [
        Curve(operator, tuple(sorted(rates, key=lambda point: point.rate)))
        for operator, rates in families.items()
        if len({point.rate for point in rates}) > 1
    ]


def _parse_one(spec: str) -> tuple[str, dict[str, str]]:
    """Parse a spec; what several operators make has no rate of its own."""
    return parse_spec(spec) if len(split_spec(spec)) == 1 else (spec, {})
