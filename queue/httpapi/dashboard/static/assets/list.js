// A list view: filters, a sortable table in pages, rows that expand. What it
// shows is in the page's address, so that a link leads back to it.

import { get } from './api.js';
import { h, notice, reconcile, tell } from './dom.js';

/**
 * list mounts a list view in root and returns its refresh function (signal => promise).
 *
 * spec: title; path and pageSize of the request; search {label, param};
 * choices [{label, param, options}]; columns [{label, sort, cell(item), className}];
 * sort (the default) and descending; key(item); open {load(key, signal), view(item, data)}
 * for rows that expand; empty: what to do when the store has none.
 */
export function list(root, spec) {
  const state = readState(spec);
  let controller = null;
  const changed = async (firstPage = true) => {
    if (!message.isConnected) return; // a late keystroke of a view that was left
    if (firstPage) state.page = 0;
    writeState(spec, state);
    await refresh();
  };

  const message = h('div', { 'aria-live': 'polite' });
  const head = h('tr');
  const body = h('tbody');
  const table = h('table', {}, h('caption.hidden', {}, spec.title), h('thead', {}, head), body);
  const pager = h('nav.pager', { 'aria-label': 'Pages' });
  root.replaceChildren(
    h('h1', {}, spec.title), filters(spec, state, changed), message, h('div.scroll', {}, table), pager);
  drawHead();

  function drawHead() {
    head.replaceChildren(...spec.columns.map(column => {
      if (!column.sort) return h('th', { scope: 'col', class: column.className }, column.label);
      const active = state.sort === column.sort;
      const order = state.descending ? 'descending' : 'ascending';
      return h('th', { scope: 'col', class: column.className, 'aria-sort': active ? order : null },
        h('button.sort', {
          type: 'button', 'data-key': `sort:${column.sort}`,
          onclick: () => {
            state.descending = active ? !state.descending : column.sort.endsWith('_time') || column.sort === 'duration';
            state.sort = column.sort;
            drawHead();
            head.querySelector(`[data-key="sort:${CSS.escape(column.sort)}"]`).focus();
            changed();
          },
        }, column.label, h('span', { 'aria-hidden': 'true' }, active ? (state.descending ? ' ▼' : ' ▲') : '')));
    }));
  }

  function row(item) {
    const key = spec.key(item), open = state.open.has(key);
    const cells = spec.columns.map(column => h('td', { class: column.className }, column.cell(item)));
    if (!spec.open) return h('tr', {}, cells);
    const toggle = h('button.toggle', {
      type: 'button', 'aria-expanded': String(open), 'aria-label': `Details of ${key}`, 'data-key': `toggle:${key}`,
      onclick: () => {
        if (!state.open.delete(key)) state.open.add(key);
        changed(false);
      },
    }, open ? '▾' : '▸');
    cells[0].prepend(toggle);
    return h('tr', { class: open ? 'open' : null }, cells);
  }

  function detail(content) {
    return h('tr.detail', {}, h('td', { colspan: spec.columns.length }, content));
  }

  function draw(page, details) {
    reconcile(body, page.items.flatMap(item => {
      const key = spec.key(item), open = state.open.has(key);
      const rows = [{ key, data: [item, open], build: () => row(item) }];
      if (open) {
        const loaded = details.get(key);
        rows.push({ key: `${key} detail`, data: [item, loaded.data, loaded.error?.message], build: () => detail(
          loaded.error ? notice('error', loaded.error.message) : spec.open.view(item, loaded.data)) });
      }
      return rows;
    }));
    const last = Math.max(0, Math.ceil(page.total / spec.pageSize) - 1);
    const from = page.offset + 1, to = page.offset + page.items.length;
    const turn = (label, to, off) => h('button', {
      type: 'button', 'data-key': label, disabled: off, onclick: () => { state.page = to; changed(false); },
    }, label);
    reconcile(pager, [{
      key: 'pager', data: [from, to, page.total], build: () => h('div', {},
        h('span', {}, page.items.length ? `${from}–${to} of ${page.total}` : `0 of ${page.total}`),
        turn('First', 0, state.page === 0), turn('Previous', state.page - 1, state.page === 0),
        turn('Next', state.page + 1, state.page >= last), turn('Last', last, state.page >= last)),
    }]);
    if (page.items.length) tell(message);
    else if (page.total) tell(message, notice('empty', 'This page is past the end. Press First.'));
    else if (isFiltered(spec, state)) tell(message, notice('empty', 'Nothing matches. Take a filter away to see more.'));
    else tell(message, notice('empty', spec.empty));
    table.hidden = !page.items.length;
  }

  async function refresh(outer) {
    controller?.abort();
    const mine = controller = new AbortController();
    const signal = outer ? AbortSignal.any([outer, mine.signal]) : mine.signal;
    try {
      const page = await get(spec.path, request(spec, state), signal);
      const details = new Map(await Promise.all(page.items.map(spec.key).filter(key => state.open.has(key)).map(async key => {
        try {
          return [key, { data: await spec.open.load?.(key, signal) }];
        } catch (error) {
          if (error.name === 'AbortError') throw error;
          return [key, { error }];
        }
      })));
      draw(page, details);
    } catch (error) {
      if (error.name === 'AbortError') return;
      tell(message, notice('error', error.message));
      table.hidden = !body.hasChildNodes();
    }
  }
  return refresh;
}

