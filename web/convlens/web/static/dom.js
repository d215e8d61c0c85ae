// Elements of the page, made by script: the page's CSP allows no inline HTML handlers or styles.

/**
 * Create an element. Keys of `properties` that contain a dash, and `role` and `for`, become attributes; functions under
 * `onclick`, `onkeydown`… become listeners; everything else is set as a property. Null children are left out.
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Return the element with an id. */
export const byId = (id) => document.getElementById(id);

/** Replace the children of `parent`, and give the focus back to the child with the same id as the one that had it. */
export function replaceChildren(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.id : "";
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  if (focused) byId(focused)?.focus();
}
