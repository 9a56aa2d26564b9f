"""The counter-based mask: `keep = hash(seed, site, layer, call, coordinates) >= threshold(p)`.

A mask is a pure function of integers. Nothing is drawn, stored or consumed: the same coordinates
give the same coin on any device, in any chunk, thread or process, and again in the backward pass.

Two levels of mixing:

1.  `stream_key` folds seed, site, layer and call into 64 bits; `row_key` folds a row's coordinate
    (a node, an edge) into 64 more bits of the same kind.
2.  `coin_bits` gives 32 bits for a row, or for a column (a channel, a head) of a row: one xor and
    one multiplication, so that a coin costs no more than the arithmetic it decides on. *Both*
    halves of the 64-bit row key take part: the column's constant word is shuffled by the low half
    and multiplied by the high one. With a 32-bit key rows would be shifted copies of each other.

This file is the definition, in torch integers; the compiled kernels repeat it bit for bit.

Sources: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014) for
the 64-bit finalizer; Dietzfelbinger et al., "A reliable randomized algorithm for the closest-pair
problem" (J. Algorithms 1997) for hashing by one multiplication with a random odd number; Wellons,
"Prospecting for hash functions" (2018) for the words of the columns; Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3" (SC 2011) for the idea.
"""

import functools
import math
import zlib
from dataclasses import dataclass, replace
from numbers import Real

import torch
from torch import Tensor

from gnndrop.errors import ParameterError

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: consecutive counters land far apart
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
COLUMN_STEP = 0x9E3779B9
COLUMN_MIXES = ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB))
WORD = (1 << 64) - 1
HALF = (1 << 32) - 1

# A quantile is interpolated between 2^7 points for every halving of its probability, which are
# found by shifting a float32: above its mantissa's first 7 bits stands its exponent.
CHORD_SHIFT = 23 - 7
FIRST_CHORD = 126 << 23  # the bits of 0.5, the smallest of the arguments


@dataclass(frozen=True)
class Mask:
    """One mask, as data: everything but the coordinates.

    Args:
        key: the 64-bit key of the stream, from `stream_key`.
        p: the rate at which coordinates are dropped, in [0, 1].
        by_row: whether the coin depends on the row (a node, an edge, an input of a weight).
        by_column: whether it depends on the column (a channel, a head, an output of a weight).
        scale: the factor that kept entries are multiplied by.
        keys: where several samples are computed at once, one block of rows below the other, the
            key of each block; the first is `key`. Empty for one sample.

    Example:
        >>> Mask(key=stream_key(0, "dropout"), p=0.5).threshold == 2**31
        True
    """

    key: int
    p: float
    by_row: bool = True
    by_column: bool = True
    scale: float = 1.0
    keys: tuple[int, ...] = ()

    @property
    def threshold(self) -> int:
        """The number of the 2^32 coins that drop: `round(p * 2^32)`."""
        return round(self.p * (1 << 32))

    @property
    def drops_all(self) -> bool:
        """Whether no coin keeps: p is 1, or nearer to it than the coins can tell."""
        return self.threshold > HALF


def check_rate(p: object) -> float:
    """Return `p` as a float if it is a rate.

    Raises:
        ParameterError: if `p` is not in [0, 1], or not a number.

    Example:
        >>> check_rate(0.5)
        0.5
    """
    if type(p) is not bool and isinstance(p, Real) and 0 <= float(p) <= 1:
        return float(p)
    raise ParameterError(f"p must be in [0, 1], got {p!r}")


def inverse_scale(p: float) -> float:
    """Return 1/(1-p), the factor that preserves the expectation; 0 where nothing is kept.

    Example:
        >>> inverse_scale(0.5), inverse_scale(1.0)
        (2.0, 0.0)
    """
    return 1 / (1 - p) if p < 1 else 0.0


def draw_seed() -> int:
    """Draw a 63-bit seed from torch's global CPU generator, advancing it by one draw.

    This is how training masks follow `torch.manual_seed`.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> first = draw_seed()
        >>> _ = torch.manual_seed(0)
        >>> draw_seed() == first
        True
    """
    return int(torch.randint(0, (1 << 63) - 1, (), dtype=torch.int64, device="cpu"))


def stream_key(seed: int, site: str, layer: int = 0, call: int = 0) -> int:
    r"""Return the 64-bit key of one mask stream.

    Folded as $k \leftarrow \mathrm{mix}((k + G) \oplus v)$ over seed, site, layer and call, where
    mix is the splitmix64 finalizer, a bijection: streams of one seed never share a key at the same
    depth by construction, others only by a 64-bit accident.

    Args:
        seed: any integer; taken modulo 2^64.
        site: what the mask acts on: the operator's name.
        layer: the layer's place in the model.
        call: the number of earlier calls of that layer in this forward pass.

    Example:
        >>> stream_key(0, "dropout", layer=1) != stream_key(0, "dropout", layer=2)
        True
    """
    key = 0
    for value in (seed, zlib.crc32(site.encode()), layer, call):
        key = _fold(key, value)
    return key


