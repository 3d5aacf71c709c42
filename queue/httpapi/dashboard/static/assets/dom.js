// Building blocks. Server text reaches the page only as text nodes and
// attribute values made here, never as markup.

import { ExactNumber } from './api.js';

/** h builds an element: h('td.num', {title: 'x', onclick}, child, ...). Children: nodes, strings, null, arrays. */
export function h(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split('.');
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(' ');
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'value' || key === 'checked' || key === 'selected') element[key] = value;
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter(c => c !== null && c !== undefined && c !== false));
  return element;
}

/** setStyle sets style properties through the object model, which the content policy allows. */
export function setStyle(element, styles) {
  Object.assign(element.style, styles);
  return element;
}

/** badge shows a status word in its colour. */
export function badge(status) {
  return h('span.badge', { 'data-status': status ?? 'unknown' }, status ?? 'unknown');
}

/** none is what an empty cell shows. */
export const none = () => h('span.none', {}, '–');

/** mono shows an id; none when there is no id. */
export const mono = text => (text ? h('code', {}, text) : none());

/** seconds renders a duration: 340 ms, 12.4 s, 3 m 05 s, 2 h 10 m, 4 d 3 h. */
export function seconds(value) {
  const s = Number(value);
  if (!Number.isFinite(s)) return '–';
  if (s < 0.0005) return '0 ms';
  if (s < 1) return `${(s * 1000).toFixed(s < 0.01 ? 1 : 0)} ms`;
  if (s < 59.95) return `${s.toFixed(1)} s`;
  const total = Math.round(s), two = n => String(n).padStart(2, '0');
  if (total < 3600) return `${Math.floor(total / 60)} m ${two(total % 60)} s`;
  if (total < 86400) return `${Math.floor(total / 3600)} h ${two(Math.floor(total / 60) % 60)} m`;
  return `${Math.floor(total / 86400)} d ${Math.floor(total / 3600) % 24} h`;
}

