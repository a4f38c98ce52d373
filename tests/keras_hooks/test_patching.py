"""Replacing attributes while a step runs, and restoring what was there before."""

import pytest

from keras_gradwatch.keras_hooks.patching import original_of, standing_in


class Base:
    def own(self):
        return "original"

    @staticmethod
    def static():
        return "original"


class Derived(Base):
    pass


def replaced():
    return "replaced"


@pytest.mark.parametrize("owner", [Base, Derived, Derived()])
@pytest.mark.parametrize("name", ["own", "static"])
def test_what_was_there_comes_back(owner, name):
    before = dict(vars(owner))
    with standing_in(owner, **{name: replaced}), standing_in(owner, **{name: replaced}):
        assert getattr(owner, name)() == "replaced"
        assert original_of(owner, name) is not replaced
    assert dict(vars(owner)) == before
    assert getattr(Base(), name)() == "original"


def test_an_attribute_of_an_instance_comes_back():
    owner = Derived()
    owner.own = lambda: "of the user"
    with pytest.raises(ZeroDivisionError), standing_in(owner, own=replaced):
        assert owner.own() == "replaced"
        raise ZeroDivisionError
    assert owner.own() == "of the user"
