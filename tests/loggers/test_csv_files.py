"""Log files that other programs, a full disk or their owner have changed."""

import copy
import csv
import json
import resource

import pytest

from keras_gradwatch.callbacks import GradientHistory
from keras_gradwatch.loggers import CsvLog, JsonLinesLog
from keras_gradwatch.tensorboard import tags
from tests import helper


def logged(*logs):
    x, y = helper.regression_data(16)
    model = helper.regression()
    for log in logs:
        helper.fit(model, x, y, [GradientHistory(log=log, update_freq=1)])


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_that_are_longer_than_the_header_or_unfinished(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("step,own\n1,2,3\n4,5")
    logged(CsvLog(path, append=True))
    rows = rows_of(path)
    assert [row["step"] for row in rows] == ["1", "4", "0", "1"]
    assert [row["own"] for row in rows] == ["2", "5", "", ""]
    assert all(float(row[tags.GRAD_NORM]) > 0 for row in rows[2:])
    assert None not in rows[0] and [p.name for p in tmp_path.iterdir()] == ["x.csv"]


def test_a_line_that_is_unfinished_is_ended(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"step": 1')
    logged(JsonLinesLog(path, append=True))
    first, *lines = path.read_text().splitlines()
    assert first == '{"step": 1'
    assert [json.loads(line).get("step") for line in lines] == [0, 1, None]


def test_a_full_disk_leaves_a_table_as_it_is(tmp_path):
    path = tmp_path / "x.csv"
    text = "step,own\n" + "1,2\n" * 1000
    path.write_text(text)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError):
            CsvLog(path, append=True).on_begin(0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == text


def test_a_table_that_was_removed_is_begun_again(tmp_path):
    log = CsvLog(tmp_path / "logs" / "x.csv")
    logged(log)
    before = rows_of(log.path)
    (tmp_path / "logs" / "x.csv").unlink()
    logged(log)
    assert rows_of(log.path) == before and len(before) == 2


def test_a_copy_is_of_the_same_class(tmp_path):
    class Own(CsvLog):
        def __init__(self):
            super().__init__(tmp_path / "x.csv")
            self.factor = 3

    own = Own()
    logged(own)
    copied = copy.deepcopy(own)
    assert type(copied) is Own and copied.factor == 3
    logged(copied)
    assert len(rows_of(tmp_path / "x.csv")) == len(rows_of(tmp_path / "x-2.csv")) == 2
