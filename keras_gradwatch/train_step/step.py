"""One watched step, as it is traced: measure, detect, decide, record.

Everything here is `keras.ops` on tensors; `capture/` brings the gradients, and carries
out what is decided. A step may apply several optimizers (a GAN): each application is a
`Site` with variables, detector states and a decision of its own.
"""

from keras import ops

from keras_gradwatch.controller import responses
from keras_gradwatch.detectors import Measurement, Verdict
from keras_gradwatch.train_step import histograms, overflow, row, statistics
from keras_gradwatch.train_step.site import (
    MISSING,
    Site,
    any_of,
    contract,
    expand,
    size,
)
from keras_gradwatch.train_step.statistics import FLOAT32_MAX as LARGEST

# Outside of dense times, steps between two judgements of the update that was made.
JUDGE_EVERY = 50
# Or where the rate has risen beyond this many times that of the last judgement: another
# rate makes another update of the same gradient.
RISE = 1.5


class Step:
    """The decisions of one step.

    Args:
        monitor: The `GradientMonitor` whose variables are read and written.
        rate: Scalar float32, the learning rate in effect; of several the first one.
    """

    def __init__(self, monitor, rate):
        self.monitor = monitor
        self.plan = monitor.plan
        self.sites = []
        self.number = ops.copy(monitor.variable("step", 0, "int32"))
        self.clock = ops.cast(self.number, "float32")
        self.knobs = monitor.knobs
        first = {**responses.initial_memory(self.plan), "dense_until": -1.0}
        self.memory = monitor.packed("run", {**first, "rate_line": 0.0})
        self.halted = self.memory["halted"] > 0
        self.responding = self.knobs["responses_on"] > 0
        self.guarded = self.knobs["guard_on"] > 0
        self.clipping = self.knobs["policy_on"] > 0
        # The first step, and every `freq`-th one from there.
        self.sampled = ops.equal(ops.mod(self.number, self._every("sample_freq")), 0)
        self._rate = rate
        self._judges = any(d.after_update for d in self.plan.detectors)
        self.update_measured = self.sampled | self._judged()
        self.updates = []  # (variable, tensor) to be assigned when the step ends

    def _every(self, name):
        """A frequency in steps, an int32 scalar >= 1."""
        return ops.maximum(ops.cast(self.knobs[name], "int32"), 1)

    def _judged(self):
        """Whether the update is judged although the step is not sampled."""
        if not self._judges:
            return ops.convert_to_tensor(False, "bool")
        until = ops.maximum(self.memory["dense_until"], self.knobs["dense_steps"])
        now = self.clock < until
        now = now | ops.equal(ops.mod(self.number, JUDGE_EVERY), 0)
        now = now | (self._rate > self.memory["rate_line"])
        return self.responding & now

    # -- before the update ---------------------------------------------------------

    def judge(
        self, names, gradients, weights, loss, scale=None, handled=None, partial=None
    ):
        """Measures the gradients of one site, asks the detectors and the policy.

        Args:
            names: List of V names.
            gradients: List of V float tensors or `SparseRows`, what the optimizer
                would see on one device; None where a variable is disconnected.
            weights: List of the V variables.
            loss: Scalar float32, or None where it is not known.
            scale: Scalar float32 by which the loss was multiplied, or None.
            handled: Scalar bool that is True where the optimizer deals with an
                overflow of that scale by itself; None where it never does.
            partial: Scalar bool that is True where the gradients are only a part of an
                accumulation window, or None: they are looked at for non-finite values
                and not judged otherwise.

        Returns:
            A `Site` with `skip` and `change` decided.
        """
        connected = [g is not None for g in gradients]
        present = [g for g in gradients if g is not None]
        windowed = partial is not None
        partial = partial if windowed else ops.convert_to_tensor(False, "bool")
        known = loss is not None
        loss = (
            ops.cast(loss, "float32")
            if known
            else ops.convert_to_tensor(MISSING, "float32")
        )
        detailed = self.sampled
        if any(d.reads_details for d in self.plan.detectors):
            detailed = ops.convert_to_tensor(True, "bool")
        if self.plan.policy is not None and self.plan.policy.reads_details:
            detailed = detailed | self.clipping
        measured_part, norm = statistics.measure(present, detailed)
        finite = ops.equal(ops.sum(measured_part[:, 5]), 0.0)
        loss_finite = (
            ops.isfinite(loss) if known else ops.convert_to_tensor(True, "bool")
        )
        overflows = None if handled is None else ~finite & loss_finite & handled
        index = len(self.sites)
        first = first_memory(self.plan, len(names), len(present))
        memory = self.monitor.packed(f"site{index}", first)
        overflowed = overflow.judge(memory, overflows, scale)
        if windowed:
            # Part of a window has no norm: that of the average is the gradient's.
            norm = ops.where(partial, MISSING, norm)
            kept = ops.where(partial, MISSING, measured_part[:, :5])
            measured_part = ops.concatenate([kept, measured_part[:, 5:]], axis=1)
        unsampled = ops.zeros((len(present), 2), "float32") + MISSING
        matrix = ops.concatenate([measured_part, unsampled], axis=1)
        matrix = expand(matrix, connected)
        measured = Measurement(
            step=self.number,
            loss=loss,
            global_norm=norm,
            statistics=matrix,
            loss_scale=ops.convert_to_tensor(MISSING if scale is None else scale),
            finite=finite & loss_finite,
            sizes=ops.convert_to_tensor([size(w.shape) for w in weights], "float32"),
            kernels=ops.convert_to_tensor([len(w.shape) >= 2 for w in weights]),
        )
        site = Site(index, list(names), connected, measured, memory)
        site.overflow, site.lasting = overflowed
        # What a dynamic loss scale leaves out whatever is done here.
        site.left_out = ~finite if handled is not None else site.overflow
        self.sites.append(site)
        self._detect(site, after_update=False, usable=~partial)
        broken = ~measured.finite & ~site.overflow
        tripped = self._matches(site, "skip/mask", self.plan.skips, after_update=False)
        site.skip = (self.guarded & broken) | (
            self.responding & (tripped & ~site.overflow | self.halted)
        )
        for earlier in self.sites[:-1]:
            site.skip = site.skip | earlier.skip
        if not self.plan.protects:
            site.skip = ops.convert_to_tensor(False, "bool")
        self._decide_policy(site, present, weights, partial)
        self._sample_histograms(site, present)
        return site

    def _decide_policy(self, site, present, weights, partial):
        site.change = ops.convert_to_tensor(False, "bool")
        site.clipped_norm = site.measured.global_norm
        policy = self.plan.policy
        if policy is None:
            return
        label = _policy_label(policy)
        state = site.memory.part(label)
        measured, there = site.measured, site.connected
        usable = self.clipping & measured.finite & ~partial
        connected = measured._replace(
            statistics=contract(measured.statistics, there),
            sizes=contract(measured.sizes, there),
            kernels=contract(measured.kernels, there),
            # Also False where nothing comes of what is decided.
            finite=usable,
            names=[n for n, c in zip(site.names, there, strict=True) if c],
            gradients=present,
            weights=[w for w, c in zip(weights, there, strict=True) if c],
        )
        settings = self.knobs.part("policy")
        change, site.limits, new = policy.decide(connected, state, settings)
        _remember(site, label, state, new, usable)
        site.change = usable & change & ~site.skip

    def transform(self, site, gradients):
        """The gradients as the policy changes them, and notes their norm.

        To be called inside the branch in which `site.change` holds.

        Returns:
            `(gradients, clipped global norm)`.
        """
        changed = self.plan.policy.transform(gradients, site.limits)
        return changed, statistics.global_norm(statistics.norms(changed))

    # -- after the update ----------------------------------------------------------

    def judge_update(self, site, matrix):
        """Asks the detectors that judge the update that was made.

        Args:
            site: The `Site`.
            matrix: Tensor [V, 2] of `statistics.update_statistics`, NaN where it was
                not sampled.
        """
        site.measured = site.measured._replace(
            statistics=ops.concatenate(
                [site.measured.statistics[:, :6], matrix], axis=1
            )
        )
        usable = ~site.skip & ~site.overflow & self.update_measured
        self._detect(site, after_update=True, usable=usable)
        tripped = self._matches(site, "skip/mask", self.plan.skips, after_update=True)
        site.revert = self.responding & tripped & ~site.skip
        if self.plan.holds:
            self._consider_hold(site)

    def _consider_hold(self, site):
        """Whether this update has to be looked at again, to hold it."""
        state, settings = site.memory.part("trust"), self.knobs.part("trust")
        tripped = self._matches(site, "hold/mask", self.plan.holds, after_update=True)
        active = state["until"] > self.clock
        site.trust = (state, settings, tripped, active)
        possible = self.responding & ~self.halted & ~site.skip & ~site.overflow
        site.hold = possible & (active | tripped)

    def limit(self, site, before, after, inner):
        """What is left of an update that may have to be held; see `TrustRegion`.

        To be called inside the branch in which `site.hold` holds.

        Returns:
            `(weights, held)`.
        """
        region = self.plan.holds[0][0].region
        state, settings, *_ = site.trust
        return region.limit(before, after, inner, site.measured.loss, state, settings)

    def note_hold(self, site, held):
        """Notes whether an update was held, and what follows for rate and radius."""
        region = self.plan.holds[0][0].region
        state, settings, tripped, active = site.trust
        loss = site.measured.loss
        new, factor = region.advance(state, self.clock, tripped, held, loss, settings)
        usable = self.responding & ~self.halted & ~site.skip & ~site.overflow
        _remember(site, "trust", state, new, usable)
        site.held = held
        site.radius = ops.where(active | held, state["radius"], MISSING)
        site.rate_factor = ops.where(usable, factor, 1.0)
        # One trouble is one event: where it begins, and where the rate is cut for it.
        stalled = site.rate_factor < 1
        _, mask = self.plan.holds[0]
        for index, detector in enumerate(self.plan.detectors):
            if mask[index] and detector.after_update:
                verdict = site.verdicts[index]
                told = (verdict.tripped & ~active) | stalled
                site.verdicts[index] = verdict._replace(tripped=told)

    # -- the end of the step -------------------------------------------------------

    def finish(self, rates):
        """Cuts the rate, counts towards a halt, records the row, writes all state.

        Args:
            rates: `rates.Rates` of the step's optimizers.
        """
        monitor = self.monitor
        tripped = self._tripped()
        self.any_event = any_event = ops.any(tripped)
        for site in self.sites:
            site.revert = _or_else(site.revert, False)
            site.held = _or_else(site.held, False)
            site.radius = _or_else(site.radius, MISSING)
            site.rate_factor = _or_else(site.rate_factor, 1.0)
        rate = rates.current()
        factor = responses.cut_rate(self, tripped, rates)
        self.stopped = responses.count_halts(self, tripped)
        if self._judges:
            self._plan_judgements(any_event)
        monitor.build([name for site in self.sites for name in site.names])
        monitor.write_row(self.number, row.pack(self, rate, factor))
        for variable, value in self.updates:
            variable.assign(ops.cast(value, variable.dtype))
        for memory in [self.memory, *(site.memory for site in self.sites)]:
            memory.write()
        monitor.variable("step", 0, "int32").assign(self.number + 1)

    def _plan_judgements(self, any_event):
        """Notes until when the update is judged at every step, and at what rate."""
        dense, end = self.knobs["dense_steps"], self.memory["dense_until"]
        if not self.plan.judges_always:
            end = ops.where(any_event, self.clock + 1 + dense, end)
        for site in self.sites:
            if site.trust is not None:
                quiet = site.trust[1]["quiet"]
                held_until = ops.where(site.held, self.clock + 1 + quiet, end)
                end = ops.maximum(end, held_until)
        line = self.memory["rate_line"]
        line = ops.where(self.update_measured, RISE * self._rate, line)
        self.memory.put("dense_until", end)
        self.memory.put("rate_line", line)

    @property
    def wake(self):
        """The next step that has to go the long way, whatever its gradients are."""
        following = self.number + 1

        def next_multiple(freq):
            return following + (-following) % freq

        wake = next_multiple(self._every("sample_freq"))
        if self._judges:
            until = self.memory.latest("dense_until")
            judged = next_multiple(JUDGE_EVERY)
            if self.plan.judges_always:
                judged = wake  # the short way judges, too, but it holds no update
            else:
                until = ops.maximum(until, self.knobs["dense_steps"])
            judged = ops.where(self.clock + 1 < until, following, judged)
            wake = ops.where(self.responding, ops.minimum(wake, judged), wake)
        if self.plan.histogram_freq:
            due = next_multiple(self._every("histogram_freq"))
            wanted = self.knobs["histogram_freq"] > 0
            wake = ops.where(wanted, ops.minimum(wake, due), wake)
        return ops.where(self.halted | self.stopped, following, wake)

    @property
    def rate_line(self):
        """The rate beyond which the next update is judged, a float32 scalar."""
        line = self.memory.latest("rate_line")
        judges = self._judges and not self.plan.judges_always
        return line if judges else ops.convert_to_tensor(LARGEST, "float32")

    @property
    def skipped(self):
        """Whether any site of this step is skipped, a scalar bool."""
        return any_of([site.skip for site in self.sites])

    # -- detectors, their state and settings ---------------------------------------

    def _detect(self, site, after_update, usable):
        if not site.verdicts:
            site.verdicts = [None] * len(self.plan.detectors)
        measured = site.measured
        for index, (label, detector) in enumerate(self.plan.labelled):
            if detector.after_update != after_update:
                if site.verdicts[index] is None:
                    site.verdicts[index] = _silent()
                continue
            state = site.memory.part(label)
            settings = self.knobs.part(f"detector_{index}")
            verdict, new = detector.detect(measured, state, settings)
            # One thing that goes wrong is one event: what is not finite is
            # `NonFinite`'s, and an overflow is the loss scale's.
            ours = (~site.overflow | site.lasting) & ~self.halted
            if index > 0:
                ours = ours & measured.finite & usable
            _remember(site, label, state, new, usable & measured.finite & ~self.halted)
            site.verdicts[index] = verdict._replace(tripped=verdict.tripped & ours)

    def _matches(self, site, name, responses, after_update):
        """Whether a detector that one of `responses` follows has tripped at `site`."""
        if not responses:
            return ops.convert_to_tensor(False, "bool")
        mask = self.knobs[name] > 0
        mine = ops.convert_to_tensor(
            [d.after_update == after_update for d in self.plan.detectors]
        )
        tripped = ops.stack([v.tripped for v in site.verdicts])
        return ops.any(mask & mine & tripped)

    def _tripped(self):
        """For each detector whether it tripped at any site, bool [D]."""
        rows = [ops.stack([v.tripped for v in site.verdicts]) for site in self.sites]
        if not rows:
            return ops.zeros((len(self.plan.detectors),), "bool")
        return ops.any(ops.stack(rows), axis=0)

    def _sample_histograms(self, site, present):
        if self.plan.histogram_freq and site.index == 0:
            names = [n for n, c in zip(site.names, site.connected, strict=True) if c]
            self.updates += histograms.sample(self, names, present)


def first_memory(plan, count, present):
    """What one site remembers before the first step, a dict of arrays.

    Args:
        plan: The `Plan` in force.
        count: V, the number of its variables.
        present: P, how many of them are connected.
    """
    methods = [(label, d.initial_state(count)) for label, d in plan.labelled]
    if plan.holds:
        methods.append(("trust", plan.holds[0][0].region.initial_state(count)))
    if plan.policy is not None:
        state = plan.policy.initial_state(present)
        methods.append((_policy_label(plan.policy), state))
    fields = {f"{n}/{k}": v for n, state in methods for k, v in state.items()}
    return {**fields, "overflows": 0.0}


def _policy_label(policy):
    return f"policy/{type(policy).__name__}"


def _remember(site, label, before, after, usable):
    """Notes the new state of one method, where it is `usable`."""
    for name, value in before.items():
        site.memory.put(f"{label}/{name}", ops.where(usable, after[name], value))


def _or_else(value, default):
    return ops.convert_to_tensor(default) if value is None else value


def _silent():
    missing = ops.convert_to_tensor(MISSING, "float32")
    return Verdict(
        ops.convert_to_tensor(False, "bool"),
        ops.convert_to_tensor(-1),
        missing,
        missing,
    )
