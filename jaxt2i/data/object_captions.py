"""Which of COCO's 80 classes a caption names, as Semantic Object Accuracy decides it.

Hinz et al. 2020 (arXiv 1910.13321) published a list of captions for every class, and no rule. The
rules here were inferred from these lists, which they reproduce without an error on all 115,429
captions that can be checked: a lower-cased caption is of a class if it holds one of its strings
and none of those that exclude it. Spaces belong to the strings, so "a hydrant." names none, and
"pancake " is a cake; motorcycles and single planes are not named by their usual words. These are
the published files' oddities, kept because the scores of papers were measured with them.

`lists` makes such lists, `difference` holds them against the published ones, `read` and `write`
are their files. Classes are numbered as in `jaxt2i.encoders.yolo.CLASSES`.
"""

import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxt2i.convert import unpickle
from jaxt2i.data.schema import DataError

# Pictures of every caption; of people, who are in most captions, so many captions are drawn at
# random, and one picture of each.
PICTURES, PERSON, PERSON_CAPTIONS = 3, 0, 30_000
WHERE = (
    "SOA/captions of https://github.com/tohinz/"
    "semantic-object-accuracy-for-generative-text-to-image-synthesis"
)
Entry = dict[str, Any]


class Rule(NamedTuple):
    """One class.

    Attributes:
      name: of its file, without the ending.
      captions: how many the published file holds.
      include: strings of which a caption holds at least one.
      exclude: strings of which it holds none.
    """

    name: str
    captions: int
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()


def _rule(name: str, captions: int, include: str, exclude: str = "") -> Rule:
    """Strings divided by "|"; "_" is a space that would not be seen at their ends."""

    def strings(text: str) -> tuple[str, ...]:
        return tuple(part.replace("_", " ") for part in text.split("|") if part)

    return Rule(name, captions, strings(include), strings(exclude))


RULES: tuple[Rule, ...] = tuple(
    _rule(f"label_{number:02d}_{name}", *rest)
    for number, (name, *rest) in enumerate(
        (
            ("person", 61_586, "person_|people_|man_|men_|child_|children_"),
            (
                "bicycle",
                1920,
                "bicycle_|bicycles_|bike_|bikes_",
                "motor bike|motorbike|dirt bike|motorcycle",
            ),
            (
                "car",
                2650,
                "car_|cars_|auto_|autos_",
                "train car|side car|passenger car|subway car|rail car|street car|"
                "car window|car tire",
            ),
            (
                "motorcycle",
                495,
                "scooter_|scooters_|motor bike_|motor cycle_|dirt bike_|dirt bikes_|"
                "motorbike_|motorbikes_",
            ),
            ("plane", 1195, "plane__|planes_|jet_|jets_|aircraft_"),
            ("bus", 4027, "bus_|buses_"),
            ("train", 5397, "train_|trains_"),
            ("truck", 2213, "truck_|trucks_"),
            ("boat", 2819, "boat_|boats_|ship_|ships_"),
            ("trafficlight", 645, "traffic light_|traffic lights_"),
            ("hydrant", 1408, "hydrant_|hydrants_"),
            ("stopsign", 1491, "stop sign"),
            ("parkingmeter", 430, "parking meter_|parking meters_"),
            ("bench", 2633, "bench_|benches_"),
            ("bird", 2691, "bird_|birds_"),
            ("cat", 6609, "cat_|cats_|kitten_|kittens_"),
            ("dog", 4896, "dog_|pup_", "hot dog_|hotdog_|chili dog_"),
            ("horse", 3615, "horse_|horses_"),
            ("sheep", 1626, "sheep_"),
            ("cow", 1981, "cow_|cows_"),
            ("elephant", 3133, "elephant_|elephants_", "toy elephant|stuffed elephant"),
            ("bear", 1740, "bear_|bears_", "teddy bear|stuffed bear|toy bear|care bear"),
            ("zebra", 3070, "zebra_|zebras_"),
            ("giraffe", 3866, "giraffe_|giraffes_"),
            ("backpack", 220, "backpack_|backpacks_|rucksack_"),
            ("umbrella", 2107, "umbrella_|umbrellas_"),
            ("handbag", 107, "purse_|purses_|handbag_|handbags_"),
            ("tie", 1062, "_tie_|_ties_"),
            ("suitcase", 736, "suitcase_|suitcases_|suit case_|suit cases_"),
            ("frisbee", 1775, "frisbee_|frisbees_"),
            ("skis", 1419, "skis_"),
            ("snowboard", 732, "snowboard_|snowboards_|snow board_|snow boards_"),
            ("ball", 2001, "_ball_|_balls_"),
            ("kite", 2044, "kite_|kites_"),
            ("baseballbat", 322, "baseball bat_|baseball bats_"),
            ("baseballglove", 39, "baseball glove_|baseball gloves_"),
            ("skateboard", 2665, "skateboard_|skateboards_|skate board_|skate boards_"),
            ("surfboard", 2270, "surfboard_|surfboards_|surf board_|surf boards_"),
            ("racket", 993, "racket_|rackets_"),
            ("bottle", 766, "bottle_|bottles_"),
            ("wineglass", 264, "wine glass_|wine glasses"),
            ("cup", 902, "cup_|cups_"),
            ("fork", 363, "fork_|forks_"),
            ("knife", 376, "knife_|knifes_"),
            ("spoon", 206, "spoon_|spoons_"),
            ("bowl", 1570, "bowl_|bowls_", "toilet bowl"),
            ("banana", 1466, "banana_|bananas_"),
            ("apple", 510, "apple_|apples_", "pineapple|laptop|computer|hardware"),
            ("sandwich", 1649, "sandwich_|sandwiches"),
            ("oranges", 378, "oranges_"),
            ("broccoli", 840, "broccoli_"),
            ("carrot", 463, "carrot_|carrots_"),
            ("hotdog", 254, "hot dog|hotdog|chili dog|corn dog|cheese dog", "dog_|dogs_"),
            ("pizza", 3655, "pizza_|pizzas_"),
            ("donut", 805, "donut_|donuts_"),
            ("cake", 2012, "cake_|cakes_", "cupcake|cup cake"),
            ("chair", 1884, "_chair_|_chairs_"),
            ("sofa", 1404, "couch_|sofa_|sofas_|couches_"),
            ("pottedplant", 81, "potted plant_|potted plants_"),
            ("bed", 2923, "_bed_|_beds_"),
            ("table", 7678, "desk_|desks_|_table_|_tables_"),
            ("toilet", 2796, "toilet_|toilets_"),
            ("monitor", 1437, "tv_|tvs_|screen_|screens_|monitor_|monitors_"),
            ("laptop", 2376, "laptop_|laptops_"),
            ("computermouse", 72, "computer mouse_"),
            ("remote", 670, "remote_"),
            ("keyboard", 603, "keyboard_|keyboards_"),
            ("cellphone", 956, "cell phone_|cell phones_|mobile phone_|mobile phones_"),
            ("microwave", 416, "microwave_|microwaves_"),
            ("oven", 506, "oven_", "microwave oven"),
            ("toaster", 89, "toaster_"),
            ("sink", 1529, "sink_"),
            ("refrigerator", 949, "refrigerator_|fridge_"),
            ("book", 731, "book_|books_"),
            ("clock", 3870, "clock_|clocks_"),
            ("vase", 1597, "vase_|vases_"),
            ("scissor", 450, "scissors_|scissor_"),
            ("teddybear", 1284, "teddy bear_|teddy bears_|teddybear_"),
            ("hairdrier", 35, "hair dryer_|hairdryer_|hair drier_"),
            ("toothbrush", 267, "toothbrush_|tooth brush_"),
        )
    )
)


