package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"time"
)

// Mode is how the algorithm hands out its tasks.
type Mode string

// The modes.
const (
	// Batch waits until a whole batch is done before the next.
	Batch Mode = "batch"
	// BatchPartial adds a batch whenever few tasks are left.
	BatchPartial Mode = "batch_partial"
	// Single keeps a number of tasks under way, each on its own.
	Single Mode = "single"
)

// Modes are all modes.
var Modes = []Mode{Batch, BatchPartial, Single}

// Client is a pattern of requests.
type Client string

// The clients.
const (
	// PythonLike polls every 5 s, enqueues a task a request, and sends each span
	// on its own, as the reference's runners and algorithms do.
	PythonLike Client = "python-like"
	// Native waits at the store, enqueues a batch a request, and sends spans in
	// batches, as aglq's do.
	Native Client = "native"
)

// Clients are all clients.
var Clients = []Client{PythonLike, Native}

// Options say what to drive, and how. The zero Options with a StoreURL are the
// reference's defaults, driven by PythonLike.
type Options struct {
	StoreURL string `json:"store_url"`
	Mode     Mode   `json:"mode"`
	Client   Client `json:"client"`
	// JSONSpans has PythonLike ask for a number for each span and post it as
	// JSON, as it does where a store takes no OTLP.
	JSONSpans bool `json:"json_spans,omitempty"`
	// TotalTasks is how many tasks there are. 0 is 16384.
	TotalTasks int `json:"total_tasks"`
	// BatchSize is how many are enqueued together. 0 is 128.
	BatchSize int `json:"batch_size"`
	// RemainingTasks is how few may be left before BatchPartial adds more. 0 is 512.
	RemainingTasks int `json:"remaining_tasks"`
	// Concurrency is how many tasks Single keeps under way. 0 is 32.
	Concurrency int `json:"concurrency"`
	// Runners is how many claim. 0 is 32.
	Runners int `json:"n_runners"`
	// MaxRounds is the most rounds of an agent. 0 is 10.
	MaxRounds int `json:"max_rounds"`
	// Sleep is the longest that an agent sleeps at a time. 0 is 1 s.
	Sleep time.Duration `json:"-"`
	// Scale multiplies every number but MaxRounds and Sleep, for small machines.
	// 0 is 1.
	Scale float64 `json:"scale"`
	// Seed makes two runs do the same.
	Seed uint64 `json:"seed"`
	// Poll is what PythonLike pauses where it finds nothing. 0 is 5 s.
	Poll time.Duration `json:"-"`
	// Limit ends the run with an error. 0 is none.
	Limit time.Duration `json:"-"`
	// Stall is how long nothing may finish. 0 is 300 s; at half of it the run
	// says which rollouts it waits for.
	Stall time.Duration `json:"-"`
	// PIDs are the server's processes, to report what they and their children
	// cost; none is fine.
	PIDs []int `json:"-"`
	// DatabasePIDs are those of the database, likewise.
	DatabasePIDs []int `json:"-"`
	// Log, when not nil, is told how the run goes. Debug tells it more; each
	// export of spans, too, with DebugSpans.
	Log               func(text string) `json:"-"`
	Debug, DebugSpans bool              `json:"-"`
}

// Preset is a workload that the reference's continuous benchmark runs.
type Preset struct {
	Name    string
	Options Options
}

// Presets are all of them, by the names of the reference's benchmark.
var Presets = []Preset{
	{"minimal-scale", Options{Mode: Batch, TotalTasks: 4096, BatchSize: 256, Runners: 32, MaxRounds: 6, Sleep: 500 * time.Millisecond}},
	{"medium-scale", Options{Mode: Batch, TotalTasks: 10_000, BatchSize: 1000, Runners: 100, MaxRounds: 10, Sleep: 100 * time.Millisecond}},
	{"midhigh-scale", Options{Mode: Batch, TotalTasks: 20_000, BatchSize: 2048, Runners: 300, MaxRounds: 6, Sleep: 100 * time.Millisecond}},
	{"large-batch", Options{Mode: Batch, TotalTasks: 50_000, BatchSize: 8192, Runners: 1000, MaxRounds: 3, Sleep: 100 * time.Millisecond}},
	{"long-queues", Options{Mode: BatchPartial, TotalTasks: 50_000, BatchSize: 1024, RemainingTasks: 4096, Runners: 256, MaxRounds: 4, Sleep: 100 * time.Millisecond}},
	{"high-concurrency", Options{Mode: Single, TotalTasks: 50_000, Concurrency: 2048, Runners: 256, MaxRounds: 2, Sleep: 100 * time.Millisecond}},
	{"heavy-traces", Options{Mode: BatchPartial, TotalTasks: 10_000, BatchSize: 1024, RemainingTasks: 256, Runners: 512, MaxRounds: 20, Sleep: time.Second}},
}

// withDefaults fills in what is 0 and applies the scale.
func (o Options) withDefaults() (Options, error) {
	o.Mode, o.Client = cmp.Or(o.Mode, Batch), cmp.Or(o.Client, PythonLike)
	o.Scale = cmp.Or(o.Scale, 1)
	o.Sleep = cmp.Or(o.Sleep, time.Second)
	o.MaxRounds = cmp.Or(o.MaxRounds, 10)
	o.Poll = cmp.Or(o.Poll, 5*time.Second)
	o.Stall = cmp.Or(o.Stall, 300*time.Second)
	if o.Scale < 0 || math.IsInf(o.Scale, 0) || math.IsNaN(o.Scale) {
		return o, fmt.Errorf("a scale of %v is not above 0", o.Scale)
	}
	for _, n := range []struct {
		name     string
		value    *int
		standard int
	}{
		{"total tasks", &o.TotalTasks, 16384}, {"batch size", &o.BatchSize, 128}, {"remaining tasks", &o.RemainingTasks, 512},
		{"concurrency", &o.Concurrency, 32}, {"runners", &o.Runners, 32},
	} {
		if *n.value < 0 {
			return o, fmt.Errorf("the number of %s must be above 0", n.name)
		}
		*n.value = max(1, int(math.Round(float64(cmp.Or(*n.value, n.standard))*o.Scale)))
	}
	if o.MaxRounds < 0 || o.Sleep < 0 || o.Poll < 0 {
		return o, errors.New("rounds, sleep and poll must be above 0")
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	return o, nil
}

// AgentSeconds is how long an agent sleeps on average.
func (o Options) AgentSeconds() float64 {
	rounds := float64(o.MaxRounds+1) / 2
	return o.Sleep.Seconds() / 2 * (2*rounds + 1)
}

// Ceiling is how many rollouts a second the runners could do with a store that
// takes no time.
func (o Options) Ceiling() float64 { return float64(o.Runners) / o.AgentSeconds() }
