// The shell: which view is shown, when it refreshes, and the header's dot and numbers.

import { get } from './api.js';
import { h, notice, seconds, tick } from './dom.js';
import { applyTheme, load } from './settings.js';
import resources from './resources.js';
import rollouts from './rollouts.js';
import runners from './runners.js';
import settings from './settings-view.js';
import traces from './traces.js';

const views = {
  '/rollouts': ['Rollouts', rollouts],
  '/traces': ['Traces', traces],
  '/resources': ['Resources', resources],
  '/runners': ['Runners', runners],
  '/settings': ['Settings', settings],
};

const main = document.getElementById('main');
let refreshView = null;
let leave = new AbortController();
let timer = 0;

function show() {
  if (['/', '/index.html'].includes(location.pathname)) history.replaceState(null, '', '/rollouts' + location.search);
  const path = location.pathname.replace(/(.)\/+$/, '$1');
  for (const link of document.querySelectorAll('nav a')) {
    if (link.getAttribute('href') === path) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  leave.abort();
  leave = new AbortController();
  const root = h('div');
  main.replaceChildren(root);
  const [title, mount] = views[path] ?? ['Not found', notFound];
  document.title = `${title} · aglq`;
  refreshView = mount(root);
  refresh();
}

function notFound(root) {
  root.replaceChildren(h('h1', {}, 'Not found'),
    notice('empty', `There is no view ${location.pathname}. `, h('a', { href: '/rollouts' }, 'Go to the rollouts')));
}

function go(href) {
  history.pushState(null, '', href);
  show();
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

document.addEventListener('click', event => {
  const link = event.target.closest('a[href^="/"]');
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute('href'));
});

// refresh brings the view and the header up to date, then again after the chosen interval.
async function refresh() {
  clearTimeout(timer);
  const { signal } = leave;
  await Promise.all([refreshView?.(signal), drawHealth(signal), drawStatistics(signal)]);
  const { refreshSeconds } = load();
  if (signal.aborted || refreshSeconds <= 0) return;
  clearTimeout(timer);
  timer = setTimeout(() => !document.hidden && refresh(), refreshSeconds * 1000);
}

document.addEventListener('visibilitychange', () => !document.hidden && load().refreshSeconds > 0 && refresh());

async function drawHealth(signal) {
  const dot = document.getElementById('health');
  try {
    await get('health', {}, signal);
    setHealth(dot, 'up', 'Store is up', '');
  } catch (error) {
    if (error.name === 'AbortError') return;
    setHealth(dot, 'down', error.status ? 'Store is not well' : 'Store not reached', error.message);
  }
}

// The dot is a live region: it is touched only when its text changes.
function setHealth(dot, state, text, title) {
  dot.title = title;
  dot.dataset.state = state;
  if (dot.textContent !== text) dot.textContent = text;
}

const numbers = [['Rollouts', 'total_rollouts'], ['Attempts', 'total_attempts'], ['Spans', 'total_spans'], ['Resources', 'total_resources'], ['Workers', 'total_workers']];

async function drawStatistics(signal) {
  const place = document.getElementById('statistics');
  try {
    const got = await get('statistics', {}, signal);
    const item = (term, value) => h('div', {}, h('dt', {}, term), h('dd', {}, value));
    place.replaceChildren(
      ...numbers.filter(([, key]) => key in got).map(([term, key]) => item(term, Number(got[key]).toLocaleString('en'))),
      'uptime' in got ? item('Uptime', seconds(Math.floor(got.uptime))) : '');
  } catch (error) {
    if (error.name !== 'AbortError') place.replaceChildren(); // the dot and the view say what is wrong
  }
}

window.addEventListener('popstate', show);
window.addEventListener('settings', refresh);
setInterval(tick, 1000);
applyTheme();
show();
