"""The study of exploding and vanishing gradients in a residual network."""

import importlib
import re

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientHistory
from tests import helper
from tests.test_examples import event_files, run


@pytest.fixture(scope="module")
def study():
    """The example as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(helper.ROOT / "examples")
        yield importlib.import_module("resnet50_mnist")


@pytest.mark.tensorflow
def test_the_thin_network_is_built_like_resnet_50(study):
    """At its width, it has the kernels of the one in Keras, in the same order."""
    import dataclasses

    keras_own = study.network(study.WHOLE)
    ours = study.network(dataclasses.replace(study.SHIPPED, width=64))
    shapes = [
        [v.shape for v in model.trainable_variables if v.path.endswith("kernel")]
        for model in (keras_own, ours)
    ]
    assert sorted(shapes[0]) == sorted(shapes[1]) and len(shapes[0]) == 54
