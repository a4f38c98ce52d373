"""The decisions of the host between two steps of a watched model."""

import math

import numpy as np

from keras_gradwatch.controller.bounds import draw
from keras_gradwatch.controller.control import NEVER
from keras_gradwatch.controller.observe import Observer
from keras_gradwatch.controller.rates import Rates
from keras_gradwatch.controller.responses import Halt, Hold, Response, Rewind, loan
from keras_gradwatch.controller.responses.base import Moment
from keras_gradwatch.controller.responses.hold import INSANE
from keras_gradwatch.controller.responses.probe import STEPS
from keras_gradwatch.controller.updates import Updates
from keras_gradwatch.detectors import NonFinite
from keras_gradwatch.detectors.observation import relative_updates
from keras_gradwatch.keras_hooks.compiled import compiled_with
from keras_gradwatch.records.rows import (
    APPLIED,
    HALTED,
    REVERTED,
    STOPPED,
)
from keras_gradwatch.train_step import output_losses
from keras_gradwatch.train_step.state import GATE

# The learning rate at which an update is measured again: this many times the last one.
RISE = 1.5
# Steps between two looks at what the device says: each takes about 0.1 ms.
LOOK_FREQ = 5
# All cuts together leave at least this fraction of a learning rate.
LEAST_FRACTION = 1e-3


