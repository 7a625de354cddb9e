"""JPEGs decoded and resized by TensorFlow's ops: the same pixels in a graph and alone.

libjpeg decodes at the smallest of its reductions (1, 1/2, 1/4, 1/8) that serves, and of that only
the window that is shown, in whole pixels; areas are averaged for the rest.
Nothing of it holds Python's lock. It is meant for `jaxt2i.data.stream`; alone, one picture at a
time, it is the definition of what is to come out.
"""

import functools
import math

import numpy as np

from jaxt2i.data.images import CORRUPT, Unreadable
from jaxt2i.data.tf import tensorflow

REDUCTIONS = (1, 2, 4, 8)
# How far from where it should be a border of the square may lie in a reduced picture, pixels.
NEAR = 0.25
# In place of a reduction: the pixels themselves are given.
PIXELS = len(REDUCTIONS)


class Encoded:
    """A picture that is yet to be decoded; numpy takes it for uint8 [side, side, 3].

    Attributes:
      content: the JPEG file.
      plan: int32 [6]: place in `REDUCTIONS`; top, left, height and width of the window, pixels of
        the reduced picture; whether left and right are exchanged at the end.
      shape: of the pixels.
    """

    def __init__(self, content: bytes, view, size: tuple[int, int]):
        """Plans how to decode a picture.

        Args:
          content: a JPEG file, colour or grey.
          view: `pictures.View` of what is shown.
          size: width and height of the picture, pixels.
        """
        place = max(i for i, times in enumerate(REDUCTIONS) if i == 0 or _serves(times, view))
        times = REDUCTIONS[place]
        shown, window = view.shown(), []
        for axis in (1, 0):
            room = math.ceil(size[axis] / times)
            first = min(round(shown[axis] / times), room - 1)
            window.append((first, max(1, min(round(shown[axis + 2] / times), room) - first)))
        (top, height), (left, width) = window
        self.content, self.shape = content, (view.size[1], view.size[0], 3)
        self.plan = np.array([place, top, left, height, width, view.mirrored], np.int32)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(_alone(self.shape[0])(self.content, self.plan), dtype)

    def pixels(self, name: str) -> np.ndarray:
        """The picture, uint8 [side, side, 3].

        Raises:
          Unreadable: when it is damaged; calls it by `name`.
        """
        try:
            return np.asarray(self)
        except tensorflow().errors.InvalidArgumentError:
            raise Unreadable(name, CORRUPT) from None


def _serves(times: int, view) -> bool:
    """Whether a picture reduced so much is large enough, and has pixels where the square ends."""
    left, top, right, bottom = view.cut
    # Pixels of the square for one of the reduced picture, across and down.
    zoom = times * view.scaled[0] / (right - left), times * view.scaled[1] / (bottom - top)
    off = [abs(x / times - round(x / times)) * zoom[i % 2] for i, x in enumerate(view.shown())]
    return max(zoom) <= 1 and max(off) <= NEAR


@functools.cache
def _alone(side: int):
    tf = tensorflow()
    return tf.function(
        lambda content, plan: square(tf, content, plan, side),
        autograph=False,
        input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([6], tf.int32)],
    )


def square(tf, content, plan, side: int):
    """Tensors of a file and its plan to a picture, uint8 [side, side, 3]."""

    def decoded(times: int):
        def window():
            def averaged():
                means = tf.raw_ops.ResizeArea(images=image[None], size=[side, side])[0]
                return tf.cast(means + 0.5, tf.uint8)  # means of 0..255 stay there

            image = tf.io.decode_and_crop_jpeg(
                content, plan[1:5], channels=3, ratio=times, dct_method="INTEGER_ACCURATE"
            )
            fits = (plan[3] == side) & (plan[4] == side)
            shown = tf.cond(fits, lambda: tf.ensure_shape(image, [side, side, 3]), averaged)
            return tf.cond(plan[5] > 0, lambda: shown[:, ::-1], lambda: shown)

        return window

    def given():
        return tf.reshape(tf.io.decode_raw(content, tf.uint8), [side, side, 3])

    return tf.switch_case(plan[0], [*map(decoded, REDUCTIONS), given])


def squares(tf, contents, plans, side: int):
    """Tensors of a batch's files and plans to pictures, uint8 [n, side, side, 3]."""
    contents, plans = tf.ensure_shape(contents, [None]), tf.ensure_shape(plans, [None, 6])
    return tf.map_fn(
        lambda one: square(tf, *one, side),
        (contents, plans),
        fn_output_signature=tf.TensorSpec([side, side, 3], tf.uint8),
        parallel_iterations=1,
    )


def encoded(images: list) -> tuple[np.ndarray, np.ndarray]:
    """What `squares` makes pictures of: (bytes [n], int32 [n, 6]); some may be decoded already."""
    contents, plans = np.empty(len(images), object), np.zeros((len(images), 6), np.int32)
    for row, image in enumerate(images):
        if isinstance(image, Encoded):
            contents[row], plans[row] = image.content, image.plan
        else:
            contents[row], plans[row, 0] = np.ascontiguousarray(image).tobytes(), PIXELS
    return contents, plans
