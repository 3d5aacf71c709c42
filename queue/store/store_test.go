package store_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

func TestClaimsAreFirstInFirstOut(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{})
		queued := must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(5)))
		var got []string
		for range 3 {
			for _, r := range must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 2})) {
				if r.Attempt == nil || r.Attempt.SequenceID != 1 || r.Status != queue.RolloutPreparing {
					t.Fatalf("claimed %+v", r)
				}
				got = append(got, r.RolloutID)
			}
		}
		var want []string
		for _, r := range queued {
			want = append(want, r.RolloutID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("claimed %v, enqueued %v", got, want)
		}
	})
}

// Every queued rollout is given out exactly once, however many ask at a time.
func TestConcurrentClaimsShareNothing(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{ScanDebounce: time.Hour})
		const rollouts, workers = 200, 32
		must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(rollouts)))
		var mu sync.Mutex
		seen := make(map[string]int)
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for {
					got, err := s.Claim(ctx, queue.Claim{Limit: 1 + w%3, WorkerID: ptr(fmt.Sprint("w", w))})
					if err != nil {
						t.Error(err)
						return
					}
					if len(got) == 0 {
						return
					}
					mu.Lock()
					for _, r := range got {
						seen[r.RolloutID]++
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(seen) != rollouts {
			t.Errorf("%d of %d rollouts were claimed", len(seen), rollouts)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s was claimed %d times", id, n)
			}
		}
	})
}

func TestWaitingClaimIsWoken(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{})
		claimed := make(chan []queue.AttemptedRollout)
		for range 3 {
			go func() {
				got, err := s.Claim(ctx, queue.Claim{Limit: 1, Wait: time.Minute})
				if err != nil {
					t.Error(err)
				}
				claimed <- got
			}()
		}
		for i := range 3 {
			must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(1)))
			if got := <-claimed; len(got) != 1 {
				t.Fatalf("waiting claim %d got %d rollouts", i, len(got))
			}
		}
		if got := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 1, Wait: time.Millisecond})); len(got) != 0 {
			t.Errorf("an empty queue gave %v", got)
		}
	})
}

func TestWaitEndsWhenAllHaveFinished(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{})
		rs := must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(3)))
		ids := []string{rs[2].RolloutID, "ro-unknown", rs[0].RolloutID, rs[2].RolloutID}
		finish := func(id string, status queue.RolloutStatus) {
			must[queue.Rollout](t)(s.UpdateRollout(ctx, id, queue.RolloutUpdate{Status: queue.Set(status)}))
		}
		if got := must[[]queue.Rollout](t)(s.Wait(ctx, []string{"ro-unknown"}, -1)); len(got) != 0 {
			t.Fatalf("unknown ids gave %v", got)
		}
		if got := must[[]queue.Rollout](t)(s.Wait(ctx, ids, 0)); len(got) != 0 {
			t.Fatalf("nothing has finished, got %v", got)
		}
		out := make(chan []queue.Rollout)
		go func() {
			got, err := s.Wait(ctx, ids, -1)
			if err != nil {
				t.Error(err)
			}
			out <- got
		}()
		finish(rs[0].RolloutID, queue.RolloutSucceeded)
		finish(rs[0].RolloutID, queue.RolloutQueuing) // taken back: it is waited for again
		finish(rs[2].RolloutID, queue.RolloutCancelled)
		select {
		case got := <-out:
			t.Fatalf("ended too soon with %v", got)
		case <-time.After(20 * time.Millisecond):
		}
		finish(rs[0].RolloutID, queue.RolloutFailed)
		got := <-out
		var order []string
		for _, r := range got {
			order = append(order, r.RolloutID)
		}
		if want := []string{rs[2].RolloutID, rs[0].RolloutID, rs[2].RolloutID}; !slices.Equal(order, want) {
			t.Errorf("waited for %v, want %v", order, want)
		}
	})
}

