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

import zlib
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Mask:
    """One mask, as data: everything but the coordinates.

    Args:
        key: the 64-bit key of the stream, from `stream_key`.
        p: the rate at which coordinates are dropped, in [0, 1].
        by_row: whether the coin depends on the row (a node, an edge, an input of a weight).
        by_column: whether it depends on the column (a channel, a head, an output of a weight).
        scale: the factor that kept entries are multiplied by.

    Example:
        >>> Mask(key=stream_key(0, "dropout"), p=0.5).threshold == 2**31
        True
    """

    key: int
    p: float
    by_row: bool = True
    by_column: bool = True
    scale: float = 1.0

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
    raise ParameterError(f"p must be in [0, 1], got {p}")


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
    if not mask.by_row:
        rows = torch.zeros((), dtype=torch.int64, device=columns.device)
    keys = row_key(mask.key, rows)
    return coin_bits(keys, columns if mask.by_column else None) >= mask.threshold


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shift right without the sign: torch's int64 shift would copy it."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """Return the int64 with the same 64 bits as `value`."""
    value &= WORD
    return value - (1 << 64) if value >> 63 else value
