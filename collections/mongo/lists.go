package mongo

import (
	"context"
	"math"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/internal/groupcommit"
	"github.com/aglq/aglq/queue"
)

// workerRead is one caller's part in a question for workers.
type workerRead struct {
	id     string
	worker *queue.Worker
}

// Worker implements collections.Workers. All workers of a process that starts, or
// that comes back to a store, send heartbeats at once: those that ask at the same
// time are answered together.
func (b *Backend) Worker(ctx context.Context, id string) (*queue.Worker, error) {
	r := &workerRead{id: id}
	err := b.workerReads.Do(ctx, r)
	return r.worker, wrap(err, "reading a worker from MongoDB")
}

// readWorkers answers a batch of reads.
func (b *Backend) readWorkers(batch []*groupcommit.Call[*workerRead]) {
	ctx, cancel := b.readContext(batch[0].Ctx)
	defer cancel()
	ids := make([]string, len(batch))
	for i, c := range batch {
		ids[i] = c.Item.id
	}
	found := make(map[string]*queue.Worker, len(batch))
	err := each(ctx, b.workers.main, b.idIn(ids), options.Find().SetBatchSize(int32(len(ids)+1)), func(raw bson.Raw) {
		w, _, _ := decodeWorker(raw)
		found[w.WorkerID] = w
	})
	for _, c := range batch {
		c.Err = err
		if w := found[c.Item.id]; w != nil {
			own := *w
			c.Item.worker = &own
		}
	}
}

// QueryWorkers implements collections.Workers. Workers are few and small, so
// all are read.
func (b *Backend) QueryWorkers(ctx context.Context, q queue.WorkerQuery) (queue.Page[*queue.Worker], error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var found []*queue.Worker
	err := each(ctx, b.workers.snapshot, b.mine(), inOrder(), func(raw bson.Raw) {
		if w, _, _ := decodeWorker(raw); collections.MatchWorker(w, &q) {
			found = append(found, w)
		}
	})
	if err != nil {
		return queue.Page[*queue.Worker]{}, wrap(err, "listing workers from MongoDB")
	}
	return collections.PageWorkers(found, q.Paging), nil
}

func inOrder() *options.FindOptionsBuilder {
	return options.Find().SetSort(bson.D{{Key: "p", Value: 1}, {Key: "o", Value: 1}}).SetHint(byOrder)
}

// Resources implements collections.Resources.
func (b *Backend) Resources(ctx context.Context, id string) (*queue.ResourcesUpdate, error) {
	return b.oneResources(ctx, b.idIn([]string{id}), options.Find().SetLimit(1))
}

// LatestResources implements collections.Resources.
func (b *Backend) LatestResources(ctx context.Context) (*queue.ResourcesUpdate, error) {
	sort := bson.D{{Key: "p", Value: 1}, {Key: "ut", Value: -1}, {Key: "w", Value: -1}}
	served := newDoc(64)
	served.text("p", b.partition)
	at := served.open("ut")
	served.float("$gte", math.Inf(-1)) // any number: hidden ones have none
	served.close(at)
	return b.oneResources(ctx, served.done(), options.Find().SetSort(sort).SetLimit(1).SetHint(byUpdate))
}

func (b *Backend) oneResources(ctx context.Context, filter bson.Raw, o *options.FindOptionsBuilder) (*queue.ResourcesUpdate, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var out *queue.ResourcesUpdate
	err := each(ctx, b.resources.main, filter, o, func(raw bson.Raw) { out, _, _ = decodeResources(raw) })
	if err == nil && out != nil {
		err = b.Complete(ctx, &out.Resources)
	}
	return out, wrap(err, "reading resources from MongoDB")
}

// QueryResources implements collections.Resources. All sets are looked at, but
// only those of the page are read with their payloads.
func (b *Backend) QueryResources(ctx context.Context, q queue.ResourcesQuery) (queue.Page[*queue.ResourcesUpdate], error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var found []*queue.ResourcesUpdate
	o := inOrder().SetProjection(bson.D{{Key: "rs", Value: 0}})
	err := each(ctx, b.resources.snapshot, b.mine(), o, func(raw bson.Raw) {
		if u, _, _ := decodeResources(raw); collections.MatchResources(u, &q) {
			found = append(found, u)
		}
	})
	if err != nil {
		return queue.Page[*queue.ResourcesUpdate]{}, wrap(err, "listing resources from MongoDB")
	}
	page := collections.PageResources(found, q.Paging)
	if len(page.Items) == 0 {
		return page, nil
	}
	places := make(map[string]int, len(page.Items))
	ids := make([]string, len(page.Items))
	for i, u := range page.Items {
		ids[i], places[u.ResourcesID] = u.ResourcesID, i
	}
	err = each(ctx, b.resources.snapshot, b.idIn(ids), options.Find(), func(raw bson.Raw) {
		u, _, _ := decodeResources(raw)
		page.Items[places[u.ResourcesID]] = u
	})
	for _, u := range page.Items {
		if err == nil {
			err = b.Complete(ctx, &u.Resources)
		}
	}
	return page, wrap(err, "listing resources from MongoDB")
}
