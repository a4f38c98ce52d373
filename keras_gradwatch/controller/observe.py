"""Runs the detectors on recorded steps, and keeps their states."""

import math

import numpy as np

from keras_gradwatch.detectors import Observation
from keras_gradwatch.detectors.checks import checked_observe
from keras_gradwatch.records.rows import OVERFLOWED, REVERTED, SCALARS, Trip
from keras_gradwatch.train_step.application import MAX_APPLICATIONS

# So many overflows of a loss scale in a row are an event.
OVERFLOWS = 20


class Observer:
    """The states of all detectors, one for each application of an optimizer."""

    def __init__(self):
        self.reset()

    def reset(self):
        """Resets the states of all detectors."""
        self._states = []  # for each application: label -> state
        self._checked = None  # the plan and the numbers that they are known to fit
        self._overflows = [0] * MAX_APPLICATIONS
        self._restored = []

    def restart(self, plan):
        """Notifies the detectors that the run was rewound, or its data changed."""
        count = self._checked[1] if self._checked else 0
        for states in self._states:
            for label, detector in plan.labelled:
                if label in states:
                    detector.restart(states[label], count)
        self._overflows = [0] * MAX_APPLICATIONS

    def begin_fit(self, plan):
        """Notifies the detectors that a `fit` begins."""
        for states in self._states:
            for label, detector in plan.labelled:
                if label in states:
                    detector.begin_fit(states[label])

    def states(self, plan, count, applications=1):
        """Returns a dict of a detector's label to its state for each application."""
        checked = plan, count, applications
        if self._checked == checked:
            return self._states
        self._checked = checked
        while len(self._states) < applications:
            index = len(self._states)
            known = self._restored[index] if index < len(self._restored) else {}
            self._states.append(dict(known))
        for states in self._states:
            for label, detector in plan.labelled:
                first = detector.initial_state(count)
                if not _fits(states.get(label), first):
                    states[label] = first
        return self._states

    def trips(self, plan, rows, t, limits, places):
        """Returns the `Trip`s of one step, in the order of its applications.

        Args:
            t: Index of the step in `rows`.
            limits: For each application, a dict of a detector's label to the limits
                that were in force on the device.
            places: For each application, the indices of its variables.
        """
        found, tripped = [], set()
        each = rows.applications[t].tolist()
        each = [dict(zip(SCALARS, values, strict=True)) for values in each]
        applications = [
            scalars for scalars in each if not math.isnan(scalars["outcome"])
        ]
        several, compete = len(applications) > 1, bool(rows.compete[t])
        # Several applications have states of their own.
        states = self.states(plan, len(rows.layout.variables), len(applications))
        for index, scalars in enumerate(applications):
            own = places[index] if several and index < len(places) else None
            seen = _observation(rows, t, scalars, own)
            judging = self._judging(plan, index, scalars)
            if compete:
                # Where one network's loss falls, another's rises.
                judging = [(n, d) for n, d in judging if not d.needs_loss]
            if rows.scalars["outcome"][t] == REVERTED:
                # An update that no run survives: its step is part of no baseline.
                judging = [(n, d) for n, d in judging if "update_ratio" in d.reads]
            for label, detector in judging:
                state = states[index][label]
                in_force = limits[index].get(label)
                if in_force is None:
                    in_force = detector.limits(state)
                if not several:
                    _record_limits(rows, t, in_force)
                # A bad batch is one event; a lasting condition is one in each network.
                key = (label, index) if in_force == {} else label
                if key in tripped:
                    continue
                step = seen._replace(limits=in_force)
                verdict = checked_observe(detector, step, state)
                if verdict is not None:
                    trip = Trip(t, detector, *verdict)
                    trip.variable = _place(trip.variable, index, places)
                    trip.application = index if several else None
                    found.append(trip)
                    tripped.add(key)
        return found

    def _judging(self, plan, index, scalars):
        """Returns the pairs `(label, detector)` that judge one application."""
        if scalars["outcome"] == OVERFLOWED:
            # A loss scale's own matter, unless it lasts.
            self._overflows[index] += 1
            if self._overflows[index] < OVERFLOWS:
                return []
            self._overflows[index] = 0
            return plan.labelled[:1]
        if scalars["nonfinite"] > 0:
            # One thing that goes wrong is one event.
            return plan.labelled[:1]
        if math.isnan(scalars["global_norm"]):
            return []  # a part of an accumulation window
        self._overflows[index] = 0
        return plan.of_values

    def to_plain(self):
        """Returns all states as plain numbers and lists."""
        return [
            {label: _plain(state) for label, state in states.items()}
            for states in self._states
        ]

    def from_plain(self, states):
        """Restores what `to_plain` returned."""
        self.reset()
        self._restored = [
            {label: _arrays(state) for label, state in own.items()} for own in states
        ]


def _observation(rows, t, scalars, own):
    """Builds the `Observation` of an application with variables `own`, None: all."""
    recorded = rows.recorded[t]
    sizes, kernels = rows.layout.arrays
    if own is not None:
        recorded, sizes, kernels = recorded[own], sizes[own], kernels[own]
    columns = dict(zip(rows.layout.statistics, recorded.T, strict=True))
    for name in rows.added:
        column = rows.added[name][t]
        columns[name] = column[own] if own is not None else column
    return Observation(
        step=int(rows.steps[t]),
        loss=scalars["loss"],
        global_norm=scalars["global_norm"],
        norms=columns["norm"],
        finite=not scalars["nonfinite"] > 0,
        sizes=sizes,
        kernels=kernels,
        statistics=columns,
        loss_scale=scalars["loss_scale"],
        learning_rate=scalars["learning_rate"],
        limits={},
    )


def _fits(state, first):
    if state is None or state.keys() != first.keys():
        return False
    return all(np.shape(state[name]) == np.shape(first[name]) for name in first)


def _record_limits(rows, t, limits):
    """Records the lowest limits of norm and loss that hold in a step."""
    for quantity, (_, high) in limits.items():
        column = rows.scalars.get(f"limit_{quantity}")
        if column is not None and high < math.inf and not column[t] <= high:
            column[t] = high


def _place(variable, index, places):
    """Converts an application's index of a variable to its index in the layout."""
    if variable is None or len(places) < 2 or index >= len(places):
        return variable
    return places[index][variable]


def _plain(state):
    return {n: np.asarray(v).tolist() for n, v in state.items()}


def _arrays(state):
    return {n: np.array(v) if isinstance(v, list) else v for n, v in state.items()}
