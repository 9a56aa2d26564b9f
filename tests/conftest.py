"""Shared by all tests: where real graphs are, no network, untouched global generators."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import torch
from hypothesis import settings

# A shared machine's pauses are no failures; the same examples on every run.
settings.register_profile("gnndrop", deadline=None, derandomize=True)
settings.load_profile("gnndrop")


@pytest.fixture(scope="session", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Refuse the network, and start from an empty cache instead of the user's."""
    real = requests.Session.request

    def request(self: requests.Session, method: str, url: str, **options: Any) -> Any:
        if urlsplit(url).hostname != "127.0.0.1":
            raise requests.ConnectionError("tests have no network")
        return real(self, method, url, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "request", request)
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("GNNDROP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the mirror of raw files; skip where there is none."""
    place = os.environ.get("GNNDROP_DATA")
    if not place:
        pytest.skip("needs real graphs: set GNNDROP_DATA to a mirror of their raw files")
    return Path(place)


@pytest.fixture(scope="session")
def root_with(data_root: Path) -> Callable[[str], Path]:
    """Return a function that gives the mirror if it holds a dataset's files, and skips if not."""
    from gnndrop.datasets import DATASETS  # not at the top: most tests can do without

    def root(spec: str) -> Path:
        lacking = [file for file in DATASETS.make(spec).files if not (data_root / file).is_file()]
        if lacking:
            pytest.skip(f"needs {spec}: GNNDROP_DATA lacks {lacking[0]}")
        return data_root

    return root


@pytest.fixture
def generators_untouched() -> Iterator[None]:
    """Fail if the test moves a global random generator."""

    def states() -> tuple[object, ...]:
        # The legacy state is what must not move.
        numpy_state = np.random.get_state()  # noqa: NPY002
        return random.getstate(), str(numpy_state), torch.get_rng_state().tolist()

    before = states()
    yield
    assert states() == before
