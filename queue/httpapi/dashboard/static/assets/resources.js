// The versions of the resources that workers are given.

import { badge, age, h, json, mono, when } from './dom.js';
import { list } from './list.js';

const spec = {
  title: 'Resources',
  path: 'resources',
  pageSize: 50,
  search: { label: 'Resources id', param: 'resources_id_contains' },
  sort: 'update_time',
  descending: true,
  key: update => update.resources_id,
  columns: [
    { label: 'Resources', sort: 'resources_id', cell: u => mono(u.resources_id) },
    { label: 'Version', sort: 'version', className: 'number', cell: u => String(u.version) },
    { label: 'Content', cell: u => Object.entries(u.resources).map(([name, r]) => h('span.part', {}, name, ' ', badge(r.resource_type))) },
    { label: 'Created', sort: 'create_time', cell: u => when(u.create_time) },
    { label: 'Updated', sort: 'update_time', cell: u => [when(u.update_time), ' ', h('span.none', {}, age(u.update_time))] },
  ],
  open: {
    view: update => h('div.panels', {}, Object.entries(update.resources).map(([name, resource]) => content(update, name, resource))),
  },
  empty: 'No resources yet. An algorithm publishes prompts and model endpoints (POST /v1/agl/resources); rollouts then refer to the latest.',
};

function content(update, name, resource) {
  const { resource_type, template, ...rest } = resource;
  return h('section.panel', {}, h('h3', {}, name, ' ', badge(resource_type)),
    template !== undefined && h('pre', {}, template), json(rest, `${update.resources_id}:${name}`));
}

export default root => list(root, spec);