def _fold(key: int, value: int) -> int:
    z = ((key + GOLDEN) ^ value) & WORD
    z = ((z ^ (z >> 30)) * MIX_1) & WORD
    z = ((z ^ (z >> 27)) * MIX_2) & WORD
    return z ^ (z >> 31)


def row_key(key: int, rows: Tensor) -> Tensor:
    """Return the 64-bit key of every row under a stream's key.

    Args:
        key: a key of `stream_key`.
        rows: int64 coordinates, of any shape.

    Returns:
        int64 of the same shape (the bits of an unsigned number).

    Example:
        >>> row_key(0, torch.arange(3)).shape
        torch.Size([3])
    """
    return mix(rows ^ _signed(key + GOLDEN))


def mix(z: Tensor) -> Tensor:
    """Apply the splitmix64 finalizer, a bijection of 64-bit integers, to every entry.

    Example:
        >>> mix(torch.tensor([0, 1])).tolist()[0]
        0
    """
    z = (z ^ _shift(z, 30)) * _signed(MIX_1)
    z = (z ^ _shift(z, 27)) * _signed(MIX_2)
    return z ^ _shift(z, 31)


def column_words(columns: Tensor) -> Tensor:
    """Return the constant 32-bit word of every column, a bijection without visible structure.

    Small relations between words would make the coins of more than two columns dependent.

    Args:
        columns: int64 column numbers, from 0 to 2^32 - 1.

    Returns:
        int64 in [0, 2^32), of the same shape.

    Example:
        >>> column_words(torch.arange(1000)).unique().numel()
        1000
    """
    h = ((columns + 1) * COLUMN_STEP) & HALF
    for bits, multiplier in COLUMN_MIXES:
        h = ((h ^ (h >> bits)) * multiplier) & HALF
    return h ^ (h >> 14)


def coin_bits(keys: Tensor, columns: Tensor | None = None) -> Tensor:
    r"""Return 32 uniform bits for every row key, or for every pair of a row key and a column.

    A row's own coin is the high half h of its key, that of a column with the word w is
    $((l \oplus w) \cdot (h \lor 1)) \bmod 2^{32}$, where l is the low half.

    Args:
        keys: int64 row keys, broadcast against `columns`.
        columns: int64 column numbers below 2^32, or None for the row's own coin.

    Returns:
        int64 in [0, 2^32).

    Example:
        >>> coin_bits(row_key(7, torch.arange(4))[:, None], torch.arange(5)).shape
        torch.Size([4, 5])
    """
    high = _shift(keys, 32)
    if columns is None:
        return high
    return (((keys & HALF) ^ column_words(columns)) * (high | 1)) & HALF


def spread(mask: Mask, rows: Tensor, blocks: Tensor) -> tuple[Tensor, Mask]:
    r"""Return coordinates and a mask of one key with the coins of a mask of several blocks.

    A row r of the block with key k has, in the stream of the key $k_0$, the coins of the coordinate
    $r \oplus (k + G) \oplus (k_0 + G)$: `row_key` is a bijection of $r \oplus (k + G)$.

    Args:
        mask: with the keys of the blocks.
        rows: int64 coordinates within the blocks.
        blocks: the number of the block of each row, broadcast against `rows`.

    Returns:
        The coordinates, and the mask, which is one by row: blocks differ where rows do not.

    Example:
        >>> one, other = stream_key(0, "dropout"), stream_key(1, "dropout")
        >>> both = Mask(key=one, p=0.5, keys=(one, other))
        >>> rows, mask = spread(both, torch.tensor([7, 7]), torch.tensor([0, 1]))
        >>> row_key(mask.key, rows)[1:].equal(row_key(other, torch.tensor([7])))
        True
    """
    shifts = _shifts(mask, rows.device)[blocks]
    return (rows ^ shifts if mask.by_row else shifts), replace(mask, by_row=True, keys=())


def _shifts(mask: Mask, device: torch.device | None) -> Tensor:
    """Return what the rows of each block are shifted by, as bits."""
    base = mask.key + GOLDEN
    return torch.tensor([_signed((key + GOLDEN) ^ base) for key in mask.keys], device=device)


