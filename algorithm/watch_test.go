package algorithm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aglq/aglq/algorithm/internal/testagent"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// enqueue stores n tasks with a mark in their metadata.
func enqueue(t *testing.T, s queue.Store, n int, mark string) []string {
	t.Helper()
	reqs := make([]queue.Request, n)
	for i := range reqs {
		reqs[i] = queue.Request{Input: rawjson.AppendInt(nil, int64(i)), Metadata: rawjson.Value(`{"mark":"` + mark + `"}`)}
	}
	rollouts, err := s.Enqueue(t.Context(), reqs)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, n)
	for i := range rollouts {
		ids[i] = rollouts[i].RolloutID
	}
	return ids
}

func marked(mark string) func(*queue.Rollout) bool {
	return func(r *queue.Rollout) bool { return r.Metadata.Get("mark").Text() == mark }
}

// collect reads n results, or all when n is below 0, and fails on doubled ones.
func collect(t *testing.T, w *Watch, n int) map[string]Result {
	t.Helper()
	got := map[string]Result{}
	if n == 0 {
		return got
	}
	for r, err := range w.Results(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := got[r.Rollout.RolloutID]; ok {
			t.Fatalf("rollout %s was handed out twice", r.Rollout.RolloutID)
		}
		got[r.Rollout.RolloutID] = r
		if len(got) == n {
			break
		}
	}
	return got
}

func reward(r queue.AttemptedRollout) testagent.Outcome {
	v, _ := r.Input.Float()
	return testagent.Rewarded(v)
}

