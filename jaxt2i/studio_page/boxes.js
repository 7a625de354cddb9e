// Boxes with classes over a picture's frame, drawn and dragged. The component's value is the layout
// as JSON text: a list of objects, or {"objects", "units", "size"}; "" where there are none.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const canvas = part("canvas"), text = part("text"), told = part("told");
const HINT = "Drag to draw a box; drag a box to move it, a corner to change it.";
const HANDLE = 14, SMALLEST = 0.02;
let layout = { objects: [] }, chosen = -1, drag = null, broken = false, own = "";

// --- classes ---------------------------------------------------------------------------------
const names = props.classes || [];
const label = document.createElement(names.length ? "select" : "input");
label.setAttribute("aria-label", "Class of the box");
label.dataset.part = "label";
for (const name of names) label.add(new Option(name, name));
if (!names.length) Object.assign(label, { type: "number", min: 0, value: 0 });
part("classes").append(label);
const labelled = () => (names.length ? label.value : Number(label.value) || 0);

// --- text and layout ---------------------------------------------------------------------------
const frame = () => (layout.units === "pixels" && layout.size ? layout.size : [1, 1]);
const shape = () => layout.size || props.size;

function read(source) {
  text.value = source;
  broken = false;
  layout = { objects: [] };
  try {
    const found = source.trim() ? JSON.parse(source) : [];
    layout = Array.isArray(found) ? { objects: found } : found;
    const right = (o) => o && Array.isArray(o.box) && o.box.length === 4 && o.box.every(Number.isFinite);
    if (!layout || !Array.isArray(layout.objects) || !layout.objects.every(right)) {
      throw new Error('expected a list such as [{"label": "cat", "box": [0.1, 0.2, 0.4, 0.5]}]');
    }
  } catch (error) {
    broken = true;
    layout = { objects: [] };
    told.textContent = `This layout cannot be read (${error.message}).`;
  }
  if (chosen >= layout.objects.length) chosen = -1;
  if (!broken) told.textContent = HINT;
  fit();
}

function write() {
  const lines = layout.objects.map((o) => " " + JSON.stringify(o));
  let source = lines.length ? `[\n${lines.join(",\n")}\n]` : "";
  const { objects, ...rest } = layout;
  if (source && Object.keys(rest).length) source = `{"objects": ${source}, ${JSON.stringify(rest).slice(1)}`;
  text.value = own = source;
  props.value = source;
  trigger("input");
  paint();
}

// --- geometry ----------------------------------------------------------------------------------
const unit = (box) => box.map((v, i) => v / frame()[i % 2]);
function put(object, [x0, y0, x1, y1]) {
  const [w, h] = frame(), digits = layout.units === "pixels" ? 10 : 1e4;
  const round = (v) => Math.round(v * digits) / digits;
  const clip = (v) => Math.min(1, Math.max(0, v));
  const left = round(clip(Math.min(x0, x1)) * w), right = round(clip(Math.max(x0, x1)) * w);
  const top = round(clip(Math.min(y0, y1)) * h), bottom = round(clip(Math.max(y0, y1)) * h);
  object.box = [left, top, round(right - left), round(bottom - top)];
  if (object.mask !== undefined) {
    delete object.mask;
    told.textContent = "A box that was changed leaves its shape behind: it is drawn as a filled box.";
  }
}
function place(event) {
  const r = canvas.getBoundingClientRect();
  return [(event.clientX - r.left) / r.width, (event.clientY - r.top) / r.height];
}
function corner([px, py]) {
  if (chosen < 0) return null;
  const [x, y, w, h] = unit(layout.objects[chosen].box), r = canvas.getBoundingClientRect();
  for (const i of [0, 1]) for (const j of [0, 1]) {
    const near = Math.hypot((px - x - i * w) * r.width, (py - y - j * h) * r.height);
    if (near < HANDLE) return [x + (1 - i) * w, y + (1 - j) * h];
  }
  return null;
}
function under([px, py]) {
  let best = -1, area = Infinity;
  layout.objects.forEach((object, i) => {
    const [x, y, w, h] = unit(object.box);
    if (px >= x && px <= x + w && py >= y && py <= y + h && w * h < area) [best, area] = [i, w * h];
  });
  return best;
}