/** clock renders a time of day, with the date when it is not today. */
export function clock(time) {
  const date = new Date(Number(time) * 1000), today = new Date().toDateString() === date.toDateString();
  const two = n => String(n).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `;
  return (today ? '' : day) + [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':');
}

function isTime(time) {
  return time !== null && time !== undefined && Math.abs(Number(time)) < 8.64e12;
}

/** when shows a moment as a clock time, none when there is none. */
export function when(time) {
  if (!isTime(time)) return none();
  const iso = new Date(Number(time) * 1000).toISOString();
  return h('time', { datetime: iso, title: iso }, clock(time));
}

/** age shows how long ago a moment was; tick keeps it true. */
export function age(time) {
  if (!isTime(time)) return none();
  const iso = new Date(Number(time) * 1000).toISOString();
  return h('time', { datetime: iso, title: iso, 'data-age': Number(time) }, ageText(Number(time)));
}

/** elapsed shows end - start, or the time since start, still counting, when there is no end. */
export function elapsed(start, end) {
  if (!isTime(start)) return none();
  if (isTime(end)) return h('span', {}, seconds(end - start));
  return h('span', { 'data-since': Number(start) }, sinceText(Number(start)));
}

const sinceText = start => seconds(Math.max(0, Math.round(Date.now() / 1000 - start)));
const ageText = time => sinceText(time) + ' ago';

/** tick brings every age and running duration on the page up to date. */
export function tick(root = document) {
  for (const e of root.querySelectorAll('[data-age]')) e.textContent = ageText(Number(e.dataset.age));
  for (const e of root.querySelectorAll('[data-since]')) e.textContent = sinceText(Number(e.dataset.since));
}

/** notice is a message to the reader; kind is 'error' or 'empty'. */
export function notice(kind, ...children) {
  return h(`p.notice.${kind}`, kind === 'error' ? { role: 'alert' } : {}, ...children);
}

/** tell puts nodes in a live region, and leaves it alone when they say what it says already. */
export function tell(place, ...nodes) {
  const same = nodes.length === place.childNodes.length && nodes.every((node, i) => node.isEqualNode(place.childNodes[i]));
  if (!same) place.replaceChildren(...nodes);
}

// Beyond this many members a list in the JSON viewer is cut, with a button for the rest.
const MEMBERS = 200;

/** json shows any JSON value as a tree that folds. key names it among the page's open parts. */
export function json(value, key, depth = 0) {
  if (value instanceof ExactNumber) return h('span.j-number', {}, value.source);
  if (value === null || typeof value !== 'object') {
    return h(`span.j-${value === null ? 'null' : typeof value}`, {}, typeof value === 'string' && depth === 0 ? value : JSON.stringify(value));
  }
  const list = Array.isArray(value), members = Object.entries(value);
  if (!members.length) return h('span.j-null', {}, list ? '[ ]' : '{ }');
  const body = h('ul.json'), label = list ? `[ ${members.length} ]` : `{ ${members.length} }`;
  const add = from => {
    for (const [name, member] of members.slice(from, from + MEMBERS)) {
      body.append(h('li', {}, h('span.j-key', {}, name), ': ', json(member, `${key}/${name}`, depth + 1)));
    }
    const rest = members.length - from - MEMBERS;
    if (rest > 0) {
      const more = h('button', { type: 'button', onclick: () => { more.parentElement.remove(); add(from + MEMBERS); } }, `${rest} more`);
      body.append(h('li', {}, more));
    }
  };
  const fill = () => { if (details.open && !body.hasChildNodes()) add(0); };
  const details = h('details', { 'data-key': key, open: depth < 2, ontoggle: fill }, h('summary', {}, label), body);
  details.fill = fill;
  fill();
  return details;
}

function plainJSON(value, indent = '') {
  if (value instanceof ExactNumber) return value.source;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const inner = indent + '  ', list = Array.isArray(value);
  const parts = Object.entries(value).map(([k, v]) => inner + (list ? '' : JSON.stringify(k) + ': ') + plainJSON(v, inner));
  const [open, close] = list ? '[]' : '{}';
  return parts.length ? `${open}\n${parts.join(',\n')}\n${indent}${close}` : open + close;
}

/** panel is a titled JSON value with a button that copies its text. */
export function panel(title, value, key) {
  const copy = navigator.clipboard && h('button.quiet', {
    type: 'button', 'aria-label': `Copy ${title} as JSON`, 'data-key': `${key}:copy`,
    onclick: async event => { await navigator.clipboard.writeText(plainJSON(value)); event.target.textContent = 'Copied'; },
  }, 'Copy');
  return h('section.panel', {}, h('h3', {}, title, ' ', copy || null), json(value, key));
}

/** reconcile makes parent's children those of rows ({key, data, build}), rebuilding only what changed;
 *  folded parts and the focus survive a rebuild. */
export function reconcile(parent, rows) {
  const old = new Map([...parent.children].map(e => [e.rowKey, e]));
  const next = rows.map(({ key, data, build }) => {
    const text = JSON.stringify(data), before = old.get(key);
    if (before?.rowText === text) return before;
    const element = Object.assign(build(), { rowKey: key, rowText: text });
    if (before) carryOver(before, element);
    return element;
  });
  const focus = document.activeElement, held = parent.contains(focus) ? focus : null, heldKey = held?.dataset.key;
  next.forEach((element, i) => { if (parent.children[i] !== element) parent.insertBefore(element, parent.children[i] ?? null); });
  while (parent.children.length > next.length) parent.lastElementChild.remove();
  if (held && document.activeElement !== held) {
    const twin = held.isConnected ? held : heldKey && [...parent.querySelectorAll('[data-key]')].find(e => e.dataset.key === heldKey);
    if (twin) twin.focus({ preventScroll: true });
  }
}

function carryOver(from, to) {
  const open = new Map([...from.querySelectorAll('details[data-key]')].map(d => [d.dataset.key, d.open]));
  // A live collection: opening a part creates the parts inside it, which come next.
  for (const details of to.getElementsByTagName('details')) {
    details.open = open.get(details.dataset.key) ?? details.open;
    details.fill?.();
  }
}
