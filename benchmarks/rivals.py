"""What people write by themselves to see or clip gradients, on TensorFlow."""

import contextlib

import keras
import tensorflow as tf


class Rival(keras.Model):
    """A model with the usual `train_step` of one's own, in functional style."""

    def handle(self, gradients, variables):
        """Looks at the gradients, and returns what is to be applied."""
        raise NotImplementedError

    def update(self, gradients, variables):
        """Applies the gradients."""
        self.optimizer.apply(gradients, variables)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
        variables = self.trainable_variables
        gradients = self.handle(tape.gradient(loss, variables), variables)
        self.update(gradients, variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def hand_written(log_dir):
    """Class of model that writes the norm of each gradient to TensorBoard."""
    writer = tf.summary.create_file_writer(str(log_dir))

    class HandWritten(Rival):
        def handle(self, gradients, variables):
            step = tf.cast(self.optimizer.iterations.value, "int64")
            with writer.as_default():
                for gradient, variable in zip(gradients, variables, strict=True):
                    norm = tf.linalg.global_norm([gradient])
                    tf.summary.scalar(f"norm/{variable.path}", norm, step=step)
                tf.summary.scalar("norm", tf.linalg.global_norm(gradients), step=step)
            return gradients

    return HandWritten


def auto_clip(percentile=10, history_size=10_000):
    """Class of model that clips to a percentile of all norms so far.

    AutoClip (Seetharaman et al. 2020) as its authors' TensorFlow version has it: the
    history is a variable, of which the part that is filled is sorted at every step, and
    each gradient is clipped to the percentile by itself.
    """

    class AutoClip(Rival):
        def compile(self, *args, **kwargs):
            self.norms = tf.Variable(tf.zeros(history_size), trainable=False)
            self.count = tf.Variable(0, trainable=False)
            super().compile(*args, **kwargs)

        def handle(self, gradients, variables):
            place = tf.math.mod(self.count, history_size)
            self.norms.scatter_nd_update([[place]], [tf.linalg.global_norm(gradients)])
            known = tf.minimum(self.count.assign_add(1), history_size)
            ordered = tf.sort(self.norms[:known])
            rank = tf.cast(known - 1, "float32") * (percentile / 100)
            limit = ordered[tf.cast(tf.round(rank), "int32")]
            return [tf.clip_by_norm(gradient, limit) for gradient in gradients]

    return AutoClip


def least_guard():
    """Class of model whose steps leave out an update that is not finite, and no more.

    Whatever protects a run in the step in which something goes wrong makes the update
    wait for all gradients, looks at each of them, and branches.
    """

    class LeastGuard(Rival):
        def handle(self, gradients, variables):
            return gradients

        def update(self, gradients, variables):
            if not self.optimizer.built:
                self.optimizer.build(variables)

            def apply():
                self.optimizer.apply(gradients, variables)
                return 0

            finite = tf.math.is_finite(tf.linalg.global_norm(gradients))
            tf.cond(finite, apply, lambda: 0)

    return LeastGuard


@contextlib.contextmanager
def check_numerics():
    """Checks every floating-point output of what is traced, and run, inside.

    A step that was traced inside keeps its checks, one that was traced outside gets
    none: so a model that always trains inside can take turns with others.
    """
    tf.debugging.enable_check_numerics()
    try:
        yield
    finally:
        tf.debugging.disable_check_numerics()
