"""The state of a watched model: what is asked for, and what is known of its steps."""

import textwrap
import weakref

import numpy as np

from keras_gradwatch.controller import identity
from keras_gradwatch.controller.control import control_values
from keras_gradwatch.controller.controller import Controller
from keras_gradwatch.controller.persistence import Keeper
from keras_gradwatch.controller.plan import Plan, Request
from keras_gradwatch.controller.store import Store
from keras_gradwatch.keras_hooks import learning_rate, networks
from keras_gradwatch.keras_hooks.batch_logs import BatchLogs
from keras_gradwatch.keras_hooks.optimizers import held_optimizers
from keras_gradwatch.records.first_batch import describe_batch, is_small
from keras_gradwatch.records.names import unique
from keras_gradwatch.records.recorder import Recorder
from keras_gradwatch.records.rows import Layout
from keras_gradwatch.statistics.histograms import BINS
from keras_gradwatch.tensors.processes import is_alone
from keras_gradwatch.train_step.application import MAX_APPLICATIONS, size
from keras_gradwatch.train_step.logs import MAX_LOGS
from keras_gradwatch.train_step.output_losses import MAX_LOSSES, trackers
from keras_gradwatch.train_step.policy import policy_state
from keras_gradwatch.train_step.state import GATE, UNLIMITED

# Characters of an error message that a report quotes.
MAX_ERROR = 300


