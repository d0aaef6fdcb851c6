"use strict";
// Every page reads without its script; `scripted` shows what needs one.
document.documentElement.classList.add("scripted");

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// --- theme: the system's choice until the button is pressed; it says what it will do -------------
const themeButton = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : systemDark.matches;
  themeButton.textContent = dark ? "Light theme" : "Dark theme";
}

themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = themeButton.textContent.startsWith("Dark") ? "dark" : "light";
  showTheme();
});
systemDark.addEventListener("change", showTheme);
showTheme();
