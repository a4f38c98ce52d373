"""The requests of callbacks, united into one plan."""

import pytest

from keras_gradwatch.controller.plan import SAMPLE_FREQ, Plan, Request
from keras_gradwatch.controller.responses import CutRate, Halt, Hold, Rewind, Skip
from keras_gradwatch.detectors import (
    DeadUnits,
    LossSpike,
    NonFinite,
    NormThreshold,
    UpdateRatio,
    Vanishing,
    ZScore,
)
from keras_gradwatch.policies import (
    AdaGC,
    AutoClip,
    Centralize,
    Chain,
    ClipByNorm,
    ClipByValue,
    NormalizeCentered,
    ZClip,
)
from keras_gradwatch.statistics.names import ALWAYS, NAMES, OF_UPDATES


def plan_of(**wishes):
    """The plan of one request."""
    return Plan([Request("a", **wishes)])


def test_nothing_is_asked_for():
    plan = Plan([])
    assert plan.detectors == [NonFinite()] and plan.responses == []
    assert not plan.protects and not plan.may_cut and plan.policy is None
    assert plan.statistics == ALWAYS and plan.sample_freq is None
    assert not plan.judges_updates and not plan.records_updates


def test_detectors_are_united_and_each_response_follows_its_own():
    skip = Skip((ZScore(), NormThreshold(1.0)))
    cut = CutRate((LossSpike(), ZScore()), 0.5, 10, 0.0)
    halt = Halt((NonFinite(),), 3)
    plan = Plan(
        [
            Request("a", responses=(skip,)),
            Request("b", responses=(cut, halt), detectors=(NormThreshold(2.0),)),
        ]
    )
    assert plan.protects
    assert plan.detectors[0] == NonFinite()
    assert len(plan.detectors) == len(set(map(repr, plan.detectors))) == 5
    every = {ZScore(), NormThreshold(1.0), NormThreshold(2.0), LossSpike()}
    assert set(plan.detectors[1:]) == every
    assert plan.responses == [skip, cut, halt]
    assert set(skip.detectors) == {ZScore(), NormThreshold(1.0)}
    assert set(cut.detectors) == {LossSpike(), ZScore()}
    assert halt.detectors == (NonFinite(),)


def test_each_method_keeps_its_state_under_a_name_of_its_own():
    skips = Skip((NormThreshold(1.0),)), Skip((NormThreshold(2.0),))
    plan = plan_of(responses=skips, detectors=(ZScore(),))
    names = ["NonFinite_0", "ZScore_0", "NormThreshold_0", "NormThreshold_1"]
    assert [name for name, _ in plan.labelled] == names
    assert [detector for _, detector in plan.labelled] == plan.detectors
    assert plan.labelled_responses == [("Skip_0", skips[0]), ("Skip_1", skips[1])]


def test_detectors_alone_protect_nothing():
    assert not plan_of(detectors=(ZScore(),)).protects
    assert plan_of(policy=ClipByNorm(1.0)).protects
    assert plan_of(responses=(Skip((ZScore(),)),)).protects


