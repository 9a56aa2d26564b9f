"""Suites as files: what they say, and where the message points when they are wrong."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnndrop.config import TrainConfig
from gnndrop.datasets import DATASETS
from gnndrop.errors import ParameterError, UnknownNameError
from gnndrop.study.bench import check_specs
from gnndrop.study.builtin import builtin_suites, load_suite
from gnndrop.study.lines import find_line
from gnndrop.study.suite import Suite
from gnndrop.study.uncertainty_plan import UncertaintyConfig

HEAD = """\
title = "T"
description = "D"
budget = "1 minute"
"""
COMPARISON = """\
[[comparison]]
name = "one"
datasets = ["karate"]
models = ["gcn"]
operators = [
    "dropout",
    "drop-edge:p=0.3",
]
"""
UNCERTAINTY = """\
[[uncertainty]]
name = "two"
datasets = ["karate"]
models = ["gcn"]
operators = ["dropout"]
"""
PUBLISHED = """\
[[published]]
comparison = "one"
dataset = "karate"
model = "gcn"
operator = "dropout"
value = 81.5
margin = 1
source = "somewhere"
"""


def make(*parts: str) -> Suite:
    return Suite("mine", "".join((HEAD, *parts)), "mine.toml")


def test_a_suite_is_what_compare_takes() -> None:
    text = COMPARISON + "seeds = 3\nrates = [0.1, 0.5]\n[comparison.train]\nepochs = 7\n"
    suite = make(text, PUBLISHED + "spread = 0.5\nruns = 10\n")
    (one,), (row,) = suite.settings.comparison, suite.settings.published
    config = one.config()
    assert config.operators == ("none", "dropout", "drop-edge:p=0.3")
    assert (config.datasets, config.models, config.seeds) == (("karate",), ("gcn",), 3)
    assert (config.rates, config.train) == ((0.1, 0.5), TrainConfig(epochs=7))
    assert (row.value * row.scale, row.runs) == (pytest.approx(0.815), 10)


def test_what_is_not_said_is_what_compare_does_by_default() -> None:
    config = make(COMPARISON).settings.comparison[0].config()
    assert (config.seeds, config.splits, config.margin, config.alpha) == (10, "default", 0.01, 0.05)
    assert config.train == TrainConfig()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (HEAD + "budget 3", 4, "must be TOML"),
        (HEAD + "sedes = 3\n" + COMPARISON, 4, "unknown key 'sedes'"),
        (HEAD + COMPARISON + "sedes = 3\n", 12, "unknown key 'sedes', did you mean 'seeds'?"),
        (HEAD + COMPARISON + 'seeds = "many"\n', 12, "seeds: input should be a valid integer"),
        (HEAD + COMPARISON + "seeds = true\n", 12, "seeds: input should be a valid integer, got T"),
        (
            HEAD + COMPARISON + "margin = true\n",
            12,
            "margin: input should be a valid number, got T",
        ),
        (HEAD + COMPARISON + "alpha = false\n", 12, "alpha: input should be a valid number, got F"),
        (HEAD + COMPARISON + "rates = [0.5, true]\n", 12, "rates: input should be a valid number"),
        (
            HEAD + COMPARISON + "train = {epochs = true}\n",
            12,
            "epochs: input should be a valid int",
        ),
        (
            HEAD + COMPARISON + "[comparison.train]\npatience = 3\nlearning_rate = true\n",
            14,
            "learning_rate: input should be a valid number, got True",
        ),
        (HEAD + COMPARISON + "undirected = 1\n", 12, "undirected: input should be a valid boolean"),
        (HEAD + UNCERTAINTY + "samples = true\n", 9, "samples: input should be a valid integer"),
        (HEAD + UNCERTAINTY + "risk = true\n", 9, "risk: input should be a valid number"),
        (HEAD + COMPARISON + PUBLISHED + "runs = true\n", 20, "runs: input should be a valid int"),
        (
            HEAD + COMPARISON + PUBLISHED.replace("81.5", "true"),
            17,
            "value: input should be a valid number, got True",
        ),
        (HEAD + COMPARISON + "seeds = 0\n", 12, "seeds must be at least 1, got 0"),
        (HEAD + COMPARISON + "\nrates = [1.5]\n", 13, "rates must be in [0, 1], got 1.5"),
        (HEAD + COMPARISON + "margin = 0\n", 12, "margin must be finite and above 0, got 0"),
        (HEAD + COMPARISON + 'splits = "some"\n', 12, "splits must be 'default' or 'all'"),
        (HEAD + COMPARISON + "train = {epochs = 0}\n", 12, "epochs must be at least 1, got 0"),
        (
            HEAD + COMPARISON + "[comparison.train]\npatience = 3\nepoch = 5\n",
            14,
            "unknown key 'epoch', did you mean 'epochs'?",
        ),
        (HEAD + COMPARISON.replace("models", "#"), 4, "the key 'models' is missing"),
        (HEAD + COMPARISON.replace('["gcn"]', "[]"), 7, "models must be given, each once, got []"),
        (HEAD + COMPARISON + COMPARISON, 13, "the names of comparisons must differ, got 'one'"),
        (HEAD + COMPARISON + 'against = "two"\n', 12, "against must name a comparison above"),
        (HEAD.replace("title", "titel") + COMPARISON, 1, "unknown key 'titel', did you mean"),
        (HEAD, 1, "a suite must hold a table [[comparison]] or [[uncertainty]], got neither"),
        (
            HEAD + COMPARISON.replace("[[comparison]]", "[comparison]"),
            4,
            "must begin with [[comparison]], got [comparison]; write two brackets",
        ),
        (HEAD + UNCERTAINTY + "seed = 3\n", 9, "unknown key 'seed', did you mean 'seeds'?"),
        (HEAD + UNCERTAINTY + "undirected = true\n", 9, "unknown key 'undirected'"),
        (HEAD + UNCERTAINTY + "samples = 1\n", 9, "samples must be at least 2, got 1"),
        (HEAD + UNCERTAINTY + "\nrisk = 2\n", 10, "risk must be a share of errors in [0, 1]"),
        (
            HEAD + COMPARISON + UNCERTAINTY + '[uncertainty.train]\nselection = "best"\n',
            18,
            "selection must be 'metric' or 'loss', got 'best'",
        ),
        (HEAD + UNCERTAINTY + "train = {epoch = 3}\n", 9, "did you mean 'epochs'?"),
        (HEAD + UNCERTAINTY.replace('"dropout"', '"none"'), 8, "operators must all drop"),
        (
            HEAD + COMPARISON + UNCERTAINTY.replace('"two"', '"one"'),
            13,
            "the names of comparisons and assessments must differ, got 'one' twice",
        ),
        (HEAD + UNCERTAINTY + PUBLISHED, 10, "unknown comparison 'one', there is none"),
        (HEAD + COMPARISON.replace('"one"', '"../one"'), 5, "name: string should match pattern"),
        (
            HEAD + COMPARISON + PUBLISHED.replace('"one"', '"two"'),
            13,
            "unknown comparison 'two', choose from one",
        ),
        (
            HEAD + COMPARISON + PUBLISHED.replace('"dropout"', '"drop-edge:p=0.2"'),
            16,
            "the comparison one has no operator 'drop-edge:p=0.2', did you mean 'drop-edge:p=0.3'?",
        ),
        (HEAD + COMPARISON + PUBLISHED.replace("margin", "margins"), 18, "did you mean 'margin'?"),
    ],
)
def test_a_wrong_suite_is_told_by_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(ParameterError) as error:
        Suite("mine", text, "mine.toml")
    said = str(error.value)
    assert said.startswith("mine.toml")
    assert f"line {line}" in said
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("old", "new", "line", "kind"),
    [
        ("drop-edge:p=0.3", "drop-egde:p=0.3", 10, UnknownNameError),
        ("drop-edge:p=0.3", "drop-edge:p=1.3", 10, ParameterError),
        ("karate", "krate", 6, UnknownNameError),
        ('"gcn"', '"gcn:num_layer=3"', 7, ParameterError),
        ('"gcn"', '"gcn:norm=group"', 7, ParameterError),
    ],
)
def test_a_wrong_spec_is_told_by_its_line_before_anything_runs(old, new, line, kind) -> None:
    suite = make(COMPARISON.replace(old, new))
    with pytest.raises(kind, match=f"^mine.toml, line {line}: "):
        check_specs(suite)


@pytest.mark.parametrize(
    ("old", "new", "line", "kind"),
    [
        ("karate", "krate", 6, UnknownNameError),
        ("gcn", "gcm", 7, UnknownNameError),
        ("dropout", "dropout:p=2", 8, ParameterError),
    ],
)
def test_a_wrong_spec_of_an_assessment_is_told_by_its_line(old, new, line, kind) -> None:
    suite = make(UNCERTAINTY.replace(f'"{old}"', f'"{new}"'))
    with pytest.raises(kind, match=f"^mine.toml, line {line}: "):
        check_specs(suite)


def test_an_operator_with_a_rate_of_its_own_is_told_by_its_line_where_rates_are_given() -> None:
    check_specs(make(COMPARISON.replace(":p=0.3", "") + "rates = [0.1, 0.5]\n"))
    with pytest.raises(ParameterError, match=r"^mine.toml, line 10: .* must not set p where rates"):
        check_specs(make(COMPARISON + "rates = [0.1, 0.5]\n"))


def test_an_assessment_is_what_assess_uncertainty_takes() -> None:
    text = UNCERTAINTY + 'seeds = 3\nrisk = 0.2\ntrain = {selection = "loss"}\n'
    config = make(text).settings.uncertainty[0].config()
    assert (config.operators, config.seeds, config.risk) == (("dropout",), 3, 0.2)
    assert config.train == TrainConfig(selection="loss")
    unsaid = make(UNCERTAINTY).settings.uncertainty[0].config()
    assert unsaid == UncertaintyConfig(("dropout",), ("karate",), ("gcn",))


def test_checking_leaves_the_generators_alone(generators_untouched) -> None:
    check_specs(make(COMPARISON))


@given(st.integers(1, 6), st.data())
def test_lines_of_keys_in_arrays_of_tables(tables: int, data: st.DataObject) -> None:
    """Against a text that is put together with its lines known."""
    lines = ["top = 1", 'text = """', "[[part]]", "a = 1", '"""']
    expected: dict[tuple[str | int, ...], int] = {("top",): 1, ("text",): 2}
    for number in range(tables):
        lines += [""] * data.draw(st.integers(0, 2)) + ["[[part]]"]
        expected["part", number] = len(lines)
        for key in data.draw(st.lists(st.sampled_from("abc"), unique=True)):
            lines.append(f"{key} = {{ x = 1 }}  # [[part]]")
            expected["part", number, key] = len(lines)
        if data.draw(st.booleans()):
            lines += ["[part.inner] # of it", "deep = 1"]
            expected["part", number, "inner", "deep"] = len(lines)
    text = "\n".join(lines)
    tomllib.loads(text)
    assert {place: find_line(text, place) for place in expected} == expected


@pytest.mark.parametrize("name", builtin_suites())
def test_the_built_in_suites_hold(name: str) -> None:
    suite = load_suite(name)
    check_specs(suite)
    for one in suite.settings.parts:
        assert one.seeds >= 3
    for row in suite.settings.published:
        assert "https://" in row.source


def test_the_promised_suites_are_there() -> None:
    promised = {*("quick", "homophily", "depth", "contradiction", "published", "uncertainty")}
    assert promised <= set(builtin_suites())


def test_quick_needs_no_data() -> None:
    for one in load_suite("quick").settings.comparison:
        assert all(DATASETS.make(spec).is_offline for spec in one.datasets)


def test_a_contradiction_changes_one_factor_at_a_time() -> None:
    """But for the last, all at once, and what cannot be paired."""
    suite = load_suite("contradiction").settings
    known = {one.name: one.model_dump() for one in suite.comparison}
    changed = {
        name: {key for key in one if one[key] != known[one["against"]][key]} - {"name", "note"}
        for name, one in known.items()
        if one["against"] and name != "together"
    }
    assert {"depth", "width", "norm", "residual", "tuning", "undirected"} <= set(changed)
    for name, keys in changed.items():
        assert len(keys - {"against"}) == 1, (name, keys)


def test_unknown_names_and_files() -> None:
    with pytest.raises(
        UnknownNameError, match=r"a \.toml file, got 'quik', did you mean 'quick'\?$"
    ):
        load_suite("quik")
    with pytest.raises(UnknownNameError, match="got 'zzz', choose from contradiction, depth"):
        load_suite("zzz")
    with pytest.raises(ParameterError, match=r"a suite must be a text file, got nowhere\.toml"):
        load_suite("nowhere.toml")
