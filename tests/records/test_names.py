from keras_gradwatch.records.names import unique


def test_distinct_names_stay_as_they_are():
    assert unique(["b", "a", "a_1"]) == ["b", "a", "a_1"]
    assert unique([]) == []


def test_duplicates_are_numbered_in_order():
    names = ["q/kernel", "v", "q/kernel", "v", "q/kernel"]
    assert unique(names) == ["q/kernel", "v", "q/kernel_1", "v_1", "q/kernel_2"]


def test_a_suffix_passes_over_names_that_are_there():
    assert unique(["a", "a", "a_1"]) == ["a", "a_2", "a_1"]
    assert unique(["a_1", "a", "a"]) == ["a_1", "a", "a_2"]


def test_names_that_look_like_suffixed_ones_stay_distinct():
    names = ["a", "a", "a_1", "a_1", "a_1_1", "a"]
    assert unique(names) == ["a", "a_2", "a_1", "a_1_2", "a_1_1", "a_3"]
    assert len(set(unique(names * 3))) == 3 * len(names)


def test_takes_any_iterable_once():
    assert unique(name for name in ["a", "a"]) == ["a", "a_1"]


def test_many_duplicates_are_fast():
    distinct = unique(["a"] * 20_000)
    assert distinct[-1] == "a_19999"
