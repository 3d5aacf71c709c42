package memory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// kiloSpan makes a span that is estimated at 1,000 bytes.
func kiloSpan(rolloutID, spanID string) queue.Span {
	s := queue.Span{RolloutID: rolloutID, AttemptID: "at-1", SpanID: spanID, SequenceID: 1}
	s.Attributes = rawjson.Value(`"` + strings.Repeat("x", 1000-s.Size()-2) + `"`)
	return s
}

type evictions struct {
	*memory.Backend
	t   *testing.T
	log *bytes.Buffer
}

func newEvictions(t *testing.T, maxBytes int64) evictions {
	log := new(bytes.Buffer)
	return evictions{memory.New(memory.Options{MaxBytes: maxBytes, Logger: slog.New(slog.NewTextHandler(log, nil))}), t, log}
}

func (e evictions) enqueue(id string, start float64) {
	e.t.Helper()
	r := queue.NewRecord(id, queue.Request{}, true, start)
	r.Begin("at-1", nil, true, 0, start)
	e.section(func(tx collections.Tx) error { return tx.InsertRollouts([]*queue.Record{r}) })
}

func (e evictions) setStatus(id string, s queue.RolloutStatus) {
	e.t.Helper()
	e.section(func(tx collections.Tx) error {
		r, err := tx.Rollout(id)
		if err != nil {
			return err
		}
		r = r.Clone()
		r.Update(queue.RolloutUpdate{Status: queue.Set(s)}, 100)
		return tx.PutRollout(r)
	})
}

func (e evictions) section(fn func(tx collections.Tx) error) {
	e.t.Helper()
	if err := e.Atomic(context.Background(), fn); err != nil {
		e.t.Fatal(err)
	}
}

func (e evictions) add(id string, spans ...string) {
	e.t.Helper()
	for _, s := range spans {
		if _, err := e.InsertSpans(context.Background(), []queue.Span{kiloSpan(id, s)}); err != nil {
			e.t.Fatal(err)
		}
	}
}

// holds checks which rollouts have how many spans, and what is counted.
func (e evictions) holds(evicted int64, want map[string]int) {
	e.t.Helper()
	total := int64(0)
	for id, n := range want {
		page, err := e.QuerySpans(context.Background(), queue.SpanQuery{RolloutID: id, Paging: queue.All})
		if err != nil || page.Total != n {
			e.t.Errorf("%s has %d spans, error %v; want %d", id, page.Total, err, n)
		}
		total += int64(n)
	}
	st, err := e.Statistics(context.Background())
	if err != nil {
		e.t.Fatal(err)
	}
	if st.Spans != total || st.Memory.SpanBytes != 1000*total || st.Memory.EvictedSpans != evicted {
		e.t.Errorf("statistics: %d spans, %d bytes, %d evicted; want %d, %d, %d",
			st.Spans, st.Memory.SpanBytes, st.Memory.EvictedSpans, total, 1000*total, evicted)
	}
}

func TestEvictsOldestFinishedRollouts(t *testing.T) {
	e := newEvictions(t, 10_000)
	for i, id := range []string{"ro-c", "ro-a", "ro-b", "ro-run"} {
		e.enqueue(id, float64(i))
	}
	e.add("ro-run", "1", "2", "3")
	e.add("ro-b", "1", "2", "3")
	e.add("ro-c", "1", "2")
	e.setStatus("ro-b", queue.RolloutSucceeded)
	e.setStatus("ro-c", queue.RolloutFailed)
	e.setStatus("ro-a", queue.RolloutCancelled)
	e.add("ro-a", "1", "2") // at the limit, not above it
	e.holds(0, map[string]int{"ro-a": 2, "ro-b": 3, "ro-c": 2, "ro-run": 3})
	// One more: down to 8,000 goes ro-c with 2 and, as that is not enough, ro-a.
	e.add("ro-run", "4")
	e.holds(4, map[string]int{"ro-a": 0, "ro-b": 3, "ro-c": 0, "ro-run": 4})
	if !strings.Contains(e.log.String(), "level=WARN") || !strings.Contains(e.log.String(), "evicted_spans=4") {
		t.Errorf("log says %q", e.log)
	}
	// What comes late for a rollout evicted before may go as well.
	e.add("ro-c", "5", "6", "7")
	e.add("ro-run", "5")
	e.holds(7, map[string]int{"ro-a": 0, "ro-b": 3, "ro-c": 0, "ro-run": 5})
	st, err := e.Statistics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m := st.Memory; m.EvictionThreshold != 10_000 || m.SafeThreshold != 8_000 || m.Capacity <= 0 {
		t.Errorf("memory statistics are %+v", m)
	}
}

func TestEvictionKeepsUnfinishedRollouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEvictions(t, 3_000)
		e.enqueue("ro-1", 1)
		e.enqueue("ro-2", 2)
		e.add("ro-1", "1", "2", "3", "4", "5")
		e.add("ro-2", "1")
		e.add("ro-unknown", "1")
		e.holds(0, map[string]int{"ro-1": 5, "ro-2": 1, "ro-unknown": 1})
		if n := strings.Count(e.log.String(), "they are kept"); n != 1 {
			t.Errorf("%d warnings within a minute: %s", n, e.log)
		}
		time.Sleep(time.Minute)
		e.add("ro-2", "2")
		if n := strings.Count(e.log.String(), "they are kept"); n != 2 {
			t.Errorf("%d warnings after a minute: %s", n, e.log)
		}
		// A rollout that finished and runs again is not finished.
		e.setStatus("ro-1", queue.RolloutFailed)
		e.setStatus("ro-1", queue.RolloutRequeuing)
		e.add("ro-2", "3")
		e.holds(0, map[string]int{"ro-1": 5, "ro-2": 3, "ro-unknown": 1})
		e.setStatus("ro-1", queue.RolloutSucceeded)
		e.add("ro-2", "4")
		e.holds(5, map[string]int{"ro-1": 0, "ro-2": 4, "ro-unknown": 1})
	})
}

func TestEvictionUnderLoad(t *testing.T) {
	e := newEvictions(t, 50_000)
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := range 60 {
				id := fmt.Sprintf("ro-%d-%d", w, i)
				e.enqueue(id, float64(i))
				e.add(id, "1", "2", "3")
				e.setStatus(id, queue.RolloutSucceeded)
			}
		})
	}
	group.Wait()
	e.add("ro-last", "1")
	st, err := e.Statistics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Memory.SpanBytes > 50_000 || st.Spans+st.Memory.EvictedSpans != 4*60*3+1 {
		t.Errorf("%d bytes, %d spans, %d evicted", st.Memory.SpanBytes, st.Spans, st.Memory.EvictedSpans)
	}
}

func TestReceiptsAreForgottenAfterTheirLife(t *testing.T) {
	e := newEvictions(t, 0)
	put := func(key string, at float64) {
		e.section(func(tx collections.Tx) error {
			return tx.PutReceipt(&collections.Receipt{Key: key, Operation: "claim", Time: at})
		})
	}
	put("old", 1000)
	put("renewed", 1000)
	put("renewed", 1000+collections.ReceiptLife/2)
	put("young", 1000+collections.ReceiptLife)
	kept := func() (keys string) {
		e.section(func(tx collections.Tx) error {
			for _, key := range []string{"old", "renewed", "young", "new"} {
				r, err := tx.Receipt(key)
				if err != nil {
					return err
				}
				if r != nil {
					keys += key + " "
				}
			}
			return nil
		})
		return keys
	}
	if got := kept(); got != "old renewed young " {
		t.Errorf("kept %q", got)
	}
	put("new", 1001+collections.ReceiptLife)
	if got := kept(); got != "renewed young new " {
		t.Errorf("a life later kept %q", got)
	}
}

// TestPanicInSection checks that a section that panics leaves the backend
// usable and unchanged.
func TestPanicInSection(t *testing.T) {
	e := newEvictions(t, 0)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = e.Atomic(t.Context(), func(tx collections.Tx) error {
			err := tx.InsertRollouts([]*queue.Record{queue.NewRecord("ro-1", queue.Request{}, true, 1)})
			panic(err)
		})
	}()
	if rs, err := e.Records(t.Context(), []string{"ro-1"}); len(rs) != 0 || err != nil {
		t.Errorf("Records = %d, %v", len(rs), err)
	}
	e.enqueue("ro-1", 1)
}

// TestListsShowWholeSections reads two records in one call while sections keep
// them equal.
func TestListsShowWholeSections(t *testing.T) {
	e := newEvictions(t, 0)
	e.enqueue("ro-1", 1)
	e.enqueue("ro-2", 2)
	done := make(chan error)
	go func() {
		defer close(done)
		for range 500 {
			done <- e.Atomic(context.Background(), func(tx collections.Tx) error {
				var errs error
				for _, id := range []string{"ro-1", "ro-2"} {
					r, err := tx.Rollout(id)
					r = r.Clone()
					r.Spans++
					errs = errors.Join(errs, err, tx.PutRollout(r))
				}
				return errs
			})
		}
	}()
	for err := range done {
		if err != nil {
			t.Fatal(err)
		}
		page, err := e.QueryRollouts(t.Context(), queue.RolloutQuery{Paging: queue.All})
		if err != nil {
			t.Fatal(err)
		}
		if a, b := page.Items[0].Spans, page.Items[1].Spans; a != b {
			t.Fatalf("a list shows half a section: %d and %d", a, b)
		}
	}
}
