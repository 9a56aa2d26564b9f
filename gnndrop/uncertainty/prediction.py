"""What Monte-Carlo dropout predicts: the mean of the samples, and how far they are apart."""

from dataclasses import dataclass, field

from torch import Tensor

from gnndrop.uncertainty.sites import Site


@dataclass(frozen=True, eq=False)
class Prediction:
    """The summary of T samples for N nodes (or graphs), in nats where it is an entropy.

    Args:
        mean: shape (N, C): the mean of the sampled probabilities; of a multi-label model the
            probability of each label; of a regression the mean of the outputs, in their shape.
        std: like `mean`: the standard deviation of the samples, over T - 1.
        standard_error: like `mean`: the Monte-Carlo error of `mean`, `std` over the root of T.
        num_samples: the number T of samples.
        seed: the seed; sample t has the masks of `sample_seed(seed, t)`.
        task: `classification`, `multilabel` or `regression`.
        sites: what drew at random, and what stayed silent.
        entropy: shape (N,), of labels (N, L): the entropy of `mean`, the total uncertainty; None
            of a regression, like the following two.
        expected_entropy: like `entropy`: the mean of the samples' entropies.
        mutual_information: like `entropy`: their difference, at least 0. Of T samples it is too
            small by the share 1/T.
        variance: of a regression the total variance, like `mean`: the mean of the samples'
            variances, where the model returns some, plus the variance of their means; else None.
        samples: shape (T, N, C): the sampled probabilities, or outputs, where they were kept.

    Example:
        >>> import torch
        >>> from gnndrop import mc_predict
        >>> model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(4, 2))
        >>> prediction = mc_predict(model, torch.ones(3, 4), samples=10)
        >>> prediction.entropy.shape, str(prediction.sites[0])
        (torch.Size([3]), 'F.dropout at 0: stochastic')
    """

    mean: Tensor
    std: Tensor
    standard_error: Tensor
    num_samples: int
    seed: int
    task: str
    sites: tuple[Site, ...]
    entropy: Tensor | None = None
    expected_entropy: Tensor | None = None
    mutual_information: Tensor | None = None
    variance: Tensor | None = None
    samples: Tensor | None = field(default=None, repr=False)