func TestCloseEndsWaits(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := store.New(open(), store.Options{Logger: quiet})
		rs := must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(1)))
		must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 1}))
		var started, ended sync.WaitGroup
		started.Add(2)
		ended.Go(func() {
			started.Done()
			if _, err := s.Wait(ctx, []string{rs[0].RolloutID}, -1); err != nil && queue.KindOf(err) != queue.Unavailable {
				t.Error(err)
			}
		})
		ended.Go(func() {
			started.Done()
			if _, err := s.Claim(ctx, queue.Claim{Limit: 1, Wait: time.Hour}); err != nil && queue.KindOf(err) != queue.Unavailable {
				t.Error(err)
			}
		})
		started.Wait()
		s.EndWaits()
		ended.Wait()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestIdempotencyKeyGivesTheFirstAnswer(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		s := start(t, open(), store.Options{})
		keyed := func(key string) context.Context { return queue.WithIdempotencyKey(context.Background(), key) }
		ctx := context.Background()

		first := must[[]queue.Rollout](t)(s.Enqueue(keyed("e"), requests(2)))
		claimed := must[[]queue.AttemptedRollout](t)(s.Claim(keyed("c"), queue.Claim{Limit: 1, WorkerID: ptr("w")}))
		must[*queue.Span](t)(s.AddSpan(ctx, span(claimed[0].Attempt, "s1")))
		again := must[[]queue.Rollout](t)(s.Enqueue(keyed("e"), requests(2)))
		if len(again) != 2 || string(again[0].AppendJSON(nil)) != string(first[0].AppendJSON(nil)) || again[1].RolloutID != first[1].RolloutID {
			t.Errorf("enqueue answered %v, first %v", again, first)
		}
		reclaimed := must[[]queue.AttemptedRollout](t)(s.Claim(keyed("c"), queue.Claim{Limit: 1, WorkerID: ptr("w")}))
		if len(reclaimed) != 1 || string(reclaimed[0].AppendJSON(nil)) != string(claimed[0].AppendJSON(nil)) {
			t.Errorf("claim answered %s, first %s", reclaimed[0].AppendJSON(nil), claimed[0].AppendJSON(nil))
		}
		a := must[queue.AttemptedRollout](t)(s.Start(keyed("s"), requests(1)[0], nil))
		b := must[queue.AttemptedRollout](t)(s.Start(keyed("s"), requests(1)[0], nil))
		if a.RolloutID != b.RolloutID || a.Attempt.AttemptID != b.Attempt.AttemptID {
			t.Errorf("start answered %v, first %v", b, a)
		}
		a = must[queue.AttemptedRollout](t)(s.StartAttempt(keyed("sa"), a.RolloutID, nil))
		b = must[queue.AttemptedRollout](t)(s.StartAttempt(keyed("sa"), a.RolloutID, nil))
		if a.Attempt.AttemptID != b.Attempt.AttemptID || b.Attempt.SequenceID != 2 {
			t.Errorf("start attempt answered %v, first %v", b.Attempt, a.Attempt)
		}
		u := must[queue.ResourcesUpdate](t)(s.AddResources(keyed("r"), rawjson.EmptyObject))
		v := must[queue.ResourcesUpdate](t)(s.AddResources(keyed("r"), rawjson.Value(`{"other":1}`)))
		if diff := cmp.Diff(u, v); diff != "" {
			t.Errorf("add resources answered otherwise (-first +again):\n%s", diff)
		}
		if _, err := s.StartAttempt(keyed("sa"), first[1].RolloutID, nil); queue.KindOf(err) != queue.Conflict {
			t.Errorf("a key used for attempts of two rollouts gave %v", err)
		}
		if _, err := s.Start(keyed("e"), requests(1)[0], nil); queue.KindOf(err) != queue.Conflict {
			t.Errorf("a key used for two operations gave %v", err)
		}
		// An empty claim creates nothing, so its key stays free.
		must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 5}))
		must[[]queue.AttemptedRollout](t)(s.Claim(keyed("late"), queue.Claim{Limit: 1}))
		must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(1)))
		if got := must[[]queue.AttemptedRollout](t)(s.Claim(keyed("late"), queue.Claim{Limit: 1})); len(got) != 1 {
			t.Errorf("the retried empty claim got %d rollouts", len(got))
		}
	})
}

func TestUnclaimRestoresThePlace(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{})
		rs := must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(2)))
		got := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 1, WorkerID: ptr("w")}))
		ref := queue.AttemptRef{RolloutID: got[0].RolloutID, AttemptID: got[0].Attempt.AttemptID}
		if err := s.Unclaim(ctx, []queue.AttemptRef{ref}); err != nil {
			t.Fatal(err)
		}
		if w := must[*queue.Worker](t)(s.Worker(ctx, "w")); w.Status != queue.WorkerIdle || w.CurrentRolloutID != nil {
			t.Errorf("the worker is %+v", w)
		}
		got = must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 2}))
		if len(got) != 2 || got[0].RolloutID != rs[0].RolloutID || got[0].Attempt.SequenceID != 1 {
			t.Fatalf("after the unclaim %v", got)
		}
		// An attempt that has shown life stays.
		ref = queue.AttemptRef{RolloutID: got[0].RolloutID, AttemptID: got[0].Attempt.AttemptID}
		must[*queue.Span](t)(s.AddSpan(ctx, span(got[0].Attempt, "s")))
		if err := s.Unclaim(ctx, []queue.AttemptRef{ref}); err != nil {
			t.Fatal(err)
		}
		if r := must[*queue.AttemptedRollout](t)(s.Rollout(ctx, ref.RolloutID)); r.Status != queue.RolloutRunning {
			t.Errorf("a running rollout was unclaimed: %v", r.Status)
		}
	})
}

