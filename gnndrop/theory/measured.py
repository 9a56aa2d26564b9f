"""Theory against measurement of what holds for dropout in general: linear models, nets, gradients.

Every measurement uses the operator `dropout` itself, explicit seeds and float64: it passes always
or never.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gnndrop.batch_norm import variance_shift
from gnndrop.init import initialize_residual_, residual_growth
from gnndrop.operators import Dropout
from gnndrop.theory.ensemble import geometric_mean
from gnndrop.theory.gap import output_moments, train_test_gap
from gnndrop.theory.gradient import expected_gradient, relu_gradient_variance
from gnndrop.theory.measured_graphs import RATES, measure_definitions
from gnndrop.theory.measurement import Measurement
from gnndrop.theory.penalty import dropout_weights

SAMPLES = 4000
ROUNDING = 1e-9  # float64, after a sum of some thousand terms


def measure_theory() -> Iterator[Measurement]:
    """Measure all of the general theory, at several rates.

    Yields:
        One measurement for each quantity and rate.

    Example:
        >>> next(measure_theory()).quantity
        'weights of a linear model'
    """
    for p in RATES:
        for measure in _MEASURES:
            yield from measure(p)
    yield from measure_definitions()


def _dropped(x: Tensor, p: float, seed: int = 0) -> Tensor:
    """Return x of shape (n, ...) under a mask that the seed decides."""
    operator = Dropout(p).start_pass(seed)
    out: Tensor = operator(x)
    return out


def _normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _linear_model(p: float) -> Iterator[Measurement]:
    """Least squares on dropped inputs against the penalized solution."""
    x = _normal(20, 5) @ _normal(5, 5, seed=1)
    y = _normal(20, seed=2) + x.sum(1)
    y = y - y.mean()
    centred = x - x.mean(0)
    standardized = centred / centred.std(0, unbiased=False)
    groups = torch.tensor([0, 0, 1, 1, 1])
    for name, inputs, shared in (
        ("weights of a linear model", standardized, None),
        ("weights, by variances", centred, None),
        ("weights, by groups", centred, groups),
    ):
        theory = dropout_weights(inputs, y, p, shared)
        yield _least_squares(name, inputs, y, p, shared, theory)


def _least_squares(
    quantity: str, x: Tensor, y: Tensor, p: float, groups: Tensor | None, theory: Tensor
) -> Measurement:
    n, d = x.shape
    columns = torch.arange(d) if groups is None else groups
    coins = _dropped(torch.ones(SAMPLES * n, int(columns.max()) + 1, dtype=x.dtype), p)
    inputs = coins.view(SAMPLES, n, -1)[:, :, columns] * x
    moments = torch.einsum("sni,snj->ij", inputs, inputs) / (SAMPLES * n)
    measured = torch.linalg.solve(moments, torch.einsum("sni,n->i", inputs, y) / (SAMPLES * n))
    # The measured weights minus the exact ones are the inverse moments times the mean score.
    scores = torch.einsum("sni,sn->si", inputs, y - inputs @ theory) / n
    error = (torch.linalg.solve(moments, scores.T).var(1) / SAMPLES).sqrt()
    return Measurement.of(quantity, p, theory, measured, error, ROUNDING)


def _network() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return a small tanh network and one input of it."""
    first, second = _normal(8, 6, seed=3), _normal(6, 3, seed=4)
    return lambda x: (x @ first / 8**0.5).tanh() @ second, _normal(8, seed=5)


def _train_test_gap(p: float) -> Iterator[Measurement]:
    network, x = _network()
    outputs = network(_dropped(x.repeat(5 * SAMPLES, 1), p))
    differences = outputs - network(x[None])
    yield Measurement.of_samples(
        "E[g(a)] - g(E[a])", p, train_test_gap(network, x, p), differences, ROUNDING
    )
    mean, variance = output_moments(network, x, p)
    for passes in (10, 100):
        means = outputs.view(-1, passes, outputs.size(1)).mean(1)
        squares = (means - mean) ** 2
        quantity = f"squared error of the mean of {passes} passes"
        yield Measurement.of_samples(quantity, p, variance / passes, squares, ROUNDING)


