"""The page: a form that is drawn from what a system says of itself, and what it drew."""

import dataclasses
import functools
import html
import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from jaxt2i import api
from jaxt2i.data.rows import Row
from jaxt2i.data.schema import DataError
from jaxt2i.run import trouble
from jaxt2i.run.open import USER_ERRORS
from jaxt2i.studio_page import canvases, drawing, reading

HERE = Path(__file__).parent
# Pictures of one visitor that are kept; the oldest go first.
HISTORY = 200
# Steps of a walk: as many as are drawn by default.
WALK = 8
# Smaller pictures are shown as they are, pixel by pixel.
SMALL = 128
# On a phone, what is told lies below the form.
TO_WHAT_IS_TOLD = "() => document.getElementById('told').scrollIntoView({block: 'nearest'})"
NAMES = {"segmentation": "Map of classes", "text_vector": "Vector of a text (.npy)"}
# Fonts that every system has: nothing is fetched from elsewhere.
FONTS = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]


@dataclasses.dataclass
class Visit:
    """What the page remembers of one visitor, until it is closed.

    Attributes:
      pictures: all that were drawn, the newest press first.
      now: those of the newest press.
      chosen: the one that is looked at.
      example: number of the next held-out example.
      stop: of the drawing that runs, to end it.
    """

    pictures: tuple[drawing.Picture, ...] = ()
    now: tuple[drawing.Picture, ...] = ()
    chosen: drawing.Picture | None = None
    example: int = 0
    stop: threading.Event | None = None

    def settled(self) -> "Visit":
        """With the newest press in the history, whether it came to its end or not."""
        if not self.now or self.now[0] in self.pictures:
            return self
        pictures = (*self.now, *self.pictures)
        drawing.remove(pictures[HISTORY:], pictures[:HISTORY])
        return dataclasses.replace(self, pictures=pictures[:HISTORY])

    def forget(self) -> None:
        """Removes its files, when the page has been closed for long."""
        drawing.remove(self.settled().pictures, ())


def said(sentence: str, wrong: bool = False) -> str:
    """A sentence as the page shows it."""
    kind, role = ("told wrong", "alert") if wrong else ("told", "status")
    return f'<p class="{kind}" role="{role}">{html.escape(sentence)}</p>'


def safely(handler: Callable) -> Callable:
    """A handler whose errors become a sentence on the page."""

    @functools.wraps(handler)
    def wrapped(self: "Page", *given: Any) -> Iterator[dict]:
        try:
            yield from handler(self, *given)
        except (*USER_ERRORS, *trouble.ERRORS) as error:
            yield {self.told: said(str(trouble.line(error)), wrong=True)}
        except Exception as error:
            logging.exception("the page met an error that is none of its visitor's")
            kind = type(error).__name__
            sentence = f"This should not happen ({kind}); the terminal of the studio says more."
            yield {self.told: said(sentence, wrong=True)}

    return wrapped


