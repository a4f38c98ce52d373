"""One watched step, as it is traced: measure, detect, decide, record.

Everything here is `keras.ops` on tensors; `capture/` brings the gradients, and carries
out what is decided. A step may apply several optimizers (a GAN): each application is a
`Site` with variables, detector states and a decision of its own.
"""

from keras import ops

from keras_gradwatch import histograms, overflow, responses, row, statistics
from keras_gradwatch.detectors import Measurement, Verdict
from keras_gradwatch.names import unique
from keras_gradwatch.records import Layout
from keras_gradwatch.site import MISSING, Site, any_of, contract, expand, size

# Outside of dense times, steps between two judgements of the update that was made.
JUDGE_EVERY = 10


class Step:
    """The decisions of one step.

    Args:
        monitor: The `GradientMonitor` whose variables are read and written.
    """

    def __init__(self, monitor):
        self.monitor = monitor
        self.plan = monitor.plan
        self.sites = []
        self.number = self.read(monitor.variable("step", 0, "int32"))
        self.halted = self.read(monitor.variable("halted", 0.0)) > 0
        self.responding = self.read(monitor.variable("responses_on", 0.0)) > 0
        self.guarded = self.read(monitor.variable("guard_on", 0.0)) > 0
        self.clipping = self.read(monitor.variable("policy_on", 0.0)) > 0
        freq = self.read(monitor.variable("sample_freq", 10, "int32"))
        # The first step, and every `freq`-th one from there.
        self.sampled = ops.equal(ops.mod(self.number, ops.maximum(freq, 1)), 0)
        self.update_measured = self.sampled | self._dense()
        self.updates = []  # (variable, tensor) to be assigned when the step ends

    def _dense(self):
        """Whether the update is judged although the step is not sampled."""
        if not any(d.after_update for d in self.plan.detectors):
            return ops.convert_to_tensor(False, "bool")
        monitor = self.monitor
        until = self.read(monitor.variable("dense_until", -1, "int32"))
        young = self.read(monitor.variable("dense_steps", 0, "int32"))
        now = (self.number < until) | (self.number < young)
        now = now | ops.equal(ops.mod(self.number, JUDGE_EVERY), 0)
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
        measured_part = statistics.gradient_statistics(present, detailed)
        finite = ops.equal(ops.sum(measured_part[:, 5]), 0.0)
        loss_finite = (
            ops.isfinite(loss) if known else ops.convert_to_tensor(True, "bool")
        )
        overflows = None if handled is None else ~finite & loss_finite & handled
        overflowed = overflow.judge(self, len(self.sites), overflows, scale)
        norm = statistics.global_norm(measured_part[:, 0])
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
        site = Site(len(self.sites), list(names), connected, measured)
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
        label = f"policy/{type(policy).__name__}"
        state, write = self._state(label, policy, site, len(present))
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
        change, site.limits, new = policy.decide(
            connected,
            state,
            self._settings("policy", policy),
        )
        write(new, usable)
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
        region = self.plan.holds[0][0].region
        state, write = self._state("trust", region, site, len(site.names))
        settings = self._settings("trust", region)
        tripped = self._matches(site, "hold/mask", self.plan.holds, after_update=True)
        active = state["until"] > ops.cast(self.number, "float32")
        site.trust = (state, settings, write, tripped, active)
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
        state, settings, write, tripped, active = site.trust
        number = ops.cast(self.number, "float32")
        loss = site.measured.loss
        new, factor = region.advance(state, number, tripped, held, loss, settings)
        usable = self.responding & ~self.halted & ~site.skip & ~site.overflow
        write(new, usable)
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
        monitor, plan = self.monitor, self.plan
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
        if any(d.after_update for d in plan.detectors):
            dense = self.read(monitor.variable("dense_steps", 0, "int32"))
            until = monitor.variable("dense_until", -1, "int32")
            end = ops.where(any_event, self.number + 1 + dense, self.read(until))
            for site in self.sites:
                if site.trust is not None:
                    quiet = ops.cast(site.trust[1]["quiet"], "int32")
                    held_until = ops.where(site.held, self.number + 1 + quiet, end)
                    end = ops.maximum(end, held_until)
            self.updates.append((until, end))
        layout = Layout(
            tuple(unique(name for site in self.sites for name in site.names)),
            tuple(plan.detectors),
        )
        monitor.on_host(lambda: monitor.build(layout))
        monitor.write_row(self.number, row.pack(self, rate, factor))
        for variable, value in self.updates:
            variable.assign(ops.cast(value, variable.dtype))
        monitor.variable("step", 0, "int32").assign(self.number + 1)

    @property
    def skipped(self):
        """Whether any site of this step is skipped, a scalar bool."""
        return any_of([site.skip for site in self.sites])

    # -- detectors, their state and settings ---------------------------------------

    def _detect(self, site, after_update, usable):
        if not site.verdicts:
            site.verdicts = [None] * len(self.plan.detectors)
        seen = {}
        measured = site.measured
        for index, detector in enumerate(self.plan.detectors):
            label = type(detector).__name__
            seen[label] = seen.get(label, -1) + 1
            if detector.after_update != after_update:
                if site.verdicts[index] is None:
                    site.verdicts[index] = _silent()
                continue
            state, write = self._state(
                f"{label}_{seen[label]}", detector, site, len(site.names)
            )
            settings = self._settings(f"detector_{index}", detector)
            verdict, new = detector.detect(measured, state, settings)
            # One thing that goes wrong is one event: what is not finite is
            # `NonFinite`'s, and an overflow is the loss scale's.
            ours = (~site.overflow | site.lasting) & ~self.halted
            if index > 0:
                ours = ours & measured.finite & usable
            write(new, usable & measured.finite & ~self.halted)
            site.verdicts[index] = verdict._replace(tripped=verdict.tripped & ours)

    def _state(self, label, method, site, count):
        """The state of a method at one site, and a function that writes it."""
        initial = method.initial_state(count)
        variables = self.monitor.group(f"site{site.index}/{label}", initial)
        state = {name: self.read(v) for name, v in variables.items()}

        def write(new, usable):
            for name, variable in variables.items():
                value = ops.where(usable, new[name], state[name])
                self.updates.append((variable, value))

        return state, write

    def _settings(self, name, method):
        if not method.settings:
            return {}
        values = self.read(self.monitor.method_settings(name, method))
        values = ops.unstack(values, len(method.settings))
        return dict(zip(method.settings, values, strict=True))

    def _matches(self, site, name, responses, after_update):
        """Whether a detector that one of `responses` follows has tripped at `site`."""
        if not responses:
            return ops.convert_to_tensor(False, "bool")
        initial = self.monitor.response_numbers()[name]
        mask = self.read(self.monitor.variable(name, initial)) > 0
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

    @staticmethod
    def read(variable):
        """The value of a variable, a tensor."""
        return ops.convert_to_tensor(variable)


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
