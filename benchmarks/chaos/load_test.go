package chaos

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
)

const (
	spansEach = 3
	batchSize = 10
	hands     = 8
)

// load enqueues rollouts and works them off, over HTTP, and remembers what the
// store acknowledged.
type load struct {
	store *client.Client
	total int

	mu        sync.Mutex
	enqueued  []string
	finished  map[string]int // how often a rollout was finished, by id
	spans     int            // acknowledged
	milestone map[int]chan struct{}
}

func newLoad(t *testing.T, url string, total int, milestones ...int) *load {
	c := client.New(url, client.Options{Patience: time.Minute})
	t.Cleanup(c.Close)
	l := &load{store: c, total: total, finished: map[string]int{}, milestone: map[int]chan struct{}{}}
	for _, n := range milestones {
		l.milestone[n] = make(chan struct{})
	}
	return l
}

// enqueue adds the rollouts in batches.
func (l *load) enqueue(ctx context.Context) error {
	for n := 0; n < l.total; n += batchSize {
		reqs := make([]queue.Request, min(batchSize, l.total-n))
		for i := range reqs {
			reqs[i].Input = rawjson.Value(strconv.Itoa(n + i))
		}
		made, err := l.store.Enqueue(ctx, reqs)
		if err != nil {
			return fmt.Errorf("enqueueing: %w", err)
		}
		l.mu.Lock()
		for _, r := range made {
			l.enqueued = append(l.enqueued, r.RolloutID)
		}
		l.mu.Unlock()
	}
	return nil
}

// run is the whole load: one enqueues, the others work until all is finished.
func (l *load) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.enqueue(ctx) })
	for n := range hands {
		group.Go(func() error { return l.work(ctx, fmt.Sprintf("Worker-%d", n)) })
	}
	return group.Wait()
}

func (l *load) work(ctx context.Context, worker string) error {
	for !l.over() {
		claims, err := l.store.Claim(ctx, queue.Claim{Limit: 1, WorkerID: &worker, Wait: 200 * time.Millisecond})
		if err != nil {
			return fmt.Errorf("claiming: %w", err)
		}
		for _, c := range claims {
			if err := l.live(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// live sends a rollout's spans and finishes it.
func (l *load) live(ctx context.Context, c queue.AttemptedRollout) error {
	attempt := c.Attempt.AttemptID
	for n := range spansEach {
		if _, err := l.store.AddSpan(ctx, spanOf(c.RolloutID, attempt, n)); err != nil {
			return fmt.Errorf("adding a span: %w", err)
		}
	}
	done := queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}
	if _, err := l.store.UpdateAttempt(ctx, c.RolloutID, attempt, done); err != nil {
		return fmt.Errorf("finishing: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spans += spansEach
	l.finished[c.RolloutID]++
	if reached, ok := l.milestone[len(l.finished)]; ok && l.finished[c.RolloutID] == 1 {
		close(reached)
	}
	return nil
}

func (l *load) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.finished) >= l.total
}

// reached waits until n rollouts are finished.
func (l *load) reached(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	select {
	case <-l.milestone[n]:
	case <-ctx.Done():
		t.Fatalf("the load did not get to %d finished rollouts", n)
	}
}

// verify reads everything back: what was acknowledged is there, once.
func (l *load) verify(ctx context.Context, t *testing.T) {
	t.Helper()
	page, err := l.store.Rollouts(ctx, queue.RolloutQuery{Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	var stored []string
	for _, r := range page.Items {
		stored = append(stored, r.RolloutID)
		if r.Status != queue.RolloutSucceeded {
			t.Errorf("rollout %s is %s", r.RolloutID, r.Status)
		}
		if l.finished[r.RolloutID] != 1 {
			t.Errorf("rollout %s was claimed and finished %d times", r.RolloutID, l.finished[r.RolloutID])
		}
		l.verifyRollout(ctx, t, r.RolloutID)
	}
	slices.Sort(stored)
	slices.Sort(l.enqueued)
	if !slices.Equal(stored, l.enqueued) {
		t.Errorf("%d rollouts are stored, %d were acknowledged, and they are not the same", len(stored), len(l.enqueued))
	}
	if len(stored) != l.total {
		t.Errorf("%d rollouts are stored, not %d", len(stored), l.total)
	}
}

func (l *load) verifyRollout(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	attempts, err := l.store.Attempts(ctx, queue.AttemptQuery{RolloutID: id, Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	if len(attempts.Items) != 1 || attempts.Items[0].Status != queue.AttemptSucceeded {
		t.Errorf("rollout %s has attempts %+v, not one that succeeded", id, attempts.Items)
	}
	spans, err := l.store.Spans(ctx, queue.SpanQuery{RolloutID: id, Paging: queue.Paging{SortBy: "name", Limit: -1}})
	if err != nil {
		t.Fatal(err)
	}
	if len(spans.Items) != spansEach {
		t.Fatalf("rollout %s has %d spans, not %d", id, len(spans.Items), spansEach)
	}
	for n, s := range spans.Items {
		if want := spanOf(id, s.AttemptID, n); s.Name != want.Name || string(s.Attributes) != string(want.Attributes) {
			t.Errorf("span %d of rollout %s is %s %s", n, id, s.Name, s.Attributes)
		}
	}
}

func spanOf(rollout, attempt string, n int) queue.Span {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	id := fmt.Sprintf("%016x", n+1)
	start := 1_790_000_000.5
	return queue.Span{
		RolloutID: rollout, AttemptID: attempt, SequenceID: int64(n + 1), TraceID: trace, SpanID: id,
		Name:       fmt.Sprintf("step-%d", n),
		Status:     rawjson.Value(`{"status_code":"OK","description":null}`),
		Attributes: rawjson.Value(fmt.Sprintf(`{"n":%d,"rollout":%q}`, n, rollout)),
		Events:     rawjson.Value(`[]`), Links: rawjson.Value(`[]`), StartTime: &start, EndTime: &start,
		Context:  rawjson.Value(fmt.Sprintf(`{"trace_id":%q,"span_id":%q,"is_remote":false,"trace_state":{}}`, trace, id)),
		Parent:   rawjson.Value(`null`),
		Resource: rawjson.Value(`{"attributes":{},"schema_url":""}`),
	}
}
