"""Parsed graphs, kept so that the next load need not parse: plain arrays, never a pickle.

A file is the SHA-256 of its content and then the content, an npz archive of numbers. Its name is
made of the sums of the raw files, which are verified at every load, so that a changed raw file is
never hidden behind the graph that was parsed from another.
"""

import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch_geometric
from torch_geometric.data import Data

from gnndrop.datasets._files import Found, cache_folder
from gnndrop.datasets.splits import Split

# Part of every name, as is PyG's version: it parses, too. Raise it with each change of the format
# and of what a parser returns.
FORMAT = 1

DIGEST_BYTES = hashlib.sha256().digest_size

# A stored non-zero takes a place (8 bytes) and a value (4); a dense entry takes 4.
BYTES_PER_NONZERO, BYTES_PER_ENTRY = 12, 4


def place_of(found: Sequence[Found]) -> Path:
    """Return where the graph parsed from these raw files is kept."""
    sums = {one.file.path: one.sha256 for one in found}
    key = json.dumps([FORMAT, torch_geometric.__version__, sums], sort_keys=True).encode()
    return cache_folder() / "parsed" / hashlib.sha256(key).hexdigest()


def read(
    place: Path, accepts: Callable[[Data, list[Split]], bool]
) -> tuple[Data, list[Split]] | None:
    """Return the graph and its published splits; `None` where there is no sound file.

    The sum tells damage, not malice: whoever can write to the cache can write a sum too. What such
    a file can do is bounded by the format, which holds numbers, and by the check.

    Args:
        place: the file, as `place_of` names it.
        accepts: whether a graph is the one wanted, and safe to compute with.
    """
    try:
        content = place.read_bytes()
        if hashlib.sha256(content[DIGEST_BYTES:]).digest() != content[:DIGEST_BYTES]:
            return None
        with np.load(io.BytesIO(content[DIGEST_BYTES:]), allow_pickle=False) as arrays:
            graph, splits = _unpack(arrays)
        return (graph, splits) if accepts(graph, splits) else None
    except Exception:  # no file, or one that is not ours: whatever it is, the raw files are there
        return None


def write(place: Path, data: Data, splits: list[Split]) -> None:
    """Keep a graph, all of it or nothing; a cache that cannot be written is done without."""
    content = io.BytesIO()
    _pack(content, data, splits)
    digest = hashlib.sha256(content.getbuffer()).digest()
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as part:
            try:
                part.write(digest)
                part.write(content.getbuffer())
                part.close()
                Path(part.name).replace(place)
            except BaseException:
                Path(part.name).unlink()
                raise


def _pack(file: io.BytesIO, data: Data, splits: list[Split]) -> None:
    """Write a graph as small arrays: bags of words by their non-zeros, narrow indices."""
    x = data.x.numpy()
    places = np.flatnonzero(x)
    values = x.reshape(-1)[places]
    if BYTES_PER_NONZERO * len(places) >= BYTES_PER_ENTRY * x.size:
        places, values = places[:0], x.reshape(-1)  # dense
    masks = [torch.stack(list(split)).numpy() for split in splits]
    np.savez(
        file,
        shape=np.array(x.shape),
        places=places,
        values=values,
        edge_index=data.edge_index.int().numpy(),
        y=data.y.numpy(),
        splits=np.stack(masks) if masks else np.zeros((0, 3, len(x)), dtype=bool),
    )


def _unpack(arrays: Mapping[str, np.ndarray]) -> tuple[Data, list[Split]]:
    shape, places, values = (arrays[key] for key in ("shape", "places", "values"))
    if len(places) < len(values):
        x = torch.from_numpy(values).reshape(*shape.tolist())
    else:
        x = torch.zeros(*shape.tolist())
        x.view(-1)[torch.from_numpy(places)] = torch.from_numpy(values)
    data = Data(
        x=x,
        edge_index=torch.from_numpy(arrays["edge_index"]).long(),
        y=torch.from_numpy(arrays["y"]),
    )
    return data, [Split(*masks) for masks in torch.from_numpy(arrays["splits"])]