// --- what is seen --------------------------------------------------------------------------------
function fit() {
  const [w, h] = shape();
  canvas.style.aspectRatio = `${w} / ${h}`;
  const across = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
  canvas.width = across;
  canvas.height = Math.max(1, Math.round((across * h) / w));
  paint();
}
function paint() {
  const c = canvas.getContext("2d"), [W, H] = [canvas.width, canvas.height];
  const dot = window.devicePixelRatio || 1, colour = (i) => props.colours[i % props.colours.length];
  const at = (object) => unit(object.box).map((v, k) => v * [W, H][k % 2]);
  c.fillStyle = "#f4f4f5";
  c.fillRect(0, 0, W, H);
  c.font = `${12 * dot}px sans-serif`;
  c.textBaseline = "top";
  layout.objects.forEach((object, i) => {
    const [x, y, w, h] = at(object);
    c.fillStyle = c.strokeStyle = colour(i);
    c.globalAlpha = i === chosen ? 0.45 : 0.25;
    c.fillRect(x, y, w, h);
    c.globalAlpha = 1;
    c.lineWidth = (i === chosen ? 3 : 1.5) * dot;
    c.strokeRect(x, y, w, h);
  });
  // Names lie above all boxes.
  layout.objects.forEach((object, i) => {
    const [x, y, w, h] = at(object);
    const name = String(object.label ?? "");
    c.fillStyle = colour(i);
    c.fillRect(x, y, c.measureText(name).width + 6 * dot, 16 * dot);
    if (i === chosen) for (const a of [0, 1]) for (const b of [0, 1]) {
      c.fillRect(x + a * w - 4 * dot, y + b * h - 4 * dot, 8 * dot, 8 * dot);
    }
    c.fillStyle = "#fff";
    c.fillText(name, x + 3 * dot, y + 2 * dot);
  });
  part("remove").disabled = chosen < 0;
}
function choose(i) {
  chosen = i;
  if (i >= 0 && layout.objects[i].label !== undefined) label.value = layout.objects[i].label;
  paint();
}

// --- mouse, finger, keys -------------------------------------------------------------------------
canvas.addEventListener("pointerdown", (event) => {
  if (broken || (event.pointerType === "mouse" && event.button)) return;
  event.preventDefault();
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  const from = place(event), fixed = corner(from);
  if (fixed) return (drag = { kind: "corner", fixed });
  choose(under(from));
  if (chosen < 0) return (drag = { kind: "new", fixed: from, made: false });
  drag = { kind: "move", from, box: unit(layout.objects[chosen].box), moved: false };
});
canvas.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const at = place(event);
  if (drag.kind === "move") {
    const [x, y, w, h] = drag.box, clip = (v, most) => Math.min(Math.max(v, 0), Math.max(0, most));
    const [dx, dy] = [at[0] - drag.from[0], at[1] - drag.from[1]];
    if (!drag.moved && Math.hypot(dx, dy) < 0.005) return;
    drag.moved = true;
    const [left, top] = [clip(x + dx, 1 - w), clip(y + dy, 1 - h)];
    put(layout.objects[chosen], [left, top, left + w, top + h]);
  } else {
    const large = drag.fixed.every((v, i) => Math.abs(Math.min(1, Math.max(0, at[i])) - v) >= SMALLEST);
    if (!large) return;
    if (drag.kind === "new" && !drag.made) {
      layout.objects.push({ label: labelled(), box: [0, 0, 1, 1] });
      chosen = layout.objects.length - 1;
      drag.made = true;
    }
    put(layout.objects[chosen], [...drag.fixed, ...at]);
  }
  drag.changed = true;
  paint();
});
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, () => {
    const changed = drag && drag.changed;
    drag = null;
    if (changed) write();
  });
}
function remove() {
  if (chosen < 0) return;
  layout.objects.splice(chosen, 1);
  choose(-1);
  write();
}
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (chosen < 0 || broken) return;
  if (event.key === "Delete" || event.key === "Backspace") {
    event.preventDefault();
    remove();
  } else if (step) {
    event.preventDefault();
    const [x, y, w, h] = unit(layout.objects[chosen].box);
    const left = Math.min(Math.max(x + step[0] / 100, 0), 1 - w);
    const top = Math.min(Math.max(y + step[1] / 100, 0), 1 - h);
    put(layout.objects[chosen], [left, top, left + w, top + h]);
    write();
  }
});
part("remove").addEventListener("click", remove);
part("clear").addEventListener("click", () => {
  layout = { objects: [] };
  broken = false;
  told.textContent = HINT;
  choose(-1);
  write();
});
label.addEventListener("change", () => {
  if (chosen < 0) return;
  layout.objects[chosen].label = labelled();
  write();
});
text.addEventListener("input", () => {
  own = text.value;
  props.value = text.value;
  read(text.value);
  trigger("input");
});

watch("value", () => {
  if ((props.value || "") === own) return;
  own = props.value || "";
  chosen = -1;
  read(own);
});
new ResizeObserver(fit).observe(canvas);
own = props.value || "";
read(own);
