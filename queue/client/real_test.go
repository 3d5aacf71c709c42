package client_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

// referenceURL names, in the environment, a running server of the reference to
// test against as well.
const referenceURL = "AGLQ_TEST_REFERENCE_URL"

// onEach runs a test against aglq's own server and, where there is one, the
// reference's. Front is put before aglq's handler, nil for nothing.
func onEach(t *testing.T, test func(t *testing.T, c *client.Client)) {
	t.Run("aglq", func(t *testing.T) { test(t, overHTTP(t, nil)) })
	if url := os.Getenv(referenceURL); url != "" {
		t.Run("reference", func(t *testing.T) { test(t, quick(t, url)) })
	}
}

func overHTTP(t *testing.T, front func(http.Handler) http.Handler) *client.Client {
	t.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	s := store.New(memory.New(memory.Options{Logger: quiet}), store.Options{Logger: quiet})
	var handler http.Handler = httpapi.New(s, httpapi.Options{Logger: quiet})
	if front != nil {
		handler = front(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return quick(t, server.URL)
}

// The whole life of a rollout, by every method of the store.
func TestLifeOfARollout(t *testing.T) {
	onEach(t, func(t *testing.T, c *client.Client) {
		ctx := t.Context()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		set, err := c.AddResources(ctx, rawjson.Value(`{"p":{"resource_type":"prompt_template","template":"{x}","engine":"f-string"}}`))
		must(err)
		latest, err := c.LatestResources(ctx)
		must(err)
		if latest == nil || latest.ResourcesID != set.ResourcesID {
			t.Errorf("latest resources %v, want %s", latest, set.ResourcesID)
		}
		config := queue.DefaultConfig()
		config.MaxAttempts, config.RetryCondition = 2, []queue.AttemptStatus{queue.AttemptFailed}
		input := `{"b":1.0,"a":9007199254740993,"ü":[]}`
		queued, err := c.Enqueue(ctx, []queue.Request{{Input: rawjson.Value(input), Mode: queue.ModeTrain, Config: &config}})
		must(err)
		id := queued[0].RolloutID
		worker := "w-" + id
		claimed := claimUntil(t, c, id, worker)
		if claimed.Input.String() != input || claimed.ResourcesID == nil || *claimed.ResourcesID != set.ResourcesID || claimed.Config.MaxAttempts != 2 {
			t.Errorf("claimed %+v", claimed)
		}
		ref := queue.AttemptRef{RolloutID: id, AttemptID: claimed.Attempt.AttemptID}

		var spans []queue.Span
		for n := range 3 {
			s := span(n)
			s.RolloutID, s.AttemptID = ref.RolloutID, ref.AttemptID
			spans = append(spans, s)
		}
		added, err := c.AddSpans(ctx, spans)
		must(err)
		if added.Rejected != 0 {
			t.Errorf("rejected %d: %s", added.Rejected, added.Reason)
		}
		one := span(7)
		one.RolloutID, one.AttemptID = ref.RolloutID, ref.AttemptID
		stored, err := c.AddSpan(ctx, one)
		must(err)
		if stored == nil || stored.SequenceID < 4 {
			t.Errorf("stored %v", stored)
		}
		again, err := c.AddSpan(ctx, one)
		must(err)
		if again != nil {
			t.Errorf("a duplicate is stored: %v", again)
		}
		attempt := "latest"
		page, err := c.Spans(ctx, queue.SpanQuery{RolloutID: id, AttemptID: &attempt, Paging: queue.Paging{SortBy: "sequence_id", Limit: -1}})
		must(err)
		if page.Total != 4 || len(page.Items) != 4 {
			t.Errorf("%d spans of %d", len(page.Items), page.Total)
		}

		beat, err := c.Heartbeat(ctx, queue.Heartbeat{WorkerID: worker, Stats: rawjson.Value(`{"inflight":1}`), Held: []queue.AttemptRef{ref}})
		must(err)
		if len(beat.Held) != 1 || !beat.Held[0].Held || beat.Worker.HeartbeatStats.String() != `{"inflight":1}` {
			t.Errorf("heartbeat answered %+v", beat)
		}

		_, err = c.UpdateAttempt(ctx, id, ref.AttemptID, queue.AttemptUpdate{Status: queue.Set(queue.AttemptFailed), Metadata: queue.Set(rawjson.Value(`{"error":"x"}`))})
		must(err)
		r, err := c.Rollout(ctx, id)
		must(err)
		if r.Status != queue.RolloutRequeuing {
			t.Errorf("after a failure the rollout is %s", r.Status)
		}
		second := claimUntil(t, c, id, worker)
		beat, err = c.Heartbeat(ctx, queue.Heartbeat{WorkerID: worker, Held: []queue.AttemptRef{ref}})
		must(err)
		if beat.Held[0].Held {
			t.Error("the first attempt is still held")
		}
		waited := make(chan []queue.Rollout, 1)
		go func() {
			done, err := c.Wait(ctx, []string{id, "nobody"}, time.Minute)
			if err != nil {
				t.Error(err)
			}
			waited <- done
		}()
		_, err = c.UpdateAttempt(ctx, id, second.Attempt.AttemptID, queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)})
		must(err)
		if done := <-waited; len(done) != 1 || done[0].Status != queue.RolloutSucceeded {
			t.Errorf("waited for %v", done)
		}
		attempts, err := c.Attempts(ctx, queue.AttemptQuery{RolloutID: id, Paging: queue.All})
		must(err)
		if attempts.Total != 2 || attempts.Items[0].Metadata.String() != `{"error":"x"}` {
			t.Errorf("attempts %+v", attempts)
		}
		found, err := c.Rollouts(ctx, queue.RolloutQuery{IDs: []string{id}, Statuses: []queue.RolloutStatus{queue.RolloutSucceeded}, Paging: queue.Paging{Limit: 1}})
		must(err)
		if found.Total != 1 || found.Items[0].Attempt == nil {
			t.Errorf("found %+v", found)
		}
		workers, err := c.Workers(ctx, queue.WorkerQuery{IDContains: &worker, Paging: queue.All})
		must(err)
		if workers.Total != 1 || workers.Items[0].Status != queue.WorkerIdle {
			t.Errorf("workers %+v", workers)
		}
		stats, err := c.Statistics(ctx)
		must(err)
		if stats.Rollouts < 1 || stats.Spans < 4 || stats.Memory == nil {
			t.Errorf("statistics %+v", stats)
		}
	})
}

