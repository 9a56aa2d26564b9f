"""An operator of a third party: everything but its declaration comes from the base class."""

from gnndrop.operators import FeatureOperator


class DropSource(FeatureOperator):
    """Drop all that a node sends: one coin for every node.

    Source: an example.
    """

    name = "drop-source"
    axes = ("node",)
    source = "an example"
