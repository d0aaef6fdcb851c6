// Only the rows that can be seen exist; each is made of the columns of numbers when it comes in sight.
const data = JSON.parse(document.getElementById("numbers").textContent);
const linked = JSON.parse(document.getElementById("linked").textContent);
const embedded = all("script.picture");
const columns = data.columns;
const nAtoms = columns.atom.length;
const MOST_PRINTED = 100;
const SHOWN_SHARES = 4;

const list = document.getElementById("atoms");
const finder = document.getElementById("finder");
const viewer = document.getElementById("viewer");
const turn = document.getElementById("turn");

// --- small makers: what comes from data is always text, never markup ------------------------------
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

const whole = new Intl.NumberFormat("en");
const percent = (share) => share >= 0.995 && share < 1 ? "> 99 %" : share >= 0.0995 ? `${(100 * share).toFixed(0)} %`
  : share >= 0.001 ? `${(100 * share).toFixed(1)} %` : share > 0 ? "< 0.1 %" : "0 %";

// --- pictures: one holds several atoms; it is fetched, or unpacked, when one of them is in sight ---
const hasPictures = linked.length + embedded.length > 0;
const unpacked = new Map();

function pictureOf(at) {
  const number = Math.floor(at / data.perPicture);
  if (number < linked.length) return linked[number];
  if (number >= embedded.length) return null;
  if (!unpacked.has(number)) {
    const bytes = Uint8Array.from(atob(embedded[number].textContent), (one) => one.charCodeAt(0));
    embedded[number].textContent = "";
    unpacked.set(number, URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" })));
  }
  return unpacked.get(number);
}

const heightOf = (picture) => Math.min(data.perPicture, nPictured - picture * data.perPicture);
const nPictured = columns.patches.filter((patches) => patches.length > 0).length;

function cutOf(at, place, caption) {
  const [row, patch, activation] = columns.patches[at].slice(3 * place, 3 * place + 3);
  const [rows, cols] = data.grid;
  // without pictures the frame is the whole image, so that the mark says where in it
  const [high, wide] = hasPictures ? data.span : data.grid;
  const inwards = (centre, size, all) => Math.min(Math.max(centre - (size >> 1), 0), all - size);
  const y = Math.floor(patch / cols), x = patch % cols;
  const frame = make("div"), mark = make("i");
  mark.style.left = `${100 * (x - inwards(x, wide, cols)) / wide}%`;
  mark.style.top = `${100 * (y - inwards(y, high, rows)) / high}%`;
  mark.style.width = `${100 / wide}%`;
  mark.style.height = `${100 / high}%`;
  const url = pictureOf(at);
  if (url) {
    const tall = heightOf(Math.floor(at / data.perPicture));
    frame.style.backgroundImage = `url("${url}")`;
    frame.style.backgroundSize = `${100 * data.keep}% ${100 * tall}%`;
    const share = (which, count) => count > 1 ? `${100 * which / (count - 1)}%` : "0";
    frame.style.backgroundPosition =
      `${share(place, data.keep)} ${share(at % data.perPicture, tall)}`;
  }
  frame.append(mark);
  const [path, category, defect] = data.images[row];
  const cut = make("div", "cut", frame, caption ? `${activation} · ${category}, ${defect} · ${path}` : String(activation));
  cut.title = `${path}\n${category}, ${defect}\npatch ${y}, ${x} of ${rows} x ${cols}`;
  return cut;
}

const cutsOf = (at, caption) => make("div", "cuts",
  ...Array.from({ length: columns.patches[at].length / 3 }, (_, place) => cutOf(at, place, caption)));

// --- what is known of an atom ------------------------------------------------------------------------
function liftText(at) {
  const lift = data.lift[at];
  if (lift === null) return "–";
  return lift === Infinity ? "only on defects" : `${lift >= 100 ? lift.toFixed(0) : lift.toPrecision(2)} ×`;
}

function factsOf(at, every) {
  const facts = make("dl", "facts");
  const add = (name, value) => facts.append(make("dt", "", name), make("dd", "", value));
  for (const [guide, values] of Object.entries(columns.coefficient)) add(guide, values[at] === 0 ? "0" : values[at].toPrecision(3));
  add("frequency", percent(columns.active[at] / data.tokens));
  add("evenness", columns.evenness[at] === null ? "–" : columns.evenness[at].toFixed(2));
  add("lift", liftText(at));
  if (every) {
    add("active patches", `${whole.format(columns.active[at])} of ${whole.format(data.tokens)}`);
    add("on defects", `${whole.format(columns.activeDefect[at])} of ${whole.format(data.tokensDefect)}`);
    add("on normal ones", `${whole.format(columns.activeNormal[at])} of ${whole.format(data.tokensNormal)}`);
  }
  return facts;
}

function sharesOf(shares, names, className, most) {
  const found = make("ul", `shares ${className}`);
  const count = shares.length / 2;
  // the last line says how many more there are, unless that is one
  const shown = count <= most ? count : most - 1;
  for (let at = 0; at < shown; at++) {
    const bar = make("i");
    bar.style.width = `${shares[2 * at + 1] / 10}%`;
    const name = make("bdi", "", names[shares[2 * at]]);
    name.title = names[shares[2 * at]];
    found.append(make("li", "", name, make("span", "", percent(shares[2 * at + 1] / 1000)), bar));
  }
  if (shown < count) found.append(make("li", "more", `and ${count - shown} more`));
  return found;
}

const listsOf = (at, most) => [
  sharesOf(columns.categories[at], data.categoryNames, "of-categories", most),
  sharesOf(columns.defects[at], data.defectNames, "of-defects", most),
];

function rowOf(at, place) {
  const button = make("button", "", "more");
  button.type = "button";
  button.setAttribute("aria-label", `more of atom ${columns.atom[at]}`);
  button.addEventListener("click", () => view(at));
  const head = make("header", "", make("h3", "", `Atom ${columns.atom[at]}`, button), factsOf(at, false));
  const row = make("article", "atom", head, cutsOf(at, false), ...listsOf(at, SHOWN_SHARES));
  if (columns.active[at] === 0) row.classList.add("never");
  row.setAttribute("role", "listitem");
  row.setAttribute("aria-setsize", String(order.length));
  row.setAttribute("aria-posinset", String(place + 1));
  return row;
}

function view(at) {
  const lists = make("div", "lists");
  const [categories, defects] = listsOf(at, Infinity);
  lists.append(make("div", "", make("h4", "", "categories"), categories), make("div", "", make("h4", "", "defects"), defects));
  viewer.querySelector(".stage").replaceChildren(
    make("h2", "", `Atom ${columns.atom[at]}`), factsOf(at, true), cutsOf(at, true), lists);
  viewer.showModal();
}

viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });

