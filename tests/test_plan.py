import numpy as np
import pytest

from keras_gradwatch.controller.plan import CutRate, Halt, Request, Skip, unite
from keras_gradwatch.detectors import LossSpike, NonFinite, NormThreshold, ZScore
from keras_gradwatch.policies import ClipByNorm, ClipByValue


def test_nothing_is_asked_for():
    plan = unite([])
    assert plan.detectors == [NonFinite()] and not plan.protects


def test_detectors_are_united_and_each_response_follows_its_own():
    skip = Skip((ZScore(), NormThreshold(1.0)))
    cut = CutRate((LossSpike(), ZScore()), 0.5, 10, 0.0)
    halt = Halt((NonFinite(),), 3)
    plan = unite(
        [
            Request("a", responses=(skip,)),
            Request("b", responses=(cut, halt), detectors=(NormThreshold(2.0),)),
        ]
    )
    assert plan.protects
    assert plan.detectors[0] == NonFinite() and len(plan.detectors) == 5

    def followed(responses):
        ((_, mask),) = responses
        return {d for d, m in zip(plan.detectors, mask, strict=True) if m}

    assert followed(plan.skips) == {ZScore(), NormThreshold(1.0)}
    assert followed(plan.cuts) == {LossSpike(), ZScore()}
    assert followed(plan.halts) == {NonFinite()}


def test_detectors_alone_protect_nothing():
    assert not unite([Request("a", detectors=(ZScore(),))]).protects
    assert unite([Request("a", policy=ClipByNorm(1.0))]).protects


def test_frequencies():
    plan = unite(
        [
            Request("a", update_freq=10, sample_freq=20, histogram_freq=7),
            Request("b", update_freq=30, steps_per_execution=8, dense_steps=5),
            Request("c", update_freq=20, sample_freq=5),
        ]
    )
    assert (plan.update_freq, plan.sample_freq, plan.dense_steps) == (10, 5, 5)
    assert plan.capacity >= 38 and plan.histogram_freq == 7


def test_two_policies():
    one = Request("a", policy=ClipByNorm(1.0))
    with pytest.raises(ValueError, match=r"ClipByNorm.*by a, .*ClipByValue.*by b"):
        unite([one, Request("b", policy=ClipByValue(1.0))])
    assert unite([one, Request("b", policy=ClipByNorm(1.0))]).policy == ClipByNorm(1.0)


def test_numbers_are_no_part_of_the_structure():
    def structure(limit, factor):
        cut = CutRate((NormThreshold(limit),), factor, 1, 0.0)
        return unite([Request("a", responses=(cut,))]).structure()

    assert structure(1.0, 0.5) == structure(2.0, 0.1)
    assert structure(1.0, 0.5) != unite([]).structure()
    assert np.all(unite([]).skips == [])
