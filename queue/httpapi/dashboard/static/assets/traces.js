// The spans of a rollout, or of one attempt of it, as a tree with bars by time.

import { get, query } from './api.js';
import { badge, h, json, mono, none, notice, panel, reconcile, seconds, setStyle, tell, when } from './dom.js';
import { range, rewards, spanKey, tree } from './spans.js';

// Spans in a page of the waterfall, and rollouts offered by the picker.
const PAGE = 500;
const PICKS = 20;

/** mount shows the view in root and returns its refresh function. */
export default function mount(root) {
  const address = new URLSearchParams(location.search);
  const state = {
    rolloutId: address.get('rolloutId') ?? '',
    attemptId: address.get('attemptId') ?? '',
    search: address.get('search') ?? '',
    selected: address.get('span') ?? '',
    offset: 0,
    folded: new Set(),
  };
  let controller = null, pause = 0, page = null;

  const picker = h('input', {
    type: 'search', list: 'rollout-choices', value: state.rolloutId, spellcheck: 'false', autocomplete: 'off',
    oninput: () => later(offerRollouts), onchange: event => choose({ rolloutId: event.target.value.trim(), attemptId: '' }),
  });
  const choices = h('datalist', { id: 'rollout-choices' });
  const attempts = h('select', { onchange: event => choose({ attemptId: event.target.value }) }, h('option', { value: '' }, 'All attempts'));
  const search = h('input', {
    type: 'search', value: state.search, spellcheck: 'false', autocomplete: 'off',
    oninput: event => later(() => choose({ search: event.target.value.trim() })),
  });
  const message = h('div', { 'aria-live': 'polite' });
  const summary = h('p.summary'), rows = h('tbody'), axis = h('div.axis', { 'aria-hidden': 'true' });
  const table = h('table.waterfall', {}, h('caption.hidden', {}, 'Spans'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Span'), h('th', { scope: 'col' }, axis, h('span.hidden', {}, 'Time')), h('th.number', { scope: 'col' }, 'Duration'))), rows);
  const side = h('aside.side', { 'aria-label': 'Span details', tabindex: '-1' });
  const pager = h('nav.pager', { 'aria-label': 'Pages' });
  const body = h('div.split', { hidden: true }, h('div.scroll', {}, table), side);
  root.replaceChildren(h('h1', {}, 'Traces'),
    h('form.filters', { role: 'search', 'aria-label': 'Choose spans', onsubmit: e => e.preventDefault() },
      h('label.search.wide', {}, h('span', {}, 'Rollout id'), picker, choices),
      h('label.search', {}, h('span', {}, 'Attempt'), attempts),
      h('label.search.wide', {}, h('span', {}, 'Span name, span id or trace id'), search)),
    message, summary, body, pager);

  function later(work) {
    clearTimeout(pause);
    pause = setTimeout(() => root.contains(table) && work(), 250);
  }

  function remember() {
    const { rolloutId, attemptId, search, selected } = state;
    history.replaceState(null, '', location.pathname + query({ rolloutId, attemptId, search, span: selected }));
  }

  function choose(change) {
    if (Object.entries(change).every(([name, value]) => state[name] === value)) return;
    Object.assign(state, change, { offset: 0, selected: '' });
    remember();
    refresh();
  }

  async function offerRollouts() {
    try {
      const found = await get('rollouts', { limit: PICKS, offset: 0, sort_by: 'start_time', sort_order: 'desc', rollout_id_contains: picker.value.trim() });
      reconcile(choices, found.items.map(({ rollout_id, status, mode }) => ({
        key: rollout_id, data: status, build: () => h('option', { value: rollout_id }, [status, mode].filter(Boolean).join(', ')),
      })));
      return found.items;
    } catch (error) {
      tell(message, notice('error', error.message));
      return null;
    }
  }

  async function offerAttempts(signal) {
    const found = await get(`rollouts/${encodeURIComponent(state.rolloutId)}/attempts`,
      { limit: 200, offset: 0, sort_by: 'sequence_id', sort_order: 'desc' }, signal);
    const known = found.items.map(a => [a.attempt_id, `${a.sequence_id}: ${a.attempt_id} (${a.status})`]);
    if (state.attemptId && !known.some(([id]) => id === state.attemptId)) known.push([state.attemptId, state.attemptId]);
    reconcile(attempts, [['', 'All attempts'], ...known].map(([id, text]) => ({
      key: id, data: text, build: () => h('option', { value: id }, text),
    })));
    attempts.value = state.attemptId;
    return new Map(found.items.map(a => [a.attempt_id, a.sequence_id]));
  }

  function pickFirst(items) {
    body.hidden = true;
    summary.replaceChildren();
    pager.replaceChildren();
    if (!items) return; // the message says why
    tell(message, notice('empty', items.length
      ? 'Choose a rollout above, or one of the latest:'
      : 'No rollouts yet. Spans show up here when a worker runs one.'),
    h('ul.picks', {}, items.map(r => h('li', {}, h('a', { href: '/traces' + query({ rolloutId: r.rollout_id }) }, mono(r.rollout_id)), ' ', badge(r.status), ' ', when(r.start_time)))));
  }

  async function refresh(outer) {
    controller?.abort();
    const mine = controller = new AbortController();
    const signal = outer ? AbortSignal.any([outer, mine.signal]) : mine.signal;
    if (!state.rolloutId) return pickFirst(await offerRollouts());
    const { rolloutId, attemptId, search, offset } = state;
    const match = search ? { trace_id_contains: search, span_id_contains: search, name_contains: search, filter_logic: 'or' } : {};
    try {
      const [numbers, spans] = await Promise.all([offerAttempts(signal), get('spans',
        { rollout_id: rolloutId, attempt_id: attemptId, limit: PAGE, offset, sort_by: 'start_time', sort_order: 'asc', ...match }, signal)]);
      page = { ...spans, numbers };
      draw();
    } catch (error) {
      if (error.name !== 'AbortError') tell(message, notice('error', error.message));
    }
  }

  function draw() {
    const { items, total, numbers } = page, time = range(items);
    body.hidden = !items.length;
    if (items.length) tell(message);
    else if (state.search) tell(message, notice('empty', 'No span matches. Clear the search to see all spans.'));
    else if (!numbers.size) tell(message, notice('empty', `No attempt of ${state.rolloutId} is known. Check the id, or start a worker to run it.`));
    else tell(message, notice('empty', 'No spans yet. They show up here when the agent sends them.'));
    drawSummary(items, total, time);
    const several = new Set(items.map(s => s.attempt_id)).size > 1;
    reconcile(rows, tree(items, state.folded).map(({ span, depth, parent }) => ({
      key: spanKey(span),
      data: [span, depth, parent, time, several, state.folded.has(spanKey(span)), state.selected === spanKey(span)],
      build: () => row(span, depth, parent, time, several && numbers.get(span.attempt_id)),
    })));
    axis.replaceChildren(...[0, 0.25, 0.5, 0.75].map(part => setStyle(h('span', {}, seconds((time.to - time.from) * part)), { left: `${part * 100}%` })));
    const selected = items.find(s => spanKey(s) === state.selected);
    reconcile(side, [selected ? { key: state.selected, data: selected, build: () => detail(selected) }
      : { key: '', data: '', build: () => h('p.none', {}, 'Choose a span to see its attributes.') }]);
    const turn = (label, to, off) => h('button', { type: 'button', 'data-key': label, disabled: off, onclick: () => { state.offset = to; refresh(); } }, label);
    reconcile(pager, total <= PAGE ? [] : [{ key: 'pager', data: [state.offset, total], build: () => h('div', {},
      h('span', {}, `${state.offset + 1}–${state.offset + items.length} of ${total} spans`),
      turn('Previous', state.offset - PAGE, state.offset === 0), turn('Next', state.offset + PAGE, state.offset + PAGE >= total)) }]);
  }

  function drawSummary(items, total, time) {
    if (!items.length) return summary.replaceChildren();
    const failed = items.filter(s => s.status.status_code === 'ERROR').length, found = items.flatMap(rewards);
    summary.replaceChildren(`${total} ${total === 1 ? 'span' : 'spans'} in ${seconds(time.to - time.from)}, from `, when(time.from),
      failed ? `; ${failed} with errors` : '', found.length ? '; rewards: ' : '', ...found.map(rewardChip));
  }

  function row(span, depth, parent, time, attemptNumber) {
    const key = spanKey(span), folded = state.folded.has(key), selected = state.selected === key;
    const fold = parent ? h('button.toggle', {
      type: 'button', 'aria-expanded': String(!folded), 'aria-label': `Spans below ${span.name}`, 'data-key': `fold:${key}`,
      onclick: () => { if (!state.folded.delete(key)) state.folded.add(key); draw(); },
    }, folded ? '▸' : '▾') : h('span.toggle');
    const name = h('button.name', {
      type: 'button', title: span.name, 'aria-pressed': String(selected), 'data-key': `name:${key}`,
      onclick: () => { state.selected = selected ? '' : key; remember(); draw(); },
    }, span.name || '(no name)');
    const label = setStyle(h('div.label', {}, fold, name, attemptNumber ? h('span.none', {}, `#${attemptNumber}`) : null, rewards(span).map(rewardChip)), { paddingLeft: `${Math.min(depth, 12) * 16}px` });
    return h('tr', { class: selected ? 'selected' : null }, h('td', {}, label), h('td', {}, bar(span, time)),
      h('td.number', {}, span.start_time === null || span.end_time === null ? none() : seconds(span.end_time - span.start_time)));
  }

  return refresh;
}

function rewardChip({ name, value }) {
  const number = Number(value), text = Number.isFinite(number) ? String(Number(number.toPrecision(5))) : String(value);
  return h('span.reward', { title: `Reward ${name}: ${value}` }, `${name} ${text}`);
}

function bar(span, { from, to }) {
  const begin = span.start_time ?? span.end_time ?? from, end = span.end_time ?? begin, percent = t => ((t - from) / (to - from)) * 100;
  const shape = h('span', { 'data-code': span.status.status_code, 'data-reward': rewards(span).length > 0 });
  return h('div.bar', { 'aria-hidden': 'true' }, setStyle(shape, { left: `${percent(begin)}%`, width: `${Math.max(0, percent(end) - percent(begin))}%` }));
}

function detail(span) {
  const key = spanKey(span), fact = (term, value) => [h('dt', {}, term), h('dd', {}, value)];
  const found = rewards(span), rest = Object.fromEntries(Object.entries(span).filter(([name]) => !shown.has(name)));
  return h('div', {}, h('h2', {}, span.name || '(no name)'),
    h('p', {}, badge(span.status.status_code), ' ', found.map(rewardChip)),
    span.status.description && h('pre', { class: span.status.status_code === 'ERROR' ? 'error' : null }, span.status.description),
    h('dl.facts', {},
      fact('Start', when(span.start_time)), fact('Duration', span.start_time === null || span.end_time === null ? none() : seconds(span.end_time - span.start_time)),
      fact('Sequence', String(span.sequence_id)), fact('Attempt', mono(span.attempt_id)), fact('Span', mono(span.span_id)),
      fact('Parent', mono(span.parent_id)), fact('Trace', mono(span.trace_id))),
    panel('Attributes', span.attributes, `${key}:attributes`),
    span.events.length > 0 && h('section.panel', {}, h('h3', {}, 'Events'), span.events.map((event, i) =>
      h('div.event', {}, h('strong', {}, event.name), ' ', event.timestamp === null || span.start_time === null ? null : h('span.none', {}, `+${seconds(event.timestamp - span.start_time)}`),
        json(event.attributes, `${key}:event:${i}`)))),
    span.links.length > 0 && panel('Links', span.links, `${key}:links`),
    panel('Resource', span.resource, `${key}:resource`),
    Object.keys(rest).length > 0 && panel('More', rest, `${key}:more`));
}

// The fields of a span that have a place of their own in its details.
const shown = new Set(['rollout_id', 'attempt_id', 'sequence_id', 'trace_id', 'span_id', 'parent_id', 'name', 'status',
  'attributes', 'events', 'links', 'start_time', 'end_time', 'context', 'parent', 'resource']);
