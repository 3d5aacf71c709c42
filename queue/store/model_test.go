package store_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// model is the store as the rules of package queue describe it: records in a
// map, the queue as the order of places, no storage.
type model struct {
	records map[string]*queue.Record
	order   []string // of creation
	workers map[string]*queue.Worker
	spans   map[string][]string // by rollout: "attempt/span"
	counter map[string]int64
	place   int64
	lease   float64
}

func newModel(lease float64) *model {
	return &model{
		records: make(map[string]*queue.Record), workers: make(map[string]*queue.Worker),
		spans: make(map[string][]string), counter: make(map[string]int64), lease: lease,
	}
}

func (m *model) worker(id string) *queue.Worker {
	if m.workers[id] == nil {
		m.workers[id] = queue.NewWorker(id)
	}
	return m.workers[id]
}

func (m *model) tell(events []queue.WorkerEvent, now float64) {
	for _, e := range events {
		m.worker(e.WorkerID).Apply(e, now)
	}
}

// settlePlace numbers a record that has entered the queue.
func (m *model) settlePlace(r *queue.Record) {
	if r.Place == queue.Tail {
		m.place++
		r.Place = m.place
	}
}

func (m *model) scan(now float64) {
	for _, id := range m.byDue() {
		r := m.records[id]
		if r.Due == 0 || r.Due >= now {
			continue
		}
		var w *queue.Worker
		if a := r.Latest(); a != nil && a.WorkerID != nil {
			w = m.workers[*a.WorkerID]
		}
		events, _ := r.Expire(w, now)
		m.settlePlace(r)
		m.tell(events, now)
	}
}

