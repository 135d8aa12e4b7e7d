// Addresses below the root of the server. A page may be at any depth, and the root at any path behind a reverse proxy.

const ROOT = new URL("../", import.meta.url);

/** The address of a path of the server. */
export function address(path) {
  return new URL(path, ROOT).href;
}

/** The address of the page of a worker type. */
export function pageOf(name) {
  return address(`types/${encodeURIComponent(name)}`);
}
