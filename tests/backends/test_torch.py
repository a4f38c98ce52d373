"""The seam on PyTorch: a step that runs one operation after the other."""

import collections
import gc
import weakref

import keras
import numpy as np
import pytest

from keras_gradwatch import policies
from keras_gradwatch.callbacks import GradientHistory, GradWatch, ReduceLROnExplosion
from keras_gradwatch.tensors import branch
from tests import helper

pytestmark = pytest.mark.torch

if keras.config.backend() == "torch":
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    from keras_gradwatch.backends import torch as seam

    class Waits(TorchDispatchMode):
        """Counts what would wait for an accelerator: values read by the host."""

        READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select")

        def __init__(self):
            super().__init__()
            self.count = collections.Counter()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket.__name__
            self.count[name] += name in self.READS
            return function(*args, **(kwargs or {}))

    class Copies(TorchFunctionMode):
        """Counts what would be copied to an accelerator: numbers made tensors."""

        count = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            made = function in (torch.as_tensor, torch.tensor)
            if made and not isinstance(args[0], torch.Tensor):
                self.count += 1
            return function(*args, **(kwargs or {}))


def network(optimizer, **kwargs):
    keras.utils.set_random_seed(5)
    model = helper.functional(dropout=0)
    return helper.compiled(model, optimizer, **kwargs)


@pytest.fixture
def accelerated(monkeypatch):
    """Tensors in the host's memory taken for those of an accelerator."""
    for module in (branch, seam):
        monkeypatch.setattr(module, "known", lambda predicate: False)


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
}
WAYS = {
    "observe": lambda: [GradientHistory()],
    "GradWatch": lambda: [GradWatch(dense_steps=0, verbose=0)],
    "ZClip": lambda: [GradWatch(policy=policies.ZClip(), dense_steps=0, verbose=0)],
}


def counted(optimizer, callbacks, x, y):
    """`(waits, copies)` of all steps of a `fit`, after those that make constants."""
    model = network(OPTIMIZERS[optimizer]())
    helper.fit(model, x[:16], y[:16], callbacks)
    step, waits, copies = model.train_function, Waits(), Copies()

    def counting(data):
        with waits, copies:
            return step(data)

    class Count(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.train_function = counting

    helper.fit(model, x, y, [*callbacks, Count()])
    return waits.count.total(), copies.count


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("way", WAYS)
def test_no_step_waits_for_an_accelerator(way, optimizer, accelerated, digits):
    """Beside what stock Keras waits for, and what it copies."""
    stock_waits, stock_copies = counted(optimizer, [], *digits)
    waits, copies = counted(optimizer, WAYS[way](), *digits)
    assert waits == stock_waits
    # The first step of a later `fit` is read, and limits are written.
    assert copies <= stock_copies + (way != "observe")


def test_limits_are_written_once_a_step_while_every_step_is_read(accelerated, digits):
    """And nothing else is copied."""
    _, stock_copies = counted("adam", [], *digits)
    _, copies = counted("adam", [GradWatch(verbose=0)], *digits)
    assert copies <= stock_copies + 96 // 8


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_decided_on_the_accelerator(optimizer, digits, request):
    """The same weights, events and records as decided on the host."""
    x, y = digits
    x = helper.with_nan(x, 3, 8)
    x[72:80] *= 1e6

    def run():
        seen = GradientHistory()
        watching = GradWatch(policy=policies.ClipByGlobalNorm(0.5), verbose=0)
        model = network(OPTIMIZERS[optimizer]())
        history = helper.fit(model, x, y, [watching, seen], epochs=2)
        told = [e.message.partition(":")[0] for e in seen.events]
        records = [seen.global_norm, seen.clipped_norm, seen.loss, seen.applied]
        return helper.state(model), history, told, records

    expected = run()
    request.getfixturevalue("accelerated")
    actual = run()
    helper.assert_same(actual[:2], expected[:2], 1e-6)
    helper.assert_same(actual[3], expected[3], 1e-6)
    assert actual[2] == expected[2] and len(expected[2]) >= 2


def test_what_is_recorded_does_not_move_on(digits):
    """A variable's value is the variable itself: the rate is that before its cut."""
    seen, lines = GradientHistory(), []
    x, y = digits
    cut = ReduceLROnExplosion(0.5, verbose=0)
    helper.fit(network("sgd"), helper.with_nan(x, 3, 8), y, [cut, seen])
    lines = [e.message for e in cut.events]
    assert len(lines) == 1 and "learning rate 0.01 -> 0.005" in lines[0]


@pytest.mark.filterwarnings("ignore")  # what torch.compile says of Keras
def test_torch_compile(digits):
    x, y = digits
    plain = network("sgd")
    expected = helper.fit(plain, x, y, [GradWatch(verbose=0)])
    seen, watching = GradientHistory(), GradWatch(verbose=0)
    model = network("sgd", jit_compile=True)
    actual = helper.fit(model, x, y, [watching, seen])
    helper.assert_same(actual, expected, 1e-5)
    helper.assert_same(helper.state(model), helper.state(plain), 1e-5)
    assert np.isfinite(seen.global_norm).all() and seen.events == []


def test_a_replaced_optimizer_is_let_go(digits):
    model, alive = network("adam"), []
    for _ in range(3):
        model.compile("adam", model.loss)
        alive.append(weakref.ref(model.optimizer))
        helper.fit(model, *digits, [GradWatch(verbose=0)])
    gc.collect()
    assert [optimizer() is not None for optimizer in alive] == [False, False, True]


def test_batches_over_the_limit_take_no_memory(digits, tmp_path):
    model = network("sgd")
    helper.fit(model, *digits, [GradWatch(tmp_path, save_batch=16, verbose=0)])
    assert not [v for v in model.gradwatch.store.every if v.shape == (8, 64)]
