package dataset_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/queue/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(mongotest.Tests{M: m}) }

var quiet = slog.New(slog.DiscardHandler)

// rig is a store that is spoken to over HTTP. Its clock shows 1000 and moves on by a
// second with each rollout; its ids are counted.
type rig struct {
	*client.Client
	t       testing.TB
	backend collections.Backend
	seconds atomic.Int64
}

func inMemory(t testing.TB) *rig { return open(t, memory.New(memory.Options{Logger: quiet})) }

func onMongo(t testing.TB) *rig {
	b, err := mongo.Open(context.Background(), mongo.Options{URI: mongotest.URI(t), Database: mongotest.Database(t), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return open(t, b)
}

func open(t testing.TB, b collections.Backend) *rig {
	t.Helper()
	r := &rig{t: t, backend: b}
	var rollouts, attempts atomic.Int64
	s := store.New(b, store.Options{
		Logger: quiet, Now: func() time.Time { return time.Unix(1000+r.seconds.Load(), 0) },
		NewID: func(prefix queue.IDPrefix) string {
			if prefix == queue.AttemptID {
				return fmt.Sprintf("%s%d", prefix, attempts.Add(1))
			}
			return fmt.Sprintf("%s%d", prefix, rollouts.Add(1))
		},
	})
	server := httptest.NewServer(httpapi.New(s, httpapi.Options{Logger: quiet}))
	r.Client = client.New(server.URL, client.Options{Retry: []time.Duration{}, Probe: []time.Duration{}})
	t.Cleanup(func() {
		r.Client.Close()
		server.Close()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// run makes a rollout with one attempt that sends spans and ends.
func (r *rig) run(req queue.Request, status queue.AttemptStatus, spans ...queue.Span) queue.AttemptedRollout {
	r.t.Helper()
	r.seconds.Add(1)
	a, err := r.Start(context.Background(), req, nil)
	r.must(err)
	return r.attempt(a, status, spans...)
}

func (r *rig) attempt(a queue.AttemptedRollout, status queue.AttemptStatus, spans ...queue.Span) queue.AttemptedRollout {
	r.t.Helper()
	ctx := context.Background()
	for i, s := range spans {
		s.RolloutID, s.AttemptID, s.SequenceID = a.RolloutID, a.Attempt.AttemptID, queue.NumberOnArrival
		s.TraceID = "0123456789abcdef0123456789abcdef"
		start, end := float64(i), float64(i)+0.5
		s.StartTime, s.EndTime = &start, &end
		s.FillIn()
		added, err := r.AddSpan(ctx, s)
		r.must(err)
		if added == nil {
			r.t.Fatalf("span %s is there already", s.SpanID)
		}
	}
	if status != "" {
		_, err := r.UpdateAttempt(ctx, a.RolloutID, a.Attempt.AttemptID, queue.AttemptUpdate{Status: queue.Set(status)})
		r.must(err)
	}
	return a
}

// span makes a span of nested attributes.
func span(id, name, attributes string) queue.Span {
	v, err := rawjson.Parse([]byte(attributes))
	if err != nil {
		panic(fmt.Sprintf("%v in %s", err, attributes))
	}
	return queue.Span{SpanID: id, Name: name, Attributes: semconv.Flatten(v, false)}
}

// called is the span of a call of a model.
func called(id, prompt, answer, more string) queue.Span {
	return span(id, semconv.ChatSpan, fmt.Sprintf(
		`{"gen_ai":{"prompt":%s,"completion":[%s],"response":{"id":"resp-%s"}},"prompt_token_ids":[1,2],"response_token_ids":[3]%s}`, prompt, answer, id, more))
}

func rewarded(id string, value float64) queue.Span {
	return span(id, semconv.AnnotationSpan, fmt.Sprintf(`{"agentlightning":{"reward":[{"name":"primary","value":%g}]}}`, value))
}

func tagged(id, tag string) queue.Span {
	return span(id, semconv.AnnotationSpan, fmt.Sprintf(`{"agentlightning.tag.0":%q}`, tag))
}

// fill makes rollouts of all kinds, ro-1 and so on.
func (r *rig) fill() {
	const weather = `[{"role":"system","content":"Be brief."},{"role":"user","content":"Weather in Oslo?"}]`
	const asked = `{"role":"assistant","content":"I look.","tool_calls":[{"id":"c1","type":"function","name":"weather","arguments":"{\"city\":\"Oslo\"}"}]}`
	const functions = `,"gen_ai.request.functions.0.name":"weather","gen_ai.request.functions.0.description":"Tells it.","gen_ai.request.functions.0.parameters":"{\"type\":\"object\"}"`
	r.run(queue.Request{Mode: queue.ModeTrain, Metadata: rawjson.Value(`{"project":"x","data":{"n":1}}`)}, queue.AttemptSucceeded,
		called("a1", weather, asked, functions),
		called("a2", weather[:len(weather)-1]+`,`+asked+`,{"role":"tool","tool_call_id":"c1","content":"[\"rain\", 7]"}]`, `{"role":"assistant","content":"It rains."}`, functions),
		rewarded("a3", 0.9), tagged("a4", "good"))
	r.run(queue.Request{Mode: queue.ModeVal, Metadata: rawjson.Value(`{"project":"y"}`)}, queue.AttemptSucceeded,
		called("b1", `[{"role":"user","content":"1+1?"}]`, `{"role":"assistant","content":"2"}`, ""), rewarded("b2", 0.5))
	r.run(queue.Request{Mode: queue.ModeTrain, Metadata: rawjson.Value(`{"project":"x"}`)}, queue.AttemptFailed,
		called("c1", `[{"role":"user","content":"2+2?"}]`, `{"role":"assistant","content":"5"}`, ""), rewarded("c2", 0))
	r.run(queue.Request{Mode: queue.ModeTrain}, queue.AttemptSucceeded)                                    // no spans
	r.run(queue.Request{Mode: queue.ModeTrain}, queue.AttemptSucceeded, rewarded("e1", 0.7))               // no calls
	r.run(queue.Request{Mode: queue.ModeTrain}, queue.AttemptSucceeded, called("f1", `{"a":1}`, `{}`, "")) // malformed
	two := r.run(queue.Request{Mode: queue.ModeTrain}, "",
		called("g1", `[{"role":"user","content":"3+3?"}]`, `{"role":"assistant","content":"6"}`, ""), rewarded("g2", 1))
	again, err := r.StartAttempt(context.Background(), two.RolloutID, nil)
	r.must(err)
	r.attempt(again, queue.AttemptSucceeded,
		called("h1", `[{"role":"user","content":"3+3?"}]`, `{"role":"assistant","content":"7"}`, ""), rewarded("h2", 0.2))
	r.seconds.Add(1)
	_, err = r.Enqueue(context.Background(), []queue.Request{{}}) // never claimed
	r.must(err)
}

func (r *rig) source() dataset.Source { return dataset.StoreSource{Store: r.Client} }