// --- which rows are in sight ----------------------------------------------------------------------------
let order = [];
let rowHeight = 0;
let printing = false;
const standing = new Map();
list.classList.toggle("short", Object.keys(columns.coefficient).length === 0);

function draw() {
  const top = list.getBoundingClientRect().top;
  const first = printing ? 0 : Math.max(0, Math.floor(-top / rowHeight) - 2);
  const last = printing ? Math.min(order.length, MOST_PRINTED)
    : Math.min(order.length, Math.ceil((innerHeight - top) / rowHeight) + 2);
  for (const [place, row] of standing) {
    if (place >= first && place < last) continue;
    // a row that has the focus stays, so that the keyboard does not lose its place
    if (row.contains(document.activeElement)) continue;
    row.remove();
    standing.delete(place);
  }
  for (let place = first; place < last; place++) {
    if (standing.has(place)) continue;
    const row = rowOf(order[place], place);
    row.style.transform = `translateY(${place * rowHeight}px)`;
    standing.set(place, row);
    // in the order of the list, for whoever reads or tabs through it
    const after = standing.get(place + 1);
    if (after) after.before(row); else list.append(row);
  }
}

function relayout() {
  rowHeight = parseFloat(getComputedStyle(list).getPropertyValue("--row"));
  list.style.height = `${order.length * rowHeight}px`;
  standing.forEach((row) => row.remove());
  standing.clear();
  draw();
}

