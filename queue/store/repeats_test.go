package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// repeated claims twice with one key; the queue is empty at the second claim.
func repeated(t *testing.T, first, second *store.Store, c queue.Claim) {
	t.Helper()
	ctx := queue.WithIdempotencyKey(t.Context(), "key")
	must[[]queue.Rollout](t)(first.Enqueue(t.Context(), requests(1)))
	want := must[[]queue.AttemptedRollout](t)(first.Claim(ctx, c))
	if len(want) != 1 {
		t.Fatalf("claimed %v", want)
	}
	if got := must[[]queue.AttemptedRollout](t)(second.Claim(t.Context(), queue.Claim{Limit: 1})); len(got) != 0 {
		t.Fatalf("the queue holds %v", got)
	}
	got := must[[]queue.AttemptedRollout](t)(second.Claim(ctx, c))
	if len(got) != 1 || got[0].Attempt.AttemptID != want[0].Attempt.AttemptID {
		t.Errorf("repeated claim got %v, want attempt %s", got, want[0].Attempt.AttemptID)
	}
}

// TestRepeatedClaimOfAnEmptyQueue has a claim repeated when there is nothing more
// to claim: it gets what it got before.
func TestRepeatedClaimOfAnEmptyQueue(t *testing.T) {
	for name, c := range map[string]queue.Claim{
		"at once": {Limit: 1, WorkerID: ptr("w")},
		"waiting": {Limit: 1, WorkerID: ptr("w"), Wait: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, open func() collections.Backend) {
				s := start(t, open(), store.Options{})
				repeated(t, s, s, c)
			})
			t.Run("another store", func(t *testing.T) {
				database := mongotest.Database(t)
				var stores [2]*store.Store
				for i := range stores {
					b, err := mongo.Open(t.Context(), mongo.Options{URI: mongotest.URI(t), Database: database, Logger: quiet})
					if err != nil {
						t.Fatal(err)
					}
					stores[i] = start(t, b, store.Options{})
				}
				repeated(t, stores[0], stores[1], c)
			})
		})
	}
}

// late is a backend in which the receipt of a claim appears after the first look
// for it.
type late struct {
	collections.Backend
	looks  int
	appear func()
}

func (l *late) Answered(ctx context.Context, keys []string) ([]string, error) {
	found, err := l.Backend.Answered(ctx, keys)
	if l.looks++; l.looks == 1 {
		l.appear()
	}
	return found, err
}

// TestRepeatedClaimLooksAgainAtTheEnd has the first call answered by another store
// while the second one waits at this one.
func TestRepeatedClaimLooksAgainAtTheEnd(t *testing.T) {
	ctx := queue.WithIdempotencyKey(t.Context(), "key")
	inner := memory.New(memory.Options{Logger: quiet})
	b := &late{Backend: inner}
	s := start(t, b, store.Options{})
	r := queue.NewRecord("ro-1", requests(1)[0], false, 1)
	r.Begin("at-1", nil, true, 0, 1)
	b.appear = func() {
		err := inner.Atomic(context.Background(), func(tx collections.Tx) error {
			if err := tx.InsertRollouts([]*queue.Record{r}); err != nil {
				return err
			}
			return tx.PutReceipt(&collections.Receipt{Key: "key", Operation: "claim", Time: 1, Refs: r.AttemptRefs()})
		})
		if err != nil {
			t.Error(err)
		}
	}
	got := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 1, Wait: time.Second}))
	if len(got) != 1 || got[0].Attempt.AttemptID != "at-1" {
		t.Errorf("the repeated claim got %v", got)
	}
}
