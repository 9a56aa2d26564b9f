"""The table of nodes: what every measure says of each, and whom a person should look at."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gnndrop.study.uncertainty_report import MONTE_CARLO
from gnndrop.study.uncertainty_scores import Run
from gnndrop.uncertainty.measures import confidence, margin

PLACE = ("dataset", "model", "operator", "seed", "node")
COLUMNS = ("split", "label", "prediction", "confidence", "margin", "refer")


@dataclass(frozen=True, eq=False)
class NodeTable:
    """The first run of an operator, node by node.

    Args:
        dataset: name of the dataset.
        model: spec of the model.
        operator: spec of the operator.
        seed: number of the seed.
        masks: training, validation and test nodes, bool of shape (N,) each.
        run: what the methods say.
        edge_index: the graph, int64 of shape (2, E).
    """

    dataset: str
    model: str
    operator: str
    seed: int
    masks: tuple[Tensor, Tensor, Tensor]
    run: Run
    edge_index: Tensor

    def rows(self, risk: float) -> Iterator[dict[str, Any]]:
        """Yield a row for each node.

        Prediction, confidence, margin and probabilities are MC dropout's; a measure of another
        method has its name in front. Entropies are in nats.

        Args:
            risk: share of errors wished for among the predictions that are kept.
        """
        probs = self.run.probs[MONTE_CARLO]
        columns: dict[str, list[Any]] = {
            "split": self._splits(),
            "label": ["" if label < 0 else label for label in self.run.y.tolist()],
            "prediction": probs.argmax(-1).tolist(),
            "confidence": confidence(probs).tolist(),
            "margin": margin(probs).tolist(),
            "refer": self.run.referral(MONTE_CARLO, risk).mask(confidence(probs)).int().tolist(),
        }
        for (method, score), values in self.run.uncertainties.items():
            if score != "max-probability":  # the confidences say it
                columns[_column(method, score)] = values.tolist()
        for method, others in self.run.probs.items():
            if method != MONTE_CARLO:
                columns[f"{method}_prediction"] = others.argmax(-1).tolist()
                columns[f"{method}_confidence"] = confidence(others).tolist()
        for label in range(probs.size(1)):
            columns[f"probability_{label}"] = probs[:, label].tolist()
        place = (self.dataset, self.model, self.operator, self.seed)
        for node, facts in enumerate(zip(*columns.values(), strict=True)):
            where = dict(zip(PLACE, (*place, node), strict=True))
            yield {**where, **dict(zip(columns, facts, strict=True))}

    def _splits(self) -> list[str]:
        names = [""] * len(self.run.y)
        for name, mask in zip(("train", "val", "test"), self.masks, strict=True):
            for node in mask.nonzero().flatten().tolist():
                names[node] = name
        return names


def _column(method: str, score: str) -> str:
    name = score.replace("-", "_")
    if method == score:
        return name
    return name if method == MONTE_CARLO else f"{method}_{name}"


def nodes_csv(tables: Sequence[NodeTable], risk: float) -> str:
    """Write the tables of nodes as one CSV text; a column that a table lacks stays empty there.

    Args:
        tables: one for each dataset, model and operator.
        risk: share of errors wished for among the predictions that are kept.

    Example:
        >>> nodes_csv([], 0.1).startswith("dataset,model,operator,seed,node,split,label,prediction")
        True
    """
    rows = [row for table in tables for row in table.rows(risk)]
    columns = dict.fromkeys((*PLACE, *COLUMNS, *(name for row in rows for name in row)))
    ordered = sorted(columns, key=lambda name: name.startswith("probability_"))  # they come last
    text = io.StringIO()
    writer = csv.DictWriter(text, ordered, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