def labels(caption: str) -> tuple[int, ...]:
    """Numbers of the classes that a caption names."""
    text = caption.lower()
    return tuple(
        number
        for number, rule in enumerate(RULES)
        if any(part in text for part in rule.include)
        and not any(part in text for part in rule.exclude)
    )


def lists(entries: Iterable[Entry]) -> dict[int, list[Entry]]:
    """{class: entries that name it} of all 80 classes.

    Args:
      entries: as the published files hold them: {"image_id", "id" of the annotation, "idx": [number
        of the image in AttnGAN's test list, number of the caption], "caption"}; only the caption is
        looked at.
    """
    out: dict[int, list[Entry]] = {number: [] for number in range(len(RULES))}
    for entry in entries:
        for number in labels(entry["caption"]):
            out[number].append(entry)
    return out


def difference(counts: Mapping[int, int]) -> str:
    """How the lengths of lists differ from the published ones, in words; "" where they do not.

    Args:
      counts: {class: captions}.
    """
    other = [n for n, rule in enumerate(RULES) if counts.get(n, 0) != rule.captions]
    if not other:
        return ""
    shown = [f"{RULES[n].name} {counts.get(n, 0):,} for {RULES[n].captions:,}" for n in other[:3]]
    return (
        f"the caption lists of {len(other)} of {len(RULES)} classes are not as long as the "
        f"published ones ({', '.join(shown)}{', ...' if len(other) > 3 else ''}), which are of "
        "AttnGAN's 40,470 pictures of val2014"
    )


def number_of(name: str) -> int | None:
    """The class of a published name, such as label_03_motorcycle; None: it is of none."""
    found = re.search(r"label_(\d{1,2})", name)
    number = int(found[1]) if found else len(RULES)
    return number if number < len(RULES) else None


def read(folder: Path) -> dict[int, list[Entry]]:
    """{class: entries} of the published files of a folder; no code in them is run.

    Raises:
      DataError: where there is none, for damaged files, and for those of before February 2020.
    """
    files = sorted(Path(folder).glob("label_*.pkl"))
    if not files:
        raise DataError(f"{folder} holds no label_*.pkl; they are in {WHERE}")
    return {
        number: _entries(file) for file in files if (number := number_of(file.name)) is not None
    }


def _entries(file: Path) -> list[Entry]:
    try:
        found = unpickle.load(file.read_bytes(), {})
    except (unpickle.UnsafeFileError, unpickle.UnreadableFileError) as error:
        raise DataError(f"{file}: {error}; get it again from {WHERE}") from error
    if isinstance(found, list) and found and isinstance(found[0], list | tuple):
        raise DataError(
            f"{file} is a list of indices, as it was until February 2020, without captions; get "
            f"the newer one from {WHERE}"
        )
    good = isinstance(found, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("caption"), str) for entry in found
    )
    if not good:
        raise DataError(
            f"{file} holds {type(found).__name__}; expected a list of dictionaries with a "
            f"'caption' each, as in {WHERE}"
        )
    return found


def write(folder: Path, found: Mapping[int, Sequence[Entry]]) -> None:
    """Writes lists as the published files have them."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, entries in found.items():
        data = pickle.dumps([dict(entry) for entry in entries], protocol=2)
        (Path(folder) / f"{RULES[number].name}.pkl").write_bytes(data)
