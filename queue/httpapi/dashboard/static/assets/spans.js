// What a list of spans means: the tree, the time range, the rewards. No page here.

const REWARD = /^agentlightning\.reward\.(\d+)\.(name|value)$/;

/** rewards returns the rewards a span carries, in order: [{name, value}]. */
export function rewards(span) {
  const found = new Map();
  for (const [key, value] of Object.entries(span.attributes ?? {})) {
    const match = REWARD.exec(key);
    if (!match) continue;
    const entry = found.get(match[1]) ?? { name: `reward ${match[1]}`, value: undefined };
    entry[match[2]] = value;
    found.set(match[1], entry);
  }
  return [...found.entries()].sort((a, b) => a[0] - b[0]).map(([, entry]) => entry).filter(entry => entry.value !== undefined);
}

/** spanKey tells spans apart: a span id is unique within its attempt only. */
export const spanKey = span => `${span.attempt_id}/${span.span_id}`;

const start = span => Number(span.start_time ?? span.end_time ?? 0);

/**
 * tree orders spans depth first, children by start time, and gives each its depth and whether it has children.
 * A span whose parent is not in the list, or is its own ancestor, stands at the top. Children of a
 * span in folded (a set of keys) are left out.
 */
export function tree(spans, folded) {
  const sorted = [...spans].sort((a, b) => start(a) - start(b) || a.sequence_id - b.sequence_id);
  const byKey = new Map(sorted.map(span => [spanKey(span), span]));
  const children = new Map(), roots = [];
  for (const span of sorted) {
    const parent = span.parent_id && byKey.get(`${span.attempt_id}/${span.parent_id}`);
    if (!parent || parent === span) roots.push(span);
    else if (children.has(parent)) children.get(parent).push(span);
    else children.set(parent, [span]);
  }
  const rows = [], seen = new Set();
  const visit = (root, hidden) => {
    const stack = [{ span: root, depth: 0, hidden }];
    while (stack.length) {
      const { span, depth, hidden } = stack.pop();
      if (seen.has(span)) continue;
      seen.add(span);
      const below = children.get(span) ?? [];
      if (!hidden) rows.push({ span, depth, parent: below.length > 0 });
      const fold = hidden || folded.has(spanKey(span));
      for (const child of below.toReversed()) stack.push({ span: child, depth: depth + 1, hidden: fold });
    }
  };
  for (const root of roots) visit(root, false);
  for (const span of sorted) if (!seen.has(span)) visit(span, false); // members of a cycle
  return rows;
}

/** range returns the first start and the last end of spans, {from, to} in seconds; to > from. */
export function range(spans) {
  let from = Infinity, to = -Infinity;
  for (const span of spans) {
    const begin = span.start_time ?? span.end_time, end = span.end_time ?? span.start_time;
    if (begin === null || begin === undefined) continue;
    from = Math.min(from, begin);
    to = Math.max(to, end);
  }
  if (from > to) return { from: 0, to: 1 };
  return { from, to: Math.max(to, from + 1e-6) };
}
