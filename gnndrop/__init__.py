"""Dropout for graph neural networks: operators, fair comparisons, uncertainty.

    attach(model, operator)   put a dropout operator into any PyG model
    fit(model, data)          train it by the protocol of every comparison
    compare(operators, ...)   learn which operator helps which graph, with verdicts
    mc_predict(model, x, ...) predict with dropout on, and say how uncertain that is

Operators also stand alone as layers of a model of your own; graphs come from
`gnndrop.datasets.load`, models from `gnndrop.models`. Wherever an operator, a dataset or a model is
asked for, a spec string such as `"drop-edge:p=0.3"` will do.

Names are imported at their first use: `import gnndrop` itself is cheap and free of torch.

Example:
    >>> import gnndrop
    >>> gnndrop.DropEdge(p=0.3).p
    0.3
"""

import importlib
import importlib.metadata
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gnndrop.attach import attach
    from gnndrop.config import TrainConfig
    from gnndrop.errors import (
        AttachError,
        DataError,
        DivergedError,
        GnndropError,
        ParameterError,
        UnknownNameError,
    )
    from gnndrop.models import MODELS
    from gnndrop.operators import (
        OPERATORS,
        AlphaDropout,
        ConcreteDropout,
        DropAgg,
        DropAttention,
        DropBlock,
        DropConnect,
        DropEdge,
        DropEdgePlus,
        DropFeature,
        DropKey,
        DropMessage,
        DropNode,
        Dropout,
        DropPath,
        DropSens,
        GaussianDropout,
        GraphDropConnect,
        LockedDropout,
        NoDrop,
        Operator,
        RemoveNode,
        SkipNode,
    )
    from gnndrop.study import Comparison, compare
    from gnndrop.training import fit
    from gnndrop.uncertainty import Prediction, mc_predict

__all__ = [
    "MODELS",
    "OPERATORS",
    "AlphaDropout",
    "AttachError",
    "Comparison",
    "ConcreteDropout",
    "DataError",
    "DivergedError",
    "DropAgg",
    "DropAttention",
    "DropBlock",
    "DropConnect",
    "DropEdge",
    "DropEdgePlus",
    "DropFeature",
    "DropKey",
    "DropMessage",
    "DropNode",
    "DropPath",
    "DropSens",
    "Dropout",
    "GaussianDropout",
    "GnndropError",
    "GraphDropConnect",
    "LockedDropout",
    "NoDrop",
    "Operator",
    "ParameterError",
    "Prediction",
    "RemoveNode",
    "SkipNode",
    "TrainConfig",
    "UnknownNameError",
    "attach",
    "compare",
    "fit",
    "mc_predict",
]

__version__ = importlib.metadata.version("gnndrop")

# What is no operator, by the module that defines it.
_ELSEWHERE = {
    "MODELS": "models",
    "AttachError": "errors",
    "Comparison": "study",
    "DataError": "errors",
    "DivergedError": "errors",
    "GnndropError": "errors",
    "ParameterError": "errors",
    "Prediction": "uncertainty",
    "TrainConfig": "config",
    "UnknownNameError": "errors",
    "attach": "attach",
    "compare": "study",
    "fit": "training",
    "mc_predict": "uncertainty",
}
_HOMES = {name: f"gnndrop.{_ELSEWHERE.get(name, 'operators')}" for name in __all__}  # at first use


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'gnndrop' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """The type of this package: its name `attach` stays the function.

    Importing the submodule gnndrop.attach would otherwise bind the module over the function.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