class Page:
    """The components, and what happens when they are used.

    Args:
      systems: what draws.
      uploads: the folder in which every file of the page lies.
    """

    def __init__(self, systems: drawing.Systems, uploads: Path):
        self.systems, self.uploads = systems, uploads
        self.words: dict[str, Any] = {}
        self.controls: list[tuple[dict, tuple[int, ...], Any]] = []
        self.propose: gr.Button | None = None
        shown = [about["size"] for about in systems.about if "image" in about["gives"]]
        self.small = any(max(size) < SMALL for size in shown)

    # --- components -------------------------------------------------------------------------------

    def build(self) -> gr.Blocks:
        """The page, wired."""
        title = " beside ".join(self.systems.names)
        method = " and ".join(dict.fromkeys(a["method"] for a in self.systems.about))
        # Files that nobody has looked at for a day are removed.
        with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
            gr.HTML(f"<h1>{html.escape(title)}</h1><p>{html.escape(method)}</p>")
            self.visit = gr.State(Visit(), delete_callback=Visit.forget)
            with gr.Row():
                with gr.Column(min_width=320):
                    self.form()
                with gr.Column(min_width=320, elem_classes=["beside-the-form"]):
                    self.results()
            self.wire()
        return page

    def form(self) -> None:
        """What a person sets."""
        named = self.systems.conditions
        if "prompt" in named:
            self.words["prompt"] = gr.Textbox(
                label="Captions, one a line", lines=2, max_lines=8, elem_id="prompts"
            )
        if "negative" in named:
            self.words["negative"] = gr.Textbox(label="What is not wanted", elem_id="negative")
        for word in named:
            if word not in ("prompt", "negative", "edit_region"):
                self.condition(word)
        if "edit_region" in named:
            self.words["edit_region"] = canvases.region()
        with gr.Row(elem_classes=["low"]):
            self.seed = gr.Number(0, label="Seed", precision=0, min_width=110, elem_id="seed")
            self.num = gr.Number(
                1, label="Pictures a caption", precision=0, min_width=110, elem_id="num"
            )
            self.other = gr.Button("Another seed", min_width=110, elem_id="other")
        if described := self.systems.controls():
            with gr.Accordion("Controls", elem_id="controls"):
                for control, sides in described:
                    self.controls.append((control, sides, self.control(control, sides)))
        self.views = gr.CheckboxGroup(
            self.systems.views,
            label="Show also",
            visible=bool(self.systems.views),
            elem_id="views",
        )
        with gr.Row():
            self.draw_button = gr.Button("Draw", variant="primary", min_width=120, elem_id="draw")
            self.stop_button = gr.Button("Stop", min_width=80, elem_id="stop")
            self.example_button = gr.Button("Example", min_width=100, elem_id="example")
        self.walk_form()

    def condition(self, word: str) -> None:
        """The component of one word of a row."""
        classes, about = self.systems.classes, self.systems.about[0]
        if word == "objects":
            gr.HTML("<h3>Layout</h3>")
            self.words[word] = canvases.boxes(classes.get("box_label", ()), about["size"])
        elif word == "label" and classes.get("label"):
            self.words[word] = gr.Dropdown(classes["label"], label="Class", value=None)
        elif word == "label":
            self.words[word] = gr.Number(label="Class, its number", value=None, precision=0)
        elif word == "image":
            self.words[word] = gr.File(label="Photograph", height=140, elem_id="photo")
        else:
            self.words[word] = gr.File(label=NAMES.get(word, word), height=140)
        if word == "objects" and word in about["filled"]:
            self.propose = gr.Button("Propose a layout for the first caption", elem_id="propose")

    def control(self, control: Mapping[str, Any], sides: tuple[int, ...]) -> Any:
        """The component of one control, by its type."""
        default, low, high = control["default"], control["low"], control["high"]
        several = len(self.systems.systems) > 1 and len(sides) == 1
        whose = f" ({self.systems.names[sides[0]]})" if several else ""
        how = {"label": control["name"] + whose, "info": control["help"] or None}
        how["elem_id"] = f"control-{control['name']}" + (f"-{sides[0]}" if several else "")
        if isinstance(default, bool):
            return gr.Checkbox(default, **how)
        if isinstance(default, str):
            if control["choices"]:
                return gr.Dropdown(list(control["choices"]), value=default, **how)
            return gr.Textbox(default, **how)
        whole = isinstance(default, int)
        if low is None or high is None:
            return gr.Number(default, precision=0 if whole else None, **how)
        return gr.Slider(low, high, default, step=1 if whole else 0.01, **how)

    def walk_form(self) -> None:
        """The other end of a walk."""
        walks = [about["walks"] for about in self.systems.about]
        with gr.Accordion(
            "Walk from the first caption and seed to",
            open=False,
            visible=any(w["text"] or w["latent"] for w in walks),
            elem_id="walk",
        ):
            self.to = gr.Textbox(
                label="Another caption (none: the same)",
                visible="prompt" in self.words and any(w["text"] for w in walks),
                elem_id="to",
            )
            with gr.Row():
                self.to_seed = gr.Number(
                    *(0, "Its seed"),
                    precision=0,
                    min_width=110,
                    visible=any(w["latent"] for w in walks),
                    elem_id="to-seed",
                )
                self.steps = gr.Number(
                    WALK, label="Pictures", precision=0, min_width=110, elem_id="steps"
                )
            self.walk_button = gr.Button("Draw the walk", elem_id="draw-walk")

    def results(self) -> None:
        """What was drawn."""
        self.told = gr.HTML(said("Nothing is drawn yet."), elem_id="told")
        self.galleries = []
        with gr.Row():
            for side, name in enumerate(self.systems.names):
                with gr.Column(min_width=150):
                    gr.HTML(f"<h3>{html.escape(name)}</h3>", visible=len(self.systems.names) > 1)
                    self.galleries.append(self.gallery(name, f"gallery-{side}"))
        self.animation = gr.Image(
            label="The walk", visible=False, format="png", buttons=["download"], elem_id="animation"
        )
        self.download = gr.DownloadButton(
            "Download pictures and settings", interactive=False, elem_id="download"
        )
        with gr.Accordion("The chosen picture", open=False, elem_id="closer") as self.closer:
            self.parts = self.gallery("Stages, layout, attention", "parts", "many")
            self.settings = gr.Code(
                label="Its settings", language="json", lines=3, max_lines=14, wrap_lines=True
            )
            self.again = gr.Button("Put its settings into the form", elem_id="again")
        with gr.Accordion("History of this visit", open=False, elem_id="history-part"):
            self.history = self.gallery("Everything that was drawn", "history", "many")
            self.file = gr.File(
                label="Settings from a file: a picture saved here, or a metadata.jsonl",
                height=140,
                elem_id="settings-file",
            )

    def gallery(self, label: str, name: str, kind: str = "") -> gr.Gallery:
        """Pictures as they are: PNG, never encoded again; small ones pixel by pixel."""
        return gr.Gallery(
            label=label,
            show_label=False,
            object_fit="contain",
            height="auto",
            fit_columns=False,
            format="png",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id=name,
            elem_classes=["pictures", kind, "as-they-are" if self.small else ""],
        )

    def wire(self) -> None:
        """What happens when something is used."""
        inputs = {
            *(self.visit, self.seed, self.num, self.views, self.to, self.to_seed, self.steps),
            *self.words.values(),
            *(component for *_, component in self.controls),
        }
        drawn = [self.told, self.visit, *self.galleries, self.animation, self.download]
        drawn += [self.history]
        quiet = {"api_visibility": "private"}
        for button, handler in (
            (self.draw_button, self.on_draw),
            (self.walk_button, self.on_walk),
        ):
            button.click(None, js=TO_WHAT_IS_TOLD, **quiet)
            how = {"show_progress_on": self.told, **quiet}
            button.click(handler, inputs=inputs, outputs=drawn, **how)
        self.stop_button.click(self.on_stop, inputs={self.visit}, outputs=self.told, **quiet)
        form = [self.told, self.visit, self.seed, self.num, self.to, self.to_seed]
        form += [*self.words.values(), *(component for *_, component in self.controls)]
        self.other.click(lambda: random.randrange(api.SEEDS), outputs=self.seed, **quiet)
        self.example_button.click(self.on_example, inputs={self.visit}, outputs=form, **quiet)
        self.again.click(self.on_again, inputs={self.visit}, outputs=form, **quiet)
        self.file.upload(self.on_file, inputs={self.visit, self.file}, outputs=form, **quiet)
        if self.propose:
            self.propose.click(self.on_propose, inputs=inputs, outputs=form, **quiet)
        if "image" in self.words and "edit_region" in self.words:
            photo, region = self.words["image"], self.words["edit_region"]
            for on in (photo.upload, photo.clear):
                on(self.on_photo, inputs={photo}, outputs=[self.told, region], **quiet)
        looked = [self.told, self.visit, self.closer, self.parts, self.settings]
        for side, gallery in enumerate(self.galleries):
            gallery.select(self.looking(side), inputs=[self.visit], outputs=looked, **quiet)
        self.history.select(self.looking(None), inputs=[self.visit], outputs=looked, **quiet)

    # --- what the form says -----------------------------------------------------------------------

    def rows(self, given: Mapping[Any, Any]) -> list[Row]:
        """The rows of the form, one for each caption."""
        words = {word: given[component] for word, component in self.words.items()}
        form = reading.Form(words.pop("prompt", "") or "", words)
        about = self.systems.about[0]
        needed = dict.fromkeys(word for a in self.systems.about for word in a["conditions"])
        return reading.rows_of(form, about | {"conditions": list(needed)}, self.uploads)

    def chosen(self, given: Mapping[Any, Any]) -> list[dict[str, Any]]:
        """The controls of each system."""
        out: list[dict[str, Any]] = [{} for _ in self.systems.systems]
        for control, sides, component in self.controls:
            if given[component] is None:
                raise DataError(f"the control {control['name']} is empty; give it a value")
            for side in sides:
                out[side][control["name"]] = given[component]
        return out

    # --- what happens -----------------------------------------------------------------------------

    @safely
    def on_draw(self, given: dict) -> Iterator[dict]:
        """Draws the form's captions."""
        sides = len(self.systems.systems)
        asked = self.rows(given)
        rows = reading.expanded(asked, given[self.num], given[self.seed], sides)
        yield from self.drawn(rows, given, self.systems.unread(asked))

    @safely
    def on_walk(self, given: dict) -> Iterator[dict]:
        """Draws from the first caption and seed to others."""
        steps = given[self.steps]
        if not isinstance(steps, int | float) or steps != int(steps) or steps < 2:
            raise DataError(f"pictures of a walk: {steps!r}; expected a whole number from 2 on")
        first = reading.expanded(self.rows(given)[:1], 1, given[self.seed])[0]
        last = {"seed": reading.expanded([Row()], 1, given[self.to_seed])[0]["seed"]}
        if (given[self.to] or "").strip():
            last["prompt"] = given[self.to].strip()
        rows = api.walked(first, last, int(steps))
        reading.expanded(rows, 1, 0, len(self.systems.systems))
        yield from self.drawn(rows, given, self.systems.unread([first, last]), walk=True)

    def drawn(
        self, rows: list[Row], given: dict, unread: list[str], walk: bool = False
    ) -> Iterator[dict]:
        """What is shown while rows are drawn, and when they are there."""
        stop = threading.Event()
        visit = dataclasses.replace(given[self.visit].settled(), now=(), stop=stop)
        yield self.looking_back(visit) | {
            self.told: said(f"Drawing {len(rows)}; the first picture of a system takes longest."),
            self.download: gr.DownloadButton(interactive=False),
            self.animation: gr.Image(visible=False),
        }
        for so_far in self.systems.draw(rows, given[self.views], self.chosen(given), stop):
            visit = dataclasses.replace(visit, now=so_far.pictures)
            shown = {
                gallery: [(p.file, p.caption) for p in so_far.pictures if p.side == side]
                for side, gallery in enumerate(self.galleries)
            }
            if so_far.archive is None:
                sentence = f"{len(so_far.pictures)} of {so_far.total} drawn."
                yield shown | {self.told: said(sentence), self.visit: visit}
        stop.set()
        count, noted = len(so_far.pictures), ""
        if count < so_far.total:
            noted += f" Stopped; {so_far.total} were asked for."
        if told := [*unread, *so_far.noted]:
            noted += f" Noted: {'; '.join(told)}."
        file = drawing.animated([p for p in so_far.pictures if not p.side]) if walk else None
        yield (
            shown
            | self.looking_back(visit.settled())
            | {
                self.told: said(f"{count} drawn in {so_far.seconds:.1f} s.{noted}"),
                self.download: gr.DownloadButton(value=str(so_far.archive), interactive=True),
                self.animation: gr.Image(value=file, visible=file is not None),
            }
        )

    def looking_back(self, visit: Visit) -> dict:
        """A visit, and its history as it is shown."""
        return {self.visit: visit, self.history: [(p.file, p.caption) for p in visit.pictures]}

    @safely
    def on_stop(self, given: dict) -> Iterator[dict]:
        """Ends the drawing of this visitor after the picture that is being drawn."""
        stop = given[self.visit].stop
        if stop is not None and not stop.is_set():
            stop.set()
            yield {self.told: said("Stopping after this picture.")}

    @safely
    def on_propose(self, given: dict) -> Iterator[dict]:
        """A layout for the first caption, by the systems that come before."""
        rows = self.rows({**given, self.words["objects"]: ""})
        first = reading.expanded(rows[:1], 1, given[self.seed])[0]
        row = self.systems.fill(first, self.chosen(given)[0])
        layout = reading.layout_text(row, self.systems.place())
        sentence = (
            f"A layout for {row.get('prompt', '')!r}, to be changed or drawn as it is."
            if layout
            else "No object was proposed for this caption; try another seed."
        )
        if told := self.systems.unread(rows[:1]):
            sentence += f" Noted: {'; '.join(told)}."
        yield {self.words["objects"]: layout, self.told: said(sentence)}

    @safely
    def on_photo(self, given: dict) -> Iterator[dict]:
        """Shows a photograph to be painted on."""
        file = given[self.words["image"]]
        shown = reading.shown_photo(file) if file else ""
        yield {self.words["edit_region"]: gr.HTML(value="", photo=shown)}

    @safely
    def on_example(self, given: dict) -> Iterator[dict]:
        """A held-out example of the run's data, into the form."""
        visit = given[self.visit]
        row = self.systems.example(visit.example)
        next_one = dataclasses.replace(visit, example=visit.example + 1)
        sentence = f"Held-out example {visit.example} of the run's data."
        yield self.filled(row) | {self.visit: next_one, self.told: said(sentence)}

    @safely
    def on_again(self, given: dict) -> Iterator[dict]:
        """The settings of the chosen picture, into the form."""
        picture = given[self.visit].chosen
        if picture is None:
            raise DataError("no picture is chosen: press one")
        yield self.filled(picture.row)

    @safely
    def on_file(self, given: dict) -> Iterator[dict]:
        """The settings that a file keeps, into the form."""
        if given[self.file]:
            yield self.filled(reading.row_in(given[self.file]))

    def looking(self, side: int | None) -> Callable:
        """What happens when a picture is pressed in the gallery of a system, or in the history."""

        def look(visit: Visit, event: gr.SelectData) -> Iterator[dict]:
            yield from self.on_select(side, event.index, visit)

        return look

    @safely
    def on_select(self, side: int | None, number: int, visit: Visit) -> Iterator[dict]:
        """Looks closer at one picture."""
        pictures = visit.pictures if side is None else [p for p in visit.now if p.side == side]
        if number >= len(pictures):
            raise DataError("this drawing is not finished yet; wait for it, and press again")
        picture = pictures[number]
        parts = self.systems.closer(picture)
        yield {
            self.visit: dataclasses.replace(visit, chosen=picture),
            self.closer: gr.Accordion(open=True),
            self.parts: gr.Gallery(value=parts, visible=bool(parts)),
            self.settings: reading.shown_row(picture.row),
        }

    def filled(self, row: Row) -> dict:
        """The form that a row says; what it does not say becomes empty."""
        place, ends = self.systems.place(), list(reading.ends_of(row))
        first, last = ends or (row, None)
        lost = [word for word in reading.FILES if word in row and not reading.at_hand(row[word])]
        told = f"; {' and '.join(lost)} must be chosen again" if lost else ""
        out = {
            self.seed: first.get("seed", 0),
            self.num: 1,
            self.to: last.get("prompt", "") if last else "",
            self.to_seed: last["seed"] if last else 0,
            self.told: said(f"The form holds these settings{told}."),
        }
        for word, component in self.words.items():
            if word == "objects":
                out[component] = reading.layout_text(first, place)
            elif word == "edit_region":
                out[component] = self.painted(first)
            elif word in reading.FILES:
                out[component] = reading.file_of(first.get(word), place, word)
            else:
                out[component] = first.get(word, None if word == "label" else "")
        for control, _, component in self.controls:
            out[component] = first.get("controls", {}).get(control["name"], control["default"])
        return out

    def painted(self, row: Row) -> Any:
        """The painter with a row's photograph and region."""
        region = row.get("edit_region")
        painted = isinstance(region, np.ndarray) and not region.all()
        value = reading.data_url(reading.png(region)) if painted else ""
        image = row.get("image")
        return gr.HTML(
            value=value, photo=reading.shown_photo(image) if reading.at_hand(image) else ""
        )


def looks() -> dict[str, Any]:
    """How the page looks, for `Blocks.launch`; nothing of it is fetched from elsewhere."""
    theme = gr.themes.Default(font=FONTS[0], font_mono=FONTS[1])
    return {"theme": theme, "css": (HERE / "page.css").read_text()}
