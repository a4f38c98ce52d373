from keras_gradwatch.tensorboard import tags


def test_global_scalars_have_the_names_that_users_rely_on():
    assert tags.SCALARS == (
        "gradwatch/grad_norm",
        "gradwatch/grad_norm_clipped",
        "gradwatch/grad_norm_max",
        "gradwatch/grad_norm_log10",
        "gradwatch/grad_norm_clipped_log10",
        "gradwatch/clip_factor",
        "gradwatch/clipped_share",
        "gradwatch/nonfinite_count",
        "gradwatch/learning_rate",
        "gradwatch/explosions",
        "gradwatch/loss",
    )
    assert tags.HEATMAP == "gradwatch/heatmap"
    assert tags.EVENTS == "gradwatch/events"
    assert tags.REPORT == "gradwatch/report"


def test_variables_are_grouped_by_layer_the_largest_first():
    names = ["m/small/kernel", "m/small/bias", "m/large/kernel", "m/large/bias", "w"]
    sections = tags.sections(names, (6, 2, 6, 3, 1))
    assert [tags.variable(sections, name, "norm") for name in names] == [
        "gradwatch_layer_02_m.small/kernel/norm",
        "gradwatch_layer_02_m.small/bias/norm",
        "gradwatch_layer_01_m.large/kernel/norm",
        "gradwatch_layer_01_m.large/bias/norm",
        "gradwatch_layer_03_w/w/norm",
    ]


def test_a_section_keeps_its_name_when_layers_are_unfrozen():
    first = tags.sections(["m/head/kernel"], (3,))
    then = tags.sections(["m/base/kernel", "m/head/kernel"], (9, 3), first)
    assert then == {
        "m/head": "gradwatch_layer_01_m.head",
        "m/base": "gradwatch_layer_02_m.base",
    }
