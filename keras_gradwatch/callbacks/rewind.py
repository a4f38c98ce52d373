"""Rolling back to healthy weights when a skip comes too late."""

from keras_gradwatch.callbacks.responding import RespondingCallback
from keras_gradwatch.controller.plan import Request
from keras_gradwatch.controller.responses import Rewind
from keras_gradwatch.detectors import Collapse, Divergence
from keras_gradwatch.detectors.base import Detector, flatten
from keras_gradwatch.methods import number, whole


class RewindOnExplosion(RespondingCallback):
    """Rolls the run back to its last healthy snapshot, at a lower learning rate.

    It repairs harm that only shows later: a network that has collapsed, or a loss that
    has diverged. A run is also rolled back after 20 or more steps in a row with
    non-finite gradients, if chance is unlikely to explain them, and if at least one
    update was made since the last rollback. Steps with non-finite gradients are
    skipped.

    Weights, non-trainable state, slots, iterations, accumulators, averages and a loss
    scale are restored. Each rollback cuts the learning rate, except the first one of a
    `fit` if it is due to non-finite gradients. The data continue with the next batch,
    so the harmful batch is not repeated, and the step count of the monitor continues.

    If the loss has diverged, the snapshot is first tested for three steps. If the loss
    does not come down, the data or the loss function must have changed, and the run
    continues from where it was. The cut of the first rollback is undone after 1,000
    steps, unless another rollback comes first.

    The host acts when it reads the recorded steps, at most `update_freq` steps after
    the detector tripped. The test of a diverged loss takes three more steps, and near
    the end of an epoch waits for the next one.

    Two snapshots are kept in host memory, the first one and the newest healthy one,
    each as large as the weights and the optimizer's state. If the optimizer is not
    built when `fit` begins, the first snapshot does not contain it.

    Args:
        snapshot_freq: Steps between two snapshots, >= 1. Defaults to `200`.
        factor: Factor by which a rollback multiplies the learning rates, > 0 and < 1.
            Defaults to `0.25`.
        max_rewinds: Maximum number of rollbacks in one `fit`, >= 1. The next time, the
            weights are restored once more, and training is stopped. Defaults to `3`.
        min_lr: No learning rate is cut below this, >= 0. If `0`, none is cut below a
            thousandth of its original value. Defaults to `0.0`.
        update_freq: Steps after which the host reads the recorded steps, >= 1. Defaults
            to `50`.
        detector: `detectors.Detector` to follow. If `None`, `Collapse() |
            Divergence()`. Defaults to `None`.
        verbose: `0` prints nothing; `1` prints one line for each of the first
            three events of each kind and action and, if there are more, the total when
            `fit` ends. Defaults to `1`.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If `detector` is not a `Detector`.

    Example:

    ```python
    rewind = keras_gradwatch.callbacks.RewindOnExplosion(max_rewinds=2)
    model.fit(x, y, callbacks=[rewind])
    ```

    Reference: the restarts of PaLM's training (Chowdhery et al. 2022, arXiv 2204.02311,
    section 5.1), which went back about 100 steps and skipped about 200 to 500 batches.
    """

    def __init__(
        self,
        snapshot_freq: int = 200,
        factor: float = 0.25,
        max_rewinds: int = 3,
        min_lr: float = 0.0,
        update_freq: int = 50,
        detector: Detector | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__(detector, verbose)
        self.detectors = tuple(flatten(detector)) or (Collapse(), Divergence())
        self.snapshot_freq = whole(self, "snapshot_freq", snapshot_freq, at_least=1)
        self.factor = number(self, "factor", factor, above=0, below=1)
        self.max_rewinds = whole(self, "max_rewinds", max_rewinds, at_least=1)
        self.min_lr = number(self, "min_lr", min_lr, at_least=0)
        self.update_freq = whole(self, "update_freq", update_freq, at_least=1)

    def request(self):
        settings = self.snapshot_freq, self.max_rewinds, self.factor, self.min_lr
        rewind = Rewind(self.detectors, *settings)
        return Request("RewindOnExplosion", responses=(rewind,))
