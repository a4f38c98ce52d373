"""What of a detector or a policy is compiled into the step."""

import keras
import pytest

from keras_gradwatch.detectors import AnyOf, LossSpike, NormThreshold, ZScore
from keras_gradwatch.methods import Method, number
from keras_gradwatch.policies import AdaGC, AutoClip, Centralize, Chain, ZClip

SAME = [
    (AutoClip(10.0), AutoClip(20.0)),
    (AdaGC(1.1, 0.9, 5, 2.0), AdaGC(1.2, 0.8, 7, 3.0)),
    (Chain([Centralize(), ZClip(2.0)]), Chain([Centralize(), ZClip(3.0)])),
    (
        Chain([Chain([AutoClip(10.0)]), ZClip()]),
        Chain([Chain([AutoClip(20.0)]), ZClip(4.0)]),
    ),
    (NormThreshold(1.0), NormThreshold(2.0)),
    (
        AnyOf([NormThreshold(1.0), LossSpike()]),
        AnyOf([NormThreshold(2.0), LossSpike()]),
    ),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=lambda m: type(m).__name__)
def test_numbers_are_no_part_of_the_structure(one, other):
    assert one != other
    assert one.structure() == other.structure() and hash(one) == hash(other)


DIFFERENT = [
    AutoClip(),
    AutoClip(window=7),
    AutoClip(window=8),
    AdaGC(),
    AdaGC(robust=False),
    Chain([Centralize(), AutoClip()]),
    Chain([Centralize(), AutoClip(window=7)]),
    Chain([AutoClip(), Centralize()]),
    Chain([Chain([Centralize(), AutoClip()])]),
    Chain([Centralize()]),
    NormThreshold(1.0),
    AnyOf([NormThreshold(1.0)]),
    AnyOf([NormThreshold(1.0), ZScore()]),
    AnyOf([ZScore(), NormThreshold(1.0)]),
]


def test_options_are_part_of_the_structure():
    assert len({method.structure() for method in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize("method", DIFFERENT, ids=repr)
def test_a_copy_has_the_structure_of_the_original(method):
    config = keras.saving.serialize_keras_object(method)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy == method and copy.structure() == method.structure()


class Own(Method):
    """One with every kind of option; nobody wrote a `structure` for it."""

    def __init__(self, limit=1.0, word="a", parts=(), table=None, flag=True):
        self.settings = {"limit": number(self, "limit", limit)}
        self.word, self.parts, self.flag = word, parts, flag
        self.table = table or {}

    def get_config(self):
        names = ("word", "parts", "table", "flag")
        return {**self.settings, **{name: getattr(self, name) for name in names}}


@pytest.mark.parametrize(
    "changed",
    [
        {"word": "b"},
        {"parts": [1, [2, 3]]},
        {"parts": [ZScore()]},
        {"table": {"a": [1]}},
        {"table": {"a": {"b": 2}}},
        {"flag": False},
    ],
)
def test_the_structure_follows_from_the_configuration(changed):
    assert Own().structure() == Own(limit=2.0).structure()
    assert Own(**changed).structure() == Own(limit=2.0, **changed).structure()
    assert Own(**changed).structure() != Own().structure()
    assert hash(Own(**changed).structure()) == hash(Own(**changed).structure())


def test_two_classes_of_one_name_differ():
    def make(module):
        return type("Same", (Method,), {"__module__": module, "__qualname__": "Same"})

    assert make("one")().structure() != make("two")().structure()
    assert make("one")().structure() == make("one")().structure()
