import re

from keras_gradwatch.tensorboard import scalars_layout, tags

EVERY = (*tags.SCALARS, *tags.HOLDING)


def _charts():
    (category,) = scalars_layout().category
    assert category.title == "keras_gradwatch"
    return category.chart


def test_each_chart_matches_its_own_tags_and_no_other():
    # `re.match`, as TensorBoard does it.
    shown = [
        {
            tag
            for tag in EVERY
            if any(re.match(pattern, tag) for pattern in chart.multiline.tag)
        }
        for chart in _charts()
    ]
    assert shown == [
        {tags.GRAD_NORM_LOG10, tags.GRAD_NORM_CLIPPED_LOG10},
        {tags.LOSS},
        {tags.EXPLOSIONS, tags.NONFINITE_COUNT},
        {tags.LEARNING_RATE},
        {tags.HELD_SHARE, tags.HELD_BACK},
        {tags.GRAD_NORM, tags.GRAD_NORM_CLIPPED, tags.GRAD_NORM_MAX},
        {tags.CLIP_FACTOR, tags.CLIPPED_SHARE},
    ]


def test_one_pattern_matches_one_tag():
    for chart in _charts():
        for pattern in chart.multiline.tag:
            assert sum(bool(re.match(pattern, tag)) for tag in EVERY) == 1


def test_charts_have_different_titles():
    titles = [chart.title for chart in _charts()]
    assert all(titles) and len(set(titles)) == 7
