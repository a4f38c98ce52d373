"""What holds for every detector: config round trip, bad arguments, equality."""

import keras
import numpy as np
import pytest

from keras_gradwatch import detectors
from keras_gradwatch.detectors import (
    AnyOf,
    Collapse,
    DeadUnits,
    Detector,
    Divergence,
    LossSpike,
    NonFinite,
    NormThreshold,
    Oscillation,
    UpdateRatio,
    Vanishing,
    ZScore,
)

EVERY = [
    NonFinite(),
    NormThreshold(12.5),
    ZScore(z=4.0, factor=3.0, decay=0.9, warmup=7, patience=2),
    LossSpike(z=5.0, factor=2.0),
    UpdateRatio(0.25, floor=0.1),
    Collapse(3),
    Divergence(5.0, steps=7),
    Vanishing(ratio=1e-2, floor=1e-5, decay=0.8, patience=7),
    DeadUnits(0.5, apart=3, patience=2),
    Oscillation(0.8, amplitude=0.2, decay=0.9, patience=5),
    AnyOf([NormThreshold(3.0), LossSpike(warmup=3)]),
]
every = pytest.mark.parametrize("detector", EVERY, ids=lambda d: type(d).__name__)


def test_the_list_is_complete():
    public = {getattr(detectors, name) for name in detectors.__all__}
    classes = {c for c in public if isinstance(c, type) and issubclass(c, Detector)} - {
        Detector
    }
    assert classes == {type(d) for d in EVERY}


@every
def test_config_round_trip(detector):
    config = keras.saving.serialize_keras_object(detector)
    assert config["registered_name"].startswith("keras_gradwatch>")
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(detector) and copy == detector
    assert copy.get_config() == detector.get_config()
    assert hash(copy) == hash(detector)


@every
def test_equality_and_repr(detector):
    assert [d == detector for d in EVERY].count(True) == 1
    assert type(detector).__name__ in repr(detector)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: NormThreshold(0), "NormThreshold: `limit`.*> 0.*limit=0"),
        (lambda: NormThreshold(np.nan), "limit.*finite.*nan"),
        (lambda: Collapse(0), "Collapse: `steps`.*>= 1.*0"),
        (lambda: Divergence(1.0), "Divergence: `factor`.*> 1.*1.0"),
        (lambda: Divergence(steps=1.5), "Divergence: `steps`.*integer >= 1.*1.5"),
        (lambda: ZScore(z=0), "ZScore: `z`.*> 0.*z=0"),
        (lambda: ZScore(factor=1.0), "factor.*> 1.*1.0"),
        (lambda: ZScore(decay=1.0), "decay.*< 1.*1.0"),
        (lambda: LossSpike(warmup=0), "LossSpike: `warmup`.*>= 1.*0"),
        (lambda: LossSpike(warmup=2.5), "warmup.*integer.*2.5"),
        (lambda: LossSpike(patience=0), "patience.*>= 1.*0"),
        (lambda: UpdateRatio(-1), "UpdateRatio: `limit`.*> 0.*-1"),
        (lambda: UpdateRatio(floor=-0.1), "floor.*>= 0.*-0.1"),
        (lambda: Vanishing(ratio=0), "Vanishing: `ratio`.*> 0.*ratio=0"),
        (lambda: Vanishing(floor=-1), "floor.*> 0.*-1"),
        (lambda: Vanishing(decay=1), "decay.*< 1.*1"),
        (lambda: Vanishing(patience=0), "patience.*>= 1.*0"),
        (lambda: DeadUnits(1.0), "DeadUnits: `limit`.*< 1.*1.0"),
        (lambda: DeadUnits(apart=0.5), "apart.*integer >= 1.*0.5"),
        (lambda: DeadUnits(patience=1.5), "patience.*integer.*1.5"),
        (lambda: Oscillation(0.4), "Oscillation: `limit`.*>= 0.5.*0.4"),
        (lambda: Oscillation(amplitude=-1), "amplitude.*>= 0.*-1"),
        (lambda: Oscillation(decay=np.inf), "decay.*finite.*inf"),
        (lambda: AnyOf([]), "AnyOf: `detectors`.*at least one"),
    ],
)
def test_bad_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_any_of_takes_detectors_only():
    with pytest.raises(TypeError, match=r"detector.*'norm'"):
        AnyOf(["norm"])


def test_or_unites():
    united = NormThreshold(1.0) | LossSpike() | NonFinite()
    assert isinstance(united, AnyOf)
    assert united.detectors == [NormThreshold(1.0), LossSpike(), NonFinite()]
