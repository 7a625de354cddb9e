"""tfds builders of the survey's data sets, each from its official files, and of emoji.

Importing this package makes them known: `tfds.load("jaxt2i_cub", data_dir=DIR)`.
"""

from jaxt2i.data.builders.ade20k import Jaxt2iAde20k
from jaxt2i.data.builders.base import Builder
from jaxt2i.data.builders.coco import Jaxt2iCoco
from jaxt2i.data.builders.coco_stuff import Jaxt2iCocoStuff
from jaxt2i.data.builders.cub import Jaxt2iCub
from jaxt2i.data.builders.emoji import Jaxt2iEmoji
from jaxt2i.data.builders.fashiongen import Jaxt2iFashionGen
from jaxt2i.data.builders.multi30k import Jaxt2iMulti30k
from jaxt2i.data.builders.oxford102 import Jaxt2iOxford102
from jaxt2i.data.builders.visual_genome import Jaxt2iVisualGenome

# What `python -m jaxt2i.prepare` calls them, and tfds.
BUILDERS: dict[str, type[Builder]] = {
    "ade20k": Jaxt2iAde20k,
    "coco": Jaxt2iCoco,
    "coco_stuff": Jaxt2iCocoStuff,
    "cub": Jaxt2iCub,
    "emoji": Jaxt2iEmoji,
    "fashiongen": Jaxt2iFashionGen,
    "oxford102": Jaxt2iOxford102,
    "multi30k": Jaxt2iMulti30k,
    "visual_genome": Jaxt2iVisualGenome,
}