class GradientMonitor:
    """The gradient monitor of one watched model, `model.gradwatch`.

    The monitor owns every variable that the watched step reads or writes in addition to
    the model's own: a ring buffer of rows, the limits, the policy's state. None of them
    is part of the model: `model.weights`, saved files and the results of `evaluate` do
    not change.

    If a callback names a directory, the state is saved there, and a new process
    continues from it; see `keras_gradwatch.controller.backup`.

    The ring buffer takes `4 · capacity · (10·S + K·V)` bytes for V variables, K
    recorded statistics and S applications of an optimizer in a step (1 for a stock
    step, else 8). It does not grow with the number of steps.

    Args:
        backend: The module of `keras_gradwatch.backends` for the backend.
        model: The watched model.

    Attributes:
        plan: The `Plan` in force.
        layout: `Layout` of the ring's rows; None before the first traced step.
        recorder: `Recorder` that passes on the rows.
        controller: `Controller`, which decides between two steps.
        variant: The step that runs next, `"light"` or `"full"`.
        batches: Keeps the batch in which an incident begins.
        position: The first step that was not read yet.
        first_batch: Result of `describe_batch` for the first batch of a run; None
            before that.
        first_data: That batch, until its step was read; None if it is large.
        steps_are_stock: Whether the model's step is Keras's own.
        error: What ended the newest `fit` in a step, a str; None: nothing did.
        losses_known: Whether the loss of each application of the traced step is known.
        reads_logs: Whether the traced step looks for a loss in its logs.
        stand_ins: Replacements for methods of model and optimizers during a step.
        store: `Store`, the device variables.
    """

    def __init__(self, backend, model):
        self.backend = backend
        self.plan = Plan()
        self.layout = None
        self.recorder = Recorder()
        self.histogram_names = ()
        self.variant = "light"
        self.batches = backend.batches(self)
        self.stand_ins = {}
        self.steps_are_stock = False
        self.error = None
        self.first_batch = self.first_data = None
        self.losses_known, self.reads_logs = [], True
        self._model = weakref.ref(model)
        self.store = Store(backend, self._model)
        self.keeper = Keeper(self)
        self._names = {}  # id(variable) -> its name
        self._extra = {}  # id(variable) -> variable that the model does not hold
        self._standing = None  # what `watch` itself asked for
        self._requests = []
        self._collecting, self._group = False, lambda: None
        self._earlier = self.plan  # before what is asked for just now
        self._applied = []  # of each application: its optimizer and its variables
        self._pushed = None  # what the variables hold: (plan, live, standing)
        self._policy = None  # the structure of the policy
        self._traced = None  # the structure that is built into the traced step
        self.position = 0  # the first step that was not read yet
        self.controller = Controller(self)

    # -- what is asked for ---------------------------------------------------------

    def stand(self, policy, detectors):
        """Sets policy and detectors that also act outside of `fit`, for `watch`."""
        self.drain()  # what was recorded so far is judged by the plan that it ran under
        self._standing = Request("watch()", policy=policy, detectors=tuple(detectors))
        self._replan()

    def ask(self, request, group=None):
        """Adds the `Request` of one callback for the `fit` that is about to begin.

        Returns True for the first of those that share `group`. Raises ValueError on a
        conflict.
        """
        if self._collecting and group is not None and group is not self._group():
            self.cancel()  # a `fit` that failed before its first step
        if not self._collecting:
            self._collecting, self._earlier = True, self.plan
            self._group = weakref.ref(group) if group is not None else lambda: None
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
        """Withdraws the requests, if no `fit` has begun since."""
        if self._collecting:
            self._collecting = False
            self._end()
            self.plan = self._earlier  # that of the traced step

    def prepare(self):
        """Stops collecting requests, and writes the plan's values for the step.

        Called when Keras makes the train function, once at the beginning of each `fit`
        and of each `train_on_batch`. Returns True if the step must be traced again.
        """
        if not self._collecting and self._requests:
            # A `fit` without our callbacks, or train_on_batch, after an interrupted
            # `fit`: Keras does not report that the latter ended.
            self._end()
            self._replan()
        self._collecting = False
        if self._requests:
            self.controller.begin()
            self._pushed = None
        self._push()
        policy = self.plan.policy and self.plan.policy.structure()
        if self._traced is not None and policy != self._policy:
            self.store.forget("policy")  # another policy begins with a state of its own
        self._policy = policy
        # An idle plan runs on whatever is traced: everything is switched off.
        same = self._traced in (None, self.plan.structure())
        return self.asked and not same

    def _end(self):
        """Forgets the last `fit`, after reading the steps of an interrupted one."""
        self.drain()
        self.error = None
        self._requests = []
        self.recorder.begin()

    def release(self):
        """Switches policies and responses off; the model stays watched."""
        if self._requests and not self._collecting:
            self._requests = []
            self.recorder.begin()  # the rows that follow belong to no `fit`
            self.controller.rates.merge()
            self._push()

    @property
    def asked(self):
        """Whether a callback or `watch` requests more than being watched."""
        return bool(self._requests) or self._standing is not None

    @property
    def live(self):
        """Whether a `fit` with callbacks is running."""
        return bool(self._requests)

    def detach(self):
        """Detaches from the model, for `unwatch`."""
        model = self._model()
        self.keep_with_model()  # whoever watches it next continues from here
        self.controller.rates.merge()
        learning_rate.unhook_schedules(held_optimizers(model))
        self.stand_ins.clear()

    def _replan(self):
        if self.asked:
            self.plan = Plan([*filter(None, [self._standing]), *self._requests])

    def _push(self):
        """Writes the plan's numbers into the variables that the step reads."""
        pushed = (self.plan, self.live, self._standing)
        if pushed != self._pushed:  # train_on_batch comes here for every batch
            self._pushed = pushed
            self.push_control()
            self.controller.push_limits()

    def push_control(self):
        """Writes the variable `control`, the values that the host sets."""
        values = self._control()
        found = self.store.get("control")
        if found is not None and tuple(found.shape) != values.shape:
            self.store.renew("control", values)
        self.store.write("control", values)

    def _control(self):
        standing = self._standing is not None and self._standing.policy is not None
        return control_values(self.plan, self.controller, self.live, standing)

    # -- variables -----------------------------------------------------------------

    def variable(self, name, initial=None):
        """Returns the device variable `name`, creating it at the first call."""
        if initial is None and name in self.store:
            return self.store.get(name)
        first = {
            "step": lambda: 0,
            "limits": self.controller.limits,
            "control": self._control,
            "gate": lambda: np.float32([0, 0, *[-UNLIMITED] * (len(GATE) - 2)]),
            "peaks": lambda: np.zeros((MAX_APPLICATIONS, 3)),
            "logs": lambda: np.full(MAX_LOGS, np.nan),
            "losses": lambda: np.zeros(MAX_LOSSES),
        }
        make = first[name] if initial is None else lambda: initial
        dtype = "int32" if name == "step" else "float32"
        return self.backend.on_host(lambda: self.store.variable(name, make(), dtype))

    def make_variables(self, model):
        """Creates all variables before the step is traced, on JAX."""
        for name in ("step", "limits", "control", "gate"):
            self.variable(name)
        if not self.steps_are_stock:
            self.variable("logs")
        if self.plan.many_steps:
            self.variable("peaks")
        if trackers(model):
            self.variable("losses")
        self.build(model, [])
        count = len(self.layout.variables)
        for index in range(self.layout.applications):
            if self.plan.policy is not None:
                for name, (value, _) in policy_state(self.plan.policy, count).items():
                    self.variable(f"policy{index}/{name}", value)
        if self.plan.histogram_freq:
            self.histogram_variables(count)
        self.hook_schedules()

    def build(self, model, variables):
        """Creates the ring for the rows of a step, unless the present one fits.

        Rows of another layout are read first, so that none is lost. `variables` are
        trained besides the model's own.
        """
        own = {id(v): v for v in model.trainable_variables}
        # What a step trains although no layer of the model holds it.
        self._extra |= {id(v): v for v in variables if id(v) not in own}
        every = list({**own, **self._extra}.values())
        names = unique(getattr(v, "path", v.name) for v in every)
        self._names = {id(v): n for v, n in zip(every, names, strict=True)}
        layout = Layout(
            tuple(names),
            self.plan.statistics,
            1 if self.steps_are_stock else MAX_APPLICATIONS,
            tuple(size(v.shape) for v in every),
            tuple(len(v.shape) >= 2 for v in every),
        )
        self.backend.on_host(lambda: self._build(layout))

    def _build(self, layout):
        capacity = self.plan.capacity
        ring = self.store.get("ring")
        same = self.layout == layout
        if ring is not None and same and ring.shape[0] == capacity:
            return
        if ring is not None:
            self.drain()
        before, self.layout = self.layout, layout
        self.store.variable("ring", np.full((capacity, layout.width), np.nan))
        if before is not None and before.variables != layout.variables:
            self.controller.begin_layout()

    def names_of(self, variables):
        """Returns the names of some trained variables, a list."""
        return [self._names[id(v)] for v in variables]

    def hook_schedules(self):
        """Adds a scale to every schedule that may have to be cut."""
        if self.plan.may_cut:
            learning_rate.hook_schedules(
                held_optimizers(self._model()),
                lambda index: self.store.renew(f"rate_scale/{index}", 1.0),
            )

    def histogram_variables(self, count):
        """Returns the variables of the histograms of `count` gradients."""
        return (
            self.store.variable("histograms", np.zeros((count, BINS + 2))),
            self.store.variable("histogram_step", -1, "int32"),
        )

    def write_row(self, step, row):
        """Writes the row [width] of `step` into the ring, in the traced step."""
        ring = self.store.get("ring")
        self.backend.write_row(ring, step % ring.shape[0], row)

    def note_traced(self, places, applied):
        """Records each application's optimizer, variables and their places."""
        self._traced = self.plan.structure()
        self.controller.places = places
        self._applied = applied

    def network(self, index):
        """Describes what one of several applications trains, or returns None."""
        if len(self._applied) < 2 or index >= len(self._applied):
            return None
        optimizer, variables = self._applied[index]
        model = self._model()
        name = f"`{networks.name_of_optimizer(model, optimizer)}`"
        network = networks.name_of_network(model, variables)
        return name if network is None else f"`{network}` ({name})"

    # -- over the end of the process -----------------------------------------------

    def begin_steps(self):
        """Called before the first batch, once all callbacks have set up the model."""
        self.keeper.begin(self.plan.state_dirs)
        self.controller.begin_steps()

    def keep(self, epoch_end=False):
        """Saves the state in the directories of the plan, if it is due."""
        if self.keeper.due(epoch_end):
            self.keeper.keep(epoch_end)

    def keep_with_model(self):
        """Saves the state when the model is about to be saved."""
        if self.keeper.due(epoch_end=True):
            if is_alone():  # several processes must read at the same steps
                self.drain()
            self.keeper.keep(epoch_end=True)

    def fingerprint(self):
        """Returns a fingerprint of the model's current state; see `identity`."""
        return identity.fingerprint(self._model(), self.store.access)

    def state(self, wanted):
        """Returns what a new process continues from: `wanted` variables, decisions."""
        return {**self.store.state(wanted), "controller": self.controller.state()}

    def restore(self, state):
        """Restores what `state` returned, also for variables created later."""
        state = dict(state)
        self.controller.restore(state.pop("controller", {}))
        self.variable("step")
        self.store.restore(state)
        self.position = self.step
        self.push_control()
        self.controller.push_limits()

    # -- reading -------------------------------------------------------------------

    def look(self, iterator):
        """Describes a run's first batch; returns an iterator that still gives it."""
        wanted = self.live and self.recorder.at_begin
        if not wanted or self.first_batch is not None:
            return iterator
        data, iterator = self.backend.first_batch(self.model, iterator)
        self.first_batch = {} if data is None else describe_batch(data)
        self.first_data = data if data is not None and is_small(data) else None
        for listener in self.recorder.at_begin:
            listener()
        return iterator

    @property
    def model(self):
        """The watched model, or None."""
        return self._model()

    @property
    def step(self):
        """The number of watched training steps so far, over all `fit` calls."""
        return int(self.store.read("step")) if "step" in self.store else 0

    def resting(self, compete):
        """Says which detectors are disabled for lack of a loss, or returns None."""
        if all(self.losses_known) and not compete:
            return None
        resting = [type(d).__name__ for d in self.plan.detectors if d.needs_loss]
        names = list(dict.fromkeys(resting))
        effects = []
        if names:
            verb = "is" if len(names) == 1 else "are"
            effects.append(f"{', '.join(names)} {verb} disabled")
        if self.plan.judges_updates:
            effects.append("large updates are not judged by the loss")
        if not effects:
            return None
        off = " and ".join(effects)
        if compete:
            return (
                f"{off}: each optimizer has its own loss, and one may rise while "
                "another falls"
            )
        unknown = [i for i, known in enumerate(self.losses_known) if not known]
        where = ", ".join(filter(None, map(self.network, unknown)))
        return (
            f"{off}: the loss{' of ' if where else ''}{where} is not known in this "
            "`train_step`. Pass it to `optimizer.scale_loss`, or return it in the logs "
            "as 'loss'"
        )

    def note_error(self, error):
        """Records the exception that a step has raised, for the report."""
        text = f"{type(error).__name__}: {error}"
        self.error = textwrap.shorten(text, MAX_ERROR, placeholder=" ...")

    @property
    def halted(self):
        """Whether a `Halt` response has stopped all updates of this `fit`."""
        return self.controller.halted

    def drain(self):
        """Reads the steps since the last reading, and passes them to the recorder.

        The monitor also reads by itself, every 50 steps; those steps are not returned.

        Returns:
            `Rows`, or None where there is nothing new.
        """
        return self.controller.read()

    def batch_logs(self, logs):
        """Returns the logs, with `grad_norm` and `explosions` on request."""
        if self.plan.log_batches and self.live and isinstance(logs, dict):
            return BatchLogs(logs, self.recorder.batch_logs())
        return logs

    def unread(self):
        """The `Rows` since the last reading, or None where there are none.

        Steps that the ring no longer holds (more than `capacity` since the last
        reading) are counted in `recorder.lost`.
        """
        ring = self.store.get("ring")
        if ring is None:
            return None
        end = self.step
        if end == self.position:
            return None
        capacity = ring.shape[0]
        begin = max(self.position, end - capacity)
        self.recorder.lost += begin - self.position
        steps = np.arange(begin, end)
        rows = self.layout.unpack(steps, self.store.read("ring")[steps % capacity])
        self.position = end
        return rows

    def histograms(self):
        """Returns the last `(step, names, values [V, BINS + 2])`, or None."""
        if "histograms" not in self.store:
            return None
        step = int(self.store.read("histogram_step"))
        if step < 0:
            return None
        values = self.store.read("histograms")[: len(self.histogram_names)]
        return step, self.histogram_names, values
