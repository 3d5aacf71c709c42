package verify

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/aglq/aglq/queue"
)

// Operation is what a call asks for.
type Operation string

// The operations of the traffic.
const (
	OpEnqueue  Operation = "enqueue"
	OpClaim    Operation = "claim"
	OpSpan     Operation = "span"     // one span as JSON
	OpExport   Operation = "export"   // spans as OTLP, numbered on arrival
	OpNumber   Operation = "number"   // the next span number
	OpFinish   Operation = "finish"   // an attempt has succeeded
	OpFail     Operation = "fail"     // an attempt has failed
	OpCancel   Operation = "cancel"   // a rollout
	OpRequeue  Operation = "requeue"  // a rollout, whatever its status
	OpBeat     Operation = "beat"     // a worker's heartbeat, with the attempts it holds
	OpWait     Operation = "wait"     // for rollouts to finish
	OpRead     Operation = "read"     // a rollout with its latest attempt
	OpAttempts Operation = "attempts" // the attempts of a rollout
)

// Operations lists every operation, in the order of a report.
var Operations = []Operation{
	OpEnqueue, OpClaim, OpSpan, OpExport, OpNumber, OpBeat, OpFinish, OpFail, OpCancel, OpRequeue, OpWait, OpRead, OpAttempts,
}

// Outcome is how a call ended.
type Outcome string

// The outcomes.
const (
	Ok      Outcome = "ok"      // answered
	Refused Outcome = "refused" // it certainly changed nothing
	Unknown Outcome = "unknown" // it may have taken effect, may yet, or never will
)

// Outcomes lists every outcome.
var Outcomes = []Outcome{Ok, Refused, Unknown}

// Call is one call of a client and what came of it. A call that was repeated
// under one idempotency key is one Call. Times are nanoseconds of a clock that
// all processes of the machine share.
type Call struct {
	ID      int64     `json:"id"`
	Client  string    `json:"client"`
	Store   int       `json:"store"` // its number, of the last try
	Op      Operation `json:"op"`
	Begin   int64     `json:"begin"`
	End     int64     `json:"end"` // 0: the process died in it
	Outcome Outcome   `json:"outcome"`
	Error   string    `json:"error,omitempty"`
	Tries   int       `json:"tries,omitempty"` // 0 is 1

	// What was asked.
	Worker   string             `json:"worker,omitempty"`
	Tasks    []Task             `json:"tasks,omitempty"`
	Rollouts []string           `json:"rollouts,omitempty"`
	Attempts []queue.AttemptRef `json:"held,omitempty"` // of a heartbeat, or the one concerned
	Spans    []SpanMark         `json:"spans,omitempty"`
	Limit    int                `json:"limit,omitempty"`
	Wait     float64            `json:"wait,omitempty"` // seconds

	// What was answered.
	Seen   []Seen `json:"seen,omitempty"`
	Held   []bool `json:"answer,omitempty"` // of a heartbeat, for each of Attempts
	Number int64  `json:"number,omitempty"` // span number
	// Ended says that the run ended the call, and not the store.
	Ended bool `json:"ended,omitempty"`
	// NotFound says that the rollout or attempt does not exist.
	NotFound bool `json:"not_found,omitempty"`
}

// Task is what a rollout was enqueued with.
type Task struct {
	Mark string `json:"mark"` // unique, in the rollout's input
	Plan Plan   `json:"plan"` // its config
}

// Plan is the part of a rollout's config that its life depends on.
type Plan struct {
	MaxAttempts  int64                 `json:"max_attempts"`
	Retry        []queue.AttemptStatus `json:"retry,omitempty"`
	Timeout      float64               `json:"timeout,omitempty"`      // seconds, 0 is none
	Unresponsive float64               `json:"unresponsive,omitempty"` // seconds, 0 is none
}

// Seen is what an answer said of a rollout, or of one of its attempts.
type Seen struct {
	Rollout       string              `json:"rollout"`
	Status        queue.RolloutStatus `json:"status,omitempty"` // "" where the answer does not tell
	Mark          string              `json:"mark,omitempty"`
	Attempt       string              `json:"attempt,omitempty"` // "" for none
	Sequence      int64               `json:"sequence,omitempty"`
	AttemptStatus queue.AttemptStatus `json:"attempt_status,omitempty"`
	Worker        string              `json:"worker,omitempty"`
}

// SpanMark identifies a span.
type SpanMark struct {
	ID     string `json:"id"`
	Number int64  `json:"number,omitempty"` // 0: to be numbered on arrival
}

// Fault is one fault that was injected.
type Fault struct {
	Kind   FaultKind `json:"kind"`
	Target string    `json:"target"`
	Begin  int64     `json:"begin"`
	End    int64     `json:"end"`             // when what was broken works again
	Error  string    `json:"error,omitempty"` // why it could not be injected
}

