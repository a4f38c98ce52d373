"""Recipes as people write them, on small data: each trains a model and scores it.

A recipe is a function of the callbacks for `fit`. It returns the score on data that it
has not trained on, higher is better, and the model. Nothing here is meant to blow up.
"""

import keras
import numpy as np
from keras import layers, ops, optimizers
from sklearn import datasets, metrics, preprocessing

RECIPES = {}


def recipe(title):
    """Registers a recipe under the name of its function."""

    def register(function):
        RECIPES[function.__name__] = (title, function)
        return function

    return register


# -- data ------------------------------------------------------------------------------


def split(x, y, seed=5):
    """`(x, y), (x, y)`: for training and for tests."""
    order = np.random.RandomState(seed).permutation(len(x))
    test, train = np.split(order, [len(x) // 4])
    return (x[train], y[train]), (x[test], y[test])


def digits():
    x, y = datasets.load_digits(return_X_y=True)
    return split((x / 16).astype("float32"), y.astype("int32"))


def images(size=8):
    (x, y), (x_test, y_test) = digits()
    a, b = x.reshape(-1, 8, 8, 1), x_test.reshape(-1, 8, 8, 1)
    if size > 8:
        a, b = (
            np.repeat(i.repeat(size // 8, 1).repeat(size // 8, 2), 3, 3) for i in (a, b)
        )
    return (a, y), (b, y_test)


def diabetes(scaled):
    x, y = datasets.load_diabetes(return_X_y=True)
    x = preprocessing.scale(x).astype("float32")
    y = y.astype("float32")[:, None]
    return split(x, (y - y.mean()) / y.std() if scaled else y)


def made_regression():
    x, y = datasets.make_regression(2000, 10, noise=5.0, random_state=3)
    return split(x.astype("float32"), y.astype("float32")[:, None])


def cancer():
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return split(preprocessing.scale(x).astype("float32"), y.astype("float32")[:, None])


def series():
    """Windows of 24 steps of noisy waves, and the step after them."""
    random = np.random.RandomState(0)
    start = random.uniform(0, 50, (1500, 1)) + np.arange(25)
    waves = np.sin(start / 3) + 0.5 * np.sin(start / 1.7)
    waves = (waves + 0.1 * random.normal(size=waves.shape)).astype("float32")
    return split(waves[:, :24, None], waves[:, 24:])


def text(length=32):
    """Windows of the docstrings of Keras's layers, and the characters that follow."""
    whole = "".join(getattr(layers, n).__doc__ or "" for n in sorted(dir(layers)))[
        :60000
    ]
    vocabulary = sorted(set(whole))
    codes = np.array([vocabulary.index(c) for c in whole], "int32")
    starts = np.arange(0, len(codes) - length - 1, length)
    x = np.stack([codes[s : s + length] for s in starts])
    y = np.stack([codes[s + 1 : s + length + 1] for s in starts])
    return split(x, y), len(vocabulary)


# -- scores ----------------------------------------------------------------------------


def accuracy(model, x, y):
    found = np.asarray(model.predict(x, verbose=0))
    return float((found.argmax(-1) == y).mean())


def explained(model, x, y):
    """R² of a regression, no less than -1."""
    found = np.asarray(model.predict(x, verbose=0)).reshape(y.shape)
    return max(-1.0, float(1 - ((found - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()))


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def classify(parts, optimizer, callbacks, data=None, epochs=12, batch=32, **options):
    """Trains a classifier of digits made of `parts`."""
    train, test = data or digits()
    model = keras.Sequential(
        [keras.Input(train[0].shape[1:]), *parts, layers.Dense(10)]
    )
    model.compile(optimizer, cross_entropy())
    model.fit(*train, batch, epochs, verbose=0, callbacks=callbacks, **options)
    return accuracy(model, *test), model


def regress(parts, optimizer, callbacks, data, epochs=40, batch=32, loss="mse"):
    train, test = data
    model = keras.Sequential([keras.Input(train[0].shape[1:]), *parts, layers.Dense(1)])
    model.compile(optimizer, loss)
    model.fit(*train, batch, epochs, verbose=0, callbacks=callbacks)
    return explained(model, *test), model


def dense(units=64, depth=2, activation="relu", **options):
    return [layers.Dense(units, activation, **options) for _ in range(depth)]


# -- regressions -----------------------------------------------------------------------


@recipe("linear regression, raw targets, SGD .05")
def linear_raw_sgd(callbacks):
    return regress([], optimizers.SGD(0.05), callbacks, diabetes(False))


@recipe("linear regression, raw targets, RMSprop 1")
def linear_raw_rmsprop(callbacks):
    return regress([], optimizers.RMSprop(1.0), callbacks, made_regression())


@recipe("linear regression, raw targets, Adam .5")
def linear_raw_adam(callbacks):
    return regress([], optimizers.Adam(0.5), callbacks, made_regression())


@recipe("linear regression, scaled targets, SGD .01")
def linear_scaled(callbacks):
    return regress([], optimizers.SGD(0.01), callbacks, diabetes(True))


@recipe("MLP regression, raw targets, Adam .01")
def mlp_raw_adam(callbacks):
    return regress(dense(), optimizers.Adam(0.01), callbacks, made_regression(), 15)


@recipe("MLP regression, raw targets, RMSprop .001")
def mlp_raw_rmsprop(callbacks):
    return regress(dense(), optimizers.RMSprop(0.001), callbacks, made_regression(), 30)


@recipe("MLP regression, raw targets, SGD .0001")
def mlp_raw_sgd(callbacks):
    return regress(dense(32, 1), optimizers.SGD(1e-4), callbacks, made_regression(), 30)


@recipe("MLP regression, scaled targets, SGD .05 momentum .9")
def mlp_scaled_sgd(callbacks):
    return regress(
        dense(16, 1), optimizers.SGD(0.05, 0.9), callbacks, diabetes(True), 20
    )


@recipe("MLP regression, raw targets, Huber, Adam .003")
def huber(callbacks):
    data = diabetes(False)
    return regress(dense(32), optimizers.Adam(0.003), callbacks, data, 60, loss="huber")


@recipe("GRU on noisy waves, Adam .003")
def gru_series(callbacks):
    return regress([layers.GRU(24)], optimizers.Adam(0.003), callbacks, series(), 6)


@recipe("simple recurrent network on noisy waves, RMSprop .001")
def rnn_series(callbacks):
    parts = [layers.SimpleRNN(32)]
    return regress(parts, optimizers.RMSprop(0.001), callbacks, series(), 8)


@recipe("one-dimensional convolutions on noisy waves, Adam .003")
def conv_series(callbacks):
    parts = [layers.Conv1D(16, 5, activation="relu"), layers.Flatten()]
    return regress(parts, optimizers.Adam(0.003), callbacks, series(), 10)


# -- classifiers -----------------------------------------------------------------------


@recipe("MLP, SGD .1 momentum .9")
def mlp_momentum(callbacks):
    return classify(dense(), optimizers.SGD(0.1, 0.9), callbacks)


@recipe("MLP, SGD .5")
def mlp_sgd(callbacks):
    return classify(dense(), optimizers.SGD(0.5), callbacks)


@recipe("MLP, Adam .001")
def mlp_adam(callbacks):
    return classify(dense(), optimizers.Adam(0.001), callbacks)


@recipe("MLP, AdamW .003")
def mlp_adamw(callbacks):
    return classify(dense(), optimizers.AdamW(0.003), callbacks)


@recipe("MLP, Lion .0005")
def mlp_lion(callbacks):
    return classify(dense(), optimizers.Lion(5e-4), callbacks)


@recipe("MLP, Muon .01")
def mlp_muon(callbacks):
    return classify(dense(), optimizers.Muon(0.01), callbacks)


@recipe("MLP, eight tanh layers, Adam .001")
def deep_tanh(callbacks):
    return classify(dense(48, 8, "tanh"), optimizers.Adam(0.001), callbacks)


@recipe("MLP, self-normalizing, SGD .05")
def selu(callbacks):
    parts = dense(64, 6, "selu", kernel_initializer="lecun_normal")
    return classify(parts, optimizers.SGD(0.05), callbacks)


@recipe("MLP, batch size 1, SGD .01")
def batch_one(callbacks):
    return classify(dense(32, 1), optimizers.SGD(0.01), callbacks, epochs=2, batch=1)


@recipe("MLP, a third of the labels at random, Adam .003")
def noisy_labels(callbacks):
    (x, y), test = digits()
    random = np.random.RandomState(1)
    y = np.where(random.random(len(y)) < 0.33, random.randint(0, 10, len(y)), y)
    return classify(dense(), optimizers.Adam(0.003), callbacks, ((x, y), test))


@recipe("MLP, class weights from .2 to 20, Adam .003")
def class_weights(callbacks):
    weight = {c: 0.2 * 10 ** (2 * c / 9) for c in range(10)}
    adam = optimizers.Adam(0.003)
    return classify(dense(), adam, callbacks, class_weight=weight)


@recipe("MLP, dropout .5, Adam .003")
def dropout(callbacks):
    parts = [layers.Dense(128, "relu"), layers.Dropout(0.5)]
    parts += [layers.Dense(128, "relu"), layers.Dropout(0.5)]
    return classify(parts, optimizers.Adam(0.003), callbacks)


@recipe("MLP, inputs 0 to 255, Adam .001")
def unscaled_inputs(callbacks):
    (x, y), (x_test, y_test) = digits()
    data = (255 * x, y), (255 * x_test, y_test)
    return classify(dense(), optimizers.Adam(0.001), callbacks, data)


@recipe("MLP, warm-up to .01 and cosine decay, Adam")
def warmup_cosine(callbacks):
    rate = optimizers.schedules.CosineDecay(
        0.0, 400, warmup_target=0.01, warmup_steps=60
    )
    return classify(dense(), optimizers.Adam(rate), callbacks)


@recipe("MLP, rate in steps .1, .01, .001, SGD momentum .9")
def step_schedule(callbacks):
    rate = optimizers.schedules.PiecewiseConstantDecay([150, 350], [0.1, 0.01, 0.001])
    return classify(dense(), optimizers.SGD(rate, 0.9), callbacks)


@recipe("MLP, four batches to an update, Adam .003")
def accumulation(callbacks):
    adam = optimizers.Adam(0.003, gradient_accumulation_steps=4)
    return classify(dense(), adam, callbacks, batch=8)


@recipe("MLP, mixed_float16, Adam .001")
def mixed_float16(callbacks):
    parts = dense(dtype="mixed_float16")
    adam = optimizers.LossScaleOptimizer(optimizers.Adam(0.001))
    return classify(parts, adam, callbacks)


@recipe("logistic regression, SGD .5")
def logistic(callbacks):
    train, test = cancer()
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, "sigmoid")])
    model.compile(optimizers.SGD(0.5), "binary_crossentropy")
    model.fit(*train, 32, 20, verbose=0, callbacks=callbacks)
    found = np.asarray(model.predict(test[0], verbose=0))
    return float(((found > 0.5) == (test[1] > 0.5)).mean()), model


@recipe("hinge loss on breast cancer, SGD .1")
def hinge(callbacks):
    train, test = cancer()
    model = keras.Sequential([keras.Input((30,)), *dense(16, 1), layers.Dense(1)])
    model.compile(optimizers.SGD(0.1), "hinge")
    model.fit(*train, 32, 15, verbose=0, callbacks=callbacks)
    found = np.asarray(model.predict(test[0], verbose=0))
    return float(((found > 0) == (test[1] > 0.5)).mean()), model


# -- images ----------------------------------------------------------------------------


@recipe("two convolutions, Adam .003")
def cnn(callbacks):
    parts = [layers.Conv2D(16, 3, activation="relu"), layers.MaxPool2D()]
    parts += [layers.Flatten(), layers.Dense(32, "relu")]
    return classify(parts, optimizers.Adam(0.003), callbacks, images(), 8)


@recipe("three convolutions with batch normalization, SGD .1 momentum .9")
def cnn_batch_norm(callbacks):
    parts = []
    for filters in (16, 32, 32):
        parts += [layers.Conv2D(filters, 3, padding="same", use_bias=False)]
        parts += [layers.BatchNormalization(), layers.ReLU()]
    parts.append(layers.GlobalAveragePooling2D())
    return classify(parts, optimizers.SGD(0.1, 0.9), callbacks, images(), 8)


def residual(inputs, zero=False):
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    for _ in range(4):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(16, 3, padding="same", use_bias=False)(y)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        initializer = "zeros" if zero else "glorot_uniform"
        y = layers.Conv2D(16, 3, padding="same", kernel_initializer=initializer)(y)
        x = layers.Add()([x, y])
    return layers.GlobalAveragePooling2D()(x)


def functional(inputs, outputs, optimizer, callbacks, data, epochs, batch=32):
    train, test = data
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, cross_entropy())
    model.fit(*train, batch, epochs, verbose=0, callbacks=callbacks)
    return accuracy(model, *test), model


@recipe("residual network, SGD .1 momentum .9")
def resnet(callbacks):
    inputs = keras.Input((8, 8, 1))
    outputs = layers.Dense(10)(residual(inputs))
    sgd = optimizers.SGD(0.1, 0.9)
    return functional(inputs, outputs, sgd, callbacks, images(), 6)


@recipe("residual branches that begin at zero, Adam .003")
def zero_branches(callbacks):
    inputs = keras.Input((8, 8, 1))
    outputs = layers.Dense(10)(residual(inputs, zero=True))
    adam = optimizers.Adam(0.003)
    return functional(inputs, outputs, adam, callbacks, images(), 6)


@recipe("ConvNeXt blocks, AdamW .003")
def convnext(callbacks):
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(24, 2, 2)(x)
    for _ in range(3):
        y = layers.DepthwiseConv2D(3, padding="same")(x)
        y = layers.Dense(96, "gelu")(layers.LayerNormalization(epsilon=1e-6)(y))
        x = layers.Add()([x, layers.Dense(24)(y)])
    outputs = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    adam = optimizers.AdamW(0.003)
    return functional(inputs, outputs, adam, callbacks, images(), 8)


@recipe("vision transformer, AdamW .001")
def vit(callbacks):
    inputs = keras.Input((8, 8, 1))
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 2, 2)(inputs))
    x = x + layers.Embedding(16, 32)(ops.arange(16)[None])
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(2, 16)(y, y)
        y = layers.Dense(64, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(32)(y)
    outputs = layers.Dense(10)(layers.GlobalAveragePooling1D()(x))
    adam = optimizers.AdamW(0.001)
    return functional(inputs, outputs, adam, callbacks, images(), 10)


def application(make, optimizer, callbacks, epochs=3, size=32):
    base = make(
        input_shape=(size, size, 3), weights=None, include_top=False, pooling="avg"
    )
    outputs = layers.Dense(10)(base.output)
    data = images(size)
    return functional(base.input, outputs, optimizer, callbacks, data, epochs)


@recipe("MobileNetV2, SGD .1 momentum .9")
def mobilenet_v2(callbacks):
    sgd = optimizers.SGD(0.1, 0.9)
    return application(keras.applications.MobileNetV2, sgd, callbacks)


@recipe("MobileNetV3Small, Adam .001")
def mobilenet_v3(callbacks):
    adam = optimizers.Adam(0.001)
    return application(keras.applications.MobileNetV3Small, adam, callbacks)


@recipe("EfficientNetB0, Adam .001")
def efficientnet(callbacks):
    adam = optimizers.Adam(0.001)
    return application(keras.applications.EfficientNetB0, adam, callbacks, 2)


@recipe("ResNet50, SGD .05 momentum .9")
def resnet50(callbacks):
    sgd = optimizers.SGD(0.05, 0.9)
    return application(keras.applications.ResNet50, sgd, callbacks, 2)


@recipe("DenseNet121, SGD .1 momentum .9")
def densenet(callbacks):
    sgd = optimizers.SGD(0.1, 0.9)
    return application(keras.applications.DenseNet121, sgd, callbacks, 2)


@recipe("convolutional autoencoder, Adam .003")
def autoencoder(callbacks):
    (x, _), (x_test, _) = images()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, 2, padding="same", activation="relu"),
            layers.Conv2D(8, 3, 2, padding="same", activation="relu"),
            layers.Conv2DTranspose(16, 3, 2, padding="same", activation="relu"),
            layers.Conv2DTranspose(1, 3, 2, padding="same", activation="sigmoid"),
        ]
    )
    model.compile(optimizers.Adam(0.003), "binary_crossentropy")
    model.fit(x, x, 32, 8, verbose=0, callbacks=callbacks)
    return explained(model, x_test, x_test), model


