"""Logs of a batch that every callback sees, and the epoch does not."""


class BatchLogs(dict):
    """What a step returned as logs, with more of them for the callbacks.

    Keras hands the callbacks copies of `items()`, whatever their order. At the end of
    an epoch it compares `keys()` of the last batch with the names of the metrics, and
    copies the logs by them where they differ: neither has what is added here, so that
    the epoch's logs are those of stock Keras.

    Args:
        logs: Dict that the step returned.
        added: Dict of further logs; a name that `logs` has is left as it is.
    """

    def __init__(self, logs, added):
        super().__init__(logs)
        self._added = {k: v for k, v in added.items() if k not in logs}

    def items(self):
        """Of the step, and what was added."""
        return {**dict(super().items()), **self._added}.items()
