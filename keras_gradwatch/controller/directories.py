"""Where a run keeps its state: no two runs share a directory."""

import itertools
import os

# In a directory whose last part is this, a run stands in the directory around it.
FOLDER = "gradwatch"
# Snapshots of the state; whoever makes the file has the directory.
CLAIM = "state.jsonl"


def candidates(directory, trial=None):
    """The directories in which a run may keep its state, in order, without end.

    Args:
        directory: The one that was asked for.
        trial: Name of the trial of a search that the run belongs to, or None.
    """
    root, last = os.path.split(directory)
    root, last = (root, last) if last == FOLDER else (directory, "")
    for number in itertools.count():
        if trial is not None:
            # As `keras.callbacks.TensorBoard` logs under keras-tuner.
            folder = os.path.join(trial, f"execution{number}")
        else:
            folder = f"run-{number + 1}" if number else ""
        yield os.path.normpath(os.path.join(root, folder, last))


def used(directory, trial=None):
    """Those of the candidates that runs have taken, a list."""
    return list(itertools.takewhile(is_taken, candidates(directory, trial)))


def is_taken(directory):
    """Whether a run keeps its state in a directory."""
    return os.path.exists(os.path.join(directory, CLAIM))


def take(directory, trial=None):
    """Takes the first candidate that no run has; of several processes one gets it.

    Returns:
        The directory, which exists then.

    Raises:
        ValueError: If it cannot be written.
    """
    for candidate in candidates(directory, trial):
        try:
            os.makedirs(candidate, exist_ok=True)
            with open(os.path.join(candidate, CLAIM), "x"):
                return candidate
        except FileExistsError:
            if not os.path.isdir(candidate):
                raise _unwritable(candidate, "it is a file") from None
        except OSError as error:
            raise _unwritable(candidate, error) from error
    return None


def _unwritable(directory, why):
    return ValueError(
        "`log_dir`, `state_dir` or `directory` must be a local directory that can be "
        f"written. Received: {directory!r} ({why})"
    )
