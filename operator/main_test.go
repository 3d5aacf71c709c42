package operator

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clinic is a store in memory, spoken to over HTTP, with a clock that tests set.
type clinic struct {
	*client.Client
	t   *testing.T
	now time.Time
}

func open(t *testing.T, o store.Options) *clinic {
	t.Helper()
	c := &clinic{t: t, now: time.Now()}
	quiet := slog.New(slog.DiscardHandler)
	o.Logger, o.Now = quiet, func() time.Time { return c.now }
	s := store.New(memory.New(memory.Options{Logger: quiet}), o)
	server := httptest.NewServer(httpapi.New(s, httpapi.Options{Logger: quiet}))
	c.Client = client.New(server.URL, client.Options{Retry: []time.Duration{}, Probe: []time.Duration{}})
	t.Cleanup(func() {
		c.Client.Close()
		server.Close()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *clinic) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *clinic) enqueue(n int) {
	c.t.Helper()
	_, err := c.Enqueue(c.t.Context(), make([]queue.Request, n))
	c.must(err)
}

func (c *clinic) claim(worker string) queue.AttemptedRollout {
	c.t.Helper()
	got, err := c.Claim(c.t.Context(), queue.Claim{Limit: 1, WorkerID: &worker})
	c.must(err)
	if len(got) != 1 {
		c.t.Fatalf("%s claimed %d rollouts", worker, len(got))
	}
	return got[0]
}

func (c *clinic) beat(worker, stats string) {
	c.t.Helper()
	_, err := c.Heartbeat(c.t.Context(), queue.Heartbeat{WorkerID: worker, Stats: rawjson.Value(stats)})
	c.must(err)
}

// span stores a span; attributes are members of a JSON object.
func (c *clinic) span(r queue.AttemptedRollout, name, attributes string) {
	c.t.Helper()
	s := queue.Span{RolloutID: r.RolloutID, AttemptID: r.Attempt.AttemptID, SequenceID: queue.NumberOnArrival,
		TraceID: "t", SpanID: queue.RandomID("sp-"), Name: name, Attributes: rawjson.Value("{" + attributes + "}")}
	s.FillIn()
	_, err := c.AddSpan(c.t.Context(), s)
	c.must(err)
}

func (c *clinic) end(r queue.AttemptedRollout, status queue.AttemptStatus, metadata string) {
	c.t.Helper()
	u := queue.AttemptUpdate{Status: queue.Set(status)}
	if metadata != "" {
		u.Metadata = queue.Set(rawjson.Value(metadata))
	}
	_, err := c.UpdateAttempt(c.t.Context(), r.RolloutID, "latest", u)
	c.must(err)
}

func (c *clinic) pass(d time.Duration) { c.now = c.now.Add(d) }

func (c *clinic) clock() time.Time { return c.now }
