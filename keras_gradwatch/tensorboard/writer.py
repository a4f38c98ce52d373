"""Writing TensorBoard event files without TensorFlow."""

import io
import time

import numpy as np
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.util import tensor_util

from keras_gradwatch.tensorboard.event_file import EventFile


class EventWriter:
    """Writes one TensorBoard event file, whose first step is `first_step`.

    The file opens with `SessionLog.START`: after a crash and a resume, TensorBoard
    drops the points of earlier files from that step on, instead of showing them twice.

    Write the steps of a tag in ascending order, with one value per step: TensorBoard's
    fast loader takes any other step for a restart, and drops the points from there on.
    """

    def __init__(self, log_dir, first_step):
        self._file = EventFile(log_dir, first_step)
        self._first_step = first_step
        self._described = set()

    @property
    def path(self):
        """Path of the event file."""
        return self._file.path

    def scalars(self, step, values, wall_time=None):
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
            wall_time,
        )

    def histogram(self, tag, step, counts, edges):
        """Writes a histogram with `counts` [B] and ascending bin `edges` [B+1].

        Raises ValueError for non-finite values, which would make it invisible.
        """
        counts = np.asarray(counts, dtype=np.float64)
        edges = np.asarray(edges, dtype=np.float64)
        if counts.ndim != 1 or edges.shape != (counts.size + 1,):
            raise ValueError(
                "`counts` must be [B] and `edges` [B+1]. "
                f"Received shapes {counts.shape} and {edges.shape}"
            )
        if not (np.isfinite(counts).all() and np.isfinite(edges).all()):
            raise ValueError(
                "`counts` and `edges` must be finite. "
                f"Received counts={counts}, edges={edges}"
            )
        rows = np.stack([edges[:-1], edges[1:], counts], axis=1)
        self._add(
            step,
            {tag: tensor_util.make_tensor_proto(rows)},
            histogram_metadata.create_summary_metadata(None, None),
            summary_pb2.DATA_CLASS_TENSOR,
        )

    def image(self, tag, step, rgb):
        """Writes an RGB image, uint8 [H, W, 3], as a PNG with 256 colors."""
        rgb = np.asarray(rgb)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ValueError(
                "`rgb` must be uint8 of shape [H, W, 3]. "
                f"Received {rgb.dtype} of shape {rgb.shape}"
            )
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
        self._file.flush()

    def close(self):
        """Flushes and closes the file; may be called again."""
        self._file.close()

    def _add(self, step, tensors, metadata, data_class, wall_time=None):
        metadata.data_class = data_class
        event = event_pb2.Event(
            wall_time=time.time() if wall_time is None else wall_time, step=step
        )
        for tag, tensor in tensors.items():
            # Both of TensorBoard's loaders keep a tag's first metadata, so one copy a
            # file is enough; with one copy a value, files would be a third larger.
            described = tag in self._described
            event.summary.value.add(
                tag=tag, tensor=tensor, metadata=None if described else metadata
            )
        self._file.write(event)
        self._described.update(tensors)
