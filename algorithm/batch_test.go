package algorithm_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/internal/testagent"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func tasks(n int) []algorithm.Task { return slices.Collect(endless(n)) }

func endless(n int) iter.Seq[algorithm.Task] {
	return func(yield func(algorithm.Task) bool) {
		for i := range n {
			if !yield(algorithm.Task{Input: rawjson.Value(fmt.Sprint(i))}) {
				return
			}
		}
	}
}

// inputReward rewards a task with the number it is.
func inputReward(r queue.AttemptedRollout) testagent.Outcome {
	v, _ := r.Input.Float()
	return testagent.Rewarded(v)
}

func TestBatchResults(t *testing.T) {
	s := testagent.Store(t)
	client := algorithm.New(s, algorithm.Options{Poll: time.Millisecond})
	b, err := client.EnqueueBatch(t.Context(), tasks(30), algorithm.BatchOptions{
		Mode: queue.ModeTrain, Metadata: rawjson.Value(`{"is_train":true,"data_id":"mine"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	testagent.Serve(t, s, 3, func(r queue.AttemptedRollout) testagent.Outcome {
		if string(r.Input) == "7" {
			return testagent.Outcome{Failed: true, Error: "boom"}
		}
		return inputReward(r)
	})
	seen := map[int]bool{}
	for r, err := range b.Results(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[r.Index] {
			t.Fatalf("result %d came twice", r.Index)
		}
		seen[r.Index] = true
		if r.Rollout.Mode != queue.ModeTrain || string(r.Rollout.Metadata.Get("is_train")) != "true" ||
			r.Rollout.Metadata.Get("batch_id").Text() != b.ID() || r.DataID() != fmt.Sprintf("%s-%d", b.ID(), r.Index) {
			t.Errorf("mode %s and metadata %s", r.Rollout.Mode, r.Rollout.Metadata)
		}
		if r.Index == 7 {
			if r.Succeeded() || r.Reward != nil || r.Attempt.Metadata.Get("error").Text() != "boom" {
				t.Errorf("the failed one: %+v", r)
			}
			continue
		}
		if !r.Succeeded() || r.Reward == nil || *r.Reward != float64(r.Index) || len(r.Spans) != 1 || r.Attempts() != 1 {
			t.Errorf("result %d: %+v", r.Index, r)
		}
	}
	if len(seen) != 30 || b.Undelivered() != 0 {
		t.Errorf("%d results came, %d are undelivered; want 30 and 0", len(seen), b.Undelivered())
	}
}

// Results come while others are unfinished, and a loop that was left is taken up.
func TestResultsComeAsTheyFinish(t *testing.T) {
	s := testagent.Store(t)
	client := algorithm.New(s, algorithm.Options{Poll: time.Millisecond})
	b, err := client.EnqueueBatch(t.Context(), tasks(100), algorithm.BatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	testagent.Serve(t, s, 2, func(r queue.AttemptedRollout) testagent.Outcome {
		if string(r.Input) == "5" {
			<-release
		}
		return inputReward(r)
	})
	got := 0
	for _, err := range b.Results(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if got++; got == 99 {
			break
		}
	}
	close(release)
	rest, err := b.All(t.Context())
	if err != nil || len(rest) != 1 || rest[0].Index != 5 {
		t.Errorf("the rest is %+v, %v; want result 5", rest, err)
	}
}

func TestRepeatMakesGroups(t *testing.T) {
	s := testagent.Store(t)
	client := algorithm.New(s, algorithm.Options{Poll: time.Millisecond})
	var n atomic.Int64
	testagent.Serve(t, s, 2, func(queue.AttemptedRollout) testagent.Outcome {
		return testagent.Rewarded(float64(n.Add(1)))
	})
	input := []algorithm.Task{{Input: rawjson.Value(`"a"`), DataID: "first"}, {Input: rawjson.Value(`"b"`)}}
	b, err := client.EnqueueBatch(t.Context(), input, algorithm.BatchOptions{ID: "mine", Repeat: 3})
	if err != nil {
		t.Fatal(err)
	}
	results, err := b.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	groups := algorithm.Groups(results)
	if len(groups) != 2 || groups[0].DataID != "first" || groups[1].DataID != "mine-3" ||
		len(groups[0].Results) != 3 || len(groups[1].Results) != 3 {
		t.Fatalf("groups %+v", groups)
	}
	for i, r := range results {
		if r.Index != i || string(r.Rollout.Input) != string(input[i/3].Input) {
			t.Errorf("result %d has index %d and input %s", i, r.Index, r.Rollout.Input)
		}
	}
}

func TestBatchRefusesBadInput(t *testing.T) {
	s := testagent.Store(t)
	client := algorithm.New(s, algorithm.Options{})
	tests := map[string]struct {
		task algorithm.Task
		opts algorithm.BatchOptions
	}{
		"mode":           {opts: algorithm.BatchOptions{Mode: "play"}},
		"repeat":         {opts: algorithm.BatchOptions{Repeat: -1}},
		"batch metadata": {opts: algorithm.BatchOptions{Metadata: rawjson.Value(`[1]`)}},
		"config":         {opts: algorithm.BatchOptions{Config: &queue.Config{}}},
		"task metadata":  {task: algorithm.Task{Metadata: rawjson.Value(`"x"`)}},
	}
	for name, test := range tests {
		b, err := client.EnqueueBatch(t.Context(), append(tasks(1), test.task), test.opts)
		if b != nil || queue.KindOf(err) != queue.Invalid {
			t.Errorf("%s: batch %v, error %v; want an Invalid one", name, b, err)
		}
	}
	stats, err := s.Statistics(t.Context())
	if err != nil || stats.Rollouts != 0 {
		t.Errorf("%d rollouts were stored, %v", stats.Rollouts, err)
	}
}

func TestCancelTheRest(t *testing.T) {
	s := testagent.Store(t)
	client := algorithm.New(s, algorithm.Options{Poll: time.Millisecond})
	b, err := client.EnqueueBatch(t.Context(), tasks(20), algorithm.BatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Claim(t.Context(), queue.Claim{Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range first {
		if err := testagent.Finish(t.Context(), s, c, inputReward(c)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := b.Cancel(t.Context()); n != 15 || err != nil {
		t.Fatalf("cancelled %d, %v; want 15", n, err)
	}
	results, err := b.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[queue.RolloutStatus]int{queue.RolloutSucceeded: 5, queue.RolloutCancelled: 15}
	if diff := cmp.Diff(want, algorithm.Coverage(results)); diff != "" {
		t.Error(diff)
	}
	if results[19].Attempt != nil || results[0].Attempt == nil {
		t.Error("only claimed rollouts have an attempt")
	}
}

func TestResume(t *testing.T) {
	s := testagent.Store(t)
	client := algorithm.New(s, algorithm.Options{Poll: time.Millisecond})
	opts := algorithm.BatchOptions{ID: "mine", Mode: queue.ModeVal, Config: algorithm.Resilient(time.Minute, time.Minute)}
	if _, err := client.EnqueueBatch(t.Context(), tasks(700), algorithm.BatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.EnqueueBatch(t.Context(), tasks(3), opts); err != nil {
		t.Fatal(err)
	}
	testagent.Serve(t, s, 2, inputReward)

	b, err := client.Resume(t.Context(), "mine")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Add(t.Context(), []algorithm.Task{{Input: rawjson.Value("3")}}); err != nil {
		t.Fatal(err)
	}
	results, err := b.All(t.Context())
	if err != nil || len(results) != 4 {
		t.Fatalf("%d results, %v; want 4", len(results), err)
	}
	for i, r := range results {
		if *r.Reward != float64(i) || r.Rollout.Mode != queue.ModeVal || r.Rollout.Config.MaxAttempts != 3 {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	if _, err := client.Resume(t.Context(), "other"); queue.KindOf(err) != queue.NotFound {
		t.Errorf("resuming a batch that is not there: %v", err)
	}
}

// failing refuses an enqueue call and passes all else on.
type failing struct {
	queue.Store
	enqueues int
}

var errAway = errors.New("the store is away")

func (f *failing) Enqueue(ctx context.Context, reqs []queue.Request) ([]queue.Rollout, error) {
	if f.enqueues++; f.enqueues == 2 {
		return nil, errAway
	}
	return f.Store.Enqueue(ctx, reqs)
}

// A batch of which a part was stored is completed by enqueueing it again.
func TestEnqueueAgainStoresWhatIsMissing(t *testing.T) {
	s := testagent.Store(t)
	client := algorithm.New(&failing{Store: s}, algorithm.Options{})
	opts := algorithm.BatchOptions{ID: "mine"}
	b, err := client.EnqueueBatch(t.Context(), tasks(2500), opts)
	if !errors.Is(err, errAway) || b.Len() != 1000 {
		t.Fatalf("%d stored, %v; want 1000 and the store's error", b.Len(), err)
	}
	again, err := client.EnqueueBatch(t.Context(), tasks(2500), opts)
	if err != nil || again.Len() != 2500 {
		t.Fatalf("%d in the batch, %v", again.Len(), err)
	}
	if diff := cmp.Diff(b.RolloutIDs(), again.RolloutIDs()[:1000]); diff != "" {
		t.Error(diff)
	}
	if stats, err := s.Statistics(t.Context()); err != nil || stats.Rollouts != 2500 {
		t.Errorf("%d rollouts are stored, %v; want 2500", stats.Rollouts, err)
	}
}

// forgetful knows no rollout any more, like a store in memory after a restart.
type forgetful struct{ queue.Store }

func (forgetful) Wait(context.Context, []string, time.Duration) ([]queue.Rollout, error) {
	return nil, nil
}

func (forgetful) Rollouts(context.Context, queue.RolloutQuery) (queue.Page[queue.AttemptedRollout], error) {
	return queue.Page[queue.AttemptedRollout]{}, nil
}

func TestLostRolloutsAreAnError(t *testing.T) {
	client := algorithm.New(forgetful{testagent.Store(t)}, algorithm.Options{Poll: time.Millisecond})
	for _, n := range []int{1, 10, 200} {
		b, err := client.EnqueueBatch(t.Context(), tasks(n), algorithm.BatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.All(t.Context())
		if queue.KindOf(err) != queue.NotFound || !strings.Contains(err.Error(), fmt.Sprintf("%d rollouts are gone", n)) {
			t.Errorf("%d lost rollouts: %v", n, err)
		}
	}
}

func TestResultsEndWithContext(t *testing.T) {
	client := algorithm.New(testagent.Store(t), algorithm.Options{Poll: time.Millisecond})
	for _, n := range []int{1, 10, 200} {
		b, err := client.EnqueueBatch(t.Context(), tasks(n), algorithm.BatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err = b.All(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("batch of %d: %v; want the context's error", n, err)
		}
	}
}

func TestWaves(t *testing.T) {
	s := testagent.Store(t)
	client := algorithm.New(s, algorithm.Options{Poll: time.Millisecond})
	testagent.Serve(t, s, 3, inputReward)
	var sizes []int
	next := 0.0
	for wave, err := range client.Waves(t.Context(), endless(25), 10, algorithm.BatchOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(wave))
		stats, err := s.Statistics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := stats.ByStatus[queue.RolloutSucceeded]; n != stats.Rollouts {
			t.Errorf("wave %d is there when %d of %d rollouts have finished", len(sizes), n, stats.Rollouts)
		}
		for _, r := range wave {
			if *r.Reward != next {
				t.Errorf("reward %v; want %v: tasks are out of order", *r.Reward, next)
			}
			next++
		}
	}
	if diff := cmp.Diff([]int{10, 10, 5}, sizes); diff != "" {
		t.Error(diff)
	}
	for _, err := range client.Waves(t.Context(), endless(1), 0, algorithm.BatchOptions{}) {
		if queue.KindOf(err) != queue.Invalid {
			t.Errorf("waves of size 0: %v", err)
		}
	}
}

func TestInFlight(t *testing.T) {
	s := testagent.Store(t)
	client := algorithm.New(s, algorithm.Options{Poll: time.Millisecond})
	testagent.Serve(t, s, 3, inputReward)
	seen := map[int]bool{}
	for r, err := range client.InFlight(t.Context(), endless(100), 8, algorithm.BatchOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		seen[r.Index] = true
		stats, err := s.Statistics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := stats.Rollouts - stats.ByStatus[queue.RolloutSucceeded]; n > 8 {
			t.Errorf("%d rollouts are in flight; want 8 at most", n)
		}
		if *r.Reward != float64(r.Index) {
			t.Errorf("result %d has reward %v", r.Index, *r.Reward)
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d results; want 100", len(seen))
	}
	for _, err := range client.InFlight(t.Context(), endless(1), 0, algorithm.BatchOptions{}) {
		if queue.KindOf(err) != queue.Invalid {
			t.Errorf("none in flight: %v", err)
		}
	}
}
