"""The requests of the callbacks of one `fit`, merged into one plan."""

import functools
from dataclasses import dataclass, field

from keras_gradwatch.detectors import Detector, NonFinite
from keras_gradwatch.policies import Policy
from keras_gradwatch.statistics.names import ALWAYS, NAMES, OF_UPDATES

# Steps in which every step is read, from the first one and after each event.
ATTENTIVE_STEPS = 100
# Steps between two samples, by default.
SAMPLE_FREQ = 10


@dataclass(frozen=True)
class Request:
    """What one callback, or `watch`, requests of a watched model.

    Attributes:
        owner: Name of the requester, for messages.
        policy: `Policy` or None.
        detectors: Detectors that are only reported.
        responses: Tuple of `responses.Response`.
        update_freq: Maximum number of steps between two readings of the ring.
        log_batches: Whether to add `grad_norm` and `explosions` to the batch logs.
        steps_per_execution: Steps that run between two calls to a callback.
        statistics: Names of the statistics to record for every variable.
        sample_freq: Steps between two samples of statistics that need further passes;
            None: no preference.
        dense_steps: Steps in which every step is read and every update measured, at the
            start and after each event; infinity: always.
        histogram_freq: Steps between two histograms of the gradients; 0: none.
        state_dirs: Directories in which the state is saved for a new process.
        save_batch: Maximum size in bytes of the batch that is saved when an incident
            begins; 0: never.
    """

    owner: str
    policy: Policy | None = None
    detectors: tuple[Detector, ...] = ()
    responses: tuple = ()
    update_freq: int = 50
    log_batches: bool = False
    steps_per_execution: int = 1
    statistics: tuple = ()
    sample_freq: int | None = None
    dense_steps: float = 0
    histogram_freq: int = 0
    state_dirs: tuple[str, ...] = ()
    save_batch: int = 0


@dataclass(eq=False)
class Plan:
    """The merged requests.

    Attributes:
        policy: The only policy, or None.
        detectors: All distinct detectors, `NonFinite` first.
        responses: All responses, those that act first.
        update_freq: Smallest requested number of steps between two readings.
        log_batches: Whether any request asks for it.
        many_steps: Whether an execution runs several steps, with no reading in between.
        capacity: Rows of the ring: enough for the least frequent reader, and for the
            execution before the reading.
        wanted: Names of the statistics that are requested for every variable.
        sample_freq, dense_steps, histogram_freq, save_batch: The most demanding
            request; `sample_freq` is None if no statistic is sampled.
        state_dirs: All requested directories, in order.
    """

    policy: Policy | None = None
    detectors: list[Detector] = field(default_factory=lambda: [NonFinite()])
    responses: list = field(default_factory=list)
    update_freq: int = 50
    log_batches: bool = False
    capacity: int = 51
    many_steps: bool = False
    wanted: set = field(default_factory=set)
    sample_freq: int | None = None
    dense_steps: float = 0
    histogram_freq: int = 0
    state_dirs: list[str] = field(default_factory=list)
    save_batch: int = 0

    @property
    def protects(self):
        """Whether a policy or a response may change anything."""
        return bool(self.policy) or any(r.acts for r in self.responses)

    @property
    def may_cut(self):
        """Whether a learning rate may be cut."""
        return any(response.may_cut for response in self.responses)

    @functools.cached_property
    def labelled(self):
        """Pairs of a detector's label, under which it keeps its state, and itself."""
        return _labelled(self.detectors)

    @functools.cached_property
    def of_values(self):
        """Those of `labelled` that judge finite steps."""
        return [pair for pair in self.labelled if not isinstance(pair[1], NonFinite)]

    @functools.cached_property
    def labelled_responses(self):
        """Pairs of a response's label, under which it keeps its memory, and itself."""
        return _labelled(self.responses)

    @property
    def gradient_statistics(self):
        """Names of the recorded gradient statistics, in the order of `NAMES`.

        All of them if the policy reads more than norms: it receives what is recorded.
        """
        names = set(ALWAYS) | self.wanted | self._read_by_detectors()
        if self.policy is not None and self.policy.reads_details:
            names |= set(NAMES)
        return tuple(n for n in NAMES if n in names and n not in OF_UPDATES)

    @property
    def statistics(self):
        """Names of the statistics that a step records, one per column."""
        updates = OF_UPDATES if self.records_updates else ()
        return (*self.gradient_statistics, *updates)

    @property
    def records_updates(self):
        """Whether the step itself measures the updates of all variables."""
        return bool(set(OF_UPDATES) & self.wanted)

    @property
    def judges_updates(self):
        """Whether the host measures the updates of kernels for a detector."""
        return bool(set(OF_UPDATES) & self._read_by_detectors())

    @property
    def samples_always(self):
        """Whether every step is sampled."""
        return self.sample_freq == 1

    def _read_by_detectors(self):
        return {name for detector in self.detectors for name in detector.reads}

    def structure(self):
        """Returns what is compiled into the step; all else is in variables."""
        return (
            self.policy and self.policy.structure(),
            self.protects,
            self.may_cut,
            self.statistics,
            self.samples_always,
            self.capacity,
            self.many_steps,
            bool(self.histogram_freq),
            bool(self.save_batch),
        )


def _labelled(methods):
    pairs, seen = [], {}
    for method in methods:
        kind = type(method).__name__
        seen[kind] = seen.get(kind, -1) + 1
        pairs.append((f"{kind}_{seen[kind]}", method))
    return pairs


def unite(requests):
    """Merges `Request`s into one `Plan`; raises ValueError if policies differ."""
    plan, policy_owner = Plan(), None
    frequencies, responses, detectors = [], [], []
    for request in requests:
        if request.policy is not None:
            if plan.policy is not None and plan.policy != request.policy:
                raise ValueError(
                    "A model can have only one policy, but two different ones are set: "
                    f"{plan.policy!r} by {policy_owner}, and {request.policy!r} by "
                    f"{request.owner}. Remove one of them."
                )
            plan.policy, policy_owner = request.policy, request.owner
        responses += request.responses
        detectors += request.detectors
        plan.update_freq = min(plan.update_freq, request.update_freq)
        plan.capacity = max(
            plan.capacity, request.update_freq + request.steps_per_execution
        )
        plan.log_batches |= request.log_batches
        plan.many_steps |= request.steps_per_execution > 1
        plan.wanted |= set(request.statistics)
        plan.dense_steps = max(plan.dense_steps, request.dense_steps)
        plan.save_batch = max(plan.save_batch, request.save_batch)
        if request.sample_freq:
            frequencies.append(request.sample_freq)
        every = [*plan.state_dirs, *request.state_dirs]
        plan.state_dirs = list(dict.fromkeys(every))
        if request.histogram_freq:
            wanted = (plan.histogram_freq, request.histogram_freq)
            plan.histogram_freq = min(freq for freq in wanted if freq)
    for response in sorted(responses, key=lambda r: not r.acts):
        # One that only reports is not needed beside another of its kind.
        if response.acts or type(response) not in map(type, plan.responses):
            plan.responses.append(response)
            detectors += response.detectors
    for detector in detectors:
        if detector not in plan.detectors:
            plan.detectors.append(detector)
    if set(plan.statistics) - set(ALWAYS) or plan.judges_updates:
        plan.sample_freq = min(frequencies, default=SAMPLE_FREQ)
    return plan
