// The workers: what each was last seen doing, and the load of its machine.

import { age, badge, h, mono, none, panel, setStyle } from './dom.js';
import { list } from './list.js';
import { tracesPath } from './rollouts.js';

const spec = {
  title: 'Runners',
  path: 'workers',
  pageSize: 50,
  search: { label: 'Worker id', param: 'worker_id_contains' },
  choices: [{ label: 'Status', param: 'status_in', options: ['busy', 'idle', 'unknown'] }],
  sort: 'last_heartbeat_time',
  descending: true,
  key: worker => worker.worker_id,
  columns: [
    { label: 'Worker', sort: 'worker_id', cell: w => mono(w.worker_id) },
    { label: 'Status', sort: 'status', cell: w => badge(w.status) },
    { label: 'Heartbeat', sort: 'last_heartbeat_time', cell: w => age(w.last_heartbeat_time) },
    { label: 'Current rollout', sort: 'current_rollout_id', cell: currentCell },
    { label: 'CPU', cell: w => gauge('CPU', w.heartbeat_stats?.cpu_usage_pct) },
    { label: 'Memory', cell: w => gauge('Memory', w.heartbeat_stats?.mem_pct) },
    { label: 'Host', className: 'minor', cell: w => String(w.heartbeat_stats?.host ?? '') || none() },
    { label: 'Claimed', sort: 'last_dequeue_time', className: 'minor', cell: w => age(w.last_dequeue_time) },
    { label: 'Busy', sort: 'last_busy_time', className: 'minor', cell: w => age(w.last_busy_time) },
    { label: 'Idle', sort: 'last_idle_time', className: 'minor', cell: w => age(w.last_idle_time) },
  ],
  open: {
    view: worker => h('div.panels', {}, panel('Heartbeat statistics', worker.heartbeat_stats, `${worker.worker_id}:stats`)),
  },
  empty: 'No workers yet. Start one with: aglq worker --store-url ADDRESS -- COMMAND. It shows up here with its first claim or heartbeat.',
};

function currentCell(worker) {
  if (!worker.current_rollout_id) return none();
  return h('a', { href: tracesPath(worker.current_rollout_id, worker.current_attempt_id) }, mono(worker.current_rollout_id));
}

function gauge(label, percent) {
  const value = Number(percent);
  if (percent === null || percent === undefined || !Number.isFinite(value)) return none();
  const bar = setStyle(h('span'), { width: `${Math.min(100, Math.max(0, value))}%` });
  return h('span.gauge', { 'data-high': value >= 90 }, h('span.track', { 'aria-hidden': 'true' }, bar), h('span', { 'aria-label': `${label} ${value.toFixed(0)} percent` }, `${value.toFixed(0)} %`));
}

export default root => list(root, spec);
