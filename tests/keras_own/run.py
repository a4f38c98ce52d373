"""Runs Keras's own tests, and again with every trainer watched: all that pass on stock
Keras must pass watched.

    python tests/keras_own/run.py                        # what `make test-keras` runs
    python tests/keras_own/run.py --modes observe        # in one mode
    python tests/keras_own/run.py -k ""                  # the slow ones, too
    python tests/keras_own/run.py --tests layers -k fit  # other tests, pytest's options

The tests come with Keras's wheel. Where they need packages that are not installed, they
fail on stock Keras, and are left out. The modes are those of `watch_everything.py`.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
MODES = ("observe", "protect")
# Tests that train, below keras/src.
TESTS = (
    "trainers/trainer_test.py",
    "callbacks",
    "distillation/distiller_test.py",
    "backend/tensorflow/distribute_test.py",
)

# 24 tests that take a third of the time; the same ones compiled by XLA stay. A `-k` on
# the command line takes the place of this one.
CHOSEN = "not (steps_per_epoch and (eager or graph))"

NAN = "the batch that is not finite is skipped, so that `TerminateOnNaN` sees none"
BOUND = "the update is beyond the trust bound: the weights put back, the rate cut"
KEYS = "`grad_norm` and `explosions` are in the epoch's logs"

TRAINER = "trainers/trainer_test.py::TestTrainer::test_"
RATE = "callbacks/learning_rate_scheduler_test.py::LearningRateSchedulerTest::test_"
TERMINATE = "callbacks/terminate_on_nan_test.py::TerminateOnNaNTest::test_"
# What a mode is for: tests that pass on stock Keras, and must not pass in it.
ON_PURPOSE = {
    "observe": {},
    "protect": {
        f"{TRAINER}recompile": KEYS,
        f"{TRAINER}loss_scaling_prevents_underflow": BOUND,
        f"{RATE}learning_rate_in_history": BOUND,
        f"{RATE}updates_learning_rate": BOUND,
        "callbacks/csv_logger_test.py::CSVLoggerTest::test_stop_training_csv": NAN,
        f"{TERMINATE}TerminateOnNaN": NAN,
        f"{TERMINATE}raise_error_terminate_does_not_trigger_on_train_end": NAN,
        f"{TERMINATE}raise_error_terminate_preserves_backup": NAN,
        f"{TERMINATE}raise_error_terminate_stops_on_later_batch": NAN,
        f"{TERMINATE}terminate_on_nan_raise_error_raises_error": NAN,
    },
}


def main():
    parser = argparse.ArgumentParser(
        description="Runs Keras's own tests on watched models.",
        epilog="Further options are handed to pytest.",
        allow_abbrev=False,
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time")
    arguments, further = parser.parse_known_args()
    # The slowest first: the stock run fits in beside it.
    modes = [mode for mode in reversed(MODES) if mode in arguments.modes]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {
            mode: pool.submit(run, mode, arguments.tests, further)
            for mode in [*modes, "stock"]
        }
    stock, complaints = runs["stock"].result(), []
    if stock is None:
        complaints = ["stock: the run did not come to its end, or no test passed"]
    for mode in modes if stock else []:
        watched = runs[mode].result()
        complaints += compare(mode, stock, watched, ON_PURPOSE[mode])
    print("\n".join(complaints) or "no difference")
    return bool(complaints)


def run(mode, tests, further=()):
    """Runs the tests in one mode, and prints a line on it.

    Args:
        mode: One of `MODES`, or `"stock"`.
        tests: Paths below keras/src.
        further: Options for pytest.

    Returns:
        What `watch_everything.Outcomes` holds, a dict; None where no test passed.
    """
    own = pathlib.Path(importlib.util.find_spec("keras").origin).parent / "src"
    options = ["-p", "watch_everything", "-p", "no:cacheprovider", "--noconftest"]
    options += ["-q", "--tb=short", "--no-header", "-c", os.devnull, "-W", "ignore"]
    options += ["-k", CHOSEN]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "outcomes.json"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", *options, "--rootdir", own),
                *("--watch", mode, "--outcomes", file),
                *further,
                *(own / path for path in tests),
            ],
            cwd=folder,  # some tests write into it
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
            },
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        text = file.read_text(encoding="utf-8") if file.exists() else "{}"
    outcomes = json.loads(text)
    tests = list(outcomes.get("tests", {}).values())
    counts = [f"{tests.count(o)} {o}" for o in ("passed", "failed", "skipped")]
    line = f"{mode:9} {', '.join(counts)}"
    if mode != "stock":
        line += f"; {outcomes.get('trainers')} trainers watched"
        line += f", {outcomes.get('steps')} steps recorded"
    print(f"{line}; {time.perf_counter() - began:.0f} s", flush=True)
    # 0 and 1: the session came to its end, and tests passed or failed.
    if done.returncode not in (0, 1) or not tests.count("passed"):
        print(done.stdout[-3000:], done.stderr[-3000:], sep="\n", flush=True)
        return None
    return outcomes


def compare(mode, stock, watched, on_purpose):
    """What differs from stock Keras though it should not, and the other way round.

    Args:
        mode: Name of the mode, for the messages.
        stock: Outcomes of the stock run.
        watched: Outcomes of the watched run, or None.
        on_purpose: Dict of test id to why it must not pass watched.

    Returns:
        List of complaints, one for each test.
    """
    if watched is None:
        return [f"{mode}: the run did not come to its end, or no test passed"]
    if not watched["trainers"] or not watched["steps"]:
        return [f"{mode}: nothing was watched"]
    complaints = []
    for test in sorted(t for t, o in stock["tests"].items() if o == "passed"):
        outcome = watched["tests"].get(test, "not run")
        if test in on_purpose and outcome == "passed":
            why = on_purpose[test]
            complaints.append(f"{mode}: {test} passes, and should not: {why}")
        elif test not in on_purpose and outcome != "passed":
            reason = watched["reasons"].get(test, "")
            complaints.append(f"{mode}: {test} {outcome}, stock passed\n{reason}")
    return complaints


if __name__ == "__main__":
    sys.exit(main())
