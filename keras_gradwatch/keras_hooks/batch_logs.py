"""Batch logs that are visible to all callbacks, but not to the epoch."""


class BatchLogs(dict):
    """The logs of a step, with additional logs for the callbacks.

    Keras passes copies of `items()` to all callbacks. At the end of an epoch it
    compares `keys()` of the last batch with the names of the metrics, and copies the
    logs by key if they differ. Neither contains `added`, so the epoch's logs are those
    of stock Keras.
    """

    def __init__(self, logs, added):
        super().__init__(logs)
        self._added = {k: v for k, v in added.items() if k not in logs}

    def items(self):
        """Returns the items of the step and the added ones."""
        return {**dict(super().items()), **self._added}.items()
