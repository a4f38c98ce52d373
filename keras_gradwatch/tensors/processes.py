"""One run in several processes (JAX): who writes, and what each of them can read.

All of them run the same program, and whatever the host decides is decided from what
every process sees alike: the rows of the ring. Elsewhere a run is one process.
"""

import pickle

import keras
import numpy as np


def is_chief():
    """Whether this process writes files and prints; of several, one does."""
    return not _several() or _jax().process_index() == 0


def of_chief(value):
    """In every process, what the chief gives; to be called by all of them.

    Args:
        value: A picklable value; only the chief's is used.
    """
    if not _several():
        return value
    from jax.experimental import multihost_utils

    send = multihost_utils.broadcast_one_to_all
    data = np.frombuffer(pickle.dumps(value), "uint8")
    size = int(send(np.asarray(len(data), "int32")))
    sent = send(np.resize(data, size))
    return pickle.loads(np.asarray(sent, "uint8").tobytes())


def is_whole(array):
    """Whether this process can read all of a JAX array."""
    return not _several() or array.is_fully_addressable or array.is_fully_replicated


def take_copy(variable, read):
    """A copy of a variable's value on the host, for `put_copy`.

    Where several processes hold it, each keeps what its own devices have.

    Args:
        variable: `keras.Variable`.
        read: Function of a variable that returns its value as a NumPy array.
    """
    return Shards(variable.value) if _several() else read(variable)


def put_copy(variable, copy):
    """Assigns what `take_copy` has given; where there are several, in all processes."""
    variable.assign(copy.array() if isinstance(copy, Shards) else copy)


def everywhere(value, sharding):
    """A first value for a variable that several processes hold.

    Keras would have JAX compare what they give, and NaN is no equal of NaN there.

    Args:
        value: NumPy array, the same in all processes.
        sharding: `jax.sharding.Sharding` of the variable.

    Returns:
        `jax.Array`; in a single process `value`, which Keras places by itself.
    """
    if not _several():
        return value
    return _jax().make_array_from_callback(
        value.shape, sharding, lambda index: value[index]
    )


class Shards:
    """Host copy of the shards of a `jax.Array` that this process can address.

    Args:
        array: `jax.Array`.
    """

    def __init__(self, array):
        self._shape, self._sharding = array.shape, array.sharding
        # Devices that hold the same part of it have the same index.
        shards = {str(shard.index): shard.data for shard in array.addressable_shards}
        self._parts = {index: np.array(data) for index, data in shards.items()}

    def array(self):
        """The `jax.Array` again, in all processes together."""
        return _jax().make_array_from_callback(
            self._shape, self._sharding, lambda index: self._parts[str(index)]
        )

    @classmethod
    def of(cls, array):
        """A copy on the host: a NumPy array in a single process, else `Shards`."""
        return cls(array) if _several() else np.array(array)


def is_alone():
    """Whether this run is one process."""
    return not _several()


def _several():
    return keras.config.backend() == "jax" and _jax().process_count() > 1


def _jax():
    import jax

    return jax
