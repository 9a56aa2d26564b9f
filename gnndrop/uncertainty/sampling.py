"""`mc_predict`: Monte-Carlo dropout on any model, by any of its random sites."""

import inspect
import pickle
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from operator import index
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch_geometric.data import Data
from tqdm import tqdm

from gnndrop.errors import ParameterError
from gnndrop.inputs import NORMALIZES, prepare_features, prepare_inputs
from gnndrop.masks import Mask, stream_key
from gnndrop.operators import Operator
from gnndrop.propagation import accelerate
from gnndrop.registry import did_you_mean
from gnndrop.uncertainty.batching import agree, copies_that_pay, replicate
from gnndrop.uncertainty.interception import DROPOUT, Interceptor, memory
from gnndrop.uncertainty.prediction import Prediction
from gnndrop.uncertainty.reuse import Reuse
from gnndrop.uncertainty.sites import Site, Watch, audit, choose, single_operators
from gnndrop.uncertainty.state import preserved
from gnndrop.uncertainty.tasks import TASKS

SUMMARIZED = 16
"""Samples that are summarized together, by default: the summary has its price by the call."""
CHECK_EVERY = 10
"""Samples between two looks at the Monte-Carlo error, whatever the chunks."""
PROGRESS_AFTER = 3.0
"""Seconds without a progress bar."""
GENERATOR = "torch's generator"
KEEPS_FEATURES = ("SGConv", "SSGConv")
"""Layers that with cached=True keep what they made of the features."""
EQUAL = 1e-6
"""Below this share of the largest output a spread may be rounding alone."""


