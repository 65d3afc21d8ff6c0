// Tables are sorted by their headers: a click or Enter, once for ascending and again for descending. A word in the filter
// hides who does not contain it, a button turns the page dark or light, paper shows what is folded. Nothing is loaded.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replace(/^[<>~\s]+/, ""));
    return Number.isNaN(number) ? (column === 1 || /[a-z]/i.test(text) ? text : Infinity) : number;
  };
  const order = (a, b) =>
    typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const up = header.getAttribute("aria-sort") !== "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      rows.sort((a, b) => (up ? order(a[0], b[0]) : order(b[0], a[0])));
      body.append(...rows.map((pair) => pair[1]));
    });
  });
}

const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
  for (const label of document.querySelectorAll(".legend label")) {
    const name = label.textContent.toLowerCase();
    label.querySelector("input").checked = !words.length || words.some((word) => name.includes(word));
  }
});

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = dark === "dark" ? "light" : "dark";
});

addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not([open])")) {
    folded.open = true;
    addEventListener("afterprint", () => (folded.open = false), { once: true });
  }
});