// TestWatchSeesAllOnce watches what is there already and what others enqueue and
// start meanwhile, several pages of it.
func TestWatchSeesAllOnce(t *testing.T) {
	s := testagent.Store(t)
	want := enqueue(t, s, 3*watchPage, "a")
	testagent.Serve(t, s, 4, reward)
	w := New(s, Options{}).Watch(WatchOptions{Want: marked("a")})
	got := collect(t, w, 50)
	enqueue(t, s, 10, "b")
	var others sync.WaitGroup
	more := make([][]string, 4)
	for i := range more {
		others.Go(func() { more[i] = enqueue(t, s, 120, "a") })
	}
	others.Wait()
	started, err := s.Start(t.Context(), queue.Request{Input: rawjson.Value("7"), Metadata: rawjson.Value(`{"mark":"a"}`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := testagent.Finish(t.Context(), s, started, testagent.Rewarded(7)); err != nil {
		t.Fatal(err)
	}
	for _, ids := range more {
		want = append(want, ids...)
	}
	want = append(want, started.RolloutID)
	for id, r := range collect(t, w, len(want)-len(got)) {
		if _, ok := got[id]; ok {
			t.Fatalf("rollout %s was handed out twice", id)
		}
		got[id] = r
	}
	for _, id := range want {
		r, ok := got[id]
		input, _ := r.Rollout.Input.Float()
		if reward, finite := r.FiniteReward(); !ok || !finite || reward != input || r.Attempt == nil || !r.Succeeded() {
			t.Fatalf("rollout %s of %d: %+v", id, len(want), r)
		}
	}
	if len(w.open) != 0 || len(got) != len(want) {
		t.Errorf("%d rollouts are still open, %d of %d handed out", len(w.open), len(got), len(want))
	}
}

func TestWatchOnce(t *testing.T) {
	s := testagent.Store(t)
	if got := collect(t, New(s, Options{}).Watch(WatchOptions{Once: true}), -1); len(got) != 0 {
		t.Errorf("an empty store has %d results", len(got))
	}
	enqueue(t, s, 5, "a")
	testagent.Serve(t, s, 1, reward)
	w := New(s, Options{}).Watch(WatchOptions{Once: true, SkipSpans: true})
	got := collect(t, w, -1)
	for _, r := range got {
		if r.Reward != nil || r.Spans != nil {
			t.Errorf("spans were fetched: %+v", r)
		}
	}
	if len(got) != 5 {
		t.Errorf("%d results, want 5", len(got))
	}
}

// TestWatchResumes goes on from a watermark: nothing is missed.
func TestWatchResumes(t *testing.T) {
	s := testagent.Store(t)
	enqueue(t, s, 2, "a")
	finish(t, s, 1)
	w := New(s, Options{}).Watch(WatchOptions{})
	collect(t, w, 1)
	unfinished, err := s.Rollouts(t.Context(), queue.RolloutQuery{Statuses: []queue.RolloutStatus{queue.RolloutQueuing}, Paging: queue.All})
	if err != nil {
		t.Fatal(err)
	}
	if start := unfinished.Items[0].StartTime; w.Watermark() > start {
		t.Errorf("the watermark %f is past the start %f of an unfinished rollout", w.Watermark(), start)
	}
	enqueue(t, s, 3, "b")
	finish(t, s, 4)
	again := New(s, Options{}).Watch(WatchOptions{Since: w.Watermark(), Once: true, Want: marked("b")})
	if got := collect(t, again, -1); len(got) != 3 {
		t.Errorf("%d rollouts after the watermark, want the 3 that came later", len(got))
	}
	future := New(s, Options{}).Watch(WatchOptions{Since: queue.Seconds(time.Now()) + 1, Once: true})
	if got := collect(t, future, -1); len(got) != 0 || future.Watermark() < queue.Seconds(time.Now()) {
		t.Errorf("%d rollouts from the future, watermark %f", len(got), future.Watermark())
	}
}

// finish claims and finishes n rollouts.
func finish(t *testing.T, s queue.Store, n int) {
	t.Helper()
	claimed, err := s.Claim(t.Context(), queue.Claim{Limit: n})
	if err != nil || len(claimed) != n {
		t.Fatalf("claimed %d of %d: %v", len(claimed), n, err)
	}
	for _, c := range claimed {
		if err := testagent.Finish(t.Context(), s, c, reward(c)); err != nil {
			t.Fatal(err)
		}
	}
}

// lateStore hides rollouts, fails now and then, and deletes some.
type lateStore struct {
	queue.Store
	hidden  map[string]bool
	deleted map[string]bool
	failAt  int // the number of the list call that fails
	calls   int
}

var errAway = errors.New("away")

func (s *lateStore) Rollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[queue.AttemptedRollout], error) {
	if s.calls++; s.calls == s.failAt {
		return queue.Page[queue.AttemptedRollout]{}, errAway
	}
	limit, offset := q.Limit, q.Offset
	q.Limit, q.Offset = -1, 0
	page, err := s.Store.Rollouts(ctx, q)
	var shown []queue.AttemptedRollout
	for _, r := range page.Items {
		if !s.hidden[r.RolloutID] && !s.deleted[r.RolloutID] {
			shown = append(shown, r)
		}
	}
	page.Total = len(shown)
	page.Items = shown[min(offset, len(shown)):]
	if limit >= 0 {
		page.Items = page.Items[:min(limit, len(page.Items))]
	}
	return page, err
}

// TestWatchSeesLateOnes shows a rollout only after younger ones were seen, as when
// a write of another store took long.
func TestWatchSeesLateOnes(t *testing.T) {
	s := testagent.Store(t)
	ids := enqueue(t, s, 3, "a")
	finish(t, s, 3)
	late := &lateStore{Store: s, hidden: map[string]bool{ids[0]: true}}
	w := New(late, Options{}).Watch(WatchOptions{})
	w.far, w.pause = 0, time.Millisecond
	if got := collect(t, w, 2); len(got) != 2 {
		t.Fatalf("%d results", len(got))
	}
	delete(late.hidden, ids[0])
	if _, ok := collect(t, w, 1)[ids[0]]; !ok {
		t.Error("the late rollout was not handed out")
	}
}

// TestWatchSurvivesErrors fails each of the first calls in turn: nothing is missed.
func TestWatchSurvivesErrors(t *testing.T) {
	s := testagent.Store(t)
	enqueue(t, s, 2*watchPage+10, "a")
	finish(t, s, 2*watchPage+10)
	for failAt := 1; failAt < 8; failAt++ {
		late := &lateStore{Store: s, failAt: failAt}
		w := New(late, Options{}).Watch(WatchOptions{Once: true})
		got, failed := map[string]bool{}, 0
		for range 2 {
			for r, err := range w.Results(t.Context()) {
				if err != nil {
					if !errors.Is(err, errAway) {
						t.Fatal(err)
					}
					failed++
					continue
				}
				got[r.Rollout.RolloutID] = true
			}
		}
		if len(got) != 2*watchPage+10 || failed != 1 {
			t.Errorf("call %d failed: %d results and %d errors", failAt, len(got), failed)
		}
	}
}

// TestWatchSurvivesDeletions deletes rollouts between two pages and while they are
// waited for.
func TestWatchSurvivesDeletions(t *testing.T) {
	s := testagent.Store(t)
	ids := enqueue(t, s, 3*watchPage, "a")
	late := &deletingStore{lateStore{Store: s, deleted: map[string]bool{}}, ids[len(ids)-watchPage/2:]}
	w := New(late, Options{}).Watch(WatchOptions{Once: true})
	w.far = 0
	w.pause = time.Millisecond
	finish(t, s, 2*watchPage)
	got := collect(t, w, 2*watchPage)
	if len(got) != 2*watchPage {
		t.Fatalf("%d results", len(got))
	}
	for _, id := range ids {
		late.deleted[id] = true
	}
	if got := collect(t, w, -1); len(got) != 0 || len(w.open) != 0 {
		t.Errorf("%d results of deleted rollouts, %d still open", len(got), len(w.open))
	}
}

// deletingStore deletes some rollouts after the first page was read.
type deletingStore struct {
	lateStore
	doomed []string
}

func (s *deletingStore) Rollouts(ctx context.Context, q queue.RolloutQuery) (queue.Page[queue.AttemptedRollout], error) {
	page, err := s.lateStore.Rollouts(ctx, q)
	for _, id := range s.doomed {
		s.deleted[id] = true
	}
	return page, err
}

// TestWatchManyOpen has far more unfinished rollouts than one look takes, and the
// youngest finish first.
func TestWatchManyOpen(t *testing.T) {
	s := testagent.Store(t)
	ids := enqueue(t, s, 1200, "a")
	for i := len(ids) - 1; i > len(ids)-5; i-- {
		if _, err := s.UpdateRollout(t.Context(), ids[i], queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}); err != nil {
			t.Fatal(err)
		}
	}
	w := New(s, Options{}).Watch(WatchOptions{})
	w.pause = time.Millisecond
	for id, r := range collect(t, w, 4) {
		if r.Rollout.Status != queue.RolloutCancelled || r.Attempt != nil {
			t.Errorf("rollout %s: %+v", id, r)
		}
	}
}

func TestWatchEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := fmt.Errorf("enough")
	cancel(cause)
	for _, err := range New(testagent.Store(t), Options{}).Watch(WatchOptions{}).Results(ctx) {
		if !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}
}

// TestFindingSurvivesDeletions looks for a run, and for a batch of it, while retention
// deletes rollouts before the place that was reached: none of the others is missed.
func TestFindingSurvivesDeletions(t *testing.T) {
	s := testagent.Store(t)
	run, err := New(s, Options{}).FindRun(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := run.Batch(t.Context(), "b", make([]Task, 2*resumePage), BatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ids := b.RolloutIDs()
	found := func(what string, got []string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids[50:] {
			if !slices.Contains(got, id) {
				t.Fatalf("%s: rollout %s of %d is missed; %d were found", what, id, len(ids), len(got))
			}
		}
	}
	shrinking := func() *Client {
		return New(&deletingStore{lateStore{Store: s, deleted: map[string]bool{}}, ids[:50]}, Options{})
	}
	again, err := shrinking().FindRun(t.Context(), "r")
	found("FindRun", again.RolloutIDs("b"), err)
	resumed, err := shrinking().Resume(t.Context(), b.ID())
	found("Resume", resumed.RolloutIDs(), err)
}
