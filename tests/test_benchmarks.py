"""A small part of the benchmark of detection, and what it compares with."""

import importlib
import re
import types

import numpy as np
import pytest

from keras_gradwatch.detectors import Detector, NonFinite
from tests import helper


@pytest.fixture(scope="module")
def benchmark():
    """The modules of the benchmark."""
    names = ("detection", "healthy_runs", "published_rules", "replay")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(helper.ROOT / "benchmarks")
        yield types.SimpleNamespace(**{n: importlib.import_module(n) for n in names})


@pytest.fixture(scope="module")
def quick(benchmark, tmp_path_factory):
    """`(Results, folder)` of what takes half a minute."""
    folder = tmp_path_factory.mktemp("detection")
    arguments = ["--quick", "--seeds", "3", "--out", str(folder)]
    return benchmark.detection.main(arguments), folder


LARGE = [f"{what} × {size}" for what in ("norm", "loss") for size in (100, 1000)]
FAULTS = ["gradient not finite", "loss not finite", *LARGE]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_in_its_own_step_and_no_other_alarm_follows(quick, fault):
    found = quick[0].of(fault, "GradWatch")
    assert len(found) >= 16
    # Spikes of 100 or 1,000 that recur are data from the fourth one on.
    recur = quick[0].of(fault, "GradWatch", "once an epoch")
    spikes = "finite" not in fault
    assert all(f.own == 1 or (spikes and f in recur and f.own > 0) for f in found)
    assert all(set(f.delays) == {0} and f.more == 0 for f in found)


def test_what_is_small_passes(quick):
    """The grades are not all the same."""
    assert quick[0].recall("norm × 3", "GradWatch") < 0.5


def test_no_alarm_in_healthy_steps(quick):
    alarms, steps = quick[0].false_alarms("GradWatch")
    assert steps > 800 and alarms == 0
    assert quick[0].false_alarms("ZClip")[0] > 0


def test_a_lasting_shift_is_no_lasting_alarm(quick):
    higher = quick[0].of("lasting × 1000", "GradWatch")
    assert all(f.own + f.more <= 5 and f.last < 10 for f in higher)
    assert any(f.own == 1 for f in higher)
    assert all(f.own + f.more == 0 for f in quick[0].of("lasting × 0.001", "GradWatch"))


def test_live(quick):
    assert len(quick[0].live) == 2
    for found in quick[0].live:
        assert found.found == set(found.steps) and found.others == 0
        assert np.isnan(found.size) or found.size > 100


def test_the_page(quick):
    text = (quick[1] / "detection.md").read_text(encoding="utf-8")
    kept = (helper.ROOT / "docs/benchmarks/detection.md").read_text(encoding="utf-8")
    heads = [
        re.findall(r"^## .*|^\| [a-z ]+ \|.*Grad.*", t, re.M) for t in (text, kept)
    ]
    assert heads[0] == heads[1] and len(heads[0]) >= 8
    assert "| norm × 1e+06 | 16 | 1.000 |" in text
    assert (quick[1] / "detection.png").stat().st_size > 10_000


# -- The yardsticks --------------------------------------------------------------------


def noise(count=400):
    return np.exp(0.2 * np.random.default_rng(0).normal(size=(count, 1)))


def test_one_nan_skips_129_steps_of_olmo(benchmark):
    norm, loss = noise(), np.ones((400, 1))
    olmo = benchmark.published_rules.olmo
    norm[50] = norm[200] = 1e3
    assert np.flatnonzero(olmo(norm, loss)).tolist() == [200]
    loss[250] = np.nan
    assert np.flatnonzero(olmo(norm, loss)).tolist() == [200, *range(250, 379)]


def test_zclip_step_by_step(benchmark):
    """Against the published loop, written out for one run."""
    norm = noise()
    norm[[60, 61, 200]] *= 20
    mean, variance, expected = norm[:25].mean(), norm[:25].var(), []
    for step, value in enumerate(norm[25:, 0], 25):
        deviation = variance**0.5
        z = (value - mean) / (deviation + 1e-6)
        if z > 2.5:
            expected.append(step)
            value = mean + (2.5 * deviation) / (z / 2.5)
        mean = 0.97 * mean + 0.03 * value
        variance = 0.97 * variance + 0.03 * (value - mean) ** 2
    assert {60, 61, 200} <= set(expected) and len(expected) < 50
    found = benchmark.published_rules.zclip(norm)
    assert np.flatnonzero(found).tolist() == expected


def test_autotrainer(benchmark):
    norm, loss = np.ones((4, 2)), np.ones((4, 2))
    norm[1, 0], loss[2, 1] = np.nan, np.inf
    ratio = np.array([[1.0], [1.0], [1.0], [71.0]])
    found = benchmark.published_rules.autotrainer(norm, loss, ratio)
    assert found.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_grades(benchmark):
    alarms, healthy = np.zeros((2, 100), bool)
    alarms[[10, 43, 70, 80]] = healthy[70] = True
    graded = benchmark.detection.grade(alarms, healthy, np.array([10, 40, 75]))
    # At 40 three steps late, at 75 five; that of step 70 is given on the healthy run.
    assert graded.own == 1 / 3 and graded.delays == [0, 3, 5]
    assert graded.more == 2 / 3 and graded.last == 70


# -- The replay ------------------------------------------------------------------------


def steps_of(benchmark, norm, loss):
    """`Steps` of one kernel."""
    rest = np.zeros((len(norm), 1, 8), "float32"), np.ones(1), np.array([True])
    return benchmark.replay.Steps(norm, loss, *rest)


@pytest.mark.parametrize("name", ["ZScore", "LossSpike"])
def test_a_spike_is_found_and_a_small_one_is_not(benchmark, name):
    detection = benchmark.detection
    for values, spikes in ((noise()[:, 0], {60: 1e3}), (noise()[::-1, 0], {200: 1e5})):
        values[[*spikes, 300]] *= [*spikes.values(), 5.0]
        steps = steps_of(benchmark, values, values)
        found = detection.alarms_of(detection.OF_A_NUMBER, steps)
        assert np.flatnonzero(found[name]).tolist() == list(spikes)


def test_limits_are_drawn_when_steps_are_read(benchmark):
    seen, drawn = [], []

    class Line(Detector):
        def limits(self, state):
            drawn.append(len(seen))
            return {"loss": (0.0, 10.0)}

        def observe(self, step, state):
            seen.append(step.step)
            return super().observe(step, state)

    loss = np.ones(500)
    loss[270], loss[380] = 20.0, np.nan
    steps = steps_of(benchmark, np.ones(500), loss)
    found = benchmark.replay.alarms_of([NonFinite(), Line()], steps)
    assert {n: np.flatnonzero(a).tolist() for n, a in found.items()} == {
        "NonFinite": [380],
        "Line": [270],
    }
    assert seen == [step for step in range(500) if step != 380]
    # Step 380 is read at once and is an event, and then each of the 100 after it.
    dense = [*range(101), 150, 200, 250, *range(271, 372)]
    later = [380, *range(381, 481)]
    assert drawn == [*dense, *later]
