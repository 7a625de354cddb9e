"""JPEGs decoded and resized by TensorFlow's ops: the same pixels in a graph and alone.

libjpeg decodes at the smallest of its reductions (1, 1/2, 1/4, 1/8) that serves, and of that only
the window that is shown, in whole pixels; areas are averaged for the rest. What a padded picture
has beside it is filled in at the end.
Nothing of it holds Python's lock. Pictures that are shown pixel by pixel are decoded as "exact" has
them, which costs less. It is meant for `jaxt2i.data.stream`; alone, one picture at a
time, it is the definition of what is to come out.
"""

import copy as copying
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
# Numbers of a plan, and which of them says whether left and right are exchanged.
PLAN, MIRRORED = 13, 5


class Encoded:
    """A picture that is yet to be decoded; numpy takes it for uint8 [side, side, 3].

    Attributes:
      content: the JPEG file.
      plan: int32 [PLAN]: place in `REDUCTIONS`; top, left, height and width of the window, pixels
        of the reduced picture; whether left and right are exchanged at the end; top, left, height
        and width of what it becomes in the square; red, green and blue around that.
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
        shown, window = _seen(view), []
        for axis in (1, 0):
            room = math.ceil(size[axis] / times)
            first = min(round(shown[axis] / times), room - 1)
            window.append((first, max(1, min(round(shown[axis + 2] / times), room) - first)))
        (top, height), (left, width) = window
        self.content, self.shape = content, (view.size[1], view.size[0], 3)
        left_to, top_to, right_to, bottom_to = view.place
        numbers = [place, top, left, height, width, view.mirrored]
        numbers += [top_to, left_to, bottom_to - top_to, right_to - left_to, *view.background]
        self.plan = np.array(numbers, np.int32)

    def mirrored(self) -> "Encoded":
        """The same with left and right exchanged."""
        out = copying.copy(self)
        out.plan = self.plan.copy()
        out.plan[MIRRORED] ^= 1
        return out

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


def _seen(view) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what is shown of a picture, its pixels."""
    return view.cut if view.is_padded else view.shown()


def _serves(times: int, view) -> bool:
    """Whether a picture reduced so much is large enough, and has pixels where the square ends."""
    left, top, right, bottom = view.cut
    # Pixels of the square for one of the reduced picture, across and down.
    zoom = times * view.scaled[0] / (right - left), times * view.scaled[1] / (bottom - top)
    off = [abs(x / times - round(x / times)) * zoom[i % 2] for i, x in enumerate(_seen(view))]
    return max(zoom) <= 1 and max(off) <= NEAR


@functools.cache
def _alone(side: int):
    tf = tensorflow()
    return tf.function(
        lambda content, plan: square(tf, content, plan, side),
        autograph=False,
        input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([PLAN], tf.int32)],
    )


def square(tf, content, plan, side: int):
    """Tensors of a file and its plan to a picture, uint8 [side, side, 3]."""

    def decoded(times: int):
        def window():
            def averaged():
                means = tf.raw_ops.ResizeArea(images=image[None], size=plan[8:10])[0]
                return tf.cast(means + 0.5, tf.uint8)  # means of 0..255 stay there

            def padded():
                top, left, height, width = tf.unstack(plan[6:10])
                around = [[top, side - top - height], [left, side - left - width], [0, 0]]
                inside = tf.pad(tf.ones_like(seen, tf.bool), around)
                colour = tf.cast(plan[10:13], tf.uint8)
                return tf.where(inside, tf.pad(seen, around), colour)

            image = tf.io.decode_and_crop_jpeg(
                content, plan[1:5], channels=3, ratio=times, dct_method="INTEGER_ACCURATE"
            )
            seen = tf.cond(tf.reduce_all(plan[3:5] == plan[8:10]), lambda: image, averaged)
            shown = tf.cond(tf.reduce_all(plan[8:10] == side), lambda: seen, padded)
            shown = tf.ensure_shape(shown, [side, side, 3])
            return tf.cond(plan[5] > 0, lambda: shown[:, ::-1], lambda: shown)

        return window

    def given():
        return tf.reshape(tf.io.decode_raw(content, tf.uint8), [side, side, 3])

    return tf.switch_case(plan[0], [*map(decoded, REDUCTIONS), given])


def squares(tf, contents, plans, side: int):
    """Tensors of a batch's files and plans to pictures, uint8 [n, side, side, 3]."""
    contents, plans = tf.ensure_shape(contents, [None]), tf.ensure_shape(plans, [None, PLAN])
    return tf.map_fn(
        lambda one: square(tf, *one, side),
        (contents, plans),
        fn_output_signature=tf.TensorSpec([side, side, 3], tf.uint8),
        parallel_iterations=1,
    )


def encoded(images: list) -> tuple[np.ndarray, np.ndarray]:
    """What `squares` makes pictures of: (bytes [n], int32 [n, PLAN]); some are pixels already."""
    contents, plans = np.empty(len(images), object), np.zeros((len(images), PLAN), np.int32)
    for row, image in enumerate(images):
        if isinstance(image, Encoded):
            contents[row], plans[row] = image.content, image.plan
        else:
            contents[row], plans[row, 0] = np.ascontiguousarray(image).tobytes(), PIXELS
    return contents, plans
