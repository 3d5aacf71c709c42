// The rollouts and, in each expanded row, their attempts.

import { get, query } from './api.js';
import { age, badge, elapsed, h, mono, none, notice, panel, when } from './dom.js';
import { list } from './list.js';

const statuses = ['queuing', 'preparing', 'running', 'succeeded', 'failed', 'requeuing', 'cancelled'];

const spec = {
  title: 'Rollouts',
  path: 'rollouts',
  pageSize: 100,
  search: { label: 'Rollout id', param: 'rollout_id_contains' },
  choices: [
    { label: 'Status', param: 'status_in', options: statuses },
    { label: 'Mode', param: 'mode_in', options: ['train', 'val', 'test'] },
  ],
  sort: 'start_time',
  descending: true,
  key: rollout => rollout.rollout_id,
  columns: [
    { label: 'Rollout', sort: 'rollout_id', cell: r => mono(r.rollout_id) },
    { label: 'Status', sort: 'status', cell: r => badge(r.status) },
    { label: 'Mode', sort: 'mode', cell: r => r.mode ?? none() },
    { label: 'Latest attempt', sort: 'attempt_id', cell: attemptCell },
    { label: 'Worker', sort: 'worker_id', className: 'minor', cell: r => (r.attempt?.worker_id ? workerLink(r.attempt.worker_id) : none()) },
    { label: 'Resources', sort: 'resources_id', className: 'minor', cell: resourcesCell },
    { label: 'Created', sort: 'start_time', cell: r => when(r.start_time) },
    { label: 'Duration', sort: 'duration', className: 'number', cell: r => elapsed(r.start_time, r.end_time) },
    { label: 'Heartbeat', sort: 'last_heartbeat_time', className: 'minor', cell: r => age(r.attempt?.last_heartbeat_time) },
    { label: 'Spans', cell: r => h('a', { href: tracesPath(r.rollout_id), 'aria-label': `Traces of ${r.rollout_id}` }, 'Traces') },
  ],
  open: {
    load: (id, signal) => get(`rollouts/${encodeURIComponent(id)}/attempts`,
      { limit: 100, offset: 0, sort_by: 'sequence_id', sort_order: 'desc' }, signal),
    view: details,
  },
  empty: 'No rollouts yet. An algorithm enqueues them (POST /v1/agl/queues/rollouts/enqueue); they show up here as they come.',
};

/** tracesPath is the address of the traces of a rollout or of one of its attempts. */
export const tracesPath = (rolloutId, attemptId = '') => '/traces' + query({ rolloutId, attemptId });

const workerLink = id => h('a', { href: '/runners' + query({ search: id }) }, mono(id));

function attemptCell(rollout) {
  const attempt = rollout.attempt;
  if (!attempt) return none();
  return [mono(attempt.attempt_id), ' ', badge(attempt.status), h('span.none', {}, ` ${attempt.sequence_id} of ${rollout.config.max_attempts}`)];
}

function resourcesCell(rollout) {
  if (!rollout.resources_id) return none();
  return h('a', { href: '/resources' + query({ search: rollout.resources_id, open: rollout.resources_id }) }, mono(rollout.resources_id));
}

function errorText(attempt) {
  const error = attempt.metadata?.error;
  if (error === null || error === undefined) return null;
  return typeof error === 'string' ? error : JSON.stringify(error, null, 2);
}

function details(rollout, attempts) {
  const id = rollout.rollout_id;
  return [
    attempts.items.length ? attemptTable(attempts.items) : notice('empty', 'No attempt yet: no worker has claimed this rollout. Start a worker if none is running.'),
    attempts.total > attempts.items.length && h('p', {}, `The latest ${attempts.items.length} of ${attempts.total} attempts.`),
    h('div.panels', {}, panel('Input', rollout.input, `${id}:input`), panel('Metadata', rollout.metadata, `${id}:metadata`), panel('Config', rollout.config, `${id}:config`)),
  ];
}

function attemptTable(attempts) {
  const labels = ['#', 'Attempt', 'Status', 'Worker', 'Started', 'Ended', 'Duration', 'Heartbeat', 'Spans'];
  return h('table.inner', {}, h('caption.hidden', {}, 'Attempts'),
    h('thead', {}, h('tr', {}, labels.map(label => h('th', { scope: 'col' }, label)))),
    h('tbody', {}, attempts.map(a => {
      const error = errorText(a);
      const more = a.metadata && Object.keys(a.metadata).length > (error === null ? 0 : 1);
      return [
        h('tr', {}, [String(a.sequence_id), mono(a.attempt_id), badge(a.status), a.worker_id ? workerLink(a.worker_id) : none(),
          when(a.start_time), when(a.end_time), elapsed(a.start_time, a.end_time ?? silentEnd(a)), age(a.last_heartbeat_time),
          h('a', { href: tracesPath(a.rollout_id, a.attempt_id), 'aria-label': `Traces of ${a.attempt_id}` }, 'Traces')].map(c => h('td', {}, c))),
        error !== null && h('tr.detail', {}, h('td', { colspan: labels.length }, h('pre.error', {}, error))),
        more && h('tr.detail', {}, h('td', { colspan: labels.length }, panel('Attempt metadata', a.metadata, `${a.attempt_id}:metadata`))),
      ];
    })));
}

// A timed-out or unresponsive attempt has no end; what is known is its last sign of life.
function silentEnd(attempt) {
  return ['timeout', 'unresponsive'].includes(attempt.status) ? attempt.last_heartbeat_time ?? attempt.start_time : null;
}

export default root => list(root, spec);
