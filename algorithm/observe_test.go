package algorithm_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/internal/testagent"
	"github.com/aglq/aglq/queue"
)

// account adds up what it is told. The batches of a test run on one goroutine.
type account struct {
	Enqueued, Expected, Harvested, Delivered, Rewarded, Batches int
}

func (a *account) reset() account {
	was := *a
	*a = account{}
	return was
}

// observing is an account as an observer.
type observing struct{ *account }

func (o observing) Enqueued(n int, _ time.Duration)  { o.account.Enqueued += n }
func (o observing) Expected(n int)                   { o.account.Expected += n }
func (o observing) Harvested(n int, _ time.Duration) { o.account.Harvested += n }
func (o observing) BatchEnded(time.Duration)         { o.account.Batches++ }
func (o observing) Delivered(r *algorithm.Result) {
	o.account.Delivered++
	if _, ok := r.FiniteReward(); ok {
		o.account.Rewarded++
	}
}

func TestObserver(t *testing.T) {
	s, told := testagent.Store(t), &account{}
	client := algorithm.New(s, algorithm.Options{Poll: time.Millisecond, Observer: observing{told}})
	testagent.Serve(t, s, 3, func(r queue.AttemptedRollout) testagent.Outcome {
		if string(r.Input) == "7" {
			return testagent.Outcome{Failed: true}
		}
		return inputReward(r)
	})
	b, err := client.EnqueueBatch(t.Context(), tasks(30), algorithm.BatchOptions{})
	if err == nil {
		_, err = b.All(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	whole := account{Enqueued: 30, Harvested: 30, Delivered: 30, Rewarded: 29, Batches: 1}
	if diff := cmp.Diff(whole, told.reset()); diff != "" {
		t.Error(diff)
	}

	resumed, err := client.Resume(t.Context(), b.ID())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range resumed.Results(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if diff := cmp.Diff(account{Expected: 30, Harvested: 30, Delivered: 1, Rewarded: 1}, told.reset(), cmp.Comparer(sameRewarded)); diff != "" {
		t.Error(diff)
	}
}

// sameRewarded compares accounts of which the first result may be without reward.
func sameRewarded(a, b account) bool {
	a.Rewarded, b.Rewarded = 0, 0
	return a == b
}