// claimUntil claims until it gets the rollout, past those of other tests.
func claimUntil(t *testing.T, c *client.Client, id, worker string) queue.AttemptedRollout {
	t.Helper()
	for range 100 {
		got, err := c.Claim(t.Context(), queue.Claim{Limit: 1, WorkerID: &worker, Wait: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 1 && got[0].RolloutID == id {
			return got[0]
		}
	}
	t.Fatalf("%s is never claimed", id)
	return queue.AttemptedRollout{}
}

func TestNothingThere(t *testing.T) {
	onEach(t, func(t *testing.T, c *client.Client) {
		ctx := t.Context()
		r, err := c.Rollout(ctx, "nobody")
		if r != nil || err != nil {
			t.Errorf("rollout %v, %v", r, err)
		}
		if a, err := c.LatestAttempt(ctx, "nobody"); a != nil || err != nil {
			t.Errorf("attempt %v, %v", a, err)
		}
		if w, err := c.Worker(ctx, "nobody"); w != nil || err != nil {
			t.Errorf("worker %v, %v", w, err)
		}
		if u, err := c.Resources(ctx, "nobody"); u != nil || err != nil {
			t.Errorf("resources %v, %v", u, err)
		}
		if _, err := c.UpdateRollout(ctx, "nobody", queue.RolloutUpdate{Mode: queue.Set(queue.ModeVal)}); queue.KindOf(err) != queue.NotFound {
			t.Errorf("update: %v", err)
		}
		if _, err := c.UpdateAttempt(ctx, "nobody", "latest", queue.AttemptUpdate{Status: queue.Set(queue.AttemptRunning)}); queue.KindOf(err) != queue.NotFound {
			t.Errorf("update of an attempt: %v", err)
		}
	})
}

// loses hands the first answer of each path in paths to nobody, after it was
// made.
func loses(paths ...string) func(http.Handler) http.Handler {
	var mu sync.Mutex
	lost := map[string]bool{}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			lose := false
			for _, p := range paths {
				if strings.HasSuffix(r.URL.Path, p) && !lost[p] {
					lose, lost[p] = true, true
				}
			}
			mu.Unlock()
			if !lose {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		})
	}
}

// An answer that is lost after the commit is had again, and nothing is made
// twice.
func TestLostAnswersCreateOnce(t *testing.T) {
	c := overHTTP(t, loses("/enqueue", "/dequeue", "/rollouts", "/attempts", "/resources", "/traces"))
	ctx := t.Context()
	queued, err := c.Enqueue(ctx, []queue.Request{{Input: rawjson.Null}, {Input: rawjson.Null}})
	if err != nil || len(queued) != 2 {
		t.Fatal(queued, err)
	}
	claimed, err := c.Claim(ctx, queue.Claim{Limit: 1})
	if err != nil || len(claimed) != 1 || claimed[0].RolloutID != queued[0].RolloutID {
		t.Fatal(claimed, err)
	}
	started, err := c.Start(ctx, queue.Request{Input: rawjson.Null}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.StartAttempt(ctx, started.RolloutID, nil); err != nil || again.Attempt.SequenceID != 2 {
		t.Fatal(again, err)
	}
	if set, err := c.AddResources(ctx, rawjson.EmptyObject); err != nil || set.Version != 1 {
		t.Fatal(set, err)
	}
	s := span(0)
	s.RolloutID, s.AttemptID = claimed[0].RolloutID, claimed[0].Attempt.AttemptID
	if added, err := c.AddSpans(ctx, []queue.Span{s}); err != nil || added.Rejected != 0 {
		t.Fatal(added, err)
	}
	stats, err := c.Statistics(ctx)
	if err != nil || stats.Rollouts != 3 || stats.Attempts != 3 || stats.Resources != 1 || stats.Spans != 1 {
		t.Errorf("statistics %+v, %v", stats, err)
	}
}

func TestClaimWaits(t *testing.T) {
	c := overHTTP(t, nil)
	type answer struct {
		got []queue.AttemptedRollout
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		got, err := c.Claim(t.Context(), queue.Claim{Limit: 1, Wait: time.Minute})
		answers <- answer{got, err}
	}()
	if _, err := c.Enqueue(t.Context(), []queue.Request{{Input: rawjson.Null}}); err != nil {
		t.Fatal(err)
	}
	if a := <-answers; a.err != nil || len(a.got) != 1 {
		t.Errorf("got %v, %v", a.got, a.err)
	}
}
