// A photograph, and a region that is painted on it. The component's value is the region as a black
// and white PNG, a data URL; "" where nothing is painted. `props.photo` is the photograph.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const canvas = part("canvas"), told = part("told");
const region = document.createElement("canvas");
const photo = new Image();
let last = null, own = "", shown = "";

function tell() {
  if (!props.photo) told.textContent = "Choose a photograph first; then paint where it may change.";
  else if (!own) told.textContent = "Nothing is painted: the edit may act everywhere.";
  else told.textContent = "The edit acts in the red region.";
}
function paint() {
  const c = canvas.getContext("2d");
  c.clearRect(0, 0, canvas.width, canvas.height);
  if (!props.photo) return;
  c.drawImage(photo, 0, 0);
  c.globalAlpha = 0.5;
  c.drawImage(region, 0, 0);
  c.globalAlpha = 1;
}
function size(width, height) {
  for (const one of [canvas, region]) [one.width, one.height] = [width, height];
}
// The region as what is sent: white where there is paint, on black.
function sent() {
  const pixels = region.getContext("2d").getImageData(0, 0, region.width, region.height);
  let any = false;
  for (let i = 0; i < pixels.data.length; i += 4) {
    const on = pixels.data[i + 3] > 127;
    any = any || on;
    pixels.data.fill(on ? 255 : 0, i, i + 3);
    pixels.data[i + 3] = 255;
  }
  if (!any) return "";
  const out = document.createElement("canvas");
  [out.width, out.height] = [region.width, region.height];
  out.getContext("2d").putImageData(pixels, 0, 0);
  return out.toDataURL("image/png");
}
function write() {
  own = props.value = sent();
  tell();
  trigger("input");
}
// A region that the page was given, as red paint.
function load(url) {
  const c = region.getContext("2d");
  c.clearRect(0, 0, region.width, region.height);
  own = url;
  tell();
  if (!url) return paint();
  const given = new Image();
  given.onload = () => {
    c.drawImage(given, 0, 0, region.width, region.height);
    const pixels = c.getImageData(0, 0, region.width, region.height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      const on = pixels.data[i] > 127;
      pixels.data.set([220, 20, 40, on ? 255 : 0], i);
    }
    c.putImageData(pixels, 0, 0);
    paint();
  };
  given.src = url;
}
function open() {
  shown = props.photo || "";
  if (!shown) {
    size(4, 3);
    return load("");
  }
  photo.onload = () => {
    size(photo.naturalWidth, photo.naturalHeight);
    load(props.value || "");
  };
  photo.src = shown;
}

function place(event) {
  const r = canvas.getBoundingClientRect();
  return [((event.clientX - r.left) / r.width) * canvas.width, ((event.clientY - r.top) / r.height) * canvas.height];
}
function stroke(to) {
  const c = region.getContext("2d");
  c.globalCompositeOperation = part("erase").checked ? "destination-out" : "source-over";
  c.strokeStyle = "rgb(220, 20, 40)";
  c.lineCap = c.lineJoin = "round";
  c.lineWidth = Math.max(1, (part("size").value / 100) * Math.max(region.width, region.height));
  c.beginPath();
  c.moveTo(...last);
  c.lineTo(to[0] + 0.01, to[1]);
  c.stroke();
  last = to;
  paint();
}
canvas.addEventListener("pointerdown", (event) => {
  if (!props.photo || (event.pointerType === "mouse" && event.button)) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  last = place(event);
  stroke(last);
});
canvas.addEventListener("pointermove", (event) => last && stroke(place(event)));
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, () => {
    if (last) write();
    last = null;
  });
}
part("clear").addEventListener("click", () => {
  load("");
  props.value = "";
  trigger("input");
});

watch(["photo", "value"], () => {
  if ((props.photo || "") !== shown) open();
  else if ((props.value || "") !== own) load(props.value || "");
});
open();
