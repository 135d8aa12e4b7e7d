// The body of a table. Cells stay and only their texts change, so that a selection stays and a screen reader is not
// sent back to the beginning.

import { make, setText } from "./words.js";

/**
 * Makes the rows of `body` those given: each a list of cells, and each cell a text, or `{ text, ...attributes }`. The
 * first cell of a row names the row.
 */
export function fill(body, rows) {
  rows.forEach((cells, index) => fillRow(body.rows[index] ?? body.insertRow(), cells));
  while (body.rows.length > rows.length) body.deleteRow(-1);
}

function fillRow(row, cells) {
  cells.forEach((cell, index) => {
    const { text, ...attributes } = typeof cell === "string" ? { text: cell } : cell;
    if (!row.cells[index]) row.append(index === 0 ? make("th", { scope: "row" }) : make("td"));
    const element = row.cells[index];
    for (const key of ["class", "title"]) element.setAttribute(key, attributes[key] ?? "");
    setText(element, text);
  });
}
