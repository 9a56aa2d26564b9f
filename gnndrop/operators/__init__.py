"""The operators, one per file; importing this module registers them all."""

from gnndrop.operators._base import (
    OPERATORS,
    EdgeOperator,
    FeatureOperator,
    MessageOperator,
    Operator,
    declare,
    make_operator,
)
from gnndrop.operators.drop_edge import DropEdge
from gnndrop.operators.drop_feature import DropFeature
from gnndrop.operators.drop_message import DropMessage
from gnndrop.operators.drop_node import DropNode
from gnndrop.operators.dropout import Dropout
from gnndrop.operators.none import NoDrop

__all__ = [
    "OPERATORS",
    "DropEdge",
    "DropFeature",
    "DropMessage",
    "DropNode",
    "Dropout",
    "EdgeOperator",
    "FeatureOperator",
    "MessageOperator",
    "NoDrop",
    "Operator",
    "declare",
    "make_operator",
]
