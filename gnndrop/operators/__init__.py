"""The operators, one per file; importing this module registers them all."""

from gnndrop.operators._attention import AttentionOperator
from gnndrop.operators._base import (
    OPERATORS,
    EdgeOperator,
    FeatureOperator,
    MessageOperator,
    Operator,
    declare,
    make_operator,
    with_presets,
)
from gnndrop.operators.alpha_dropout import AlphaDropout
from gnndrop.operators.combined import Combined, CompositeOperator, PerLayer
from gnndrop.operators.concrete_dropout import ConcreteDropout
from gnndrop.operators.drop_agg import DropAgg
from gnndrop.operators.drop_attention import DropAttention
from gnndrop.operators.drop_block import DropBlock
from gnndrop.operators.drop_connect import DropConnect
from gnndrop.operators.drop_edge import DropEdge
from gnndrop.operators.drop_edge_plus import DropEdgePlus
from gnndrop.operators.drop_feature import DropFeature
from gnndrop.operators.drop_key import DropKey
from gnndrop.operators.drop_message import DropMessage
from gnndrop.operators.drop_node import DropNode
from gnndrop.operators.drop_path import DropPath
from gnndrop.operators.drop_sens import DropSens
from gnndrop.operators.dropout import Dropout
from gnndrop.operators.gaussian_dropout import GaussianDropout
from gnndrop.operators.graph_drop_connect import GraphDropConnect
from gnndrop.operators.locked_dropout import LockedDropout
from gnndrop.operators.none import NoDrop
from gnndrop.operators.remove_node import RemoveNode
from gnndrop.operators.skip_node import SkipNode

__all__ = [
    "OPERATORS",
    "AlphaDropout",
    "AttentionOperator",
    "Combined",
    "CompositeOperator",
    "ConcreteDropout",
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
    "EdgeOperator",
    "FeatureOperator",
    "GaussianDropout",
    "GraphDropConnect",
    "LockedDropout",
    "MessageOperator",
    "NoDrop",
    "Operator",
    "PerLayer",
    "RemoveNode",
    "SkipNode",
    "declare",
    "make_operator",
    "with_presets",
]
