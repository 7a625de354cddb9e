"""tfds builders of the survey's data sets, each from its official files.

Importing this package makes them known: `tfds.load("jaxt2i_cub", data_dir=DIR)`.
"""

from jaxt2i.data.builders.base import Builder
from jaxt2i.data.builders.cub import Jaxt2iCub

# What `python -m jaxt2i.prepare` calls them, and tfds.
BUILDERS: dict[str, type[Builder]] = {
    "cub": Jaxt2iCub,
}