function filters(spec, state, changed) {
  let pause = 0;
  const search = h('label.search', {}, h('span', {}, spec.search.label), h('input', {
    type: 'search', value: state.search, spellcheck: 'false', autocomplete: 'off',
    oninput: event => {
      state.search = event.target.value.trim();
      clearTimeout(pause);
      pause = setTimeout(changed, 250);
    },
  }));
  const groups = (spec.choices ?? []).map(choice => h('fieldset', {}, h('legend', {}, choice.label), choice.options.map(option =>
    h('label.chip', {}, h('input', {
      type: 'checkbox', checked: state.chosen[choice.param].has(option),
      onchange: event => {
        state.chosen[choice.param][event.target.checked ? 'add' : 'delete'](option);
        changed();
      },
    }), option))));
  return h('form.filters', { role: 'search', 'aria-label': `Filter ${spec.title}`, onsubmit: e => e.preventDefault() }, search, groups);
}

function isFiltered(spec, state) {
  return state.search !== '' || (spec.choices ?? []).some(choice => state.chosen[choice.param].size);
}

function request(spec, state) {
  const chosen = Object.fromEntries((spec.choices ?? []).map(choice => [choice.param, [...state.chosen[choice.param]]]));
  return {
    limit: spec.pageSize, offset: state.page * spec.pageSize,
    sort_by: state.sort, sort_order: state.descending ? 'desc' : 'asc',
    [spec.search.param]: state.search, ...chosen,
  };
}

function readState(spec) {
  const from = new URLSearchParams(location.search);
  const sorts = spec.columns.map(column => column.sort).filter(Boolean);
  const sort = from.get('sort') ?? '';
  const known = sorts.includes(sort.replace(/^-/, ''));
  return {
    search: from.get('search') ?? '',
    chosen: Object.fromEntries((spec.choices ?? []).map(choice =>
      [choice.param, new Set(from.getAll(choice.param).filter(value => choice.options.includes(value)))])),
    sort: known ? sort.replace(/^-/, '') : spec.sort,
    descending: known ? sort.startsWith('-') : spec.descending,
    page: Math.max(0, (Number.parseInt(from.get('page'), 10) || 1) - 1),
    open: new Set(from.getAll('open')),
  };
}

function writeState(spec, state) {
  const to = new URLSearchParams();
  if (state.search) to.set('search', state.search);
  for (const [param, values] of Object.entries(state.chosen)) for (const value of values) to.append(param, value);
  if (state.sort !== spec.sort || state.descending !== spec.descending) to.set('sort', (state.descending ? '-' : '') + state.sort);
  if (state.page) to.set('page', state.page + 1);
  for (const key of state.open) to.append('open', key);
  history.replaceState(null, '', location.pathname + (to.size ? '?' + to : ''));
}
