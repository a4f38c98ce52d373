"""Cuts of the learning rate that are undone after a number of healthy steps."""

import math

from keras_gradwatch.records.events import RESTORED
from keras_gradwatch.records.rows import Trip

# Healthy steps after which a cut is undone; twice as many after a relapse.
QUIET = 200


def initial_loan():
    """Returns the state before the first cut, a dict of numbers and lists."""
    return {
        "lent": [],  # factors of the cuts that were not undone
        "calm": 0,  # the step since which the run has been healthy
        "quiet": QUIET,
        "cuts": 0,
    }


def cut(memory, moment, controller, factor, min_lr):
    """Cuts the learning rates by `factor`; `moment`, if given, notes it in its row."""
    if memory["cuts"]:
        memory["quiet"] *= 2
    memory["cuts"] += 1
    done = controller.cut_rate(moment, factor, min_lr)
    if done < 1:
        memory["lent"].append(done)


def give_back(memory, rows, controller, response):
    """Undoes the last cut of `response` if the run has been healthy long enough."""
    steps = controller.step - memory["calm"]
    if memory["lent"] and steps >= memory["quiet"]:
        memory["calm"] = controller.step
        factor = memory["lent"].pop()
        reason = f"the run has been healthy for {steps} steps"
        _raise_rate(factor, rows, controller, response, reason)


def give_all_back(memory, rows, controller, response, reason):
    """Undoes all cuts of `response`; `reason` is a clause for the event."""
    if memory["lent"]:
        factor, memory["lent"] = math.prod(memory["lent"]), []
        _raise_rate(factor, rows, controller, response, reason)


def _raise_rate(factor, rows, controller, response, reason):
    rate = float(rows.scalars["learning_rate"][-1])
    times = controller.cut_rate(None, 1 / factor, response.min_lr)
    if times <= 1:
        return  # another rate was set in the meantime
    trip = Trip(len(rows) - 1, response.detectors[0], None, rate * times, rate)
    trip.what, trip.action = reason, RESTORED
    trip.words = f"a cut was undone: learning rate {rate:.3g} -> {rate * times:.3g}"
    rows.trips.append(trip)
