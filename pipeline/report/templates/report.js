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

// --- filters -------------------------------------------------------------------------------------
const filters = document.getElementById("filters");
const blocks = all("section.category");
const cards = all("article.card");
const rows = all("details.all tbody tr");

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
let current = null;

function view(card) {
  current = card;
  // The copies point at the pictures already in the page, so ids are dropped from them.
  const copy = card.cloneNode(true);
  all("[id]", copy).forEach((element) => element.removeAttribute("id"));
  all("button", copy).forEach((button) => button.remove());
  stage.replaceChildren(copy);
  if (!viewer.open) viewer.showModal();
}

function step(by) {
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
  const button = current && current.querySelector("button.enlarge");
  if (button) button.focus({ preventScroll: false });
});