func TestSpansNumbersAndHeartbeats(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		c := newClock()
		s := start(t, open(), store.Options{Now: c.now})
		a := must[queue.AttemptedRollout](t)(s.Start(ctx, requests(1)[0], ptr("w")))
		c.advance(time.Second)
		explicit := span(a.Attempt, "x")
		explicit.SequenceID = 100
		unknown := span(a.Attempt, "y")
		unknown.AttemptID = "at-none"
		added := must[queue.SpansAdded](t)(s.AddSpans(ctx, []queue.Span{span(a.Attempt, "a"), explicit, unknown, span(a.Attempt, "a")}))
		if len(added.Stored) != 2 || added.Rejected != 1 || added.Reason == "" {
			t.Fatalf("added %+v", added)
		}
		if n := must[int64](t)(s.NextSequence(ctx, a.RolloutID, 3)); n != 101 {
			t.Errorf("the number after 100 is %d", n)
		}
		if n := must[int64](t)(s.NextSequence(ctx, "ro-unknown", 1)); n != 1 {
			t.Errorf("the first number of an unknown rollout is %d", n)
		}
		r := must[*queue.AttemptedRollout](t)(s.Rollout(ctx, a.RolloutID))
		if r.Status != queue.RolloutRunning || r.Attempt.Status != queue.AttemptRunning || *r.Attempt.LastHeartbeatTime != queue.Seconds(c.now()) {
			t.Errorf("after the first span %+v", r.Attempt)
		}
		c.advance(time.Second)
		if got := must[*queue.Span](t)(s.AddSpan(ctx, span(a.Attempt, "a"))); got != nil {
			t.Errorf("a duplicate was stored: %+v", got)
		}
		before := must[*queue.Attempt](t)(s.LatestAttempt(ctx, a.RolloutID))
		c.advance(time.Second)
		must[*queue.Span](t)(s.AddSpan(ctx, span(a.Attempt, "b")))
		after := must[*queue.Attempt](t)(s.LatestAttempt(ctx, a.RolloutID))
		if *before.LastHeartbeatTime >= *after.LastHeartbeatTime || *after.LastHeartbeatTime != queue.Seconds(c.now()) {
			t.Errorf("heartbeats: %v after a duplicate, %v after a span at %v", *before.LastHeartbeatTime, *after.LastHeartbeatTime, queue.Seconds(c.now()))
		}
		if st := must[queue.Statistics](t)(s.Statistics(ctx)); st.Spans != 3 || st.Attempts != 1 || st.Rollouts != 1 || st.Workers != 1 {
			t.Errorf("statistics %+v", st)
		}
		if _, err := s.AddSpan(ctx, unknown); queue.KindOf(err) != queue.NotFound {
			t.Errorf("a span of an unknown attempt gave %v", err)
		}
	})
}

func TestWorkerLease(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		c := newClock()
		s := start(t, open(), store.Options{Now: c.now, WorkerTTL: 30 * time.Second})
		must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(2)))
		dead := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 1, WorkerID: ptr("dead")}))[0]
		live := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 1, WorkerID: ptr("live")}))[0]
		ref := queue.AttemptRef{RolloutID: live.RolloutID, AttemptID: live.Attempt.AttemptID}
		for range 10 {
			c.advance(10 * time.Second)
			answer := must[queue.HeartbeatAnswer](t)(s.Heartbeat(ctx, queue.Heartbeat{WorkerID: "live", Held: []queue.AttemptRef{ref}}))
			if !answer.Held[0].Held {
				t.Fatal("the living worker lost its attempt")
			}
		}
		// max_attempts is 1, yet the rollout is tried again: nobody is to blame.
		again := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 5, WorkerID: ptr("live")}))
		if len(again) != 1 || again[0].RolloutID != dead.RolloutID || again[0].Attempt.SequenceID != 2 {
			t.Fatalf("after the lease ended, claimed %v", again)
		}
		// The old attempt has lost its say.
		must[queue.Attempt](t)(s.UpdateAttempt(ctx, dead.RolloutID, dead.Attempt.AttemptID, queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}))
		if r := must[*queue.AttemptedRollout](t)(s.Rollout(ctx, dead.RolloutID)); r.Status != queue.RolloutPreparing || r.Attempt.SequenceID != 2 {
			t.Errorf("a fenced attempt changed its rollout to %v", r.Status)
		}
	})
}

