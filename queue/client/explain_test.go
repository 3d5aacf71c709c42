package client_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// TestExplainOverHTTP checks that the explanation arrives whole.
func TestExplainOverHTTP(t *testing.T) {
	c := overHTTP(t, nil)
	ctx := t.Context()
	if _, err := c.Explain(ctx, "ro-none"); queue.KindOf(err) != queue.NotFound || !strings.Contains(err.Error(), "ro-none") {
		t.Errorf("an unknown rollout: %v", err)
	}
	config := queue.DefaultConfig()
	config.MaxAttempts, config.RetryCondition = 2, []queue.AttemptStatus{queue.AttemptFailed}
	timeout := 60.5
	config.TimeoutSeconds = &timeout
	worker := "w/1"
	r, err := c.Start(ctx, queue.Request{Config: &config}, &worker)
	if err != nil {
		t.Fatal(err)
	}
	u := queue.AttemptUpdate{Status: queue.Set(queue.AttemptFailed), Metadata: queue.Set(rawjson.Value(`{"error":"a \"quoted\" word","n":1.0}`))}
	if _, err := c.UpdateAttempt(ctx, r.RolloutID, "latest", u); err != nil {
		t.Fatal(err)
	}
	x, err := c.Explain(ctx, r.RolloutID)
	if err != nil {
		t.Fatal(err)
	}
	a := x.Attempts[0]
	if x.Status != queue.RolloutRequeuing || x.Queue == nil || x.AttemptsLeft != 1 || !cmp.Equal(x.Config, config) ||
		a.Error == nil || a.Error.Message != `a "quoted" word` || a.Metadata.String() != u.Metadata.Value.String() || *a.WorkerID != worker {
		t.Errorf("explained %+v", x)
	}
}

// TestExplainByAnotherStore tells a store that cannot explain from a rollout
// that does not exist.
func TestExplainByAnotherStore(t *testing.T) {
	c := overHTTP(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/explain") {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusNotFound)
				w.Write([]byte(`{"detail":"Not Found"}`))
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	if _, err := c.Explain(t.Context(), "ro-1"); queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), "cannot explain") {
		t.Errorf("the error is %v", err)
	}
}