// Final is what was there of a rollout when the traffic had ended.
type Final struct {
	Begin    int64               `json:"begin"`
	End      int64               `json:"end"`
	Rollout  string              `json:"rollout"`
	Mark     string              `json:"mark"`
	Status   queue.RolloutStatus `json:"status"`
	Attempts []Seen              `json:"attempts"`
	Spans    []FinalSpan         `json:"spans,omitempty"`
}

// FinalSpan is a stored span.
type FinalSpan struct {
	Attempt string `json:"attempt"`
	SpanMark
	// Whole says that it has the content it was sent with.
	Whole bool `json:"whole"`
}

// Count is how many rollouts of a status a list had at the end, and how many the
// store counted.
type Count struct {
	Status  queue.RolloutStatus `json:"status"`
	Listed  int                 `json:"listed"`
	Counted int                 `json:"counted"`
}

// Meta says under which conditions a history came about.
type Meta struct {
	Version int             `json:"version"` // of the format
	Tag     string          `json:"tag"`     // begins the names of everything that the run made
	Backend string          `json:"backend"` // "" where the stores ran already
	Stores  int             `json:"stores"`
	Members int             `json:"members,omitempty"`
	Clients int             `json:"clients"`
	Seed    uint64          `json:"seed"`
	Faults  []FaultKind     `json:"faults,omitempty"`
	Lease   float64         `json:"lease"` // worker TTL in seconds, -1 where it is not known
	Begin   int64           `json:"begin"`
	Phases  map[Phase]int64 `json:"phases,omitempty"` // when each began
}

// Phase is a part of a run.
type Phase string

// The phases, in order.
const (
	PhaseTraffic Phase = "traffic"
	PhaseDrain   Phase = "drain" // faults have stopped: everything is to end
	PhaseRead    Phase = "read"  // nothing changes: everything is read
)

// History is all that happened in a run.
type History struct {
	Meta   Meta
	Calls  []Call
	Faults []Fault
	Finals []Final
	// Stuck are the rollouts that had not ended when the time for it was over.
	Stuck []string
	// Crashes tell of stores that ended without having been killed.
	Crashes []string
	Counts  []Count
}

const formatVersion = 1

// line is one line of a history file.
type line struct {
	Meta   *Meta    `json:"meta,omitempty"`
	Call   *Call    `json:"call,omitempty"`
	Fault  *Fault   `json:"fault,omitempty"`
	Final  *Final   `json:"final,omitempty"`
	Stuck  []string `json:"stuck,omitempty"`
	Crash  string   `json:"crash,omitempty"`
	Counts []Count  `json:"counts,omitempty"`
}

// Write stores the history as JSON lines, compressed with zstd.
func (h *History) Write(path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("cannot write the history: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := zstd.NewWriter(f)
	if err != nil {
		return err
	}
	out := json.NewEncoder(z)
	err = out.Encode(line{Meta: &h.Meta})
	for i := range h.Calls {
		err = errors.Join(err, out.Encode(line{Call: &h.Calls[i]}))
	}
	for i := range h.Faults {
		err = errors.Join(err, out.Encode(line{Fault: &h.Faults[i]}))
	}
	for i := range h.Finals {
		err = errors.Join(err, out.Encode(line{Final: &h.Finals[i]}))
	}
	if len(h.Stuck) > 0 {
		err = errors.Join(err, out.Encode(line{Stuck: h.Stuck}))
	}
	if len(h.Counts) > 0 {
		err = errors.Join(err, out.Encode(line{Counts: h.Counts}))
	}
	for _, crash := range h.Crashes {
		err = errors.Join(err, out.Encode(line{Crash: crash}))
	}
	if err = errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	return nil
}

// ReadHistory reads what Write wrote.
func ReadHistory(path string) (*History, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the history: %w", err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	defer z.Close()
	h := &History{}
	in := json.NewDecoder(bufio.NewReaderSize(z, 1<<20))
	for n := 1; ; n++ {
		var l line
		if err := in.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("%s is no history of aglq verify: record %d: %w", path, n, err)
		}
		h.add(l)
	}
	if h.Meta.Version != formatVersion {
		return nil, fmt.Errorf("%s is no history that this version can read: its format is %d, not %d", path, h.Meta.Version, formatVersion)
	}
	return h, nil
}

func (h *History) add(l line) {
	switch {
	case l.Meta != nil:
		h.Meta = *l.Meta
	case l.Call != nil:
		h.Calls = append(h.Calls, *l.Call)
	case l.Fault != nil:
		h.Faults = append(h.Faults, *l.Fault)
	case l.Final != nil:
		h.Finals = append(h.Finals, *l.Final)
	case l.Counts != nil:
		h.Counts = l.Counts
	case l.Crash != "":
		h.Crashes = append(h.Crashes, l.Crash)
	default:
		h.Stuck = append(h.Stuck, l.Stuck...)
	}
}
