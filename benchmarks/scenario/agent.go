package scenario

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

const (
	// rewardKey is the attribute of a span that carries a reward.
	rewardKey  = "agentlightning.reward.0.value"
	rewardName = "agentlightning.annotation"
	taskKey    = "task"
)

// task is one task, on both sides: what is enqueued and what must come back.
func taskName(n int) string { return "task-" + strconv.Itoa(n) }

// dressing is a stock of span attributes, made once: making them anew for each
// span would cost the driver more than the store it measures.
type dressing []rawjson.Value

const dressings = 256

func newDressing(seed uint64) dressing {
	rng := rand.New(rand.NewPCG(seed, 0))
	d := make(dressing, dressings)
	for i := range d {
		d[i] = randomAttributes(rng)
	}
	return d
}

// randomAttributes flattens a tree of 1 to 3 levels with 2 to 6 branches each:
// about 28 keys and 5 KB, now and then 70 keys and 14 KB.
func randomAttributes(rng *rand.Rand) rawjson.Value {
	text := grow([]byte{'{'}, rng, "", 1+rng.IntN(3))
	text[len(text)-1] = '}' // in the place of the last comma
	return text
}

func grow(dst []byte, rng *rand.Rand, path string, levels int) []byte {
	for range 2 + rng.IntN(5) {
		key := path + randomText(rng, 3+rng.IntN(18))
		if levels > 1 {
			dst = grow(dst, rng, key+".", levels-1)
			continue
		}
		dst = rawjson.AppendString(dst, key)
		dst = append(dst, ':')
		dst = rawjson.AppendString(dst, randomText(rng, 5+rng.IntN(296)))
		dst = append(dst, ',')
	}
	return dst
}

func randomText(rng *rand.Rand, n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	text := make([]byte, n)
	for i := range text {
		text[i] = letters[rng.IntN(len(letters))]
	}
	return string(text)
}

// agent is one run of the benchmark's agent.
type agent struct {
	ref   queue.AttemptRef
	task  string // the input, a JSON string without its quotes
	rng   *rand.Rand
	looks dressing
	sleep time.Duration
	emit  func(queue.Span) error
	trace string
	root  string // the id of the session's span
	spans int
}

// run makes the spans of a task, children before their parents, as they end.
func (a *agent) run(ctx context.Context, maxRounds int) error {
	a.trace, a.root = a.id(2), a.id(1)
	began := queue.Seconds(time.Now())
	rounds := 1 + a.rng.IntN(maxRounds)
	marked := a.rng.IntN(rounds)
	for i := range rounds {
		if err := a.round(ctx, i, i == marked); err != nil {
			return err
		}
		if a.rng.IntN(2) == 0 {
			if err := a.reward(a.rng.Float64()); err != nil {
				return err
			}
		}
	}
	if err := a.work(ctx, "final", a.root, ""); err != nil {
		return err
	}
	if err := a.reward(1 + a.rng.Float64()); err != nil {
		return err
	}
	return a.end(a.span("session", a.root, "", began, rawjson.Value(`{"agentops.span.kind":"session"}`)))
}

func (a *agent) round(ctx context.Context, i int, marked bool) error {
	parent, began, task := a.id(1), queue.Seconds(time.Now()), ""
	if marked {
		task = a.task
	}
	if err := a.work(ctx, fmt.Sprintf("round%d_1", i), parent, task); err != nil {
		return err
	}
	if err := a.work(ctx, fmt.Sprintf("round%d_2", i), parent, ""); err != nil {
		return err
	}
	return a.end(a.span(fmt.Sprintf("agent%d", i), parent, a.root, began, rawjson.EmptyObject))
}

// work is a span that takes a while.
func (a *agent) work(ctx context.Context, name, parent, task string) error {
	began := queue.Seconds(time.Now())
	if err := sleep.For(ctx, time.Duration(a.rng.Float64()*float64(a.sleep))); err != nil {
		return err
	}
	attributes := a.looks[a.rng.IntN(len(a.looks))]
	if task != "" {
		marked := rawjson.AppendString([]byte(`{"`+taskKey+`":`), task)
		attributes = append(append(marked, ','), attributes[1:]...)
	}
	return a.end(a.span(name, a.id(1), parent, began, attributes))
}

func (a *agent) reward(value float64) error {
	attributes := []byte(`{"agentlightning.reward.0.name":"primary","` + rewardKey + `":`)
	attributes = append(rawjson.AppendFloat(attributes, value), '}')
	return a.end(a.span(rewardName, a.id(1), a.root, queue.Seconds(time.Now()), attributes))
}

func (a *agent) end(s queue.Span) error {
	a.spans++
	return a.emit(s)
}

func (a *agent) span(name, id, parent string, began float64, attributes rawjson.Value) queue.Span {
	now := queue.Seconds(time.Now())
	s := queue.Span{
		RolloutID: a.ref.RolloutID, AttemptID: a.ref.AttemptID, SequenceID: queue.NumberOnArrival, TraceID: a.trace, SpanID: id, Name: name,
		Attributes: attributes, StartTime: &began, EndTime: &now, Status: rawjson.Value(`{"status_code":"OK","description":null}`),
		Resource: rawjson.Value(`{"attributes":{"service.name":"benchmark"},"schema_url":""}`),
	}
	if parent != "" {
		s.ParentID = &parent
	}
	s.FillIn()
	return s
}

// id is n times 64 random bits in hex.
func (a *agent) id(n int) (id string) {
	for range n {
		id += fmt.Sprintf("%016x", a.rng.Uint64()|1)
	}
	return id
}
