package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/worker"
)

// referenceURL names, in the environment, a running server of the reference to
// test against as well.
const referenceURL = "AGLQ_TEST_REFERENCE_URL"

func dial(t *testing.T, url string) *client.Client {
	t.Helper()
	c := client.New(url, client.Options{
		Retry: []time.Duration{time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond},
		Probe: []time.Duration{0},
	})
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// One worker's tasks over HTTP: what succeeds, what fails and is tried again, and
// what is cancelled while it runs.
func TestOverHTTP(t *testing.T) {
	test := func(t *testing.T, url string) {
		c := dial(t, url)
		config := queue.DefaultConfig()
		config.MaxAttempts, config.RetryCondition = 2, []queue.AttemptStatus{queue.AttemptFailed}
		limit := 60.0
		config.UnresponsiveSeconds = &limit
		ids := enqueue(t, c, &config, `"good"`, `"flaky"`, `"cancel"`)
		started := make(chan struct{}, 1)
		start(t, c, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
			switch task.Input.Text() {
			case "flaky":
				if task.Attempt.SequenceID == 1 {
					return worker.Result{}, fmt.Errorf("first time")
				}
			case "cancel":
				started <- struct{}{}
				<-ctx.Done()
				return worker.Result{}, context.Cause(ctx)
			}
			for range 100 {
				if err := task.Message(ctx, "on the way"); err != nil {
					return worker.Result{}, err
				}
			}
			return worker.Reward(0.75), nil
		}, worker.Options{Concurrency: 4, HeartbeatInterval: 30 * time.Millisecond, LongPoll: 2 * time.Second,
			PollInterval: 100 * time.Millisecond})
		for i, id := range ids[:2] {
			r := finished(t, c, id)
			if r.Status != queue.RolloutSucceeded || r.Attempt.SequenceID != int64(i+1) {
				t.Errorf("%s: %s after attempt %d", id, r.Status, r.Attempt.SequenceID)
			}
			spans := spansOf(t, c, id)
			if want := 101 + i; len(spans) != want {
				t.Errorf("%s has %d spans, want %d", id, len(spans), want)
			}
			if got := attribute(t, spans, "agentlightning.annotation", "agentlightning.reward.0.value"); got != "0.75" {
				t.Errorf("reward %s", got)
			}
		}
		<-started
		if _, err := c.UpdateRollout(t.Context(), ids[2], queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}); err != nil {
			t.Fatal(err)
		}
		page, err := c.Workers(t.Context(), queue.WorkerQuery{Paging: queue.All})
		if err != nil || page.Total == 0 {
			t.Errorf("workers %v, %v", page, err)
		}
		if r := finished(t, c, ids[2]); r.Status != queue.RolloutCancelled {
			t.Errorf("cancelled rollout is %s", r.Status)
		}
	}
	t.Run("aglq", func(t *testing.T) { test(t, serve(t, httpapi.New(newStore(t), httpapi.Options{Logger: quiet}))) })
	if url := os.Getenv(referenceURL); url != "" {
		t.Run("reference", func(t *testing.T) { test(t, url) })
	}
}

// With a store that loses every third answer after it was made, though none
// twice, each rollout still ends exactly once and nothing is left behind.
func TestLostAnswers(t *testing.T) {
	api := httpapi.New(newStore(t), httpapi.Options{Logger: quiet})
	var n atomic.Int64
	var lost sync.Map
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		call := r.URL.Path + r.Header.Get("Idempotency-Key") + string(body)
		_, again := lost.Load(call)
		if r.Method == http.MethodPost && !again && n.Add(1)%3 == 0 {
			lost.Store(call, true)
			api.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		api.ServeHTTP(w, r)
	}))
	c := dial(t, url)
	const tasks = 60
	var inputs []string
	for i := range tasks {
		inputs = append(inputs, fmt.Sprint(i))
	}
	ids := enqueue(t, c, nil, inputs...)
	var ran atomic.Int64
	start(t, c, func(context.Context, *worker.Task) (worker.Result, error) {
		ran.Add(1)
		return worker.Reward(1), nil
	}, worker.Options{Concurrency: 5, LongPoll: time.Second})
	for _, id := range ids {
		r := finished(t, c, id)
		if r.Status != queue.RolloutSucceeded || r.Attempt.SequenceID != 1 {
			t.Errorf("%s: %s after attempt %d", id, r.Status, r.Attempt.SequenceID)
		}
		if spans := spansOf(t, c, id); len(spans) != 1 {
			t.Errorf("%s has %d spans", id, len(spans))
		}
	}
	if ran.Load() != tasks {
		t.Errorf("%d tasks ran for %d rollouts", ran.Load(), tasks)
	}
}

// Drain ends a claim that waits for work, and what is enqueued afterwards stays
// in the queue.
func TestDrainEndsAWaitingClaim(t *testing.T) {
	s := newStore(t)
	asked := make(chan struct{}, 10)
	api := httpapi.New(s, httpapi.Options{Logger: quiet})
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/agl/queues/rollouts/dequeue" {
			asked <- struct{}{}
		}
		api.ServeHTTP(w, r)
	}))
	w := worker.New(dial(t, url), nil, options(worker.Options{LongPoll: time.Hour}))
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.Background()) }()
	<-asked
	w.Drain()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(15 * time.Second): // half of what one request may wait
		t.Fatal("the claim goes on after Drain")
	}
	id := enqueue(t, s, nil, `1`)[0]
	if r, err := s.Rollout(t.Context(), id); err != nil || r.Status != queue.RolloutQueuing {
		t.Errorf("rollout %v, %v", r, err)
	}
}
