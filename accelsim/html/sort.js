// A click on a column's title sorts the rows by it; another click turns the order round.
for (const table of document.querySelectorAll("table")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    title.querySelector("button").addEventListener("click", () => {
      const numeric = title.classList.contains("number");
      const first = numeric ? "descending" : "ascending";
      const order = title.getAttribute("aria-sort") === first ? (numeric ? "ascending" : "descending") : first;
      const sign = order === "ascending" ? 1 : -1;
      const number = (text) => (text === "-inf" ? -Infinity : text === "inf" ? Infinity : Number(text));
      const key = (row) => row.cells[column].dataset.key;
      const compare = numeric
        ? (a, b) => (number(key(a)) > number(key(b))) - (number(key(a)) < number(key(b)))
        : (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const rows = [...table.tBodies[0].rows].sort((a, b) => sign * compare(a, b));
      table.tBodies[0].append(...rows);
      titles.forEach((other) => other.setAttribute("aria-sort", other === title ? order : "none"));
    });
  });
}
