package agentlightning

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue"
)

// groupSize is how many rollouts are read before their spans.
const groupSize = 100

// errStopped says that whoever takes the items wants no more.
var errStopped = errors.New("stopped")

// Items reads everything, once. Stores must have stopped writing to the database,
// else a rollout and its attempts may be of different moments.
func (s *Source) Items(ctx context.Context) archive.Items {
	return func(yield func(archive.Item, error) bool) {
		give := func(i archive.Item) error {
			if !yield(i, nil) {
				return errStopped
			}
			return nil
		}
		if err := s.items(ctx, give); err != nil && !errors.Is(err, errStopped) {
			yield(archive.Item{}, err)
		}
	}
}

func (s *Source) items(ctx context.Context, give func(archive.Item) error) error {
	if err := s.readQueue(ctx); err != nil {
		return err
	}
	latest, err := s.latestResources(ctx)
	if err != nil {
		return err
	}
	steps := []func(partition string) error{
		func(p string) error { return s.resources(ctx, p, latest, give) },
		func(p string) error { return s.workers(ctx, p, give) },
		func(p string) error { return s.rollouts(ctx, p, give) },
	}
	for _, step := range steps {
		for _, p := range s.partitions {
			if err := step(p); err != nil {
				return err
			}
		}
	}
	return s.tellLeftBehind(ctx)
}

func inOrder() *options.FindOptionsBuilder {
	return options.Find().SetSort(bson.D{{Key: "_id", Value: 1}})
}

// readQueue numbers the entries of the queues: microseconds of Unix time, as far
// as their ids tell it, in their order. What number one gets does not depend on
// the other partitions, so that reading one and then all of them gives the same.
func (s *Source) readQueue(ctx context.Context) error {
	filter := bson.D{
		{Key: "partition_id", Value: bson.D{{Key: "$in", Value: s.partitions}}},
		{Key: "consumed", Value: false},
	}
	return s.each(ctx, queueName, filter, inOrder(), func(raw bson.Raw) error {
		partition, _ := raw.Lookup("partition_id").StringValueOK()
		rollout, _ := raw.Lookup("value").StringValueOK()
		at := [2]string{partition, rollout}
		if _, twice := s.places[at]; twice {
			return nil
		}
		var made int64
		if id, ok := raw.Lookup("_id").ObjectIDOK(); ok {
			made = id.Timestamp().UnixMicro()
		}
		s.lastPlace[partition] = max(s.lastPlace[partition]+1, made)
		s.places[at] = s.lastPlace[partition]
		return nil
	})
}

// latestResources is the id of the set updated last.
func (s *Source) latestResources(ctx context.Context) (id string, err error) {
	filter := bson.D{{Key: "partition_id", Value: bson.D{{Key: "$in", Value: s.partitions}}}}
	o := options.Find().SetSort(bson.D{{Key: "update_time", Value: -1}, {Key: "_id", Value: -1}}).SetLimit(1).
		SetProjection(bson.D{{Key: "resources_id", Value: 1}})
	err = s.each(ctx, resourcesName, filter, o, func(raw bson.Raw) error {
		id, _ = raw.Lookup("resources_id").StringValueOK()
		return nil
	})
	return id, err
}

// first reports whether an id has not come yet: workers and sets of resources of
// different partitions may share theirs, and that of the partition used last
// stays.
func (s *Source) first(what, id, partition string) bool {
	if key := what + id; !s.seen[key] {
		s.seen[key] = true
		return true
	}
	s.options.Note(fmt.Sprintf("%s %s is in several partitions; that of %s, which was used earlier, was left out", what, id, partition))
	return false
}

func (s *Source) resources(ctx context.Context, partition, latest string, give func(archive.Item) error) error {
	return s.each(ctx, resourcesName, only(partition), inOrder(), func(raw bson.Raw) error {
		u, err := decodeResources(raw)
		if err != nil {
			s.unreadable("set of resources", raw, "resources_id", err)
			return nil
		}
		if !s.first("set of resources", u.ResourcesID, partition) {
			return nil
		}
		return give(archive.Item{Resources: u, Latest: u.ResourcesID == latest})
	})
}

func (s *Source) workers(ctx context.Context, partition string, give func(archive.Item) error) error {
	return s.each(ctx, workersName, only(partition), inOrder(), func(raw bson.Raw) error {
		w, err := decodeWorker(raw)
		if err != nil {
			s.unreadable("worker", raw, "worker_id", err)
			return nil
		}
		if !s.first("worker", w.WorkerID, partition) {
			return nil
		}
		return give(archive.Item{Worker: w})
	})
}

func (s *Source) unreadable(what string, raw bson.Raw, idField string, err error) {
	id, _ := raw.Lookup(idField).StringValueOK()
	s.options.Problem(fmt.Sprintf("%s %s (document %s) cannot be read and was left out: %v", what, id, raw.Lookup("_id"), err))
}

