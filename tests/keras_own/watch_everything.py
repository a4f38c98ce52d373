"""pytest plugin: runs Keras's own tests with every trainer that trains watched.

`run.py` beside this file loads it. What happened goes to a JSON file: the outcome of
each test, and how much was watched.
"""

import functools
import importlib.util
import inspect
import json
import pathlib
import re
import sys
import types

import keras
import pytest

import keras_gradwatch
from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.model import is_watched
from keras_gradwatch.policies import ClipByGlobalNorm

MODES = ("stock", "observe", "protect")
# Clips nothing, but is traced, and has steps skipped that are not finite.
POLICY = ClipByGlobalNorm(1e30)
STAND_INS = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--watch", choices=MODES, default="stock")
    parser.addoption("--outcomes", type=pathlib.Path, help="JSON file to write")


def pytest_configure(config):
    for marker in ("requires_trainable_backend", "multi_device"):
        config.addinivalue_line("markers", f"{marker}: as in Keras's conftest.py")
    config.stash[STAND_INS] = _stand_in()
    outcomes = Outcomes(config.getoption("outcomes"))
    config.pluginmanager.register(outcomes)
    mode = config.getoption("watch")
    if mode != "stock":
        trainer = next(c for c in keras.Model.__mro__ if c.__name__.endswith("Trainer"))
        for name in ("fit", "train_on_batch"):
            own = getattr(trainer, name)
            setattr(trainer, name, watching(own, mode, outcomes))


def pytest_collection_finish(session):
    for name in session.config.stash[STAND_INS]:
        del sys.modules[name]


def pytest_runtest_setup(item):
    # Watching draws no random numbers: both runs see the same ones.
    keras.utils.set_random_seed(0)


def watching(method, mode, outcomes):
    """`fit` or `train_on_batch` that watches its trainer first.

    To protect, the policy stands, and `fit` gets the callback that has everything;
    behind the others, which do not read its log keys there.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        bound = signature.bind(self, *args, **kwargs)
        outcomes.trainers += not is_watched(self)
        keras_gradwatch.watch(self, policy=POLICY if mode == "protect" else None)
        given = bound.arguments.get("callbacks")
        ready = isinstance(given, keras.callbacks.CallbackList)  # set up by the test
        if mode == "protect" and "callbacks" in signature.parameters and not ready:
            given = [given] if isinstance(given, keras.callbacks.Callback) else given
            bound.arguments["callbacks"] = [*(given or []), GradWatch(verbose=0)]
        before = self.gradwatch.step
        try:
            return method(*bound.args, **bound.kwargs)
        finally:
            outcomes.steps += self.gradwatch.step - before

    return wrapper


class Outcomes:
    """Collects what happened, and writes it when the session ends.

    Attributes:
        tests: Dict of test id to `passed`, `failed` or `skipped`.
        reasons: Dict of the id of a failed test to its traceback.
        trainers: Number of trainers watched.
        steps: Number of training steps that were recorded.
    """

    def __init__(self, path):
        self.path = path
        self.tests, self.reasons = {}, {}
        self.trainers = self.steps = 0

    def pytest_collectreport(self, report):
        if report.failed:
            self._note(report)

    def pytest_runtest_logreport(self, report):
        # Setup and teardown count where they fail, or skip.
        if report.when == "call" or not report.passed:
            self._note(report)

    def _note(self, report):
        # Addresses of functions, in the ids of some parameters, are of one process.
        test = re.sub("0x[0-9a-f]+", "0x", report.nodeid)
        self.tests[test] = report.outcome
        if report.failed:
            self.reasons[test] = report.longreprtext

    def pytest_sessionfinish(self):
        if self.path:
            done = {k: v for k, v in vars(self).items() if k != "path"}
            self.path.write_text(json.dumps(done, indent=1), encoding="utf-8")


def _stand_in():
    """Puts modules that tests import at their head, and do not need, into place.

    `conftest` is that of Keras's repository, which the wheel has not; `jax` is used
    where it is the backend only.

    Returns:
        Their names.
    """
    conftest = types.ModuleType("conftest")
    conftest.skip_if_backend = lambda backend, reason: pytest.mark.skipif(
        keras.config.backend() == backend, reason=reason
    )
    modules = [conftest]
    if importlib.util.find_spec("jax") is None:
        modules.append(types.ModuleType("jax"))
    sys.modules.update({module.__name__: module for module in modules})
    return [module.__name__ for module in modules]
