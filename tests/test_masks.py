"""The mask as arithmetic (an independent implementation) and as chance (z-scores)."""

import itertools
import math
import zlib
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gnndrop.errors import ParameterError
from gnndrop.masks import (
    Mask,
    check_rate,
    coin_bits,
    draw_seed,
    inverse_scale,
    keep,
    mix,
    row_key,
    spread_rows,
    stream_key,
)

TWO_32, TWO_64 = 2**32, 2**64
# Of some hundred z-scores of a good hash, one beyond 5 turns up once in 10,000 revisions of it.
EXTREME = 5
integers = st.integers(0, TWO_64 - 1)

# Golden values, the only ones: from the Python integers below.
PINNED = {
    "stream": 16846278750309302531,
    "other stream": 11904034655874456444,
    "rows": [11041053671753684298, 15567427729293426142, 14935285248792533788],
    "row coins": [2570695633, 3624574218, 3477392077],
    "coins": [
        [1698474784, 1388595136, 750217422],
        [388468412, 550705308, 4028234686],
        [2138692990, 2513437982, 1788705752],
    ],
}


def python_mix(z: int) -> int:
    """Splitmix64's finalizer, in Python's integers alone."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % TWO_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % TWO_64
    return z ^ (z >> 31)


def python_row_key(key: int, row: int) -> int:
    return python_mix((key + 0x9E3779B97F4A7C15) % TWO_64 ^ (row % TWO_64))


def python_stream_key(seed: int, site: str, layer: int, call: int) -> int:
    key = 0
    for value in (seed % TWO_64, zlib.crc32(site.encode()), layer, call):
        key = python_row_key(key, value)
    return key


def python_coin(row: int, column: int | None) -> int:
    low, high = row % TWO_32, row // TWO_32
    if column is None:
        return high
    return ((low ^ python_word(column)) * (high | 1)) % TWO_32


def python_word(column: int) -> int:
    h = (column + 1) * 0x9E3779B9 % TWO_32
    for bits, multiplier in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
        h = (h ^ h >> bits) * multiplier % TWO_32
    return h ^ h >> 14


def signed(value: int) -> int:
    return value - TWO_64 if value >= TWO_64 // 2 else value


def z_score(first: torch.Tensor, second: torch.Tensor, rate: float) -> float:
    """Correlation of two boolean arrays of known mean, in standard errors."""
    product = (first.double() - rate) * (second.double() - rate)
    return float(product.sum()) / (rate * (1 - rate) * math.sqrt(product.numel()))


def grid(mask: Mask, rows: int, columns: int) -> torch.Tensor:
    kept = keep(mask, torch.arange(rows)[:, None], torch.arange(columns))
    return kept.expand(rows, columns)


# --- arithmetic ---------------------------------------------------------------------------------


def test_pinned_values() -> None:
    """The hash may never change: stored results would silently mean other masks."""
    assert stream_key(0, "dropout") == PINNED["stream"]
    assert stream_key(2**40 + 7, "drop-edge", layer=3, call=2) == PINNED["other stream"]
    keys = row_key(stream_key(0, "dropout"), torch.tensor([0, 1, 2**40]))
    assert [key % TWO_64 for key in keys.tolist()] == PINNED["rows"]
    assert coin_bits(keys).tolist() == PINNED["row coins"]
    assert coin_bits(keys[:, None], torch.tensor([0, 1, 1432])).tolist() == PINNED["coins"]


def test_splitmix64_as_published() -> None:
    """The first outputs of the reference generator for seed 0: mix of multiples of GOLDEN."""
    golden = torch.tensor([signed(k * 0x9E3779B97F4A7C15 % TWO_64) for k in (1, 2, 3)])
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [value % TWO_64 for value in mix(golden).tolist()] == expected


@given(st.integers(-(2**70), 2**70), st.text(max_size=20), integers, integers)
def test_stream_key_is_that_of_python(seed: int, site: str, layer: int, call: int) -> None:
    assert stream_key(seed, site, layer, call) == python_stream_key(seed, site, layer, call)


@given(integers, integers, st.integers(0, TWO_32 - 1))
def test_rows_and_coins_are_those_of_python(key: int, row: int, column: int) -> None:
    expected = python_row_key(key, row)
    actual = row_key(key, torch.tensor([signed(row)]))
    assert actual.item() % TWO_64 == expected
    assert coin_bits(actual).item() == python_coin(expected, None)
    assert coin_bits(actual, torch.tensor([column])).item() == python_coin(expected, column)


@given(integers, st.floats(0, 1), st.booleans(), st.booleans())
def test_keep_compares_coins_with_the_threshold(
    key: int, p: float, by_row: bool, by_column: bool
) -> None:
    mask = Mask(key, p, by_row, by_column)
    expected = [
        [
            python_coin(python_row_key(key, row if by_row else 0), column if by_column else None)
            >= round(Fraction(p) * TWO_32)
            for column in range(4)
        ]
        for row in range(3)
    ]
    assert grid(mask, 3, 4).tolist() == expected


@pytest.mark.parametrize(
    ("by_row", "by_column", "shape"),
    [(True, True, (3, 4)), (True, False, (3, 1)), (False, True, (4,)), (False, False, ())],
)
def test_only_the_axes_of_the_mask_are_broadcast(by_row, by_column, shape) -> None:
    mask = Mask(1, 0.5, by_row, by_column)
    assert keep(mask, torch.arange(3)[:, None], torch.arange(4)).shape == shape


@pytest.mark.parametrize("p", [0.0, 2.0**-33])
def test_nothing_is_dropped_at_a_rate_of_zero(p: float) -> None:
    mask = Mask(stream_key(0, "x"), p)
    assert mask.threshold == 0
    assert not mask.drops_all
    assert bool((coin_bits(torch.zeros(1, dtype=torch.int64)) >= mask.threshold).all())  # coin 0
    assert bool(grid(mask, 100, 100).all())


@pytest.mark.parametrize("p", [1.0, 1 - 2.0**-34])
def test_everything_is_dropped_at_a_rate_of_one(p: float) -> None:
    mask = Mask(stream_key(0, "x"), p)
    assert mask.drops_all
    assert not bool((coin_bits(torch.full((1,), -1)) >= mask.threshold).any())  # the highest coin
    assert not bool(grid(mask, 100, 100).any())


def test_one_coin_in_2_to_the_32_counts() -> None:
    rarely, mostly = Mask(0, 2.0**-32), Mask(0, 1 - 2.0**-32)
    assert (rarely.threshold, mostly.threshold) == (1, TWO_32 - 1)
    assert not mostly.drops_all


def test_a_coin_at_the_threshold_is_kept() -> None:
    """Exactly `threshold` of the 2^32 coins drop, those below it."""
    key, where = stream_key(0, "edge"), torch.tensor([0])
    coin = int(coin_bits(row_key(key, where), where))
    assert bool(keep(Mask(key, coin / TWO_32), where, where))
    assert not bool(keep(Mask(key, (coin + 1) / TWO_32), where, where))


@pytest.mark.parametrize("p", [0, 1, 0.25, 1.0, np.float64(0.5), np.float32(0.5)])
def test_a_rate_is_returned_as_a_float(p: float) -> None:
    assert check_rate(p) == p
    assert type(check_rate(p)) is float


@pytest.mark.parametrize(
    "p", [math.nan, math.inf, -math.inf, -1e-9, 1 + 1e-9, 2, "0.5", None, True, 0.5j, [0.5]]
)
def test_what_is_no_rate_is_refused(p: object) -> None:
    with pytest.raises(ParameterError, match=r"p must be .*in \[0, 1\], got"):
        check_rate(p)


@given(st.floats(0, 1, exclude_max=True))
def test_inverse_scale_preserves_the_expectation(p: float) -> None:
    assert inverse_scale(p) * (1 - p) == pytest.approx(1)
    assert inverse_scale(1.0) == 0


def test_draw_seed_follows_the_global_generator() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = [draw_seed() for _ in range(4)]
        torch.manual_seed(5)
        assert [draw_seed() for _ in range(4)] == first
        torch.manual_seed(5)
        torch.randint(0, 2, (), dtype=torch.int64)  # one draw further
        assert draw_seed() != first[0]
        assert all(0 <= seed < 2**63 for seed in first)
        assert len(set(first)) == 4


@pytest.mark.usefixtures("generators_untouched")
def test_masks_draw_nothing() -> None:
    grid(Mask(stream_key(3, "dropout", 1, 2), 0.5), 10, 10)


# --- chance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize("by_column", [True, False])
def test_the_rate_is_p(p: float, by_row: bool, by_column: bool) -> None:
    kept, drawn = 0, 0
    for seed in range(20 if by_row and by_column else 500):
        mask = Mask(stream_key(seed, "rate"), p, by_row, by_column)
        coins = keep(mask, torch.arange(101)[:, None], torch.arange(67))
        kept, drawn = kept + int(coins.sum()), drawn + coins.numel()
    z = (kept - drawn * (1 - p)) / math.sqrt(drawn * p * (1 - p))
    assert abs(z) < EXTREME


def test_coins_are_uniform_in_every_bit() -> None:
    keys = row_key(stream_key(1, "bits"), torch.arange(1000))
    for coins in (coin_bits(keys), coin_bits(keys[:, None], torch.arange(200)).flatten()):
        places = torch.arange(32)
        share = (coins[:, None] >> places & 1).double().mean(0)
        assert float((share - 0.5).abs().max()) < EXTREME * 0.5 / math.sqrt(len(coins))
        counts = torch.bincount(coins >> 24, minlength=256)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-6


def naive_keep(seed: int, p: float, rows: int, columns: int) -> torch.Tensor:
    """The broken 32-bit mask `hash(counter ^ seed)`, for tests to show that they would see it."""
    h = (torch.arange(rows * columns) ^ seed).view(rows, columns)
    h = ((h ^ h >> 16) * 0x21F0AAAD) % TWO_32
    h = ((h ^ h >> 15) * 0x735A2D97) % TWO_32
    return (h ^ h >> 15) >= round(p * TWO_32)


def totals_dispersion(totals: list[int], size: int, p: float) -> float:
    """Variance of binomial totals in units of the true one: chi-square over its degrees."""
    return float(np.var(totals, ddof=1)) / (size * p * (1 - p))


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (1, 4096), (4096, 1)])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_totals_over_consecutive_seeds_vary_as_binomials_do(rows, columns, p) -> None:
    seeds = range(1000, 1400)
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], len(seeds) - 1) / (len(seeds) - 1)

    def ours(seed: int) -> int:
        return int(grid(Mask(stream_key(seed, "dropout"), p), rows, columns).sum())

    assert low < totals_dispersion([ours(seed) for seed in seeds], rows * columns, p) < high
    naive = [int(naive_keep(seed, p, rows, columns).sum()) for seed in range(400)]
    assert totals_dispersion(naive, rows * columns, p) < low


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_neighbours_along_both_axes_are_independent(p: float) -> None:
    coins = grid(Mask(stream_key(4, "axes"), p), 800, 500)
    for lag in (1, 2, 3, 4, 7, 8, 16, 64, 256):
        assert abs(z_score(coins[lag:], coins[:-lag], 1 - p)) < EXTREME
        assert abs(z_score(coins[:, lag:], coins[:, :-lag], 1 - p)) < EXTREME


@pytest.mark.parametrize("p", [0.5, 0.8])
def test_shifted_rows_are_independent(p: float) -> None:
    """Counters of neighbouring rows must not overlap, in whichever direction they are shifted."""
    coins = grid(Mask(stream_key(5, "shift"), p), 400, 400)
    scores = [
        z_score(coins[down:, shift:], coins[:-down, : 400 - shift], 1 - p)
        for down in (1, 2, 5)
        for shift in range(20)
    ]
    scores += [
        z_score(coins[down:, : 400 - shift], coins[:-down, shift:], 1 - p)
        for down in (1, 2, 5)
        for shift in range(1, 20)
    ]
    assert max(map(abs, scores)) < EXTREME
    assert stats.kstest(scores, "norm").pvalue > 1e-6
    # The naive mask is seen: row r + 1 is row r with blocks exchanged.
    naive = naive_keep(0, p, 400, 512)
    blocks = naive.view(200, 2, 512)
    exchanged = naive_keep(512, p, 400, 512).view(200, 2, 512).flip(1)
    assert z_score(blocks, exchanged, 1 - p) > 100


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_rows_that_share_half_a_key_are_independent(p: float) -> None:
    """Among 10^5 rows some pairs agree in 32 of 64 bits."""
    generator = torch.Generator().manual_seed(0)
    columns, pairs = torch.arange(1000), 500
    low, high, other = torch.randint(0, TWO_32, (3, pairs, 1), generator=generator)
    first = coin_bits(high << 32 | low, columns) >= p * TWO_32
    for key in (other << 32 | low, high << 32 | other):
        second = coin_bits(key, columns) >= p * TWO_32
        product = (first.double() - (1 - p)) * (second.double() - (1 - p)) / (p * (1 - p))
        scores = product.sum(1) / math.sqrt(len(columns))
        assert stats.kstest(scores.numpy(), "norm").pvalue > 1e-6


def test_four_coins_of_a_row_are_independent() -> None:
    rows, p = 400_000, 0.3
    coins = grid(Mask(stream_key(6, "four"), p), rows, 8).double() - (1 - p)
    for four in itertools.combinations(range(8), 4):
        score = float(coins[:, four].prod(1).sum()) / math.sqrt(rows) / (p * (1 - p)) ** 2
        assert abs(score) < EXTREME


STREAMS = {
    "seed": lambda k: stream_key(k, "dropout"),
    "large seed": lambda k: stream_key(k << 48, "dropout"),
    "negative seed": lambda k: stream_key(-k, "dropout"),
    "layer": lambda k: stream_key(7, "dropout", layer=k),
    "call": lambda k: stream_key(7, "dropout", call=k),
    "layer and call exchanged": lambda k: stream_key(7, "dropout", k % 2, 1 - k % 2),
    "site": lambda k: stream_key(7, ("dropout", "drop-edge", "drop-node", "drop-message")[k % 4]),
}


@pytest.mark.parametrize("vary", STREAMS)
@pytest.mark.parametrize(("by_row", "by_column"), [(True, True), (True, False), (False, True)])
def test_streams_are_independent(vary: str, by_row: bool, by_column: bool) -> None:
    p, rows, columns = 0.4, 300 if by_column else 30_000, 300 if by_row else 30_000
    number = {"site": 4, "layer and call exchanged": 2}.get(vary, 8)
    masks = [Mask(STREAMS[vary](k), p, by_row, by_column) for k in range(number)]
    assert len({mask.key for mask in masks}) == number
    coins = [
        keep(mask, torch.arange(rows)[:, None], torch.arange(columns)).flatten() for mask in masks
    ]
    for first, second in pairwise(coins):
        assert abs(z_score(first, second, 1 - p)) < EXTREME
        assert abs(z_score(first[1:], second[:-1], 1 - p)) < EXTREME
    assert abs(z_score(coins[0], coins[-1], 1 - p)) < EXTREME


def test_row_coins_are_independent_of_the_coins_of_their_columns() -> None:
    keys = row_key(stream_key(0, "both"), torch.arange(100_000))
    by_row = coin_bits(keys) >= TWO_32 // 2
    for column in (0, 1, 2, 1000):
        by_both = coin_bits(keys, torch.tensor(column)) >= TWO_32 // 2
        assert abs(z_score(by_row, by_both, 0.5)) < EXTREME


@pytest.mark.parametrize(("by_row", "by_column"), [(True, True), (True, False), (False, True)])
def test_blocks_have_the_coins_of_their_own_keys(by_row: bool, by_column: bool) -> None:
    keys = tuple(stream_key(seed, "dropout") for seed in range(5))
    mask = Mask(key=keys[0], p=0.4, by_row=by_row, by_column=by_column, keys=keys)
    columns = torch.arange(9)
    rows, spreading = spread_rows(mask, 5 * 7)
    found = keep(spreading, rows[:, None], columns).expand(35, 9)
    for block, key in enumerate(keys):
        alone = replace(mask, key=key, keys=())
        expected = keep(alone, torch.arange(7)[:, None], columns).expand(7, 9)
        assert torch.equal(found[7 * block : 7 * (block + 1)], expected)


def test_blocks_lie_where_they_are_asked_for() -> None:
    rows, _ = spread_rows(Mask(key=0, p=0.5, keys=(0, 1)), 4, device=torch.device("meta"))
    assert rows.device.type == "meta"


def test_blocks_must_have_equally_many_rows() -> None:
    with pytest.raises(ParameterError, match="2 samples at once need as many blocks"):
        spread_rows(Mask(key=0, p=0.5, keys=(0, 1)), 3)
