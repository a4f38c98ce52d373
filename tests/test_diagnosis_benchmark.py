"""Two programs of the benchmark of the diagnosis, its page, and the rules beside it."""

import importlib
import types

import numpy as np
import pytest

from tests import helper

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def benchmark():
    """The modules of the benchmark."""
    names = ("diagnosis", "faults", "fault_programs", "published_rules", "repairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(helper.ROOT / "benchmarks")
        yield types.SimpleNamespace(**{n: importlib.import_module(n) for n in names})


@pytest.mark.thorough
def test_two_programs_and_the_page(benchmark):
    diagnosis = benchmark.diagnosis
    (sick,) = diagnosis.outcomes("dev", "no sigmoid, cancer")
    (sound,) = diagnosis.outcomes("dev", "as it is, cancer")
    assert sick.harmed and sick.symptom and sick.cause and sick.fix and sick.works
    assert sound.base > 0.8 and sound.report.symptoms == []
    text = diagnosis.page([sick, sound], "dev")
    row = "| last layer | 1 | 1 of 1 | 1 of 1 | 1 of 1 | 1 of 1 | "
    assert row in text and "Of 1 healthy programs 0 have a finding" in text


def test_the_families_have_no_data_in_common(benchmark):
    bases = benchmark.fault_programs.BASES
    dev, test = ({p.data.__name__ for p in bases[f]} for f in ("dev", "test"))
    assert not dev & test
    assert len(benchmark.faults.faulty("test")) >= 120
    assert len(benchmark.faults.healthy("test")) >= 60


@pytest.mark.parametrize(
    ("advice", "edits"),
    [
        ("Lower the learning rate from 0.3 to about 0.01, or warm", {"rate": 0.01}),
        ("Give `dense` at least 20 units.", {"width": 20}),
        ("Use a momentum of 0.9, or divide", {"momentum": 0.9}),
        ("Train for 3 times as many epochs.", {"epochs": 48}),
        ("Look at the batches", None),
    ],
)
def test_advice_is_followed(benchmark, advice, edits):
    program = benchmark.fault_programs.BASES["dev"][0]
    expected = None if edits is None else program.replace(**edits)
    assert benchmark.repairs.repaired(program, advice) == expected


def look(benchmark, activation, output, gradients=(1.0,), loss=1.0, accuracy=0.5):
    return benchmark.published_rules.Look(
        loss,
        accuracy,
        [np.full((2, 2), g) for g in gradients],
        [np.ones((2, 2))],
        [(activation, np.asarray(output, float)), ("softmax", np.eye(2))],
    )


def test_deepdiagnosis(benchmark):
    rule, targets = benchmark.published_rules.deepdiagnosis, np.array([0, 1])

    def found(*arguments, **options):
        return rule([look(benchmark, *arguments, **options)], "", targets)

    assert found("relu", [[0.0, 1.0]]) == set()
    assert found("relu", [[0.0, 0.0]]) == {"dead node"}
    assert found("tanh", [[1.0, -1.0]]) == {"saturated"}
    assert found("relu", [[1.0, np.nan]]) == {"numerical error"}
    assert found("relu", [[1.0, 1.0]], gradients=[1e-8]) == {"vanishing"}


def test_autotrainer(benchmark):
    rule = benchmark.published_rules.autotrainer_diagnosis

    def found(gradients, **options):
        return rule([look(benchmark, "relu", [[1.0]], gradients, **options)])

    assert found([100.0, 1.0]) == {"exploding"}
    assert found([1e-8, 1.0]) == {"vanishing"}
    assert found([0.0, 0.0]) == {"dying relu"}
    assert found([1.0, 1.0]) == {"slow convergence"}
    assert found([100.0, 1.0], accuracy=0.9) == set()
    assert found([1.0, 1.0], loss=np.inf) == {"exploding"}
