"""The state of a watched model: variables on the device, read by the host."""

import dataclasses
import weakref

import numpy as np

from keras_gradwatch.capture.processes import put_copy, take_copy
from keras_gradwatch.keeper import Keeper
from keras_gradwatch.plan import Request, unite
from keras_gradwatch.reading import read
from keras_gradwatch.recorder import Recorder
from keras_gradwatch.responses import LONG_AGO


class GradientMonitor:
    """What is known of the gradients of one watched model; `model.gradwatch`.

    The monitor owns every variable that the watched step reads or writes beside the
    model's own: a ring buffer of rows, the detectors' and the policy's state, and the
    numbers that a user can turn. None of them is part of the model: `model.weights`,
    what `save` writes and what `evaluate` returns stay as they are.

    Where a callback names a directory, the state is kept there, and a new process goes
    on with it; see `keras_gradwatch.backup`.

    The ring takes `4 · capacity · (11 + 8·V + 4·D)` bytes for V variables and D
    detectors, whatever the number of steps.

    Args:
        capture: The module of `keras_gradwatch.capture` for the backend.
        model: The watched model.

    Attributes:
        plan: The `Plan` in force.
        layout: `Layout` of the ring's rows; None before the first traced step.
        recorder: `Recorder` that hands out drained rows.
        batch: What keeps the batch in which an incident begins; None before a step was
            traced for that.
        stand_ins: What stands in for methods of model and optimizers during a step.
    """

    def __init__(self, capture, model):
        self.plan = unite([])
        self.layout = None
        self.recorder = Recorder()
        self.histogram_names = ()
        self.keeper = Keeper(self)
        self.batch = None
        self.stand_ins = {}
        self._capture = capture
        self._model = weakref.ref(model)
        self._variables = {}
        self._restored = {}  # values for variables that are not made yet
        self._standing = None  # what `watch` itself asked for
        self._requests = []
        self._collecting = False
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
            self._collecting = True
            self._end()
        self._requests.append(request)
        try:
            self._replan()
        except ValueError:
            self._collecting, self._requests = False, []
            raise
        return len(self._requests) == 1

    def cancel(self):
        """Takes back what was asked for, if no `fit` has begun since."""
        if self._collecting:
            self._collecting = False
            self._end()

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
            self._fill("halted", 0)
            self._fill("halt/hits", 0)
            self._fill("batch/last", LONG_AGO)
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
        """The device variable `name`, made at the first call.

        Args:
            name: Its name; the state of a detector stays while its name does.
            initial: Value before the first step, array or number.
            dtype: Of the variable.

        Returns:
            A `keras.Variable` with `aggregation="only_first_replica"`.
        """
        initial = np.asarray(initial, dtype)
        found = self._variables.get(name)
        if found is None or tuple(found.shape) != initial.shape:
            restored = np.asarray(self._restored.pop(name, initial), dtype)
            if restored.shape == initial.shape:
                initial = restored
            found = self._capture.create_variable(
                f"gradwatch_{name.replace('/', '_')}", initial, dtype, self._model()
            )
            self._variables[name] = found
        return found

    def group(self, prefix, initial):
        """The device variables of one state, all made anew where one has another shape.

        Args:
            prefix: Of their names.
            initial: Dict of name to value before the first step.

        Returns:
            Dict of name to `keras.Variable`.
        """
        names = {name: f"{prefix}/{name}" for name in initial}
        for name, full in names.items():
            known = self._variables.get(full, self._restored.get(full))
            if known is not None and np.shape(known) != np.shape(initial[name]):
                for stale in names.values():
                    self._variables.pop(stale, None)
                    self._restored.pop(stale, None)
        return {
            name: self.variable(full, initial[name]) for name, full in names.items()
        }

    def renew(self, name, initial):
        """A new variable `name`, whatever had that name before."""
        self._variables.pop(name, None)
        return self.variable(name, initial)

    @property
    def variables(self):
        """All device variables made so far, a list."""
        return list(self._variables.values())

    def method_settings(self, name, method):
        """The variable [n] with the numbers of a detector or policy."""
        values = list(method.settings.values()) or [0.0]
        return self.variable(f"settings/{name}", values)

    def build(self, layout):
        """Makes the ring for rows of `layout`, if it does not fit already.

        Rows of another layout are drained first, so that none is lost.
        """
        capacity = self.plan.capacity
        ring = self._variables.get("ring")
        same = self.layout == layout
        if ring is not None and same and ring.shape[0] == capacity:
            return
        if ring is not None:
            self.drain()
        self.layout = layout
        self.variable("ring", np.full((capacity, layout.width), np.nan))

    def on_host(self, function):
        """Calls `function()` now and on the host, in the midst of a traced step."""
        self._capture.on_host(function)

    def write_row(self, step, row):
        """Writes the row [width] of `step` into the ring; part of the traced step."""
        ring = self._variables["ring"]
        self._capture.write_row(ring, step % ring.shape[0], row)

    def traced(self):
        """Notes that the present plan is what the traced step was built from."""
        self._traced = self.plan.structure()

    def keep_batches(self, kind):
        """What keeps batches, made at the first call; of the class `kind`."""
        self.batch = self.batch or kind(self)
        return self.batch

    def _sync(self):
        """Brings the variables up to date, before the host reads or writes them."""
        self._capture.sync(self._model())

    def _fill(self, name, value):
        if name in self._variables:
            self._sync()
            variable = self._variables[name]
            variable.assign(np.full(variable.shape, value, variable.dtype))

    def _push(self):
        """Writes the plan's numbers into the variables that the step reads."""
        plan, live = self.plan, bool(self._requests)
        standing = self._standing is not None and self._standing.policy is not None
        pushed = (plan, live, standing)
        if pushed == self._pushed:
            return  # train_on_batch comes here for every batch
        self._pushed = pushed
        self._sync()
        self.variable("policy_on", 0.0).assign(
            float(plan.policy is not None and (live or standing))
        )
        self.variable("responses_on", 0.0).assign(float(live))
        # A policy never clips what is not finite: it has such steps skipped.
        self.variable("guard_on", 0.0).assign(
            float(standing or (live and plan.protects))
        )
        self.variable("sample_freq", 0, "int32").assign(plan.sample_freq)
        self.variable("dense_steps", 0, "int32").assign(plan.dense_steps)
        self.variable("histogram_freq", 0, "int32").assign(plan.histogram_freq)
        self.variable("batch/limit", 0.0).assign(float(plan.save_batch if live else 0))
        for index, detector in enumerate(plan.detectors):
            self._push_settings(f"detector_{index}", detector)
        if plan.policy is not None:
            self._push_settings("policy", plan.policy)
        if plan.holds:
            self._push_settings("trust", plan.holds[0][0].region)
        for name, value in self.response_numbers().items():
            self.variable(name, value).assign(value)

    def _push_settings(self, name, method):
        values = list(method.settings.values()) or [0.0]
        self.method_settings(name, method).assign(np.asarray(values, "float32"))

    def response_numbers(self):
        """Masks [R, D] and numbers [R] of the responses, float32, by variable name."""
        plan = self.plan
        numbers = {}
        if plan.skips:
            mask = np.any([m for _, m in plan.skips], axis=0)
            numbers["skip/mask"] = mask.astype("float32")
        if plan.cuts:
            cuts = [c for c, _ in plan.cuts]
            masks = [m for _, m in plan.cuts]
            numbers["cut/mask"] = np.asarray(masks, "float32")
            numbers["cut/factor"] = np.asarray([c.factor for c in cuts], "float32")
            numbers["cut/cooldown"] = np.asarray([c.cooldown for c in cuts], "float32")
            numbers["cut/min_lr"] = np.asarray([c.min_lr for c in cuts], "float32")
            numbers["cut/patience"] = np.asarray([c.patience for c in cuts], "float32")
        if plan.holds:
            hold, mask = plan.holds[0]
            numbers["hold/mask"] = mask.astype("float32")
            numbers["hold/min_lr"] = np.asarray(hold.min_lr, "float32")
        if plan.halts:
            masks = [m for _, m in plan.halts]
            numbers["halt/mask"] = np.asarray(masks, "float32")
            limits = [h.limit for h, _ in plan.halts]
            numbers["halt/limit"] = np.asarray(limits, "float32")
        return numbers

    # -- what the host does ----------------------------------------------------------

    def snapshot(self):
        """Pairs of a variable and a copy of it: all that a step may have harmed."""
        self._sync()
        return [(v, take_copy(v)) for v in self._capture.harmed(self._model())]

    def put_back(self, snapshot):
        """Assigns what `snapshot` has given."""
        self._sync()
        for variable, copy in snapshot:
            put_copy(variable, copy)

    def cut_rates(self, factor, min_lr):
        """Multiplies every learning rate of the model by `factor`, now."""
        self._sync()
        self._capture.cut_rates(self._model(), factor, min_lr)

    def begin_anew(self):
        """Has every detector forget what it has seen."""
        self._sync()
        kinds = {type(detector).__name__: detector for detector in self.plan.detectors}
        for name, variable in self._variables.items():
            place, _, field = name.rpartition("/")
            kind = place.rpartition("/")[2].rpartition("_")[0]
            if name.startswith("site") and kind in kinds:
                value = kinds[kind].initial_state(1)[field]
                variable.assign(np.broadcast_to(value, variable.shape))

    def halt(self):
        """No update is applied any more in this `fit`."""
        self._sync()
        self.variable("halted", 0.0).assign(1.0)

    def tighten(self, factor):
        """Holds updates to a trust region `factor` times as large, from now on."""
        if not self.plan.holds:
            return
        self._sync()
        settings, site = self.plan.holds[0][0].region.settings, 0
        until = self.step + 1 + int(settings["quiet"])
        while f"site{site}/trust/radius" in self._variables:
            radius = self._variables[f"site{site}/trust/radius"]
            radius.assign(max(float(read(radius)) * factor, settings["least"]))
            self._variables[f"site{site}/trust/until"].assign(until)
            site += 1
        self.variable("dense_until", -1, "int32").assign(until)

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
        self._sync()
        made = {n: read(v).tolist() for n, v in self._variables.items() if wanted(n)}
        return {**{n: v for n, v in self._restored.items() if wanted(n)}, **made}

    def restore(self, state):
        """Goes on from what `state` returned, with variables that are yet to come."""
        self._sync()
        for name, value in state.items():
            if name in self._variables:
                self._variables[name].assign(value)
        made = self._variables
        self._restored = {n: v for n, v in state.items() if n not in made}
        self._position = int(read(self.variable("step", 0, "int32")))

    # -- reading -------------------------------------------------------------------

    @property
    def step(self):
        """The number of watched training steps so far, over all `fit` calls."""
        self._sync()
        variable = self._variables.get("step")
        return 0 if variable is None else int(read(variable))

    @property
    def updates(self):
        """The number of updates that the model's optimizer has made, an int."""
        self._sync()
        return self._capture.updates(self._model())

    @property
    def halted(self):
        """True once a `Halt` response has stopped all updates of this `fit`."""
        self._sync()
        variable = self._variables.get("halted")
        return variable is not None and float(read(variable)) > 0

    def drain(self):
        """Reads the steps since the last drain and hands them to the recorder.

        Returns:
            `Rows`, or None where there is nothing new. Steps that the ring no longer
            holds (more than `capacity` since the last drain) are counted in
            `recorder.lost`.
        """
        end, ring = self.step, self._variables.get("ring")
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
        self._sync()
        variable = self._variables.get("histograms")
        if variable is None:
            return None
        values = read(variable)
        step = int(read(self._variables["histogram_step"]))
        if step < 0:
            return None
        counts, low, high = values[:, :-2], values[:, -2:-1], values[:, -1:]
        bins = counts.shape[1]
        edges = low + (high - low) * np.linspace(0, 1, bins + 1)[None]
        return step, self.histogram_names, counts, edges