// byDue is the order in which a scan judges: it decides the order of requeued
// rollouts.
func (m *model) byDue() []string {
	ids := slices.Clone(m.order)
	slices.SortStableFunc(ids, func(a, b string) int {
		x, y := m.records[a].Due, m.records[b].Due
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return ids
}

func (m *model) queued() []string {
	var ids []string
	for _, id := range m.order {
		if m.records[id].Place > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return int(m.records[a].Place - m.records[b].Place) })
	return ids
}

// machine drives a store and the model with the same calls.
type machine struct {
	*model
	t     *rapid.T
	ctx   context.Context
	clock *clock
	store *store.Store
	open  func() *store.Store
}

func (m *machine) now() float64 { return queue.Seconds(m.clock.now()) }

func (m *machine) anyRollout() string {
	if len(m.order) == 0 {
		m.t.Skip("no rollouts yet")
	}
	return rapid.SampledFrom(m.order).Draw(m.t, "rollout")
}

func (m *machine) anyWorker() *string {
	id := rapid.SampledFrom([]string{"", "w1", "w2", "w3"}).Draw(m.t, "worker")
	if id == "" {
		return nil
	}
	return &id
}

func (m *machine) anyAttempt(rollout string) string {
	r := m.records[rollout]
	if len(r.Attempts) == 0 {
		m.t.Skip("no attempts yet")
	}
	return rapid.SampledFrom(r.Attempts).Draw(m.t, "attempt").AttemptID
}

func (m *machine) anyConfig() queue.Config {
	c := queue.DefaultConfig()
	c.MaxAttempts = rapid.Int64Range(1, 3).Draw(m.t, "max attempts")
	if rapid.Bool().Draw(m.t, "timeout") {
		c.TimeoutSeconds = ptr(rapid.Float64Range(1, 50).Draw(m.t, "timeout seconds"))
	}
	if rapid.Bool().Draw(m.t, "unresponsive") {
		c.UnresponsiveSeconds = ptr(rapid.Float64Range(1, 50).Draw(m.t, "unresponsive seconds"))
	}
	for _, s := range queue.AttemptStatuses[2:] {
		if rapid.Bool().Draw(m.t, string(s)) {
			c.RetryCondition = append(c.RetryCondition, s)
		}
	}
	return c
}

func check[T any](m *machine) func(T, error) T {
	return func(v T, err error) T {
		m.t.Helper()
		if err != nil {
			m.t.Fatalf("the store failed: %v", err)
		}
		return v
	}
}

func (m *machine) enqueue(t *rapid.T) {
	reqs := requests(rapid.IntRange(1, 3).Draw(t, "n"))
	config := m.anyConfig()
	for i := range reqs {
		reqs[i].Config = &config
	}
	m.scan(m.now())
	for i, r := range check[[]queue.Rollout](m)(m.store.Enqueue(m.ctx, reqs)) {
		rec := queue.NewRecord(r.RolloutID, reqs[i], true, m.now())
		m.settlePlace(rec)
		m.add(rec)
	}
}

func (m *machine) add(r *queue.Record) {
	m.records[r.Rollout.RolloutID] = r
	m.order = append(m.order, r.Rollout.RolloutID)
}

func (m *machine) claim(t *rapid.T) {
	limit := rapid.IntRange(1, 3).Draw(t, "limit")
	w := m.anyWorker()
	m.scan(m.now())
	want := m.queued()
	want = want[:min(limit, len(want))]
	got := check[[]queue.AttemptedRollout](m)(m.store.Claim(m.ctx, queue.Claim{Limit: limit, WorkerID: w}))
	if len(got) != len(want) {
		t.Fatalf("claimed %d of %d", len(got), len(want))
	}
	var events []queue.WorkerEvent
	for i, id := range want {
		if got[i].RolloutID != id {
			t.Fatalf("claimed %s, the queue has %v", got[i].RolloutID, want)
		}
		events = m.records[id].Begin(got[i].Attempt.AttemptID, w, true, m.lease, m.now())
	}
	m.tell(events, m.now())
	if len(want) == 0 && w != nil {
		m.worker(*w).FoundNothing(m.now())
	}
}

func (m *machine) begin(t *rapid.T) {
	w := m.anyWorker()
	m.scan(m.now())
	if rapid.Bool().Draw(t, "new") || len(m.order) == 0 {
		config := m.anyConfig()
		req := queue.Request{Input: requests(1)[0].Input, Config: &config}
		got := check[queue.AttemptedRollout](m)(m.store.Start(m.ctx, req, w))
		r := queue.NewRecord(got.RolloutID, req, false, m.now())
		m.tell(r.Begin(got.Attempt.AttemptID, w, false, m.lease, m.now()), m.now())
		m.add(r)
		return
	}
	id := m.anyRollout()
	got := check[queue.AttemptedRollout](m)(m.store.StartAttempt(m.ctx, id, w))
	m.tell(m.records[id].Begin(got.Attempt.AttemptID, w, false, m.lease, m.now()), m.now())
}

func (m *machine) addSpans(t *rapid.T) {
	id := m.anyRollout()
	attempt := m.anyAttempt(id)
	var spans []queue.Span
	fresh := 0
	for range rapid.IntRange(1, 3).Draw(t, "n") {
		name := fmt.Sprint("s", rapid.IntRange(0, 20).Draw(t, "span"))
		s := span(&queue.Attempt{RolloutID: id, AttemptID: attempt}, name)
		spans = append(spans, s)
		if key := attempt + "/" + name; !slices.Contains(m.spans[id], key) {
			m.spans[id] = append(m.spans[id], key)
			fresh++
		}
	}
	got := check[queue.SpansAdded](m)(m.store.AddSpans(m.ctx, spans))
	if len(got.Stored) != fresh || got.Rejected != 0 {
		t.Fatalf("stored %d, want %d; rejected %d", len(got.Stored), fresh, got.Rejected)
	}
	for _, s := range got.Stored {
		if s.SequenceID <= m.counter[id] {
			t.Fatalf("number %d after %d", s.SequenceID, m.counter[id])
		}
		m.counter[id] = s.SequenceID
	}
	if fresh > 0 {
		m.records[id].SpansStored(attempt, fresh, m.now())
	}
}

func (m *machine) updateAttempt(t *rapid.T) {
	id := m.anyRollout()
	attempt := m.anyAttempt(id)
	if rapid.Bool().Draw(t, "latest") {
		attempt = "latest"
	}
	var u queue.AttemptUpdate
	if rapid.Bool().Draw(t, "status") {
		u.Status = queue.Set(rapid.SampledFrom(queue.AttemptStatuses).Draw(t, "to"))
	}
	if rapid.IntRange(0, 3).Draw(t, "worker?") == 0 {
		if w := m.anyWorker(); w != nil {
			u.WorkerID = queue.Set(*w)
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "beat?") == 0 {
		u.LastHeartbeatTime = queue.Set(m.now())
	}
	m.scan(m.now())
	check[queue.Attempt](m)(m.store.UpdateAttempt(m.ctx, id, attempt, u))
	r := m.records[id]
	_, events, err := r.UpdateAttempt(attempt, u, m.now())
	if err != nil {
		t.Fatal(err)
	}
	m.settlePlace(r)
	m.tell(events, m.now())
}

func (m *machine) updateRollout(t *rapid.T) {
	id := m.anyRollout()
	var u queue.RolloutUpdate
	if rapid.IntRange(0, 3).Draw(t, "status?") > 0 {
		u.Status = queue.Set(rapid.SampledFrom(queue.RolloutStatuses).Draw(t, "to"))
	} else {
		u.Config = queue.Set(m.anyConfig())
	}
	m.scan(m.now())
	check[queue.Rollout](m)(m.store.UpdateRollout(m.ctx, id, u))
	m.records[id].Update(u, m.now())
	m.settlePlace(m.records[id])
}

func (m *machine) heartbeat(t *rapid.T) {
	id := m.anyRollout()
	w := m.anyWorker()
	if w == nil {
		t.Skip("nobody beats")
	}
	ref := queue.AttemptRef{RolloutID: id, AttemptID: m.anyAttempt(id)}
	got := check[queue.HeartbeatAnswer](m)(m.store.Heartbeat(m.ctx, queue.Heartbeat{WorkerID: *w, Held: []queue.AttemptRef{ref}}))
	if held := m.records[id].Renew(ref.AttemptID, m.now()); held != got.Held[0].Held {
		t.Fatalf("held %v, the store says %v", held, got.Held[0].Held)
	}
	m.worker(*w).Beat(nil, m.now())
}

func (m *machine) pass(t *rapid.T) {
	m.clock.advance(time.Duration(rapid.IntRange(1, 20_000).Draw(t, "ms")) * time.Millisecond)
}

func (m *machine) restart(*rapid.T) { m.store = m.open() }

// compare holds everything the store shows against the model.
func (m *machine) compare(t *rapid.T) {
	m.scan(m.now())
	page := check[queue.Page[queue.AttemptedRollout]](m)(m.store.Rollouts(m.ctx, queue.RolloutQuery{Paging: queue.All}))
	if page.Total != len(m.order) || len(page.Items) != len(m.order) {
		t.Fatalf("%d rollouts, total %d, want %d", len(page.Items), page.Total, len(m.order))
	}
	for i, id := range m.order {
		want := m.records[id].View()
		if diff := cmp.Diff(string(want.AppendJSON(nil)), string(page.Items[i].AppendJSON(nil))); diff != "" {
			t.Fatalf("rollout %s (-want +got):\n%s", id, diff)
		}
		attempts := check[queue.Page[queue.Attempt]](m)(m.store.Attempts(m.ctx, queue.AttemptQuery{RolloutID: id, Paging: queue.All}))
		if diff := cmp.Diff(attemptsJSON(m.records[id].Attempts), attemptsJSON(attempts.Items)); diff != "" {
			t.Fatalf("attempts of %s (-want +got):\n%s", id, diff)
		}
		spans := check[queue.Page[queue.Span]](m)(m.store.Spans(m.ctx, queue.SpanQuery{RolloutID: id, Paging: queue.All}))
		if spans.Total != len(m.spans[id]) {
			t.Fatalf("%d spans of %s, want %d", spans.Total, id, len(m.spans[id]))
		}
	}
	for id, w := range m.workers {
		got := check[*queue.Worker](m)(m.store.Worker(m.ctx, id))
		if got == nil {
			t.Fatalf("no worker %s", id)
		}
		if diff := cmp.Diff(string(w.AppendJSON(nil)), string(got.AppendJSON(nil))); diff != "" {
			t.Fatalf("worker %s (-want +got):\n%s", id, diff)
		}
	}
	st := check[queue.Statistics](m)(m.store.Statistics(m.ctx))
	var attempts, spans int64
	byStatus := make(map[queue.RolloutStatus]int64)
	for _, r := range m.records {
		attempts += int64(len(r.Attempts))
		spans += r.Spans
		byStatus[r.Rollout.Status]++
	}
	if st.Attempts != attempts || st.Spans != spans || st.Rollouts != int64(len(m.order)) {
		t.Fatalf("statistics %+v, want %d attempts, %d spans, %d rollouts", st, attempts, spans, len(m.order))
	}
	for _, s := range queue.RolloutStatuses {
		if st.ByStatus[s] != byStatus[s] {
			t.Fatalf("statistics count %d %s, want %d", st.ByStatus[s], s, byStatus[s])
		}
	}
}

func attemptsJSON(list []queue.Attempt) string {
	var out []byte
	for i := range list {
		out = append(list[i].AppendJSON(out), '\n')
	}
	return string(out)
}

// Any sequence of calls, clock steps and restarts leaves the store as the pure
// rules say.
func TestStoreFollowsTheRules(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		if strings.HasSuffix(t.Name(), "/mongo") && !flagGiven("rapid.checks") {
			// Each call is a round trip; what memory and MongoDB share is checked there.
			setFlag(t, "rapid.checks", "25")
		}
		rapid.Check(t, func(rt *rapid.T) { runModel(t, rt, open()) })
	})
}

