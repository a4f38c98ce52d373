"""Runs with several processes (JAX): which one writes, and what each can read.

All processes run the same program, and the host's decisions depend only on what every
process sees alike, the rows of the ring buffer. On other backends a run is one process.
"""

import pickle

import keras
import numpy as np


def is_chief():
    """Returns whether this is the one process that writes files and prints."""
    return is_alone() or _jax().process_index() == 0


def of_chief(value):
    """Broadcasts the chief's picklable `value`; all processes must call it."""
    if is_alone():
        return value
    from jax.experimental import multihost_utils

    send = multihost_utils.broadcast_one_to_all
    data = np.frombuffer(pickle.dumps(value), "uint8")
    size = int(send(np.asarray(len(data), "int32")))
    sent = send(np.resize(data, size))
    return pickle.loads(np.asarray(sent, "uint8").tobytes())


def is_whole(array):
    """Returns whether this process can read all of a JAX array."""
    return array.is_fully_addressable or array.is_fully_replicated


def everywhere(value, sharding):
    """Places an initial NumPy value, equal in all processes, with `sharding`.

    Keras would have JAX compare the values of the processes, where NaN differs from
    NaN. In a single process, returns `value`, which Keras places itself.
    """
    if is_alone():
        return value
    return _jax().make_array_from_callback(
        value.shape, sharding, lambda index: value[index]
    )


class Shards:
    """Host copy of the shards of a `jax.Array` that this process can address."""

    def __init__(self, array):
        self._shape, self._sharding = array.shape, array.sharding
        # Devices that hold the same part of it have the same index.
        shards = {str(shard.index): shard.data for shard in array.addressable_shards}
        self._parts = {index: np.array(data) for index, data in shards.items()}

    def array(self):
        """Returns the `jax.Array` again; all processes must call this together."""
        return _jax().make_array_from_callback(
            self._shape, self._sharding, lambda index: self._parts[str(index)]
        )

    @classmethod
    def of(cls, array):
        """Copies to the host: a NumPy array in a single process, else `Shards`."""
        return np.array(array) if is_alone() else cls(array)


def is_alone():
    """Returns whether this run is one process."""
    return keras.config.backend() != "jax" or _jax().process_count() == 1


def _jax():
    import jax

    return jax
