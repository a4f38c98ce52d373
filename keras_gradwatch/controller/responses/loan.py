"""Cuts of the learning rate that are taken back once a run is quiet."""

from keras_gradwatch.records.events import RESTORED
from keras_gradwatch.records.rows import Trip

# Steps without trouble after which a cut is taken back; twice as many after a relapse.
QUIET = 200


def initial_loan():
    """What is remembered before the first cut, a dict of numbers and lists."""
    return {
        "lent": [],  # the cuts that were not taken back, as factors
        "calm": 0,  # the step since which there was no trouble
        "quiet": QUIET,
        "cuts": 0,
    }


def cut(memory, moment, factor, min_lr):
    """Cuts the learning rates after a step, and remembers it.

    Args:
        memory: Dict as `initial_loan` returns it; updated in place.
        moment: `Moment`.
        factor: 0 to 1.
        min_lr: No rate is cut below this.
    """
    if memory["cuts"]:
        memory["quiet"] *= 2
    memory["cuts"] += 1
    done = moment.controller.cut_rate(moment, factor, min_lr)
    if done < 1:
        memory["lent"].append(done)


def give_back(memory, rows, controller, response):
    """Takes the last cut back, if the run has been quiet for long enough.

    Args:
        memory: Dict as `initial_loan` returns it; updated in place.
        rows: `Rows` of this reading.
        controller: The `Controller`.
        response: The response that has made the cut.
    """
    steps = controller.step - memory["calm"]
    if not memory["lent"] or steps < memory["quiet"]:
        return
    memory["calm"] = controller.step
    rate = float(rows.scalars["learning_rate"][-1])
    times = controller.cut_rate(None, 1 / memory["lent"].pop(), response.min_lr)
    if times <= 1:
        return  # another rate was set in the meantime
    trip = Trip(len(rows) - 1, response.detectors[0], None, rate * times, rate)
    trip.what = f"no trouble in {steps} steps"
    trip.action = RESTORED
    trip.words = f"learning rate {rate:.3g} -> {rate * times:.3g}"
    rows.trips.append(trip)
