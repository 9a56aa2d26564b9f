"""Where a result was made: versions of what decides numbers, and the machine."""

import importlib.metadata
import platform
from pathlib import Path

import joblib

PACKAGES = ("gnndrop", "torch", "torch-geometric", "numpy", "scipy", "numba")


def environment() -> dict[str, str | int | None]:
    """Return the versions of gnndrop, Python and what gnndrop stands on, and the machine.

    Nothing is imported for it; a package that is not installed has the version None.

    Returns:
        Names to values, fit for JSON.

    Example:
        >>> list(environment())[:3]
        ['python', 'gnndrop', 'torch']
    """
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": joblib.cpu_count(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """Return the processor's model; Linux tells `platform` its architecture alone."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