let asked = false;
function drawSoon() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}

addEventListener("scroll", drawSoon, { passive: true });
addEventListener("resize", relayout);
addEventListener("beforeprint", () => { printing = true; relayout(); });
addEventListener("afterprint", () => { printing = false; relayout(); });

// --- find, sort, turn -----------------------------------------------------------------------------------
const KEYS = {
  atom: columns.atom,
  active: columns.active,
  lift: data.lift,
  evenness: columns.evenness,
  activation: columns.patches.map((patches) => patches.length ? patches[2] : null),
};
for (const [guide, values] of Object.entries(columns.coefficient)) KEYS[`coefficient ${guide}`] = values;
const RISING = ["atom", "evenness"];
let rising = false;

function numbersOf(text) {
  const wanted = [...text.matchAll(/(\d+)(?:\s*[-–]\s*(\d+))?/g)]
    .map(([, from, to]) => [Number(from), Number(to ?? from)]);
  return (atom) => wanted.length === 0 ? text.trim() === "" : wanted.some(([from, to]) => from <= atom && atom <= to);
}

function choose() {
  const key = KEYS[finder.elements.sort.value];
  const isWanted = numbersOf(finder.elements.find.value);
  const [what, which] = finder.elements.in.value.split(" ");
  const mostly = what === "" ? () => true : (at) => columns[what][at][0] === Number(which);
  order = Array.from({ length: nAtoms }, (_, at) => at)
    .filter((at) => isWanted(columns.atom[at]) && mostly(at));
  // never active ones last, then those without a value; equal ones by number
  const late = (at) => (columns.active[at] === 0 ? 2 : 0) + (key[at] === null ? 1 : 0);
  order.sort((a, b) => late(a) - late(b)
    || (key[a] === key[b] ? 0 : (rising ? 1 : -1) * (key[a] < key[b] ? -1 : 1))
    || columns.atom[a] - columns.atom[b]);
  document.getElementById("shown").value = order.length === nAtoms
    ? `${whole.format(nAtoms)} atoms` : `${whole.format(order.length)} of ${whole.format(nAtoms)} atoms`;
  document.getElementById("nothing").hidden = order.length > 0;
  document.getElementById("printed").textContent = order.length > MOST_PRINTED
    ? `The first ${MOST_PRINTED} of ${whole.format(order.length)} atoms, sorted by ${finder.elements.sort.selectedOptions[0].text}.` : "";
  turn.textContent = rising ? "Smallest first" : "Largest first";
  relayout();
}

function chooseAgain() {
  choose();
  // a new order is read from its start
  if (list.getBoundingClientRect().top < 0) list.scrollIntoView({ behavior: "instant" });
}

all("optgroup", finder).forEach((group) => {
  const [column, names] = group.label === "category"
    ? ["categories", data.categoryNames] : ["defects", data.defectNames];
  names.forEach((name, at) => {
    const option = make("option", "", name);
    option.value = `${column} ${at}`;
    group.append(option);
  });
});
finder.elements.sort.addEventListener("change", () => {
  rising = RISING.includes(finder.elements.sort.value);
  chooseAgain();
});
finder.elements.in.addEventListener("change", chooseAgain);
finder.elements.find.addEventListener("input", chooseAgain);
turn.addEventListener("click", () => { rising = !rising; chooseAgain(); });
finder.addEventListener("submit", (event) => event.preventDefault());
addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
  if (event.key !== "/" || typing || viewer.open || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  finder.elements.find.focus();
});
choose();
