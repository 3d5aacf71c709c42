package memory

import "context"

// QueuedBefore implements collections.Rollouts.
func (b *Backend) QueuedBefore(_ context.Context, place int64, limit int) (int, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.rollouts.queue.before(place, limit), nil
}

// before counts the entries with a smaller key, up to limit.
func (o *ordered[K]) before(key K, limit int) int {
	n := 0
	for _, block := range o.blocks {
		if n >= limit {
			break
		}
		if block[len(block)-1].key < key {
			n += len(block)
			continue
		}
		for _, e := range block {
			if e.key >= key {
				return min(n, limit)
			}
			n++
		}
	}
	return max(0, min(n, limit))
}
