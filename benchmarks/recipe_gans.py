"""Adversarial recipes, with a training step of their own on TensorFlow.

Both learn a ring of eight modes in the plane. The score is 1 minus the distance of
generated points from held-out ones, relative to that of points in the centre: a sliced
Wasserstein distance.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, optimizers

MODES, CODE, DIRECTIONS = 8, 4, 64
PENALTY, CRITIC_STEPS = 10.0, 3


def ring(size, seed):
    """Points [size, 2] around eight places of a circle of radius 1."""
    random = np.random.RandomState(seed)
    angles = 2 * np.pi * random.randint(0, MODES, size) / MODES
    centres = np.stack([np.cos(angles), np.sin(angles)], 1)
    return (centres + 0.05 * random.normal(size=(size, 2))).astype("float32")


def distance(a, b):
    """The sliced Wasserstein distance of two sets of points [n, 2]."""
    angles = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    along = np.stack([np.cos(angles), np.sin(angles)])
    return np.abs(np.sort(a @ along, 0) - np.sort(b @ along, 0)).mean()


def score(model):
    real, noise = ring(2000, 2), np.random.RandomState(3).normal(size=(2000, CODE))
    made = np.asarray(model.generator(noise.astype("float32")))
    return 1 - float(distance(made, real) / distance(np.zeros_like(real), real))


def network(inputs, outputs, activation):
    hidden = [layers.Dense(64, activation) for _ in range(2)]
    return keras.Sequential([keras.Input((inputs,)), *hidden, layers.Dense(outputs)])


class Gan(keras.Model):
    """A generator and a discriminator with an optimizer each."""

    def __init__(self, make):
        super().__init__()
        self.generator = network(CODE, 2, "relu")
        self.critic = network(2, 1, layers.LeakyReLU())
        self.critic_optimizer = make()
        self.noise = keras.random.SeedGenerator(1)

    def call(self, codes):
        return self.generator(codes)

    def codes(self, real):
        return keras.random.normal((tf.shape(real)[0], CODE), seed=self.noise)

    def losses_of(self, real, made):
        """Those of the critic and of the generator."""
        on_real, on_made = self.critic(real), self.critic(made)
        lost = tf.reduce_mean(tf.nn.softplus(-on_real) + tf.nn.softplus(on_made))
        return lost, tf.reduce_mean(tf.nn.softplus(-on_made))

    def train_step(self, real):
        codes = self.codes(real)
        with tf.GradientTape(persistent=True) as tape:
            critic_loss, generator_loss = self.losses_of(real, self.generator(codes))
        self._improve(tape, self.critic_optimizer, self.critic, critic_loss)
        self._improve(tape, self.optimizer, self.generator, generator_loss)
        return {"critic_loss": critic_loss, "generator_loss": generator_loss}

    def _improve(self, tape, optimizer, part, loss):
        variables = part.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)


class WassersteinGan(Gan):
    """With a gradient penalty, and several steps of the critic for each other one.

    Reference: Gulrajani et al. 2017, arXiv 1704.00028, algorithm 1.
    """

    def train_step(self, real):
        for _ in range(CRITIC_STEPS):
            with tf.GradientTape() as tape:
                critic_loss = self._critic_loss(real)
            self._improve(tape, self.critic_optimizer, self.critic, critic_loss)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.critic(self.generator(self.codes(real))))
        self._improve(tape, self.optimizer, self.generator, loss)
        return {"critic_loss": critic_loss, "generator_loss": loss}

    def _critic_loss(self, real):
        made = self.generator(self.codes(real))
        share = keras.random.uniform((tf.shape(real)[0], 1), seed=self.noise)
        between = share * real + (1 - share) * made
        with tf.GradientTape() as tape:
            tape.watch(between)
            value = self.critic(between)
        norms = tf.norm(tape.gradient(value, between), axis=1)
        penalty = PENALTY * tf.reduce_mean((norms - 1.0) ** 2)
        difference = tf.reduce_mean(self.critic(made)) - tf.reduce_mean(
            self.critic(real)
        )
        return difference + penalty


def train(kind, make, callbacks, epochs):
    model = kind(make)
    model.compile(make())
    model.fit(
        ring(4096, 1), batch_size=64, epochs=epochs, verbose=0, callbacks=callbacks
    )
    return score(model), model


def gan(callbacks):
    return train(Gan, lambda: optimizers.Adam(0.001, beta_1=0.5), callbacks, 30)


def wgan_gp(callbacks):
    def make():
        return optimizers.Adam(0.001, beta_1=0.0, beta_2=0.9)

    return train(WassersteinGan, make, callbacks, 20)
