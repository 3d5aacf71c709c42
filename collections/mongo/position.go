package mongo

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// QueuedBefore implements collections.Rollouts: a count in the index of the
// queue, which ends at limit.
func (b *Backend) QueuedBefore(ctx context.Context, place int64, limit int) (int, error) {
	if limit <= 0 {
		return 0, nil // MongoDB takes 0 for no limit
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	d := newDoc(64)
	d.text("p", b.partition)
	at := d.open("q")
	d.int("$gt", 0)
	d.int("$lt", place)
	d.close(at)
	n, err := b.rollouts.main.CountDocuments(ctx, d.done(), options.Count().SetHint(byPlace).SetLimit(int64(limit)))
	return int(n), wrap(err, "counting queued rollouts in MongoDB")
}