# -- text ------------------------------------------------------------------------------


def language_model(x, outputs, optimizer, callbacks, data, size, epochs):
    train, test = data
    model = keras.Model(x, layers.Dense(size)(outputs))
    model.compile(optimizer, cross_entropy())
    model.fit(*train, 32, epochs, verbose=0, callbacks=callbacks)
    return accuracy(model, *test), model


@recipe("transformer language model, Adam .002")
def transformer(callbacks):
    data, size = text()
    inputs = keras.Input((32,), dtype="int32")
    x = layers.Embedding(size, 64)(inputs)
    x = x + layers.Embedding(32, 64)(ops.arange(32)[None])
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 16)(y, y, use_causal_mask=True)
        y = layers.Dense(128, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(64)(y)
    x = layers.LayerNormalization()(x)
    adam = optimizers.Adam(0.002)
    return language_model(inputs, x, adam, callbacks, data, size, 5)


@recipe("LSTM language model, Adam .005")
def lstm_text(callbacks):
    data, size = text()
    inputs = keras.Input((32,), dtype="int32")
    x = layers.LSTM(64, return_sequences=True)(layers.Embedding(size, 32)(inputs))
    adam = optimizers.Adam(0.005)
    return language_model(inputs, x, adam, callbacks, data, size, 4)


@recipe("embeddings of characters, Adagrad .5")
def adagrad_embeddings(callbacks):
    data, size = text()
    inputs = keras.Input((32,), dtype="int32")
    x = layers.Embedding(size, 32)(inputs)
    adagrad = optimizers.Adagrad(0.5)
    return language_model(inputs, x, adagrad, callbacks, data, size, 5)


# -- more than one fit, or one optimizer -----------------------------------------------


@recipe("a base trained, frozen for another task, then unfrozen")
def fine_tuning(callbacks):
    (x, y), (x_test, y_test) = digits()
    low, low_test = y < 5, y_test < 5
    base = keras.Sequential([keras.Input((64,)), *dense()])
    model = keras.Sequential([base, layers.Dense(5)])
    model.compile(optimizers.Adam(0.003), cross_entropy())
    model.fit(x[low], y[low], 32, 8, verbose=0, callbacks=callbacks)
    base.trainable = False
    model = keras.Sequential([base, layers.Dense(5)])
    for rate, epochs in ((0.01, 8), (0.001, 8)):
        model.compile(optimizers.Adam(rate), cross_entropy())
        model.fit(x[~low], y[~low] - 5, 32, epochs, verbose=0, callbacks=callbacks)
        base.trainable = True
    return accuracy(model, x_test[~low_test], y_test[~low_test] - 5), model


@recipe("LoRA on a trained MLP, Adam .01")
def lora(callbacks):
    (x, y), test = digits()
    parts = dense(128)
    _, model = classify(parts, optimizers.Adam(0.003), [], epochs=2)
    for part in parts:
        part.enable_lora(4)
    model.compile(optimizers.Adam(0.01), cross_entropy())
    model.fit(x, y, 32, 8, verbose=0, callbacks=callbacks)
    return accuracy(model, *test), model


@recipe("one epoch a fit, twelve times, Adam .003")
def many_fits(callbacks):
    (x, y), test = digits()
    model = keras.Sequential([keras.Input((64,)), *dense(), layers.Dense(10)])
    model.compile(optimizers.Adam(0.003), cross_entropy())
    for _ in range(12):
        model.fit(x, y, 32, verbose=0, callbacks=callbacks)
    return accuracy(model, *test), model


def rare(size, seed, fraction):
    """Rows of which a fraction is of another class: shifted in six of 16 columns."""
    random = np.random.RandomState(seed)
    y = (random.rand(size) < fraction).astype("float32")[:, None]
    x = random.normal(size=(size, 16)).astype("float32")
    x[:, :6] += 1.5 * y
    return x, y


def rare_class(callbacks, weight, optimizer):
    """The average precision of a class that one row in 500 has."""
    x, y = rare(24000, 3, 0.002)
    model = keras.Sequential(
        [keras.Input((16,)), *dense(32), layers.Dense(1, "sigmoid")]
    )
    model.compile(optimizer, "binary_crossentropy")
    weights = {0: 1.0, 1: weight}
    model.fit(x, y, 32, 5, verbose=0, callbacks=callbacks, class_weight=weights)
    x, y = rare(24000, 4, 0.002)
    found = np.asarray(model.predict(x, 1024, verbose=0))
    return float(metrics.average_precision_score(y, found)), model


@recipe("one row in 500 of a rare class, Adam .001")
def rare_class_adam(callbacks):
    return rare_class(callbacks, 1.0, optimizers.Adam(0.001))


@recipe("one row in 500 of a rare class, class weight 300, Adam .001")
def rare_class_weighted(callbacks):
    return rare_class(callbacks, 300.0, optimizers.Adam(0.001))


@recipe("one row in 500 of a rare class, SGD .01 momentum .9")
def rare_class_sgd(callbacks):
    return rare_class(callbacks, 1.0, optimizers.SGD(0.01, 0.9))


def rare_targets(size, seed):
    """Targets of unit size, but for one row in 500: about 300, known from a column."""
    random = np.random.RandomState(seed)
    x = random.normal(size=(size, 8)).astype("float32")
    x[:, 0] = random.rand(size) < 0.002
    y = x[:, 1:].sum(1) + 300 * x[:, 0] + 0.3 * random.normal(size=size)
    return x, y.astype("float32")[:, None]


@recipe("one target in 500 is a hundred times as large, SGD .0001 momentum .9")
def rare_targets_sgd(callbacks):
    data = rare_targets(12800, 3), rare_targets(12800, 4)
    return regress(dense(32), optimizers.SGD(1e-4, 0.9), callbacks, data, 5)


@recipe("one target in 500 is a hundred times as large, Adam .003")
def rare_targets_adam(callbacks):
    data = rare_targets(12800, 3), rare_targets(12800, 4)
    return regress(dense(32), optimizers.Adam(0.003), callbacks, data, 5)


@recipe("targets of a log-normal distribution, Adam .003")
def heavy_tail(callbacks):
    random = np.random.RandomState(3)
    x = random.normal(size=(8000, 8)).astype("float32")
    y = np.exp(1.5 * x[:, :2].sum(1) + 0.3 * random.normal(size=8000))
    data = split(x, y.astype("float32")[:, None])
    return regress(dense(32), optimizers.Adam(0.003), callbacks, data, 15)


class Sampling(layers.Layer):
    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        mean, spread = inputs
        penalty = 1 + spread - ops.square(mean) - ops.exp(spread)
        self.add_loss(-0.5 * ops.mean(ops.sum(penalty, axis=1)))
        noise = keras.random.normal(ops.shape(mean), seed=self.generator)
        return mean + ops.exp(0.5 * spread) * noise


@recipe("variational autoencoder, Adam .003")
def vae(callbacks):
    (x, _), (x_test, _) = digits()
    inputs = keras.Input((64,))
    hidden = layers.Dense(64, "relu")(inputs)
    code = Sampling()([layers.Dense(6)(hidden), layers.Dense(6)(hidden)])
    outputs = layers.Dense(64, "sigmoid")(layers.Dense(64, "relu")(code))
    model = keras.Model(inputs, outputs)

    def loss(y, p):
        return 64 * keras.losses.binary_crossentropy(y, p)

    model.compile(optimizers.Adam(0.003), loss)
    model.fit(x, x, 32, 15, verbose=0, callbacks=callbacks)
    return explained(model, x_test, x_test), model


def chain():
    """A walk on 8 places with a reward at one end: states, and the values wanted."""
    places = np.eye(8, dtype="float32")
    values = np.zeros(8)
    for _ in range(200):
        right = np.append(values[1:], 0.0)
        left = np.insert(values[:-1], 0, 0.0)
        rewards = np.append(np.zeros(7), 1.0)
        values = np.maximum(rewards + 0.9 * right, 0.9 * left)
    return places, values


def q_learning(callbacks, keep):
    """Q learning by many short fits; the target follows every `keep`-th."""
    places, wanted = chain()
    model = keras.Sequential([keras.Input((8,)), *dense(32, 1), layers.Dense(2)])
    model.compile(optimizers.Adam(0.01), "mse")
    random, frozen = np.random.RandomState(0), None
    for step in range(60):
        if step % keep == 0:
            frozen = np.asarray(model.predict_on_batch(places)).max(1)
        at = random.randint(0, 8, 160)
        right = np.where(at == 7, 0.0, frozen[np.minimum(at + 1, 7)])
        left = np.where(at == 0, 0.0, frozen[np.maximum(at - 1, 0)])
        targets = np.stack([0.9 * left, (at == 7) + 0.9 * right], 1).astype("float32")
        model.fit(places[at], targets, 16, verbose=0, callbacks=callbacks)
    found = np.asarray(model.predict_on_batch(places)).max(1)
    return 1 - float(np.abs(found - wanted).mean() / wanted.mean()), model


@recipe("Q-learning with a target network, Adam .01")
def dqn(callbacks):
    return q_learning(callbacks, 5)


@recipe("Q-learning without a target network, Adam .01")
def dqn_without_target(callbacks):
    return q_learning(callbacks, 1)


if keras.config.backend() == "tensorflow":
    import recipe_gans

    recipe("GAN on a ring of 8 modes, Adam .001")(recipe_gans.gan)
    recipe("WGAN-GP on a ring of 8 modes, Adam .001")(recipe_gans.wgan_gp)
