"""Several policies, one after the other."""

from collections.abc import Iterable

import keras
from keras import ops

from keras_gradwatch.policies.base import Policy
from keras_gradwatch.statistics.measure import global_norm, measure
from keras_gradwatch.tensors.branch import cond
from keras_gradwatch.tensors.sparse import SparseRows


@keras.saving.register_keras_serializable("keras_gradwatch")
class Chain(Policy):
    """Applies several policies one after the other.

    Formula: `g ← pₙ(… p₂(p₁(g)))`. If a policy changes the gradients, they are measured
    again for the next one, which costs a pass over them. Otherwise gradients and
    statistics are passed on unchanged.

    Each policy keeps its own state and settings.

    Args:
        policies: List of `Policy`, at least one.

    Raises:
        ValueError: If the list is empty.
        TypeError: If an element is not a policy.

    Example:

    ```python
    both = policies.Chain([policies.Centralize(), policies.ZClip()])
    callbacks.GradientClipping(policy=both)
    ```
    """

    def __init__(self, policies: Iterable[Policy]) -> None:
        if not isinstance(policies, list | tuple) or not policies:
            raise ValueError(
                "Chain: `policies` must be a list of at least one policy. "
                f"Received: policies={policies!r}"
            )
        if not all(isinstance(policy, Policy) for policy in policies):
            raise TypeError(
                "Chain: `policies` must only contain policies. "
                f"Received: policies={policies!r}"
            )
        self.policies = list(policies)
        self.reads_details = any(policy.reads_details for policy in policies)
        self.settings = self._united([policy.settings for policy in policies])

    def get_config(self):
        return {"policies": keras.saving.serialize_keras_object(self.policies)}

    @classmethod
    def from_config(cls, config):
        """The chain that `get_config` described."""
        return cls(keras.saving.deserialize_keras_object(config["policies"]))

    def initial_state(self, num_variables):
        """The states of all members."""
        return self._united([p.initial_state(num_variables) for p in self.policies])

    def decide(self, measured, state, settings):
        states, changes = [], []
        for index, policy in enumerate(self.policies):
            change, limits, new = policy.decide(
                measured, self._own(index, state), self._own(index, settings)
            )
            change = change & measured.finite
            states.append(new)
            changes.append(change)
            if index + 1 < len(self.policies):
                measured = self._after(policy, change, limits, measured)
        limits = {"before": measured.gradients, "change": change, "limits": limits}
        return ops.any(ops.stack(changes)), limits, self._united(states)

    def transform(self, gradients, limits):
        # All members but the last have changed them already.
        before, last = limits["before"], self.policies[-1]
        values = cond(
            limits["change"],
            lambda: _values(last.transform(before, limits["limits"])),
            lambda: _values(before),
        )
        return _like(values, gradients)

    def _after(self, policy, change, limits, measured):
        """What is measured of the gradients as `policy` has changed them."""
        gradients, columns = measured.gradients, measured.statistics

        def changed():
            new = policy.transform(gradients, limits)
            return [*_values(new), measure(new, detailed=self.reads_details)[0]]

        def kept():
            return [*_values(gradients), columns[:, :6]]

        *values, matrix = cond(change, changed, kept)
        return measured._replace(
            gradients=_like(values, gradients),
            statistics=ops.concatenate([matrix, columns[:, 6:]], axis=1),
            global_norm=global_norm(matrix[:, 0]),
        )

    def _united(self, members):
        """One dict of the members' dicts, with a prefix for each."""
        return {
            self._prefix(index) + name: value
            for index, member in enumerate(members)
            for name, value in member.items()
        }

    def _own(self, index, united):
        prefix = self._prefix(index)
        return {
            name.removeprefix(prefix): value
            for name, value in united.items()
            if name.startswith(prefix)
        }

    def _prefix(self, index):
        return f"{index}_{type(self.policies[index]).__name__}/"


def _values(gradients):
    return [g.rows if isinstance(g, SparseRows) else g for g in gradients]


def _like(values, gradients):
    return [
        SparseRows(v, g.size) if isinstance(g, SparseRows) else v
        for v, g in zip(values, gradients, strict=True)
    ]
