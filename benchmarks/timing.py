"""Time of `fit`, measured in pairs: variants take turns, in shuffled order."""

import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import keras
import numpy as np

BACKEND = keras.config.backend()
TITLES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
# After these `GradWatch` no longer looks at every step of a healthy run.
ATTENTIVE_STEPS = 100


class Clock(keras.callbacks.Callback):
    """Takes the time from the begin of the first batch to that of batch `steps`.

    It stands last in the list of callbacks: what the others do before the first batch
    (opening a file, a first snapshot) is paid once per `fit`, and what they do before
    a later one belongs to the steps. It has hooks at the begin of batches only, so
    that Keras reads no log for its sake.
    """

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            wait_for_device(self)
            self._begin = time.perf_counter()
        elif batch == self.steps:
            wait_for_device(self)
            self.steady = time.perf_counter() - self._begin


def wait_for_device(callback):
    """Returns when all steps so far have been computed."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.test.experimental.sync_devices()
    elif BACKEND == "jax":
        import jax

        # Asking a callback for its model brings the variables up to date.
        jax.block_until_ready([v.value for v in callback.model.variables])
    elif BACKEND == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


class Fit:
    """Trains one model for `steps` steps and one execution more, at each call.

    Args:
        model: A compiled model.
        samples: Function of a number of steps that returns `(x, y)`.
        batch_size: Samples in a step.
        steps: Steps that are timed. 200 steps include readings (every 50th step) and
            snapshots (every 200th) of `GradWatch()` as often as a long run does.
        callbacks: Of the model.
        around: Context manager that each `fit` runs in.
    """

    def __init__(
        self,
        model,
        samples,
        batch_size,
        steps,
        callbacks=(),
        around=contextlib.nullcontext,
    ):
        self.model, self.callbacks = model, list(callbacks)
        self._data = samples(steps + model.steps_per_execution)
        self._batch_size, self._steps, self._around = batch_size, steps, around

    def __call__(self, **options):
        """Returns `(ms a step, ms of the rest of this fit)`."""
        clock = Clock(self._steps)
        with self._around():
            begin = time.perf_counter()
            self.model.fit(
                *self._data,
                batch_size=self._batch_size,
                callbacks=[*self.callbacks, clock],
                shuffle=False,
                verbose=0,
                **options,
            )
            whole = time.perf_counter() - begin
        return 1e3 * clock.steady / self._steps, 1e3 * (whole - clock.steady)

    def warm_up(self):
        """Traces the step, and gets past what costs more at the begin of a run."""
        self(epochs=-(-ATTENTIVE_STEPS // self._steps))
        self()


def take_turns(fits, rounds):
    """Runs each of `fits` once a round, in shuffled order.

    Args:
        fits: Dict of name to a function that returns numbers.
        rounds: How many.

    Returns:
        Dict of name to array [rounds, numbers].
    """
    random, found = np.random.default_rng(0), {name: [] for name in fits}
    for _ in range(rounds):
        for name in random.permutation(list(fits)):
            found[name].append(fits[name]())
    return {name: np.asarray(values) for name, values in found.items()}


def ratio(times, base):
    """`(median, lower quartile, upper quartile)` of the ratios, round by round."""
    ratios = np.asarray(times) / np.asarray(base)
    return tuple(float(q) for q in np.quantile(ratios, [0.5, 0.25, 0.75]))


def more(times, base):
    """The median of the differences, round by round."""
    return statistics.median(np.asarray(times) - np.asarray(base))


def in_its_own_process(function, *arguments):
    """What `function` returns in a new process, which imports all anew."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


# -- What is kept ----------------------------------------------------------------------


def renew(folder, stem, measured):
    """Puts what is measured in the place of what was kept of the same models.

    Other models stay as they were, and so does what was measured on other backends.

    Args:
        folder: Where `{stem}.json` is read and written, or None.
        stem: The page's name.
        measured: Iterable of dicts with a `title`, one for each model. All so far are
            written after each.

    Returns:
        Dict of a backend's name to a dict of a model's title to what was measured.
    """
    results, kept = {}, folder and folder / f"{stem}.json"
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        if kept.exists():
            results = json.loads(kept.read_text(encoding="utf-8"))
    for result in measured:
        results.setdefault(BACKEND, {})[result["title"]] = result
        if folder:
            kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return results


def by_backend(results):
    """`(backend, its title, results of its models)` of each that was measured."""
    return [(b, title, results[b]) for b, title in TITLES.items() if b in results]


# -- The page --------------------------------------------------------------------------


def machine():
    """What it was measured on, in words."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        named = [line.split(":")[1].strip() for line in file if "model name" in line]
    processor = named[0] if named else platform.machine()
    module = __import__(BACKEND)
    versions = f"{module.__name__} {module.__version__}, Keras {keras.__version__}"
    parts = [f"{os.cpu_count()} cores ({processor})", *accelerators(), versions]
    return ", ".join(parts)


def accelerators():
    """The names of the GPUs that are used, a list."""
    if BACKEND == "tensorflow":
        from tensorflow import config

        found = config.list_physical_devices("GPU")
        details = map(config.experimental.get_device_details, found)
        return [one.get("device_name", "GPU") for one in details]
    if BACKEND == "jax":
        import jax

        return [d.device_kind for d in jax.devices() if d.platform != "cpu"]
    import torch

    count = torch.cuda.device_count()
    return [torch.cuda.get_device_name(i) for i in range(count)]


def command(script, arguments):
    """The command line of a benchmark, without where it writes to.

    Args:
        script: Its file's name.
        arguments: What it was called with, a list of str.
    """
    if "--out" in arguments:
        place = arguments.index("--out")
        arguments = arguments[:place] + arguments[place + 2 :]
    chosen = "" if BACKEND == "tensorflow" else f"KERAS_BACKEND={BACKEND} "
    return chosen + " ".join(["python", f"benchmarks/{script}", *arguments])


def table(head, rows):
    """A Markdown table, a list of lines."""
    rows = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def measured(script, arguments):
    """Lines that say on what and by which command the page was measured."""
    return [f"Measured on {machine()}, by", "", f"    {command(script, arguments)}", ""]


def write(folder, stem, lines):
    """Prints a page, and writes it to `folder` unless that is None."""
    page = "\n".join(lines).rstrip() + "\n"
    print(page)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.md").write_text(page, encoding="utf-8")


def file_stem(stem, backend=BACKEND):
    """The name of a file of one backend."""
    return stem if backend == "tensorflow" else f"{stem}_{backend}"


def pyplot():
    """Matplotlib's pyplot, drawing to files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