def mc_predict(
    model: nn.Module,
    *inputs: Any,
    samples: int = 100,
    seed: int = 0,
    chunk_size: int | None = None,
    task: str = "classification",
    operators: str | Iterable[str] | None = None,
    keep_samples: bool = False,
    until: float | None = None,
    share_masks: bool = False,
    grad: bool = False,
    progress: bool = True,
) -> Prediction:
    r"""Predict with dropout on, many times, and summarize: $\bar p = \frac1T \sum_t p_t$.

    The model is used as it is. Random are: gnndrop's operators, attached or as layers;
    `nn.Dropout`, functional and attention dropout; whatever else draws from torch's generator in
    training (`dropout_edge(training=self.training)`, alpha dropout). Normalization keeps its stored
    statistics. Afterwards flags, buffers and generators are what they were, to the bit, also after
    an exception. Meanwhile model and generators belong to it: one call at a time in a process.

    Sample t of one seed has the same masks in a loop and in chunks of any size, with any number of
    threads; masks of gnndrop's operators and of F.dropout also under any choice of `operators`.
    Summaries agree to rounding. They are streamed: O(N C) memory. What the model does before its
    first random draw is done once.

    Source: Gal and Ghahramani, "Dropout as a Bayesian approximation" (ICML 2016).

    Args:
        model: returns logits; of a regression its outputs, or a pair of means and variances.
        inputs: what the model is called with; or one PyG `Data`, whose features, edges and weights
            it then takes, or the data itself where that is its only argument. Features are scaled,
            and made sparse, as `fit` did for this model.
        samples: the number T of samples, at least 2; with `until` the most that are drawn.
        seed: any integer.
        chunk_size: how many samples are held at once; by default as many as pay.
        task: `classification`, `multilabel` or `regression`.
        operators: which sites are to be random: names of operators (`drop-edge`), functions
            (`F.dropout`) or modules (`convs.0`), as in `prediction.sites`; by default all.
        keep_samples: return the T samples, too.
        until: stop when the Monte-Carlo error of every entry of the mean is at most this; looked at
            every 10 samples, whatever the chunks.
        share_masks: one mask of features for all nodes, so that they vary together, as quantities
            of several nodes ask for: sums, pairs, graph means. Masks of edges stay what they are:
            all nodes see one dropped graph anyhow. F.dropout counts as one of features where it
            meets as many rows as there are nodes.
        grad: keep derivatives with respect to inputs and parameters, of all but `std` and the error
            of a classification; memory then grows with T. Not with gradient checkpointing, whose
            recomputation would come after the masks are gone.
        progress: show a progress bar on stderr after three seconds, where that is a terminal.

    Returns:
        The summary, with the audit of the model's sites.

    Raises:
        ParameterError: if no site is random (it says what was found), or all samples are equal; if
            a name in `operators` fits none; if the model returns probabilities, NaN, or no tensor;
            if a layer keeps the graph or the features of its first call (`cached=True`) and those
            are random; if it draws from another generator than torch's own; if a setting is out of
            its range.

    Example:
        >>> from gnndrop import attach
        >>> from gnndrop.models import GCN
        >>> model = GCN(4, 8, out_channels=3)
        >>> handle = attach(model, "drop-edge:p=0.3")
        >>> x, edge_index = torch.rand(3, 4), torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> prediction = mc_predict(model, x, edge_index, samples=20)
        >>> prediction.mean.shape, len(prediction.sites)
        (torch.Size([3, 3]), 1)
    """
    _check(samples, chunk_size, until, task)
    seed = index(seed)
    inputs = _prepare(model, inputs)
    summary = TASKS[task](keep_samples)
    at_once = chunk_size or copies_that_pay(inputs, samples if until is None else CHECK_EVERY)
    size = chunk_size or at_once * -(-SUMMARIZED // at_once)
    error = None
    with (
        Sampler(model, inputs, seed, operators, share_masks, grad, at_once) as sampler,
        _bar(samples) if progress else nullcontext() as bar,
    ):
        done = 0
        while done < samples and (error is None or until is None or error > until):
            block = min(done + CHECK_EVERY, samples) if until is not None else samples
            while done < block:
                outputs = sampler.draw(range(done, min(done + size, block)))
                summary.add(outputs)
                done += len(outputs)
                if bar is not None:
                    bar.update(len(outputs))
            if until is not None:
                error = float(summary.standard_error().max())
        fields = summary.summary()
        spread, level = fields["std"].detach(), fields["mean"].detach().abs()
        if spread.numel() and float(spread.max()) <= EQUAL * float(level.max()):
            sampler.check_spread(done)
    return Prediction(num_samples=done, seed=seed, task=task, sites=sampler.sites, **fields)


def random_sites(model: nn.Module, *inputs: Any) -> tuple[Site, ...]:
    """Return the audit of a model's sites, of one pass: see `mc_predict`.

    Args:
        model: as there.
        inputs: as there.

    Returns:
        What `prediction.sites` would be.

    Raises:
        ParameterError: if no site is random, or the model cannot be sampled.

    Example:
        >>> model = nn.Sequential(nn.Dropout(0.001), nn.Linear(4, 2))
        >>> str(random_sites(model, torch.ones(3, 4))[0])
        'F.dropout at 0: stochastic'
    """
    with Sampler(model, _prepare(model, inputs), seed=0) as sampler:
        return sampler.sites


def sample_seed(seed: int, sample: int) -> int:
    """Return the seed of one sample, of 64 bits: what the masks of sample t of a seed follow.

    Example:
        >>> sample_seed(0, 1) == sample_seed(0, 1) != sample_seed(0, 2)
        True
    """
    return stream_key(seed, "sample", sample)


class Sampler:
    """A model in the state of sampling, while entered.

    Args:
        model: see `mc_predict`, as for all of them.
        inputs: what it is called with.
        seed: the seed.
        operators: which sites are to be random.
        share_masks: whether nodes share masks.
        grad: whether derivatives are kept.
        at_once: how many samples one pass may compute; by default one.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Any],
        seed: int,
        operators: str | Iterable[str] | None = None,
        share_masks: bool = False,
        grad: bool = False,
        at_once: int = 1,
    ) -> None:
        self.model, self.inputs, self.seed = model, inputs, seed
        self.at_once = at_once
        self.wanted = operators
        self._device = _device(inputs)
        self.share_masks = share_masks
        self.grad = grad
        self.watch = Watch()
        self.sites: tuple[Site, ...] = ()
        self._off: set[tuple[str, str]] = set()
        self._known: dict[int, Any] = {}
        self._batch: tuple[Any, ...] | None = None
        self._copies = 0
        self._last = 0
        self._num_nodes = _num_nodes(inputs) if share_masks else 0
        self._interceptor = Interceptor(self.watch, self._is_chosen)
        self._given = memory(*model.parameters(), *model.buffers(), inputs)
        self._draws_outside = self._moves = False

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        try:
            self._buffers = self._stack.enter_context(preserved(self.model, self._device))
            self._stack.enter_context(torch.compiler.set_stance("force_eager"))
            self._stack.enter_context(accelerate(self.model))
            self._stack.enter_context(nullcontext() if self.grad else torch.no_grad())
            self._switch()
            self._reuse = self._stack.enter_context(Reuse(self.model, self.watch, not self.grad))
            self._audit()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def draw(self, samples: Sequence[int]) -> list[Any]:
        """Return the model's outputs for some samples, by their numbers."""
        step = min(self.at_once, len(samples))
        outputs: list[Any] = []
        for start in range(0, len(samples), step):
            part = samples[start : start + step]
            if len(part) == step > 1 and self._try_batch(step):
                known = [self._known.pop(sample, None) for sample in part]
                is_known = all(output is not None for output in known)
                outputs += known if is_known else self._split(self._call(self._batch or (), part))
            else:
                outputs += map(self._draw_alone, part)
        return outputs

    def _draw_alone(self, sample: int) -> Any:
        output = self._known.pop(sample, None)
        return _own(self._call(self.inputs, [sample])) if output is None else output

    def _try_batch(self, copies: int) -> bool:
        """Whether so many samples may be computed at once: tried once, on the first ones."""
        if copies == self._copies:
            return self._batch is not None
        is_first, self._copies = not self._copies, copies
        if self._draws_outside or (not is_first and self._batch is None):
            return False
        self._batch = replicate(self.inputs, copies)
        if self._batch is None or not is_first:
            return self._batch is not None
        if 1 not in self._known:
            self._known[1] = _own(self._call(self.inputs, [1]))
        try:
            blocks = self._split(self._call(self._batch, range(copies)))
        except Exception:
            blocks = []  # the model, or an operator, takes no such graph
        alone = self._known
        if not (blocks and all(agree(blocks[t], alone[t], alone[1 - t]) for t in (0, 1))):
            self._batch = None
            return False
        self._known = dict(enumerate(map(_own, blocks)))
        return True

    def _split(self, output: Any) -> list[Any]:
        """Return the outputs of the blocks; none where they do not stand one below the other."""
        if not isinstance(output, Tensor) or not output.dim() or len(output) % self._copies:
            return []
        size = len(output) // self._copies
        return list(output.view(self._copies, size, *output.shape[1:]))

    def check_spread(self, samples: int) -> None:
        """Refuse a model of which some samples, computed alone, are equal to the bit."""
        first, *others = (self._call(self.inputs, [sample]) for sample in range(min(samples, 10)))
        if isinstance(first, Tensor) and all(torch.equal(first, other) for other in others):
            raise ParameterError(
                f"samples must differ, got equal ones although there are random sites "
                f"({_list(self.sites)}): the rate is too small for {samples} samples, or what they "
                "change does not reach the output"
            )

    def _switch(self) -> None:
        """Set flags for sampling, and count the draws of operators."""
        self._operators: list[tuple[str, Operator]] = []
        inside: set[nn.Module] = set()
        for name, module in self.model.named_modules():
            if module in inside:
                continue
            if isinstance(module, Operator):
                inside.update(module.modules())
                self._operators.append((name or "model", module))
                module.train()
            else:
                module.training = not isinstance(module, _NormBase)
        for name, operator in single_operators(self.model):
            if self.share_masks and operator.site == "features" and not operator.is_product:
                raise ParameterError(
                    "share_masks needs masks of independent factors, "
                    f"got {operator.spec}, whose nodes depend on each other"
                )
            operator.__dict__["next_mask"] = self._count(name, operator)
            self._stack.callback(operator.__dict__.pop, "next_mask", None)
            self._stack.callback(operator.end_pass)

    def _count(self, name: str, operator: Operator) -> Callable[..., Mask]:
        spec, next_mask = operator.spec, operator.next_mask
        shares = self.share_masks and operator.site == "features"

        def counted(*args: Any, **kwargs: Any) -> Mask:
            mask = next_mask(*args, **kwargs)
            if operator.training:
                self.watch.note(spec, operator.p, name)
            return replace(mask, by_row=False) if shares else mask

        return counted

    def _audit(self) -> None:
        """Draw the first sample, and learn from it what is random and what is to be."""
        self._draws_outside = True  # until it is known
        output = self._look()
        moved = self._buffers.restore()
        for module in moved:  # statistics of its own kind: as in evaluation
            module.training = False
        sites = choose(self._seen(), self.wanted)
        self._off = {(site.name, site.operator) for site in sites if site.status == "off"}
        if moved or self._off:
            # Switched off with its module, dropout is to go on where it was chosen.
            self._interceptor.forced = {
                site.name
                for site in sites
                if site.operator == DROPOUT and site.status == "stochastic"
            }
            self._turn_off()
            output = self._look()
            self._check_off(sites)
        self.sites = audit(self.model, sites)
        stochastic = [site for site in self.sites if site.status == "stochastic"]
        if not stochastic:
            raise ParameterError(
                "the model must have a random site, got none: looked for gnndrop's operators, "
                "nn.Dropout, functional and attention dropout at a rate above 0, and draws from "
                f"torch's generator, and found {_list(self.sites) or 'nothing of the kind'}"
            )
        self._check_caches(stochastic)
        ours = {id(one) for _, one in single_operators(self.model)}
        named = dict(self.model.named_modules())
        foreign = [site for site in sites if id(named.get(site.name)) not in ours]
        self._draws_outside = any(site.operator != DROPOUT for site in foreign)
        if self.share_masks and self._draws_outside:
            outside = next(site for site in foreign if site.operator != DROPOUT)
            raise ParameterError(
                f"share_masks needs masks of gnndrop's operators or of F.dropout, got {outside}"
            )
        self._intercepts = bool(foreign) or self._interceptor.has_normalized
        self._reuse.is_wary = self._draws_outside
        self._moves = bool(moved)
        self._known = {0: _own(output)}

    def _look(self) -> Any:
        """Draw the first sample with eyes open."""
        self._intercepts = True
        self._reuse.forget()
        before = _other_generators()
        output = self._call(self.inputs, [0])
        if _other_generators() != before:
            raise ParameterError(
                "the model must draw from torch's generator, got draws from Python's or numpy's, "
                "which no sample's seed reaches"
            )
        self._consumed = not torch.equal(self._state_before, torch.get_rng_state())
        return output

    def _seen(self) -> list[Site]:
        seen = self.watch.sites()
        ours = {name for name, _ in single_operators(self.model)}
        is_named = any(site.name not in ours and site.operator != DROPOUT for site in seen)
        if self._consumed and not is_named:
            seen.append(Site("model", GENERATOR, "stochastic"))
        return seen

    def _turn_off(self) -> None:
        modules = {name or "model": module for name, module in self.model.named_modules()}
        for name, operator in self._off:
            if operator == GENERATOR:
                raise ParameterError(
                    "draws from torch's generator that no function shows cannot be left out, "
                    "choose all sites"
                )
            if operator != DROPOUT:
                modules[name].training = False

    def _check_off(self, sites: list[Site]) -> None:
        drawn = {(site.name, site.operator) for site in self.watch.sites()}
        for site in sites:
            is_guarded = site.status == "stochastic" and site.operator not in (DROPOUT, GENERATOR)
            if is_guarded and (site.name, site.operator) not in drawn:
                raise ParameterError(
                    f"{site.operator} at {site.name} must be in a module of its own, got one whose "
                    "flag also guards what is to stay in evaluation: a site left out, or statistics"
                )
        for site in self.watch.sites():
            is_foreign = site.operator != DROPOUT and site.status == "stochastic"
            if is_foreign and (site.name, site.operator) in self._off:
                raise ParameterError(
                    f"{site.operator} at {site.name} draws in evaluation too and cannot be left "
                    "out, choose it or guard it by self.training"
                )

    def _check_caches(self, stochastic: list[Site]) -> None:
        features = {
            name for name, operator in single_operators(self.model) if operator.site == "features"
        }
        cached = [site for site in self.sites if site.status == "cached"]
        for site in cached:
            if site.operator in KEEPS_FEATURES:
                raise ParameterError(
                    f"{site.name} must be built with cached=False, "
                    "got cached=True: it keeps the features of its first call"
                )
        on_edges = [
            site for site in stochastic if site.operator != DROPOUT and site.name not in features
        ]
        if cached and on_edges:
            raise ParameterError(
                f"{cached[0].name} must be built with cached=False where the graph may be random "
                f"({on_edges[0]}), got cached=True: it keeps the graph of its first call"
            )

    def _is_chosen(self, place: str) -> bool:
        return (place, DROPOUT) not in self._off

    def _call(self, inputs: Sequence[Any], samples: Sequence[int]) -> Any:
        """Call the model with the masks of one sample, or of several in their blocks."""
        seeds = [sample_seed(self.seed, sample) for sample in samples]
        if len(seeds) != self._last:  # blocks more or less: what is known has another shape
            self._reuse.forget()
            self._last = len(seeds)
        if self._moves:
            self._buffers.restore()
        self.watch.begin()
        self._reuse.begin()
        for name, operator in self._operators:
            operator.start_pass(*(stream_key(seed, name) for seed in seeds))
        self._interceptor.seeds = tuple(seeds)
        self._interceptor.num_shared = self._num_nodes * len(seeds)
        self._interceptor.given = self._given | memory(self._batch)
        if self._draws_outside:
            torch.default_generator.manual_seed(seeds[0] >> 1)
            if self._device.type == "cuda":
                torch.cuda.manual_seed(seeds[0] >> 1)
            self._state_before = torch.get_rng_state()
        if self._intercepts:
            with self._interceptor:
                return self.model(*inputs)
        output = self.model(*inputs)
        self._reuse.settle()
        return output


def _own(output: Any) -> Any:
    """Return a copy: a model may write its next output where it wrote this one."""
    if isinstance(output, tuple | list):
        return type(output)(map(_own, output)) if type(output) in (tuple, list) else output
    return output.clone() if isinstance(output, Tensor) else output


def _bar(samples: int) -> "tqdm[Any]":
    """Return a progress bar; only where one is wanted, since each takes a lock of the system's."""
    return tqdm(total=samples, delay=PROGRESS_AFTER, disable=None)


def _check(samples: int, chunk_size: int | None, until: float | None, task: str) -> None:
    if samples < 2:
        raise ParameterError(f"samples must be at least 2, got {samples}: one has no spread")
    if chunk_size is not None and chunk_size < 1:
        raise ParameterError(f"chunk_size must be at least 1, got {chunk_size}")
    if until is not None and not until > 0:
        raise ParameterError(f"until must be above 0, got {until}")
    if task not in TASKS:
        raise ParameterError(f"unknown task {task!r}, {did_you_mean(task, list(TASKS))}")


def _prepare(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of the model: features as it was trained on, sparse where that pays."""
    normalizes = bool(getattr(model, NORMALIZES, False))
    if len(inputs) == 1 and isinstance(inputs[0], Data):
        return _prepare_data(model, inputs[0], normalizes)
    x = inputs[0] if inputs else None
    prepares = normalizes or getattr(model, "takes_sparse", False)
    if not (prepares and isinstance(x, Tensor) and x.layout == torch.strided and x.dim() == 2):
        return inputs
    if not x.is_floating_point() or x.requires_grad:
        return inputs
    return prepare_features(model, x, normalizes), *inputs[1:]


def _prepare_data(model: nn.Module, data: Data, normalizes: bool) -> tuple[Any, ...]:
    prepared = prepare_inputs(model, data, normalizes)
    try:
        inspect.signature(model.forward).bind(*prepared)
    except TypeError:  # it takes the data as they are
        return (data,)
    if data.get("batch") is not None:
        raise ParameterError(
            "a batch of graphs must be given as the model takes it, got one Data: "
            "pass x, edge_index and batch one by one"
        )
    return prepared


def _other_generators() -> tuple[object, ...]:
    """Return the states of Python's and of numpy's generator."""
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is looked at
    return random.getstate(), pickle.dumps(state)


def _num_nodes(inputs: Sequence[Any]) -> int:
    if not (inputs and isinstance(inputs[0], Tensor)):
        raise ParameterError(
            "share_masks needs the features of the nodes as the first input, "
            f"got {type(inputs[0]).__name__ if inputs else 'none'}"
        )
    return len(inputs[0])


def _device(inputs: Sequence[Any]) -> torch.device:
    devices = [value.device for value in inputs if isinstance(value, Tensor)]
    return devices[0] if devices else torch.device("cpu")


def _list(sites: Iterable[Site]) -> str:
    return "; ".join(map(str, sites))