def spread_rows(mask: Mask, count: int, device: torch.device | None = None) -> tuple[Tensor, Mask]:
    """Return what `spread` does for blocks of equally many rows, numbered from 0, on a device.

    Raises:
        ParameterError: if the blocks do not have equally many rows.

    Example:
        >>> spread_rows(Mask(key=0, p=0.5, keys=(0, 0)), 4)[0].tolist()
        [0, 1, 0, 1]
    """
    check_blocks(mask, count)
    copies = len(mask.keys)
    shifts = _shifts(mask, device)[:, None]
    numbers = torch.arange(count // copies, device=device)
    coordinates = numbers ^ shifts if mask.by_row else shifts.expand(copies, len(numbers))
    return coordinates.flatten(), replace(mask, by_row=True, keys=())


def check_blocks(mask: Mask, count: int, rows: Tensor | None = None) -> None:
    """Refuse rows that a mask of several blocks cannot be asked for.

    Args:
        mask: any.
        count: the number of rows.
        rows: their coordinates, if they have some of their own, whose blocks nobody knows.

    Raises:
        ParameterError: if the blocks do not have equally many rows, or rows have coordinates.

    Example:
        >>> check_blocks(Mask(key=0, p=0.5, keys=(0, 0)), 4)
    """
    if mask.keys and (rows is not None or count % len(mask.keys)):
        raise ParameterError(
            f"{len(mask.keys)} samples at once need as many blocks of rows, got {count} rows"
            + (" with coordinates" if rows is not None else "")
        )


def keep(mask: Mask, rows: Tensor, columns: Tensor) -> Tensor:
    """Evaluate a mask at coordinates: True where the entry is kept.

    Axes that the mask does not depend on are not broadcast: a mask by row alone has the shape of
    `rows`, one by column alone that of `columns`.

    Args:
        mask: the mask.
        rows: int64 row coordinates.
        columns: int64 column numbers, broadcast against `rows`.

    Returns:
        Boolean tensor.

    Example:
        >>> coins = Mask(key=stream_key(0, "dropout"), p=0.5)
        >>> keep(coins, torch.arange(100)[:, None], torch.arange(100)).float().mean() > 0.4
        tensor(True)
    """
    return mask_bits(mask, rows, columns) >= mask.threshold


def mask_bits(mask: Mask, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the coins of a mask at coordinates, int64 in [0, 2^32); shapes as in `keep`.

    Example:
        >>> row_mask = Mask(key=0, p=0.5, by_column=False)
        >>> mask_bits(row_mask, torch.arange(3)[:, None], torch.arange(5)).shape
        torch.Size([3, 1])
    """
    if not mask.by_row:
        rows = torch.zeros((), dtype=torch.int64, device=columns.device)
    return coin_bits(row_key(mask.key, rows), columns if mask.by_column else None)


def fractions(bits: Tensor) -> Tensor:
    r"""Return the uniform numbers of coins, $(\lfloor b / 2^9 \rfloor + 1/2) / 2^{23}$.

    Inside of (0, 1), symmetric about 1/2, and exact in float32; a coin keeps where its number is
    above p.

    Args:
        bits: int64 in [0, 2^32).

    Returns:
        float64 of the same shape.

    Example:
        >>> fractions(torch.tensor([0, 2**32 - 1])).sum()
        tensor(1., dtype=torch.float64)
    """
    return ((bits >> 9).double() + 0.5) / (1 << 23)


def gaussian_deviation(p: float) -> float:
    r"""Return the standard deviation $\sqrt{p/(1-p)}$ of a factor that takes a coin's place.

    It is that of an inverted Bernoulli factor; at p = 1, where that is none, infinite.

    Example:
        >>> gaussian_deviation(0.5), gaussian_deviation(0.8)
        (1.0, 2.0)
    """
    return math.sqrt(p / (1 - p)) if p < 1 else math.inf


def normals(bits: Tensor) -> Tensor:
    r"""Return the standard normal numbers of coins: $\pm Q((b' + 1/2) / 2^{32})$.

    The first bit of a coin is the sign, the other 31 are $b'$, and Q is the upper quantile,
    interpolated linearly in a table: its error is below 4e-6, its largest value 6.3.

    Source: Cheung et al., "Hardware generation of arbitrary random number distributions from
    uniform distributions via the inversion method" (IEEE Trans. VLSI 2007).

    Args:
        bits: int64 in [0, 2^32).

    Returns:
        float32 of the same shape.

    Example:
        >>> normals(torch.tensor([2**31 + 2**30, 2**30])).tolist()
        [0.6744897365570068, -0.6744897365570068]
    """
    offsets, slopes = (values.to(bits.device) for values in normal_chords())
    tail = (bits & (HALF >> 1)).float() + 0.5
    place = ((tail.view(torch.int32) - FIRST_CHORD) >> CHORD_SHIFT).long()
    size = offsets[place] + slopes[place] * tail
    return torch.where(bits >> 31 == 1, size, -size)


@functools.cache
def normal_chords() -> tuple[Tensor, Tensor]:
    """Return offsets and slopes of the chords of the upper normal quantile, float32 each.

    Their argument is a tail probability times 2^32, from 0.5 to 2^31; the last one is the point at
    2^31, where the quantile is 0.

    Example:
        >>> offsets, slopes = normal_chords()
        >>> len(offsets) == 32 * 2**7 + 1, float(offsets[-1])
        (True, 0.0)
    """
    count = 32 << (23 - CHORD_SHIFT)
    points = torch.arange(count + 1, dtype=torch.int32) * (1 << CHORD_SHIFT) + FIRST_CHORD
    tails = points.view(torch.float32).double()
    quantiles = -torch.special.ndtri(tails / (1 << 32))
    slopes = quantiles.diff() / tails.diff()
    offsets = quantiles[:-1] - slopes * tails[:-1]
    end = slopes.new_zeros(1)
    return torch.cat([offsets, end]).float(), torch.cat([slopes, end]).float()


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shift right without the sign: torch's int64 shift would copy it."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """Return the int64 with the same 64 bits as `value`."""
    value &= WORD
    return value - (1 << 64) if value >> 63 else value