func flagGiven(name string) bool {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

func setFlag(t *testing.T, name, value string) {
	before := flag.Lookup(name).Value.String()
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := flag.Set(name, before); err != nil {
			t.Error(err)
		}
	})
}

func runModel(t *testing.T, rt *rapid.T, b collections.Backend) {
	const lease = 25
	m := &machine{model: newModel(lease), t: rt, ctx: context.Background(), clock: newClock()}
	closeStore := func() {
		if m.store != nil {
			if err := m.store.Close(m.ctx); err != nil {
				t.Error(err)
			}
		}
	}
	m.open = func() *store.Store {
		closeStore()
		return store.New(kept{b}, store.Options{Now: m.clock.now, WorkerTTL: lease * time.Second, Logger: quiet})
	}
	m.store = m.open()
	defer func() {
		closeStore()
		if err := b.Close(m.ctx); err != nil {
			t.Error(err)
		}
	}()
	rt.Repeat(map[string]func(*rapid.T){
		"enqueue": m.enqueue, "claim": m.claim, "begin": m.begin, "spans": m.addSpans,
		"attempt": m.updateAttempt, "rollout": m.updateRollout, "heartbeat": m.heartbeat,
		"time": m.pass, "restart": m.restart, "": m.compare,
	})
}

// kept is a backend that outlives the stores over it.
type kept struct{ collections.Backend }

func (kept) Close(context.Context) error { return nil }
