"""The requests of the callbacks of one `fit`, merged into one plan."""

import functools
import itertools
from dataclasses import dataclass

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


class Plan:
    """The merged requests of one `fit`; raises ValueError if their policies differ.

    Attributes:
        policy: The only policy, or None.
        responses: All responses, those that act first.
        detectors: All distinct detectors, `NonFinite` first.
        update_freq: Smallest requested number of steps between two readings.
        log_batches: Whether any request asks for it.
        many_steps: Whether an execution runs several steps, with no reading in between.
        capacity: Rows of the ring: enough for the least frequent reader, and for the
            execution before the reading.
        wanted: Names of the statistics that are requested for every variable.
        sample_freq, dense_steps, histogram_freq, save_batch: The most demanding
            request; `sample_freq` is None if no statistic is sampled, and `SAMPLE_FREQ`
            if no request has one.
        state_dirs: All requested directories, in order.
    """

    def __init__(self, requests=()):
        self.policy = _only_policy(requests)
        self.responses = _responses(requests)
        self.detectors = [NonFinite()]
        for source in (*requests, *self.responses):
            for detector in source.detectors:
                if detector not in self.detectors:
                    self.detectors.append(detector)
        every = [Request("nobody"), *requests]  # with the defaults
        self.update_freq = min(r.update_freq for r in every)
        self.log_batches = any(r.log_batches for r in every)
        self.many_steps = any(r.steps_per_execution > 1 for r in every)
        self.capacity = max(r.update_freq + r.steps_per_execution for r in every)
        self.wanted = {name for r in every for name in r.statistics}
        self.dense_steps = max(r.dense_steps for r in every)
        self.save_batch = max(r.save_batch for r in every)
        self.histogram_freq = _least(r.histogram_freq for r in every) or 0
        self.state_dirs = list(dict.fromkeys(d for r in every for d in r.state_dirs))
        self.sample_freq = None
        if set(self.statistics) - set(ALWAYS) or self.judges_updates:
            self.sample_freq = _least(r.sample_freq for r in every) or SAMPLE_FREQ

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


def _only_policy(requests):
    """Returns the policy that is requested, or None; ValueError if there are two."""
    asked = [request for request in requests if request.policy is not None]
    for one, other in itertools.pairwise(asked):
        if one.policy != other.policy:
            raise ValueError(
                "A model can have only one policy, but two different ones are set: "
                f"{one.policy!r} by {one.owner}, and {other.policy!r} by "
                f"{other.owner}. Remove one of them."
            )
    return asked[-1].policy if asked else None


def _responses(requests):
    """Returns the responses, without those that only report beside their own kind."""
    found = []
    every = [response for request in requests for response in request.responses]
    for response in sorted(every, key=lambda r: not r.acts):
        if response.acts or type(response) not in map(type, found):
            found.append(response)
    return found


def _least(frequencies):
    """Returns the smallest number of steps that is requested, or None."""
    return min(filter(None, frequencies), default=None)
