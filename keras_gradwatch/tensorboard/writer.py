"""Writing TensorBoard event files without TensorFlow.

TensorBoard's own `EventFileWriter` opens its file with TensorFlow if that is installed,
and has a thread that may hold events back for two minutes. This uses `RecordWriter`,
which lies beneath it, on a plain file: no thread, no delay.
"""

import io
import time
import weakref

import numpy as np
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from keras_gradwatch.tensorboard.event_file import open_new_file


class EventWriter:
    """Writes one TensorBoard event file, whose first step is `first_step`.

    The file opens with `SessionLog.START`: after a crash and a resume, TensorBoard
    drops the points of earlier files from that step on, instead of showing them twice.

    Write the steps of a tag in ascending order, with one value per step: TensorBoard's
    fast loader takes any other step for a restart, and drops the points from there on.

    Raises ValueError if `log_dir` cannot be written.
    """

    def __init__(self, log_dir, first_step):
        self._first_step, self._described = first_step, set()
        self.path, file = open_new_file(log_dir)
        # Ctrl-C ends `fit` without a word to its callbacks: then `close` is not called.
        weakref.finalize(self, file.close)
        self._records = RecordWriter(file)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(file_version="brain.Event:2")
        self._write(step=first_step, session_log=start)
        self.flush()

    def scalars(self, step, values):
        """Writes scalars of one step, a dict from tag to float, in one record."""
        # A float64 beyond float32's range becomes inf; that is what it is here.
        with np.errstate(over="ignore"):
            tensors = {
                tag: tensor_pb2.TensorProto(
                    dtype=types_pb2.DT_FLOAT,
                    tensor_shape={},
                    float_val=[np.float32(value)],
                )
                for tag, value in values.items()
            }
        self._add(
            step,
            tensors,
            scalar_metadata.create_summary_metadata(None, None),
            summary_pb2.DATA_CLASS_SCALAR,
        )

    def histogram(self, tag, step, counts, edges):
        """Writes a histogram with `counts` [B] and ascending bin `edges` [B+1]."""
        rows = np.stack([edges[:-1], edges[1:], counts], axis=1).astype("float64")
        self._add(
            step,
            {tag: tensor_util.make_tensor_proto(rows)},
            histogram_metadata.create_summary_metadata(None, None),
            summary_pb2.DATA_CLASS_TENSOR,
        )

    def image(self, tag, step, rgb):
        """Writes an RGB image, uint8 [H, W, 3], as a PNG with 256 colors."""
        png = io.BytesIO()
        # With 256 colours a heatmap takes a fifth of the bytes, and half of the time.
        picture = Image.fromarray(rgb).quantize(256, Image.Quantize.FASTOCTREE)
        picture.save(png, format="PNG")
        height, width = rgb.shape[:2]
        content = [str(width).encode(), str(height).encode(), png.getvalue()]
        self._add(
            step,
            {tag: tensor_util.make_tensor_proto(content)},
            image_metadata.create_summary_metadata(None, None),
            summary_pb2.DATA_CLASS_BLOB_SEQUENCE,
        )

    def text(self, tag, step, markdown):
        """Writes a Markdown text."""
        self._add(
            step,
            {tag: tensor_util.make_tensor_proto(markdown.encode())},
            text_metadata.create_summary_metadata(None, None),
            summary_pb2.DATA_CLASS_TENSOR,
        )

    def layout(self, scalars_layout):
        """Writes the `Layout` of the custom-scalars dashboard, once per file."""
        content = scalars_layout.SerializeToString()
        self._add(
            self._first_step,
            {
                layout_metadata.CONFIG_SUMMARY_TAG: tensor_util.make_tensor_proto(
                    content
                )
            },
            layout_metadata.create_summary_metadata(),
            summary_pb2.DATA_CLASS_TENSOR,
        )

    def flush(self):
        """Passes all records to the operating system: readers see them from then on."""
        self._records.flush()

    def close(self):
        """Flushes and closes the file; may be called again."""
        self._records.close()

    def _add(self, step, tensors, metadata, data_class):
        metadata.data_class = data_class
        summary = summary_pb2.Summary()
        for tag, tensor in tensors.items():
            # Both of TensorBoard's loaders keep a tag's first metadata, so one copy a
            # file is enough; with one copy a value, files would be a third larger.
            described = tag in self._described
            summary.value.add(
                tag=tag, tensor=tensor, metadata=None if described else metadata
            )
        self._write(step=step, summary=summary)
        self._described.update(tensors)

    def _write(self, **content):
        event = event_pb2.Event(wall_time=time.time(), **content)
        self._records.write(event.SerializeToString())