def _geometric_mean(p: float) -> Iterator[Measurement]:
    weight, bias, x = _normal(4, 10, seed=6), _normal(4, seed=7), _normal(10, seed=8)
    theory = (weight @ x + bias).softmax(0)
    mean = geometric_mean(weight, bias, x, p)
    quantity = "geometric mean of all subnetworks"
    yield Measurement.of(quantity, p, theory, mean, torch.zeros_like(mean), ROUNDING)


def _gradient(p: float) -> Iterator[Measurement]:
    values = torch.tensor([-1.0, -0.2, 0.2, 1.0], dtype=torch.float64)
    gradients = {}
    for name, activation in (("relu", torch.relu), ("tanh", torch.tanh)):
        a = values.repeat(SAMPLES, 1).requires_grad_()
        (gradients[name],) = torch.autograd.grad(activation(_dropped(a, p)).sum(), a)
        theory = expected_gradient(activation, values, p)
        quantity = f"gradient through {name}"
        yield Measurement.of_samples(quantity, p, theory, gradients[name], ROUNDING)
    squares = (gradients["relu"] - (values > 0).double()) ** 2
    theory = relu_gradient_variance(values, p)
    yield Measurement.of_samples("variance of relu's gradient", p, theory, squares, ROUNDING)


def _residual_stack(p: float) -> Iterator[Measurement]:
    """The mean square after a stack of layers, over before: weights and masks are drawn anew."""
    depth, width, draws = 6, 32, 200
    x = _normal(1, width, seed=9)
    for name, theory, has_maps in (
        ("growth of a residual stack", 1.0, True),
        ("growth, identity skips", residual_growth(depth), False),
    ):
        ratios = torch.empty(draws, 1, dtype=torch.float64)
        for draw in range(draws):
            out = _run_stack(x, p, depth, has_maps, draw)
            ratios[draw] = (out**2).mean() / (x**2).mean()
        yield Measurement.of_samples(name, p, torch.tensor([theory]), ratios, ROUNDING)


def _run_stack(x: Tensor, p: float, depth: int, has_maps: bool, seed: int) -> Tensor:
    width = x.size(1)

    def maps() -> list[nn.Module]:
        with torch.random.fork_rng(devices=()):  # their own weights are drawn, for nothing
            return [nn.Linear(width, width, dtype=x.dtype) for _ in range(depth)]

    branches, skips = maps(), maps() if has_maps else None
    initialize_residual_(branches, skips, p, generator=torch.Generator().manual_seed(seed))
    operator = Dropout(p).start_pass(seed)
    with torch.no_grad():
        for number, branch in enumerate(branches):
            kept = skips[number](x) if skips else x
            out = branch(operator(x))
            x = (out.relu() if has_maps else out) + kept
    return x


def _variance_shift(p: float) -> Iterator[Measurement]:
    """The variance of a batch normalization's outputs in evaluation, after training passes."""
    passes = 200
    x = _normal(100, 5, seed=10) + torch.arange(5.0) / 2
    weight = _normal(3, 5, seed=11)
    norm = nn.BatchNorm1d(3, eps=1e-12, momentum=None, affine=False, dtype=x.dtype)
    variances = []
    for seed in range(passes):
        inputs = _dropped(x, p, seed) @ weight.T
        norm(inputs)
        variances.append(inputs.var(0))
    measured = norm.eval()(x @ weight.T).var(0)
    batches = torch.stack(variances)
    relative_error = (batches.var(0) / passes).sqrt() / batches.mean(0)
    theory = variance_shift(x, p, weight)
    quantity = "variance behind batch norm in evaluation"
    yield Measurement.of(quantity, p, theory, measured, measured * relative_error, ROUNDING)


_MEASURES = (
    _linear_model,
    _train_test_gap,
    _geometric_mean,
    _gradient,
    _residual_stack,
    _variance_shift,
)
