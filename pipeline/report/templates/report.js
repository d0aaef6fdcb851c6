// The page reads well without this script; it adds sorting, filters and a viewer. theme.js runs first.
// --- tables: each column head becomes a button; rows without a value stay last -------------------
const collator = new Intl.Collator(undefined, { numeric: true });

function cellValue(row, column, numeric) {
  const cell = row.cells[column];
  if (!numeric) return cell.textContent.trim();
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
}

function sortTable(table, header) {
  const column = header.cellIndex;
  const numeric = header.classList.contains("number");
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [cellValue(row, column, numeric), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const order = numeric ? a - b : collator.compare(a, b);
    return ascending ? order : -order;
  });
  body.append(...keyed.map(([, row]) => row));
}

all("table.sortable").forEach((table) => {
  all("thead th", table).forEach((header) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortTable(table, header));
  });
});

// --- a table that is wider than its place says so ---------------------------------------------------
all(".scroll").forEach((place) => {
  const mark = () => place.classList.toggle("more", place.scrollWidth > place.clientWidth + 1);
  new ResizeObserver(mark).observe(place);
});

// --- filters -------------------------------------------------------------------------------------
const filters = document.getElementById("filters");
const blocks = all("section.category");
const cards = all("article.card");
const rows = all("#all-images tbody tr");

// --- tiles: pictures are text until a tile is shown, so that a page of thousands opens at once -----
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const grid = document.getElementById("tiles");
const more = document.getElementById("more");
const order = document.getElementById("order");
const AT_ONCE = 60;
let queue = [];

function picture(kind, data) {
  const image = new Image();
  image.src = `data:image/${kind};base64,${data}`;
  image.alt = "";
  return image;
}

function put(tag, name, ...content) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...content);
  return made;
}

// What comes from data goes in as text, never as HTML.
function tile(row, tag) {
  const [photo, heat] = pictures[row.dataset.row];
  const stack = put("span", "stack");
  if (photo) stack.append(picture("jpeg", photo));
  const shade = picture("png", heat);
  if (photo) shade.className = "heat";
  stack.append(shade);
  const { category, defect, label, score } = row.dataset;
  const about = put("span", "about", put("b", "", score), ` ${label}`, put("bdi", "", category), put("bdi", "", defect));
  const made = put(tag, `tile ${label}`, stack, about);
  made.title = row.dataset.path;
  return made;
}

function showMore() {
  queue.splice(0, AT_ONCE).forEach((row) => {
    const made = tile(row, "button");
    made.type = "button";
    made.row = row;
    made.addEventListener("click", () => viewTile(row));
    grid.append(made);
  });
  more.hidden = queue.length === 0;
}

function fillTiles() {
  if (!grid) return;
  queue = rows.filter((row) => !row.hidden && row.dataset.row in pictures);
  const score = (row) => Number(row.dataset.score);
  if (order.value === "high") queue.sort((a, b) => score(b) - score(a));
  if (order.value === "low") queue.sort((a, b) => score(a) - score(b));
  grid.replaceChildren();
  showMore();
}

if (grid) {
  more.addEventListener("click", showMore);
  order.addEventListener("change", fillTiles);
  // the next ones come as the end of the grid nears; observing anew asks whether it is still near
  const nearing = new IntersectionObserver(([seen]) => {
    if (!seen.isIntersecting || queue.length === 0) return;
    showMore();
    nearing.unobserve(more);
    nearing.observe(more);
  }, { rootMargin: "0px 0px 600px" });
  nearing.observe(more);
}

function applyFilters() {
  const wanted = all("select", filters).filter((select) => select.value !== "");
  const matches = (element) => wanted.every(
    ({ name, value }) => !(name in element.dataset) || element.dataset[name] === value);
  [...cards, ...rows].forEach((element) => { element.hidden = !matches(element); });
  blocks.forEach((block) => {
    const own = all("article.card", block);
    block.hidden = !matches(block) || (own.length > 0 && own.every((card) => card.hidden));
  });
  const shown = (elements) => elements.filter((element) => !element.hidden).length;
  document.getElementById("shown").value = cards.length
    ? `${shown(cards)} of ${cards.length} pictured images` : `${shown(rows)} of ${rows.length} images`;
  document.getElementById("nothing").hidden = shown(blocks) > 0;
  fillTiles();
}

function applyLook() {
  const look = document.documentElement;
  const strength = document.getElementById("strength");
  const outlines = document.getElementById("outlines");
  if (strength) look.style.setProperty("--heat", String(strength.value / 100));
  if (outlines) look.classList.toggle("no-outlines", !outlines.checked);
}

filters.addEventListener("change", applyFilters);
filters.addEventListener("input", applyLook);
// The controls take their first values only after the reset event.
filters.addEventListener("reset", () => setTimeout(() => { applyFilters(); applyLook(); }));
filters.addEventListener("submit", (event) => event.preventDefault());
applyFilters();
applyLook();

// --- viewer: one card large, arrow keys to walk through those that the filters show ---------------
const viewer = document.getElementById("viewer");
const stage = viewer.querySelector(".stage");
let current = null;  // a card; null where a tile is shown
let tileRow = null;

function view(card) {
  current = card;
  // The copies point at the pictures already in the page, so ids are dropped from them.
  const copy = card.cloneNode(true);
  all("[id]", copy).forEach((element) => element.removeAttribute("id"));
  all("button", copy).forEach((button) => button.remove());
  stage.replaceChildren(copy);
  if (!viewer.open) viewer.showModal();
}

function viewTile(row) {
  current = null;
  tileRow = row;
  const large = tile(row, "div");
  large.className = "large";
  const path = put("bdi", "", row.dataset.path);
  path.dir = "ltr";
  large.append(put("p", "about", path, ` row ${row.dataset.row}`));
  stage.replaceChildren(large);
  if (!viewer.open) viewer.showModal();
}

function stepTile(by) {
  const shown = [...grid.children].map((one) => one.row);
  const next = shown[shown.indexOf(tileRow) + by];
  if (next) viewTile(next);
}

function step(by) {
  if (current === null) {
    stepTile(by);
    return;
  }
  const visible = cards.filter((card) => !card.hidden);
  const next = visible[visible.indexOf(current) + by];
  if (next) view(next);
}

cards.forEach((card) => {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "enlarge";
  button.textContent = "Enlarge";
  button.addEventListener("click", () => view(card));
  card.querySelector("footer").append(button);
  card.querySelector(".panels").addEventListener("click", () => view(card));
});
all("button[data-step]", viewer).forEach((button) => {
  button.addEventListener("click", () => step(Number(button.dataset.step)));
});
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
viewer.addEventListener("close", () => {
  const button = current ? current.querySelector("button.enlarge")
    : grid && [...grid.children].find((one) => one.row === tileRow);
  if (button) button.focus({ preventScroll: false });
});
