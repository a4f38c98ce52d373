"""The state of a watched model: variables on the device, read by the host."""

import dataclasses
import weakref

import numpy as np
from keras import ops

from keras_gradwatch.backends.processes import put_copy, take_copy
from keras_gradwatch.backends.reading import read
from keras_gradwatch.controller.knobs import knobs
from keras_gradwatch.controller.persistence import Keeper
from keras_gradwatch.controller.plan import Request, unite
from keras_gradwatch.controller.responses import LONG_AGO
from keras_gradwatch.controller.store import Store
from keras_gradwatch.detectors.base import AHEAD
from keras_gradwatch.records.names import unique
from keras_gradwatch.records.recorder import Recorder
from keras_gradwatch.records.rows import Layout
from keras_gradwatch.train_step import quiet


class GradientMonitor:
    """What is known of the gradients of one watched model; `model.gradwatch`.

    The monitor owns every variable that the watched step reads or writes beside the
    model's own: a ring buffer of rows, the detectors' and the policy's state, and the
    numbers that a user can turn. None of them is part of the model: `model.weights`,
    what `save` writes and what `evaluate` returns stay as they are.

    Where a callback names a directory, the state is kept there, and a new process goes
    on with it; see `keras_gradwatch.controller.backup`.

    The ring takes `4 · capacity · (11 + 8·V + 4·D)` bytes for V variables and D
    detectors, whatever the number of steps.

    Args:
        capture: The module of `keras_gradwatch.backends` for the backend.
        model: The watched model.

    Attributes:
        plan: The `Plan` in force.
        layout: `Layout` of the ring's rows; None before the first traced step.
        recorder: `Recorder` that hands out drained rows.
        batch: What keeps the batch in which an incident begins; None before a step was
            traced for that.
        stand_ins: What stands in for methods of model and optimizers during a step.
        store: `Store`, the device variables.
        remembered: What a step that may go the short way says of its detectors' memory,
            `quiet.Remembered`; None where there is no such step.
    """

    def __init__(self, capture, model):
        self.plan = unite([])
        self.layout = None
        self.recorder = Recorder()
        self.histogram_names = ()
        self.keeper = Keeper(self)
        self.batch = None
        self.stand_ins = {}
        self.remembered = None
        self._capture = capture
        self._model = weakref.ref(model)
        self.store = Store(capture, self._model)
        self._standing = None  # what `watch` itself asked for
        self._requests = []
        self._collecting = False
        self._earlier = self.plan  # before what is asked for just now
        self._pushed = None  # what the variables hold: (plan, live, standing)
        self._traced = None  # the structure that is built into the traced step
        self._position = 0  # the first step that was not drained yet

    # -- what is asked for ---------------------------------------------------------

    def stand(self, policy, detectors):
        """Sets what holds also outside of `fit` with callbacks; used by `watch`."""
        self._standing = Request("watch()", policy=policy, detectors=tuple(detectors))
        self._replan()

    def ask(self, request):
        """Adds what one callback asks for in the `fit` that is about to begin.

        Args:
            request: `Request`.

        Returns:
            True for the first callback of this `fit`, which drains for all.

        Raises:
            ValueError: If it contradicts what another one asked for.
        """
        if not self._collecting:
            self._collecting, self._earlier = True, self.plan
            self._end()
        self._requests.append(request)
        try:
            self._replan()
        except ValueError:
            self._collecting, self._requests = False, []
            self.plan = self._earlier
            raise
        return len(self._requests) == 1

    def cancel(self):
        """Takes back what was asked for, if no `fit` has begun since."""
        if self._collecting:
            self._collecting = False
            self._end()
            self.plan = self._earlier  # that of the traced step

    def prepare(self):
        """Closes the asking and writes the plan's numbers into the variables.

        Called when Keras makes the train function, that is once at the begin of each
        `fit` and of each `train_on_batch`.

        Returns:
            True if the step must be traced anew.
        """
        if not self._collecting and self._requests:
            # A `fit` without our callbacks, or train_on_batch, after an interrupted
            # `fit`: Keras told nobody that the latter ended.
            self._end()
            self._replan()
        self._collecting = False
        if self._requests:
            self.store.set_slots("run", {"halted": 0, "halt/hits": 0})
            self.store.fill("batch/last", LONG_AGO)
            self.look_closely()
        self._push()
        # An idle plan runs on whatever is traced: everything is switched off.
        same = self._traced == self.plan.structure()
        if same and self.layout is not None:
            # The same detectors may have other numbers now.
            detectors = tuple(self.plan.detectors)
            self.layout = dataclasses.replace(self.layout, detectors=detectors)
        wanted = bool(self._requests or self._standing)
        return wanted and self._traced is not None and not same

    def _end(self):
        """Forgets the last `fit`; what an interrupted one left is handed out first."""
        self.drain()
        self.settle()
        self._requests = []
        self.recorder.begin()

    def release(self):
        """Switches policies and responses off; the model stays watched."""
        if self._requests and not self._collecting:
            self._requests = []
            self.recorder.begin()  # what comes now is nobody's
            self._push()

    @property
    def asked(self):
        """True while a callback or `watch` asks for more than being watched."""
        return bool(self._requests) or self._standing is not None

    def detach(self):
        """Leaves the model; used by `unwatch`."""
        self._capture.release(self._model())
        self.stand_ins.clear()

    def _replan(self):
        standing = [self._standing] if self._standing else []
        if self._requests or standing:
            self.plan = unite(standing + self._requests)

    # -- variables -----------------------------------------------------------------

    def variable(self, name, initial, dtype="float32"):
        """The device variable `name`, made at the first call; see `Store`."""
        return self.store.variable(name, initial, dtype)

    def packed(self, name, initial):
        """The values that the variable `name` holds, `Packed`; see `Store`."""
        return self.store.packed(name, initial)

    @property
    def knobs(self):
        """The plan's numbers, `Packed`; a part of the step."""
        return self.store.view("knobs")

    @property
    def variables(self):
        """All device variables made so far, a list."""
        return self.store.every

    def build(self, names):
        """Makes the ring for the rows of a step, if it does not fit already.

        Rows of another layout are drained first, so that none is lost.

        Args:
            names: List of the V names of the variables, of all sites.
        """
        layout = Layout(tuple(unique(names)), tuple(self.plan.detectors))
        self._capture.on_host(lambda: self._build(layout))

    def _build(self, layout):
        capacity = self.plan.capacity
        ring = self._ring
        same = self.layout == layout
        if ring is not None and same and ring.shape[0] == capacity:
            return
        if ring is not None:
            self.drain()
            self.look_closely()
        self.layout = layout
        self.variable("ring", np.full((capacity, layout.width), np.nan))

    @property
    def _ring(self):
        """The ring, or None before the first traced step."""
        return self.store.get("ring")

    def write_row(self, step, row):
        """Writes the row [width] of `step` into the ring; part of the traced step."""
        ring = self._ring
        self._capture.write_row(ring, step % ring.shape[0], row)

    def rows(self, begin, count):
        """The `count` rows from that of step `begin` on, [count, width]."""
        ring = self._ring
        return ops.take(ring, (begin + ops.arange(count)) % ring.shape[0], axis=0)

    def traced(self):
        """Notes that the present plan is what the traced step was built from."""
        self._traced = self.plan.structure()

    def keep_batches(self, kind):
        """What keeps batches, made at the first call; of the class `kind`."""
        self.batch = self.batch or kind(self)
        return self.batch

    def _push(self):
        """Writes the plan's numbers into the variables that the step reads."""
        plan, live = self.plan, bool(self._requests)
        standing = self._standing is not None and self._standing.policy is not None
        pushed = (plan, live, standing)
        if pushed == self._pushed:
            return  # train_on_batch comes here for every batch
        self._pushed = pushed
        self.look_closely()
        self.store.put("knobs", knobs(plan, live, standing))

    # -- what the host does ----------------------------------------------------------

    def snapshot(self):
        """Pairs of a variable and a copy of it: all that a step may have harmed."""
        self.store.sync()
        return [(v, take_copy(v)) for v in self._capture.harmed(self._model())]

    def put_back(self, snapshot):
        """Assigns what `snapshot` has given."""
        self.store.sync()
        for variable, copy in snapshot:
            put_copy(variable, copy)

    def cut_rates(self, factor, min_lr):
        """Multiplies every learning rate of the model by `factor`, now."""
        self.store.sync()
        self._capture.cut_rates(self._model(), factor, min_lr)

    def look_closely(self):
        """The next step goes the long way: the host has changed what it depends on."""
        self.settle()
        self.store.fill("wake", 0)
        self.store.fill("lines", 0)

    def remember(self, about):
        """Notes what the detectors' memory is about; called before a step is judged.

        Args:
            about: `quiet.Remembered`. Where it is another one than before, the steps
                before are taken in first, and this one goes the long way.
        """
        if self.remembered is None or not about.same_as(self.remembered):
            self._capture.on_host(self.look_closely)
            self.remembered = about

    @property
    def settled(self):
        """The variable with the first step that the detectors have not taken in yet."""
        if "settled" not in self.store:
            make = self._capture.on_host
            make(lambda: self.variable("settled", self.step, "int32"))
        return self.store["settled"]

    def settle(self):
        """Brings the detectors up to date, before the host reads or writes memory."""
        if "settled" not in self.store:
            return  # no step has gone the short way
        self.store.sync()
        step, settled = read(self.store["step"]), self.store["settled"]
        pending = step - read(settled)
        if not pending:
            return
        if self.remembered is not None and pending <= AHEAD:
            quiet.settle(self, self.remembered)
        # Steps that went the long way are in the detectors' memory.
        settled.assign(step)

    def halt(self):
        """No update is applied any more in this `fit`."""
        self.store.set_slots("run", {"halted": 1})
        self.look_closely()

    # -- over the end of the process -----------------------------------------------

    def begin_steps(self):
        """Called before the first batch of a `fit`, when the model is as it will be."""
        directories = self.plan.state_dirs
        progress = self._progress() if directories else (0, [])
        self.keeper.begin(directories, *progress)

    def keep(self, epoch_end=False):
        """Writes the state to where the plan wants it, if it is due; after a drain."""
        if self.keeper.due(epoch_end):
            self.keeper.keep(*self._progress(), epoch_end)

    def _progress(self):
        model = self._model()
        shapes = [list(v.shape) for v in model.trainable_variables]
        return self.updates, shapes

    def state(self, wanted):
        """Values of the variables whose name is `wanted`, as nested lists by name."""
        self.settle()
        return self.store.state(wanted)

    def restore(self, state):
        """Goes on from what `state` returned, with variables that are yet to come."""
        self.store.restore(state)
        self._position = int(read(self.variable("step", 0, "int32")))
        if "settled" in self.store:
            self.store["settled"].assign(self._position)
        self.look_closely()

    # -- reading -------------------------------------------------------------------

    @property
    def step(self):
        """The number of watched training steps so far, over all `fit` calls."""
        self.store.sync()
        return int(read(self.store["step"])) if "step" in self.store else 0

    @property
    def updates(self):
        """The number of updates that the model's optimizer has made, an int."""
        self.store.sync()
        return self._capture.updates(self._model())

    @property
    def halted(self):
        """True once a `Halt` response has stopped all updates of this `fit`."""
        self.store.sync()
        return bool(self.store.slots("run").get("run/halted", 0) > 0)

    def drain(self):
        """Reads the steps since the last drain and hands them to the recorder.

        Returns:
            `Rows`, or None where there is nothing new. Steps that the ring no longer
            holds (more than `capacity` since the last drain) are counted in
            `recorder.lost`.
        """
        end, ring = self.step, self._ring
        if ring is None or end == self._position:
            return None
        capacity = ring.shape[0]
        begin = max(self._position, end - capacity)
        self.recorder.lost += begin - self._position
        steps = np.arange(begin, end)
        rows = self.layout.unpack(steps, read(ring)[steps % capacity])
        self._position = end
        self.keeper.add(self.recorder.take(rows))
        return rows

    def histograms(self):
        """The last sampled histograms of the gradients.

        Returns:
            `(step, names, counts [V, B], edges [V, B + 1])`, or None before the first
            sample.
        """
        self.store.sync()
        if "histograms" not in self.store:
            return None
        values = read(self.store["histograms"])
        step = int(read(self.store["histogram_step"]))
        if step < 0:
            return None
        counts, low, high = values[:, :-2], values[:, -2:-1], values[:, -1:]
        bins = counts.shape[1]
        edges = low + (high - low) * np.linspace(0, 1, bins + 1)[None]
        return step, self.histogram_names, counts, edges