class Controller:
    """Reads recorded steps, runs the detectors, and carries out what responses decide.

    While it is attentive, in the first steps and after each event, it reads every step
    before the next one begins; otherwise every `update_freq`-th step, and within
    `LOOK_FREQ` steps after the device reports an event.

    Attributes:
        attentive_until: Step until which every step is read.
        radius_in_force: Trust radius that was last sent to the device.
        places: For each application of the traced step, the indices of its variables.
    """

    def __init__(self, monitor):
        self.monitor = monitor
        self.attentive_until = 0.0
        self._read_until = 0.0  # the same, but updates are not measured
        self.halted = False
        self.places = []
        self._epoch_end = math.inf  # the step after the epoch's last one, if known
        self._epoch_follows = False
        self._observer = Observer()
        self._memory = {}  # label of a response -> what it remembers
        self._rate_line = math.inf
        self._waiting = 0  # steps since the last reading, at most
        self._begun = False
        self._compiled = ()  # what the model was compiled with
        self.updates = Updates(monitor)
        self.rates = Rates(lambda: monitor.model, self.access)
        self.radius_in_force = 1.0
        self._reading = False
        self.bounds = None
        self.bounds = self._draw()

    @property
    def plan(self):
        """The `Plan` in force."""
        return self.monitor.plan

    @property
    def access(self):
        """`Access` to the variables of the model and its optimizers."""
        return self.monitor.store.access

    @property
    def step(self):
        """Number of steps so far."""
        return self.monitor.step

    # -- the begin of a fit --------------------------------------------------------

    def begin(self):
        """Begins a `fit`, and resets what belongs to the previous one."""
        self.halted, self._begun = False, False
        compiled = compiled_with(self.monitor.model)
        if compiled != self._compiled:
            # Another optimizer, loss, or set of trained variables: another run.
            self._compiled, self._memory = compiled, {}
            self.rates.reset()
            self._observer.reset()
            self.monitor.first_batch = None
            self.read_each(self.plan.dense_steps)
        self.rates.split()
        self._observer.begin_fit(self.plan)
        self._clear_gate()
        if self.plan.judges_updates:
            self.read_each(1)  # the first update of a `fit` is judged

    def begin_epoch(self, steps, is_last):
        """Begins an epoch of `steps` steps, None if unknown."""
        self._epoch_end = self.next + steps if steps else math.inf
        self._epoch_follows = not is_last and (steps or 0) > STEPS

    def end_epoch(self):
        """Ends an epoch, before the model is evaluated or saved."""
        self.monitor.error = None  # it was the end of the data
        self.read()
        for response, memory in self._of(Response):
            response.end_epoch(self, memory)

    @property
    def steps_left(self):
        """Number of steps until the end of the epoch; infinity if unknown."""
        return max(self._epoch_end - self.next, 0)

    @property
    def next_epoch(self):
        """First step of the next epoch; None if unknown, or too short for a probe."""
        return self._epoch_end if self._epoch_follows else None

    def begin_steps(self):
        """Called before the first batch, once all callbacks have set up the model."""
        if self._begun:
            return
        self._begun = True
        for response, memory in self._of(Response):
            response.begin(self, memory)

    def begin_layout(self):
        """Called when other variables are trained than before."""
        self._observer.reset()
        self.push_limits()

    def restart_detectors(self):
        """Notifies the detectors that the run was rewound, or its data changed."""
        self._observer.restart(self.plan)

    def _of(self, kind):
        """Yields the plan's responses of a class, each with what it remembers."""
        for label, response in self.plan.labelled_responses:
            if isinstance(response, kind):
                first = response.initial_memory()
                if self._memory.setdefault(label, first).keys() != first.keys():
                    self._memory[label] = first
                yield response, self._memory[label]

    # -- around each step ----------------------------------------------------------

    @property
    def is_attentive(self):
        """Whether the next step is read before the one after it begins."""
        holding = self.monitor.variant == "full"
        return self.monitor.live and (holding or self.next < self.attentive_until)

    @property
    def next(self):
        """Index of the next step."""
        return self.monitor.position + self._waiting

    def before_step(self):
        """Called before each execution of the train function."""
        if self.monitor.live:
            self.begin_steps()
        self.updates.skip()
        if self.monitor.live and self.plan.judges_updates and self._is_judged():
            self.updates.begin()

    def after_step(self, steps):
        """Called after each execution of the train function, of `steps` steps."""
        attentive = self.is_attentive or self.next < self._read_until
        self._waiting += steps
        self.updates.measure(self.next - 1)
        due = attentive or self.updates.waiting
        if due or self._waiting >= self.plan.update_freq or self._is_alerted():
            self.read()
            self.monitor.keep()

    def _is_judged(self):
        """Returns whether the update of the next step is measured."""
        every = self.plan.sample_freq
        return self.is_attentive or self.next % every == 0

    def _is_alerted(self):
        """Returns whether the device reports an event, if its value is ready."""
        gate = self.monitor.store.get("gate")
        if gate is None or not self.plan.responses or self._waiting % LOOK_FREQ:
            return False
        if not self.access.is_ready(gate):
            return False
        alert = self.access.read(gate)[GATE.index("alert")]
        return alert >= self.monitor.position

    # -- reading -------------------------------------------------------------------

    def read(self):
        """Reads and judges the new steps; returns their `Rows`, or None."""
        if self._reading:
            return None
        self._reading = True
        try:
            return self._read()
        finally:
            self._reading = False

    def _read(self):
        rows = self.monitor.unread()
        self._waiting = 0
        if rows is None:
            return None
        self.updates.add_to(rows)
        self._put_back_insane(rows)
        responses = list(self._of(Response)) if self.monitor.live else []
        for t in range(len(rows)):
            if rows.scalars["halted"][t] != HALTED:
                self._decide(rows, t, responses)
        for response, memory in responses:
            response.after(rows, self, memory)
        self._rate_line = self._next_rate_line(rows)
        self._plan_attention(rows)
        if any(response.acts for response, _ in responses):
            self.push_limits()
        self.monitor.keeper.add(self.monitor.recorder.take(rows))
        self.monitor.first_data = None  # whoever reports has seen its step
        return rows

    def _decide(self, rows, t, responses):
        """Runs detectors and responses on one step."""
        scalars = rows.scalars
        moment = Moment(
            controller=self,
            rows=rows,
            row=t,
            step=int(rows.steps[t]),
            trips=[],
            finite=not scalars["nonfinite"][t] > 0,
            complete=not math.isnan(scalars["global_norm"][t])
            or scalars["nonfinite"][t] > 0,
            loss=float(rows.judged_loss[t]),
        )
        claimed = [r.claims(moment, memory) for r, memory in responses]
        if any(claimed):
            if self.monitor.variant == "full":
                scalars["trust_radius"][t] = self.radius_in_force
        else:
            moment.trips += self._observer.trips(
                self.plan, rows, t, self.bounds.of_detectors, self.places
            )
            if moment.trips:
                self._name_losses(moment)
                acted = [d for r, _ in responses if r.acts for d in r.detectors]
                for trip in moment.trips:
                    trip.followed = trip.detector in acted
                    if trip.application is not None:
                        trip.network = self.monitor.network(trip.application)
            for response, memory in responses:
                response.react(moment, memory)
        rows.trips.extend(moment.trips)

    def _name_losses(self, moment):
        """Names the loss that is not finite, if there are several."""
        trips = [t for t in moment.trips if isinstance(t.detector, NonFinite)]
        store = self.monitor.store
        if not trips or math.isfinite(moment.loss) or "losses" not in store:
            return
        words = output_losses.nonfinite(self.monitor.model, store.read("losses"))
        if words is not None:
            trips[0].note = words

    def _put_back_insane(self, rows):
        """Restores the weights after an update that no run survives."""
        if not self.monitor.live or not self.plan.judges_updates:
            return
        if self.bounds.update_limit == math.inf:
            return
        last, scalars = len(rows) - 1, rows.scalars
        if not self._measured(rows)[last] or scalars["outcome"][last] != APPLIED:
            return
        largest = relative_updates(
            rows.statistic("weight_norm")[last],
            rows.statistic("update_ratio")[last],
            *rows.layout.arrays,
            self.bounds.update_floor,
        )
        largest = largest[~np.isnan(largest)]
        if not (largest <= self.bounds.update_limit).all():
            self.updates.put_back()
            scalars["outcome"][last] = REVERTED

    def _measured(self, rows):
        """Returns in which steps the update was measured, bool array [T]."""
        return ~np.isnan(rows.statistic("weight_norm")).all(axis=1)

    def _plan_attention(self, rows):
        """Plans to read every step after an event, or a rise of the learning rate."""
        if rows.trips and self.monitor.live:
            self.read_each(self.plan.dense_steps)
        elif float(rows.scalars["learning_rate"][-1]) > self._rate_line:
            self.read_each(1)  # to measure the next update

    def _next_rate_line(self, rows):
        """Returns the learning rate above which an update is measured again."""
        if not self.plan.judges_updates:
            return math.inf
        measured = self._measured(rows)
        if measured.any():
            last = np.flatnonzero(measured)[-1]
            return RISE * float(rows.scalars["learning_rate"][last])
        return self._rate_line

    # -- what the device receives -------------------------------------------------

    def limits(self):
        """Returns the initial value of the variable `limits`."""
        self.bounds = self._draw()
        return self.bounds.matrix

    def push_limits(self):
        """Computes the limits for the next steps, and writes them."""
        self.bounds = self._draw()
        self.monitor.store.write("limits", self.bounds.matrix)

    def _draw(self):
        plan, layout = self.plan, self.monitor.layout
        count = len(layout.variables) if layout is not None else 0
        holds = [hold for hold, _ in self._of(Hold)]
        limit = math.inf
        if self.monitor.live:
            limit = min((hold.loss_limit() for hold in holds), default=limit)
        bounds = draw(
            plan,
            self._observer.states(plan, count),
            self._next_look(),
            self._rate_line,
            limit,
            self.halted,
        )
        if any(hold.acts for hold in holds):
            bounds.update_limit = min(bounds.update_limit, INSANE)
        return bounds

    def _next_look(self):
        """Returns the next step whose statistics are sampled."""
        every = self.plan.sample_freq
        if not every:
            return NEVER
        # The branch for such a step costs start time. A detector alone can wait for it.
        first = 0 if self.plan.wanted else 1
        position = max(self.monitor.position, first)
        return position + -position % every

    def halting(self):
        """Returns `(steps, nonfinite, limits)`, when the device halts by itself.

        After `steps` tripped steps, if non-finite or outside the limits as flagged.
        """
        halts = [halt for halt, _ in self._of(Halt) if not halt.in_a_row]
        nonfinite = {isinstance(d, NonFinite) for halt in halts for d in halt.detectors}
        left = min((halt.limit for halt in halts), default=NEVER)
        return left, True in nonfinite, False in nonfinite

    @property
    def region(self):
        """Values of the trust region on the device, a dict of numbers."""
        for response, memory in self._of(Hold):
            return {**vars(response.region), "radius": memory["radius"]}
        return dict.fromkeys(("radius", "element", "decrease"), 1.0)

    def _clear_gate(self):
        """Resets the trips that the gate counted in an earlier `fit`."""
        if hasattr(self.monitor.batches, "forget_events"):
            self.monitor.batches.forget_events()
        gate = self.monitor.store.get("gate")
        if gate is not None:
            values = self.access.read(gate)
            if values[GATE.index("trips")]:
                values[GATE.index("trips")] = 0
                self.access.write(gate, values)

    # -- what responses do ---------------------------------------------------------

    def cut_rate(self, moment, factor, min_lr):
        """Multiplies all learning rates by `factor`, and returns that of the first one.

        Without a `min_lr`, each keeps at least `LEAST_FRACTION` of its original value.
        """
        done = self.rates.cut(factor, min_lr, 0.0 if min_lr else LEAST_FRACTION)
        if moment is not None:
            moment.rows.scalars["rate_factor"][moment.row] *= done
        return done

    def halt(self, moment):
        """Stops all updates for the rest of this `fit`."""
        if moment is not None:
            moment.rows.scalars["halted"][moment.row] = STOPPED
        self.halted = True
        self.monitor.push_control()

    def hold(self, on, attentive=0):
        """Switches the full step, with the trust region, on or off.

        Once it is off, at least `attentive` steps are read one by one.
        """
        held = self.monitor.variant == "full"
        self.monitor.variant = "full" if on else "light"
        if held and not on:
            self.read_each(max(self.plan.dense_steps, attentive))
        self.monitor.push_control()

    def read_each(self, steps):
        """Reads each of the next steps before the one after it begins."""
        self.attentive_until = max(self.attentive_until, self.next + steps)

    def read_next(self):
        """Reads the next step at once, too, but does not measure its update."""
        self._read_until = self.next + 1

    def probe_first_weights(self, loss, trip):
        """Probes the first weights of this `fit` against `loss`; `trip` reports it."""
        for response, _ in self._of(Rewind):
            response.request_probe(loss, trip)

    def restart_responses(self):
        """Notifies all responses that weights were restored."""
        for response, memory in self._of(Response):
            response.restart(memory)

    def give_cuts_back(self, rows, reason):
        """Undoes all cuts of the learning rate that are temporary; see `loan`."""
        for response, memory in self._of(Response):
            if response.lends and "lent" in memory:
                loan.give_all_back(memory, rows, self, response, reason)

    def put_slots_back(self):
        """Restores the optimizer slots of the newest snapshot."""
        for response, _ in self._of(Rewind):
            response.put_slots_back(self)

    def tighten(self, factor):
        """Limits updates to a smaller trust region."""
        for response, memory in self._of(Hold):
            if response.acts:
                response.tighten(self, memory, factor)

    # -- over the end of the process -----------------------------------------------

    def state(self):
        """Returns what a new process continues from, plain numbers and lists."""
        return {
            "attentive_until": self.attentive_until,
            "rates": self.rates.state(),
            "detectors": self._observer.to_plain(),
            "responses": self._memory,
        }

    def restore(self, state):
        """Restores what `state` returned."""
        self.attentive_until = state.get("attentive_until", 0.0)
        self.rates.restore(state.get("rates", {}))
        self._memory = state.get("responses", {})
        self._observer.from_plain(state.get("detectors", []))
