package mongo_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	monitor "go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
)

// two opens two backends on one partition, with n queued rollouts r0, r1 and so
// on. The second is watched.
func two(t *testing.T, n int, watch *monitor.CommandMonitor) (first, second *mongo.Backend) {
	o := mongo.Options{URI: mongotest.URI(t), Database: mongotest.Database(t), Logger: slog.New(slog.DiscardHandler)}
	open := func(client *options.ClientOptions) *mongo.Backend {
		b, err := mongo.OpenWith(t.Context(), o, client)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close(context.Background()) })
		return b
	}
	first = open(options.Client())
	err := first.Atomic(t.Context(), func(tx collections.Tx) error {
		made := make([]*queue.Record, n)
		for i := range made {
			made[i] = queue.NewRecord(fmt.Sprint("r", i), queue.Request{}, true, 1)
		}
		return tx.InsertRollouts(made)
	})
	if err != nil {
		t.Fatal(err)
	}
	return first, open(options.Client().SetMonitor(watch))
}

func claimHead(ctx context.Context, b *mongo.Backend, n int) error {
	return b.Atomic(ctx, func(tx collections.Tx) error {
		head, err := tx.Head(n)
		if err != nil {
			return err
		}
		for _, r := range head {
			r = r.Clone()
			r.Begin("at", nil, true, 0, 1)
			if err := tx.PutRollout(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestHeadThatOthersTake has another process take the whole window each time
// that it was read, until the window is looked at no more: what is queued behind
// it is found all the same.
func TestHeadThatOthersTake(t *testing.T) {
	var other *mongo.Backend
	var meddle atomic.Bool
	watch := &monitor.CommandMonitor{
		Succeeded: func(ctx context.Context, e *monitor.CommandSucceededEvent) {
			if e.CommandName == "find" && meddle.CompareAndSwap(true, false) {
				if err := claimHead(context.WithoutCancel(ctx), other, 2); err != nil {
					t.Error(err)
				}
			}
		},
	}
	other, b := two(t, 5, watch)
	b.Meet()
	found := 0
	meddle.Store(true)
	_, err := b.Separately(t.Context(), func(tx collections.Tx) error {
		head, err := tx.Head(1)
		found = len(head)
		return err
	})
	if err != nil || found != 1 || meddle.Load() {
		t.Errorf("found %d of 3 that are left, %v", found, err)
	}
}

// TestHeadOfWhatWasRead claims a rollout that the section has read for another
// reason.
func TestHeadOfWhatWasRead(t *testing.T) {
	_, b := two(t, 1, nil)
	b.Meet()
	_, err := b.Separately(t.Context(), func(tx collections.Tx) error {
		if err := tx.Prefetch([]string{"r0"}, nil); err != nil {
			return err
		}
		if head, err := tx.Head(1); err != nil || len(head) != 1 {
			t.Errorf("head %v, %v", head, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestTornRead has another process change two rollouts together between the reads of
// one and the other.
func TestTornRead(t *testing.T) {
	other, b := two(t, 2, nil)
	var first, second *queue.Record
	runs := 0
	err := b.Atomic(t.Context(), func(tx collections.Tx) (err error) {
		runs++
		if first, err = tx.Rollout("r0"); err != nil {
			return err
		}
		if runs == 1 {
			if err := claimHead(t.Context(), other, 2); err != nil {
				return err
			}
		}
		second, err = tx.Rollout("r1")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if first.Rollout.Status != second.Rollout.Status {
		t.Errorf("after %d runs one section saw r0 %s and r1 %s, which changed together", runs, first.Rollout.Status, second.Rollout.Status)
	}
}
