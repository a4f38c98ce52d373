"""The directories in which runs keep their state, one for each run."""

import itertools
import os

# In a directory whose last part is this, a run stands in the directory around it.
FOLDER = "gradwatch"
# Snapshots of the state; whoever makes the file has the directory.
CLAIM = "state.jsonl"


def candidates(directory, trial=None):
    """Yields candidates for a run's directory, without end; `trial` is from a tuner."""
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
    """Returns the candidates that runs have taken, a list."""
    return list(itertools.takewhile(is_taken, candidates(directory, trial)))


def is_taken(directory):
    """Returns whether a run keeps its state in a directory."""
    return os.path.exists(os.path.join(directory, CLAIM))


def take(directory, trial=None):
    """Creates and returns the first free candidate, which only one process gets."""
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
