"use strict";
// Every page reads without its script; `scripted` shows what needs one.
document.documentElement.classList.add("scripted");

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// --- theme: the system's choice until the button is pressed -------------------------------------
const themeButton = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : systemDark.matches;
  themeButton.setAttribute("aria-pressed", String(dark));
}

themeButton.addEventListener("click", () => {
  const dark = themeButton.getAttribute("aria-pressed") === "true";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  showTheme();
});
systemDark.addEventListener("change", showTheme);
showTheme();