// rollouts gives the rollouts of a partition in groups, each with its spans
// behind it.
func (s *Source) rollouts(ctx context.Context, partition string, give func(archive.Item) error) error {
	var group []*queue.Record
	finish := func() error {
		err := s.group(ctx, partition, group, give)
		group = nil
		return err
	}
	err := s.each(ctx, rolloutsName, only(partition), inOrder().SetBatchSize(groupSize), func(raw bson.Raw) error {
		r, err := decodeRecord(raw)
		s.read[rolloutsName]++
		if err != nil {
			s.unreadable("rollout", raw, "rollout_id", err)
			return nil
		}
		if group = append(group, r); len(group) == groupSize {
			return finish()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return finish()
}

// group gives some rollouts and then their spans.
func (s *Source) group(ctx context.Context, partition string, group []*queue.Record, give func(archive.Item) error) error {
	if len(group) == 0 {
		return nil
	}
	ids := make([]string, len(group))
	byID := make(map[string]*queue.Record, len(group))
	for i, r := range group {
		ids[i], byID[r.Rollout.RolloutID] = r.Rollout.RolloutID, r
	}
	if err := s.addAttempts(ctx, partition, ids, byID); err != nil {
		return err
	}
	if err := s.countSpans(ctx, partition, ids, byID); err != nil {
		return err
	}
	counters, err := s.counters(ctx, partition, ids)
	if err != nil {
		return err
	}
	for _, r := range group {
		s.complete(partition, r)
		if err := give(archive.Item{Rollout: r, Counter: counters[r.Rollout.RolloutID]}); err != nil {
			return err
		}
	}
	return s.spans(ctx, partition, ids, give)
}

func (s *Source) addAttempts(ctx context.Context, partition string, ids []string, byID map[string]*queue.Record) error {
	err := s.each(ctx, attemptsName, of(partition, "rollout_id", ids), options.Find(), func(raw bson.Raw) error {
		a, err := decodeAttempt(raw)
		s.read[attemptsName]++
		if err != nil {
			s.unreadable("attempt", raw, "attempt_id", err)
			return nil
		}
		r := byID[a.RolloutID]
		r.Attempts = append(r.Attempts, a)
		return nil
	})
	for _, r := range byID {
		slices.SortStableFunc(r.Attempts, func(a, b queue.Attempt) int { return cmp.Compare(a.SequenceID, b.SequenceID) })
	}
	return err
}

func (s *Source) countSpans(ctx context.Context, partition string, ids []string, byID map[string]*queue.Record) error {
	cursor, err := s.database.Collection(spansName).Aggregate(ctx, bson.A{
		bson.D{{Key: "$match", Value: of(partition, "rollout_id", ids)}},
		bson.D{{Key: "$group", Value: bson.D{{Key: "_id", Value: "$rollout_id"}, {Key: "n", Value: bson.D{{Key: "$sum", Value: 1}}}}}},
	})
	if err != nil {
		return s.failed(err, "counting spans")
	}
	var counts []struct {
		ID string `bson:"_id"`
		N  int64  `bson:"n"`
	}
	if err := cursor.All(ctx, &counts); err != nil {
		return s.failed(err, "counting spans")
	}
	for _, c := range counts {
		byID[c.ID].Spans = c.N
	}
	return nil
}

func (s *Source) counters(ctx context.Context, partition string, ids []string) (map[string]int64, error) {
	out := make(map[string]int64, len(ids))
	err := s.each(ctx, countersName, of(partition, "key", ids), options.Find(), func(raw bson.Raw) error {
		s.read[countersName]++
		id, _ := raw.Lookup("key").StringValueOK()
		n, _ := raw.Lookup("value").AsInt64OK()
		out[id] = max(n, 0)
		return nil
	})
	return out, err
}

// complete gives a rollout what the reference keeps elsewhere, or works out when
// it needs it: its place and when its limits are due.
func (s *Source) complete(partition string, r *queue.Record) {
	r.Update(queue.RolloutUpdate{Config: queue.Set(r.Rollout.Config)}, 0) // sets what is due
	if !r.Rollout.Status.Queued() {
		return
	}
	place, ok := s.places[[2]string{partition, r.Rollout.RolloutID}]
	if !ok {
		s.lastPlace[partition]++
		place = s.lastPlace[partition]
		s.options.Note(fmt.Sprintf("rollout %s was %s and in no queue, where nobody would have claimed it; it is at the queue's tail now",
			r.Rollout.RolloutID, r.Rollout.Status))
	}
	r.Place = place
}

// spans gives the spans of rollouts by rollout, number and insertion. The server
// sorts them, on disk where they are many.
func (s *Source) spans(ctx context.Context, partition string, ids []string, give func(archive.Item) error) error {
	o := options.Find().SetSort(bson.D{{Key: "rollout_id", Value: 1}, {Key: "sequence_id", Value: 1}, {Key: "_id", Value: 1}}).SetAllowDiskUse(true)
	return s.each(ctx, spansName, of(partition, "rollout_id", ids), o, func(raw bson.Raw) error {
		span, err := decodeSpan(raw)
		s.read[spansName]++
		if err != nil {
			s.unreadable("span", raw, "span_id", err)
			return nil
		}
		return give(archive.Item{Span: span})
	})
}

// tellLeftBehind counts what belongs to no rollout.
func (s *Source) tellLeftBehind(ctx context.Context) error {
	filter := bson.D{{Key: "partition_id", Value: bson.D{{Key: "$in", Value: s.partitions}}}}
	for _, name := range []string{attemptsName, spansName, countersName} {
		n, err := s.database.Collection(name).CountDocuments(ctx, filter)
		if err != nil {
			return s.failed(err, "counting "+name)
		}
		if left := n - s.read[name]; left > 0 {
			s.options.Note(fmt.Sprintf("%d documents of %s belong to no rollout and were left behind", left, name))
		}
	}
	return nil
}