func TestHeartbeatTellsOfACancelledRollout(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{})
		a := must[queue.AttemptedRollout](t)(s.Start(ctx, requests(1)[0], ptr("w")))
		must[queue.Rollout](t)(s.UpdateRollout(ctx, a.RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}))
		ref := queue.AttemptRef{RolloutID: a.RolloutID, AttemptID: a.Attempt.AttemptID}
		answer := must[queue.HeartbeatAnswer](t)(s.Heartbeat(ctx, queue.Heartbeat{WorkerID: "w", Held: []queue.AttemptRef{ref, {RolloutID: "ro-none"}}}))
		if h := answer.Held[0]; h.Held || h.RolloutStatus != queue.RolloutCancelled {
			t.Errorf("the heartbeat answered %+v", h)
		}
		if h := answer.Held[1]; h.Held || h.RolloutStatus != "" {
			t.Errorf("of an unknown rollout the heartbeat answered %+v", h)
		}
		must[queue.Attempt](t)(s.UpdateAttempt(ctx, a.RolloutID, "latest", queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}))
		if r := must[*queue.AttemptedRollout](t)(s.Rollout(ctx, a.RolloutID)); r.Status != queue.RolloutCancelled || r.Attempt.Status != queue.AttemptSucceeded {
			t.Errorf("the cancelled rollout is %v, its attempt %v", r.Status, r.Attempt.Status)
		}
	})
}

func TestUnknownRecordsAreNotFound(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{})
		rs := must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(1)))
		_, errs := s.UpdateRollout(ctx, "ro-none", queue.RolloutUpdate{})
		_, errA := s.StartAttempt(ctx, "ro-none", nil)
		_, errB := s.UpdateAttempt(ctx, "ro-none", "latest", queue.AttemptUpdate{})
		_, errC := s.UpdateAttempt(ctx, rs[0].RolloutID, "latest", queue.AttemptUpdate{})
		for i, err := range []error{errs, errA, errB, errC} {
			var e *queue.Error
			if !errors.As(err, &e) || e.Kind != queue.NotFound {
				t.Errorf("call %d gave %v", i, err)
			}
		}
		if r := must[*queue.AttemptedRollout](t)(s.Rollout(ctx, "ro-none")); r != nil {
			t.Errorf("an unknown rollout is %v", r)
		}
		if a := must[*queue.Attempt](t)(s.LatestAttempt(ctx, rs[0].RolloutID)); a != nil {
			t.Errorf("the latest of no attempts is %v", a)
		}
	})
}

// A limit is a wish, however large; what is there is claimed, and once.
func TestClaimOfEverything(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{})
		const n = 2500
		must[[]queue.Rollout](t)(s.Enqueue(ctx, requests(n)))
		keyed := queue.WithIdempotencyKey(ctx, "all")
		first := must[[]queue.AttemptedRollout](t)(s.Claim(keyed, queue.Claim{Limit: math.MaxInt}))
		again := must[[]queue.AttemptedRollout](t)(s.Claim(keyed, queue.Claim{Limit: math.MaxInt}))
		if len(first) != n || len(again) != n {
			t.Fatalf("claimed %d, then %d, of %d", len(first), len(again), n)
		}
		for i := range first {
			if first[i].Attempt.AttemptID != again[i].Attempt.AttemptID {
				t.Fatalf("claim %d is %s, then %s", i, first[i].Attempt.AttemptID, again[i].Attempt.AttemptID)
			}
		}
	})
}

// A heartbeat answers what the spans before it have changed.
func TestHeartbeatSeesEarlierSpans(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := context.Background()
		s := start(t, open(), store.Options{})
		a := must[queue.AttemptedRollout](t)(s.Start(ctx, requests(1)[0], ptr("w")))
		must[*queue.Span](t)(s.AddSpan(ctx, span(a.Attempt, "s")))
		ref := queue.AttemptRef{RolloutID: a.RolloutID, AttemptID: a.Attempt.AttemptID}
		answer := must[queue.HeartbeatAnswer](t)(s.Heartbeat(ctx, queue.Heartbeat{WorkerID: "w", Held: []queue.AttemptRef{ref}}))
		if h := answer.Held[0]; !h.Held || h.RolloutStatus != queue.RolloutRunning {
			t.Errorf("the heartbeat answered %+v", h)
		}
	})
}
