// Addresses below the root of the server. A page may be at any depth, and the root at any path behind a reverse proxy.

const ROOT = new URL("../", import.meta.url);

/** The address of a path of the server. */
export function address(path) {
  return new URL(path, ROOT).href;
}
