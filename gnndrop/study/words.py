"""How numbers and verdicts are written; torch-free."""

from collections.abc import Mapping, Sequence

from gnndrop.study.statistics import MINIMUM_PAIRS, Decision, Verdict

MARKS: Mapping[Decision, str] = {"better": "▲", "worse": "▼", "equivalent": "=", "undecided": "?"}


def mark(decision: Decision | None) -> str:
    """Write what stands behind a score: nothing where it is undecided, or the baseline's.

    Example:
        >>> mark("better"), mark("undecided"), mark(None)
        (' ▲', '', '')
    """
    return "" if decision is None or decision == "undecided" else f" {MARKS[decision]}"


def align(lines: Sequence[Sequence[str]]) -> str:
    """Write lines of cells as a table of aligned columns.

    Example:
        >>> print(align([["none", "80.0"], ["dropout", "81.0"]]))
        none     80.0
        dropout  81.0
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def points(score: float) -> str:
    """Write a score or a difference in points of the metric (hundredths), to one decimal.

    Example:
        >>> points(0.8149), points(-0.0001)
        ('81.5', '0.0')
    """
    return f"{100 * score + 0.0:.1f}".replace("-0.0", "0.0")


def signed_points(difference: float) -> str:
    """Write a difference in points with its sign.

    Example:
        >>> signed_points(0.012), signed_points(-0.012), signed_points(0.0)
        ('+1.2', '-1.2', '0.0')
    """
    text = points(difference)
    return text if text.startswith("-") or text == "0.0" else f"+{text}"


def p_text(value: float | None) -> str:
    """Write a p-value to three decimals, without the zero before them.

    Example:
        >>> p_text(0.0312), p_text(1e-9), p_text(None)
        ('p = .031', 'p < .001', 'p unknown')
    """
    if value is None:
        return "p unknown"
    return "p < .001" if value < 0.001 else f"p = {value:.3f}".replace("0.", ".", 1)


def verdict_sentence(verdict: Verdict, margin: float) -> str:
    """Write a verdict as one sentence: the claim, then its numbers.

    Args:
        verdict: what may be claimed of an operator against the baseline.
        margin: half-width of the region of equivalence, in units of the metric.

    Returns:
        The sentence; differences and intervals are in points.

    Example:
        >>> from gnndrop.study.statistics import Pairing, judge
        >>> differences = (0.02, 0.03, 0.02, 0.03, 0.02, 0.03)
        >>> (verdict,) = judge([Pairing("cora", "gcn", "dropout", "none", differences, 0.5)])
        >>> verdict_sentence(verdict, 0.01)
        'dropout helps gcn on cora: +2.5 points [1.4, 3.6], p = .003 (Holm), 6 pairs.'
    """
    scope = ", on this split" if verdict.test == "paired-t" else ""
    return f"{_claim(verdict, margin)}: {_numbers(verdict)}{scope}."


def _claim(verdict: Verdict, margin: float) -> str:
    operator, place = verdict.operator, f"{verdict.model} on {verdict.dataset}"
    if verdict.verdict == "better":
        return f"{operator} helps {place}"
    if verdict.verdict == "worse":
        return f"{operator} hurts {place}"
    if verdict.verdict == "equivalent":
        reach = f"{100 * margin:g} point{'s' * (margin != 0.01)}"
        return f"{operator} is equivalent to {verdict.baseline} within {reach} in {place}"
    return f"{operator} is undecided in {place}"


def _numbers(verdict: Verdict) -> str:
    if verdict.missing:
        lost = f"{verdict.missing} of {verdict.missing + verdict.pairs} pairs are missing"
        return f"{lost}, because trials failed or have not run"
    if verdict.difference is None or verdict.interval is None:
        return f"it takes {MINIMUM_PAIRS} pairs, got {verdict.pairs}"
    low, high = map(points, verdict.interval)
    equivalent = verdict.verdict == "equivalent"
    p_value = verdict.equivalence_p_adjusted if equivalent else verdict.p_adjusted
    few = f" of the {MINIMUM_PAIRS} it takes" if verdict.pairs < MINIMUM_PAIRS else ""
    return (
        f"{signed_points(verdict.difference)} points [{low}, {high}], {p_text(p_value)} "
        f"({'equivalence, ' if equivalent else ''}Holm), {verdict.pairs} pairs{few}"
    )
