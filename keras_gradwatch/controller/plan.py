"""What the callbacks of one `fit` ask for, united into one plan for the traced step."""

from dataclasses import dataclass, field

import numpy as np

from keras_gradwatch.detectors import Detector, NonFinite
from keras_gradwatch.policies import Policy
from keras_gradwatch.train_step.trust_region import TrustRegion


@dataclass(frozen=True)
class Skip:
    """Leave out the update in which one of `detectors` trips.

    A detector that judges the gradient prevents the update; one that judges the update
    itself has the weights put back.
    """

    detectors: tuple[Detector, ...]


@dataclass(frozen=True)
class CutRate:
    """Multiply the learning rate by `factor` where one of `detectors` trips.

    Attributes:
        detectors: The detectors that this response follows.
        factor: 0 to 1.
        cooldown: Steps after a cut in which no further one is made.
        min_lr: The rate is never cut below this.
        patience: How many steps must trip within a short time: each counts one, and
            what was counted fades by `responses.FADING` a step.
    """

    detectors: tuple[Detector, ...]
    factor: float
    cooldown: int
    min_lr: float
    patience: int = 1


@dataclass(frozen=True)
class Hold:
    """Hold updates to a trust region from where one of `detectors` trips.

    Attributes:
        detectors: Detectors that judge the update.
        region: The `TrustRegion`.
        min_lr: The rate is never cut below this.
    """

    detectors: tuple[Detector, ...]
    region: TrustRegion
    min_lr: float = 0.0


@dataclass(frozen=True)
class Rewind:
    """Take the run back, on the host, where one of `detectors` has tripped."""

    detectors: tuple[Detector, ...]


@dataclass(frozen=True)
class Halt:
    """Apply no update any more once `detectors` have tripped in `limit` steps."""

    detectors: tuple[Detector, ...]
    limit: int


@dataclass(frozen=True)
class Request:
    """What one callback, or `watch`, asks of a watched model.

    Attributes:
        owner: Who asks, for messages.
        policy: A `Policy` or None.
        detectors: Detectors that only tell.
        responses: `Skip`, `CutRate`, `Hold`, `Rewind` and `Halt` objects.
        update_freq: Steps between two drains of the ring, at most.
        steps_per_execution: Steps that run between two calls to a callback.
        sample_freq: Steps between two samples of the statistics that need a pass over
            the weights; None: no wish.
        dense_steps: Steps in which the update is judged at every step, from the first
            and again after each event; infinity: always.
        histogram_freq: Steps between two histograms of the gradients; 0: none.
        state_dir: Directory in which the state is kept for a new process, or None.
        save_batch: Size in bytes up to which the batch is kept in which an incident
            begins; 0: never.
    """

    owner: str
    policy: Policy | None = None
    detectors: tuple[Detector, ...] = ()
    responses: tuple = ()
    update_freq: int = 50
    steps_per_execution: int = 1
    sample_freq: int | None = None
    dense_steps: float = 0
    histogram_freq: int = 0
    state_dir: str | None = None
    save_batch: int = 0


@dataclass(eq=False)
class Plan:
    """The united requests.

    Attributes:
        policy: The one policy, or None.
        detectors: All detectors, `NonFinite` first, equal ones once.
        skips, cuts, holds, rewinds, halts: The responses, each with a bool mask over
            `detectors`.
        update_freq: Steps between two drains, the least that is asked for.
        capacity: Rows of the ring: enough for whoever drains most rarely, and for the
            execution that runs before the drain.
        sample_freq, dense_steps, histogram_freq, save_batch: The most that is asked
            for.
        state_dirs: All that are asked for, in order.
    """

    policy: Policy | None = None
    detectors: list[Detector] = field(default_factory=lambda: [NonFinite()])
    skips: list[tuple[Skip, np.ndarray]] = field(default_factory=list)
    cuts: list[tuple[CutRate, np.ndarray]] = field(default_factory=list)
    holds: list[tuple[Hold, np.ndarray]] = field(default_factory=list)
    rewinds: list[tuple[Rewind, np.ndarray]] = field(default_factory=list)
    halts: list[tuple[Halt, np.ndarray]] = field(default_factory=list)
    update_freq: int = 50
    capacity: int = 51
    sample_freq: int = 10
    dense_steps: float = 0
    histogram_freq: int = 0
    state_dirs: list[str] = field(default_factory=list)
    save_batch: int = 0
    state_dir: str | None = None

    @property
    def protects(self):
        """True if anything may ever be changed: a policy or a response is asked for."""
        responses = (self.skips, self.cuts, self.holds, self.rewinds, self.halts)
        return bool(self.policy or any(responses))

    @property
    def labelled(self):
        """The detectors with the names under which they keep their states, pairs."""
        pairs, seen = [], {}
        for detector in self.detectors:
            kind = type(detector).__name__
            seen[kind] = seen.get(kind, -1) + 1
            pairs.append((f"{kind}_{seen[kind]}", detector))
        return pairs

    @property
    def judges_always(self):
        """True if the update is judged at every step."""
        judging = [d for d in self.detectors if d.after_update]
        return bool(judging) and self.dense_steps == float("inf")

    def structure(self):
        """What is built into the traced step; everything else is in variables."""
        return (
            self.policy and self.policy.structure(),
            tuple(d.structure() for d in self.detectors),
            self.protects,
            bool(self.skips),
            len(self.cuts),
            bool(self.holds),
            bool(self.rewinds),
            len(self.halts),
            self.judges_always,
            self.capacity,
            bool(self.histogram_freq),
            bool(self.save_batch),
        )


def unite(requests):
    """Unites requests into one `Plan`.

    Args:
        requests: List of `Request`.

    Returns:
        A `Plan`.

    Raises:
        ValueError: If two requests name different policies.
    """
    plan = Plan()
    policy_owner = None
    frequencies = []
    for request in requests:
        if request.policy is not None:
            if plan.policy is not None and plan.policy != request.policy:
                raise ValueError(
                    "One model has one policy, and two different ones are asked for: "
                    f"{plan.policy!r} by {policy_owner}, and {request.policy!r} by "
                    f"{request.owner}. Keep one of the two."
                )
            plan.policy, policy_owner = request.policy, request.owner
        for detector in request.detectors:
            _index(plan, detector)
        for response in request.responses:
            for detector in response.detectors:
                _index(plan, detector)
        plan.update_freq = min(plan.update_freq, request.update_freq)
        plan.capacity = max(
            plan.capacity, request.update_freq + request.steps_per_execution
        )
        plan.dense_steps = max(plan.dense_steps, request.dense_steps)
        plan.save_batch = max(plan.save_batch, request.save_batch)
        if request.sample_freq:
            frequencies.append(request.sample_freq)
        if request.state_dir is not None and request.state_dir not in plan.state_dirs:
            plan.state_dirs.append(request.state_dir)
        if request.histogram_freq:
            plan.histogram_freq = request.histogram_freq
    if frequencies:
        plan.sample_freq = min(frequencies)
    lists = {
        Skip: plan.skips,
        CutRate: plan.cuts,
        Hold: plan.holds,
        Rewind: plan.rewinds,
        Halt: plan.halts,
    }
    for request in requests:
        for response in request.responses:
            mask = np.zeros(len(plan.detectors), bool)
            mask[[_index(plan, d) for d in response.detectors]] = True
            lists[type(response)].append((response, mask))
    return plan


def _index(plan, detector):
    if detector not in plan.detectors:
        plan.detectors.append(detector)
    return plan.detectors.index(detector)
