from keras_gradwatch.tensorboard import tags


def test_global_scalars_have_the_names_that_users_rely_on():
    assert tags.SCALARS == (
        "gradwatch/grad_norm",
        "gradwatch/grad_norm_clipped",
        "gradwatch/grad_norm_max",
        "gradwatch/clip_factor",
        "gradwatch/clipped_share",
        "gradwatch/nonfinite_count",
        "gradwatch/learning_rate",
        "gradwatch/explosions",
        "gradwatch/loss",
    )
    assert tags.HEATMAP == "gradwatch/heatmap"
    assert tags.EVENTS == "gradwatch/events"


def test_tags_of_a_variable():
    name = "dense/kernel"
    assert tags.variable("norm", name) == "gradwatch_variables/norm/dense/kernel"
    assert tags.histogram(name) == "gradwatch_histograms/dense/kernel"