@pytest.mark.parametrize(
    ("response", "may_cut"),
    [
        (Skip((ZScore(),)), False),
        (Halt((ZScore(),), 3), False),
        (CutRate((ZScore(),), 0.5, 10, 0.0), True),
        (Hold((UpdateRatio(),)), True),
        (Rewind((ZScore(),)), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_who_may_cut_a_rate(response, may_cut):
    assert plan_of(responses=(response,)).may_cut is may_cut


def test_frequencies():
    plan = Plan(
        [
            Request("a", update_freq=10, sample_freq=20, histogram_freq=7),
            Request("b", update_freq=30, steps_per_execution=8, dense_steps=5),
            Request("c", update_freq=20, sample_freq=5, statistics=("mean",)),
        ]
    )
    assert (plan.update_freq, plan.sample_freq, plan.dense_steps) == (10, 5, 5)
    assert plan.capacity >= 38 and plan.histogram_freq == 7


def test_sampling_where_something_is_sampled():
    """Norms and counts are measured at every step anyway."""
    assert plan_of(sample_freq=5).sample_freq is None
    assert plan_of(sample_freq=5, statistics=ALWAYS).sample_freq is None
    assert plan_of(sample_freq=5, statistics=("std",)).sample_freq == 5
    assert plan_of(sample_freq=5, statistics=("update_ratio",)).sample_freq == 5
    # Without a wish.
    assert plan_of(statistics=("std",)).sample_freq == SAMPLE_FREQ
    assert plan_of(detectors=(UpdateRatio(),)).sample_freq == SAMPLE_FREQ
    assert plan_of(sample_freq=1, statistics=("std",)).samples_always
    assert not plan_of(sample_freq=2, statistics=("std",)).samples_always


def test_statistics_are_those_that_somebody_reads():
    assert plan_of(statistics=NAMES).statistics == NAMES
    assert plan_of(statistics=("std",)).statistics == ("norm", "std", "nonfinite_count")
    detectors = (DeadUnits(), Vanishing())
    reads = {name for detector in detectors for name in detector.reads}
    assert reads
    plan = plan_of(detectors=detectors)
    assert set(plan.statistics) == {*ALWAYS, *reads} - set(OF_UPDATES)
    # A policy is given what is recorded: all, or norms alone.
    details = plan_of(policy=Chain([Centralize(), ClipByValue(1.0)]))
    assert details.statistics == NAMES[:6]
    assert plan_of(policy=ClipByNorm(1.0)).statistics == ALWAYS


def test_updates_are_measured_by_the_step_or_by_the_host():
    host, step = plan_of(detectors=(UpdateRatio(),)), plan_of(statistics=OF_UPDATES)
    assert host.judges_updates and not host.records_updates
    assert step.records_updates and not step.judges_updates
    assert step.statistics == (*ALWAYS, *OF_UPDATES) and host.statistics == ALWAYS


def test_two_policies():
    one = Request("a", policy=ClipByNorm(1.0))
    with pytest.raises(ValueError, match=r"ClipByNorm.*by a, .*ClipByValue.*by b"):
        Plan([one, Request("b", policy=ClipByValue(1.0))])
    assert Plan([one, Request("b", policy=ClipByNorm(1.0))]).policy == ClipByNorm(1.0)


def test_directories_and_batches():
    plan = Plan(
        [
            Request("a", state_dirs=("one",), save_batch=10),
            Request("b", state_dirs=("two",), save_batch=5),
            Request("c", state_dirs=("one",)),
        ]
    )
    assert plan.state_dirs == ["one", "two"] and plan.save_batch == 10


NUMBERS = [
    # Of a policy, of a detector, of a response, and of the plan itself.
    ({"policy": ClipByNorm(1.0)}, {"policy": ClipByNorm(2.0)}),
    ({"policy": AutoClip(10.0)}, {"policy": AutoClip(20.0)}),
    ({"policy": AdaGC(factor=1.1)}, {"policy": AdaGC(factor=1.2, warmup=7)}),
    (
        {"policy": Chain([Centralize(), ZClip(z=2.0)])},
        {"policy": Chain([Centralize(), ZClip(z=3.0)])},
    ),
    ({"detectors": (NormThreshold(1.0),)}, {"detectors": (NormThreshold(2.0),)}),
    (
        {"responses": (Skip((NormThreshold(1.0),)),)},
        {"responses": (Skip((NormThreshold(2.0),)),)},
    ),
    # Detectors run on the host: another one is another number for the step.
    ({"responses": (Skip((ZScore(),)),)}, {"responses": (Skip((LossSpike(),)),)}),
    (
        {"responses": (CutRate((ZScore(),), 0.5, 1, 0.0),)},
        {"responses": (CutRate((ZScore(),), 0.1, 9, 1e-5, 3),)},
    ),
    (
        {"responses": (Halt((ZScore(),), 1),)},
        {"responses": (Halt((ZScore() | LossSpike(),), 2),)},
    ),
    ({"update_freq": 10}, {"update_freq": 20}),
    ({"dense_steps": 1}, {"dense_steps": 100}),
    ({"histogram_freq": 5}, {"histogram_freq": 7}),
    ({"save_batch": 10}, {"save_batch": 20}),
    (
        {"statistics": ("std",), "sample_freq": 5},
        {"statistics": ("std",), "sample_freq": 7},
    ),
]


@pytest.mark.parametrize(("one", "other"), NUMBERS)
def test_numbers_are_no_part_of_the_structure(one, other):
    one, other = plan_of(**one).structure(), plan_of(**other).structure()
    assert one == other and hash(one) == hash(other)


OPTIONS = [
    {},
    {"policy": ClipByNorm(1.0)},
    {"policy": ClipByValue(1.0)},
    {"policy": AutoClip()},
    {"policy": AutoClip(window=7)},
    {"policy": AdaGC()},
    {"policy": AdaGC(robust=False)},
    {"policy": Chain([Centralize()])},
    {"policy": Chain([Centralize(), ZClip()])},
    {"policy": Chain([ZClip(), Centralize()])},
    {"policy": Chain([Centralize(), ZClip(robust=False)])},
    {"policy": Chain([NormalizeCentered(), AutoClip(window=7)])},
    {"policy": Chain([NormalizeCentered(), AutoClip(window=8)])},
    {"responses": (Skip((ZScore(),)),)},
    {"responses": (CutRate((ZScore(),), 0.5, 10, 0.0),)},
    {"statistics": ("std",)},
    {"statistics": ("mean",)},
    {"statistics": ("std",), "sample_freq": 1},
    {"statistics": OF_UPDATES},
    {"update_freq": 200},  # a ring of more rows
    {"histogram_freq": 5},
    {"save_batch": 10},
]


def test_options_are_part_of_the_structure():
    """Each pair differs; the same wishes, made anew, have the same structure."""
    structures = [plan_of(**wishes).structure() for wishes in OPTIONS]
    assert len(set(structures)) == len(OPTIONS)
    assert structures == [plan_of(**wishes).structure() for wishes in OPTIONS]
