package program

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// ProtocolVersion is told in [Hello]. It changes when lines change their meaning;
// new members do not change it.
const ProtocolVersion = 1

// Command is a line of the program. One of its members besides ID is set.
type Command struct {
	// ID comes back with the answer; null when absent.
	ID        rawjson.Value `json:"id"`
	Enqueue   *Enqueue      `json:"enqueue"`
	Resources *Resources    `json:"resources"`
	Cancel    *Cancel       `json:"cancel"`
	// Done says that the program wants no more lines: true, or {"cancel": true} to
	// cancel what has not finished. Its standard input is closed.
	Done rawjson.Value `json:"done"`
}

// Enqueue stores a batch of tasks.
type Enqueue struct {
	// Batch names the batch within the run. A batch of that name that is there with
	// the same inputs is not stored again; with others it is a conflict. "" makes a
	// new name.
	Batch       string          `json:"batch"`
	Tasks       []Task          `json:"tasks"`
	Repeat      int             `json:"repeat"`       // rollouts a task, which make up a group; 1 when 0
	Mode        queue.Mode      `json:"mode"`         // that of the run when ""
	ResourcesID *string         `json:"resources_id"` // the latest resources when absent
	Config      json.RawMessage `json:"config"`       // members go over the run's
	Metadata    rawjson.Value   `json:"metadata"`     // an object for each rollout
}

// Task is one input.
type Task struct {
	Input    rawjson.Value `json:"input"`
	Metadata rawjson.Value `json:"metadata"`
	DataID   string        `json:"data_id"`
}

// Resources stores a set of resources as a new version, unless the stored one is the
// same.
type Resources struct {
	ResourcesID string        `json:"resources_id"` // the name of the run when ""
	Resources   rawjson.Value `json:"resources"`
}

// Cancel cancels rollouts of the run that have not finished: those of a batch,
// those named, or all.
type Cancel struct {
	Batch      string   `json:"batch"`
	RolloutIDs []string `json:"rollout_ids"`
	All        bool     `json:"all"`
}

// Hello is the first line.
type Hello struct {
	Version int    `json:"version"` // ProtocolVersion
	Run     string `json:"run"`
	// Resumed tells that the store has rollouts or resources of the run.
	Resumed    bool                        `json:"resumed"`
	Batches    []string                    `json:"batches"` // of the run, as they were enqueued
	Rollouts   map[queue.RolloutStatus]int `json:"rollouts"`
	Unfinished int                         `json:"unfinished"`
	// Resources are those stored under the name of the run, null without any.
	Resources rawjson.Value `json:"resources"`
}

// Finished is a rollout that has finished.
type Finished struct {
	Rollout  rawjson.Value `json:"rollout"`  // as the store's API gives it
	Attempt  rawjson.Value `json:"attempt"`  // the latest one, null when it was never claimed
	Attempts int           `json:"attempts"` // how many it took
	Reward   *float64      `json:"reward"`   // null without a finite one
	Own      bool          `json:"own"`      // of this run
	Batch    string        `json:"batch"`    // "" when not of this run
	Index    int           `json:"index"`    // the place in the batch, from 0
	DataID   string        `json:"data_id"`
	// Replayed tells that it had finished before the program was started.
	Replayed bool `json:"replayed"`
	// What was asked for; absent when it was not.
	Spans    []queue.Span  `json:"spans,omitempty"`
	Messages rawjson.Value `json:"messages,omitempty"`
	Triplets rawjson.Value `json:"triplets,omitempty"`
	// AdapterError says why messages or triplets are not there.
	AdapterError string `json:"adapter_error,omitempty"`
}

// Group is what the repeats of one task earned; it follows the last of them.
type Group struct {
	Batch  string `json:"batch"`
	DataID string `json:"data_id"`
	algorithm.Statistics
	Members []Member `json:"members"`
}

// Member is a rollout of a group.
type Member struct {
	RolloutID string              `json:"rollout_id"`
	Status    queue.RolloutStatus `json:"status"`
	Reward    *float64            `json:"reward"`
	Advantage float64             `json:"advantage"` // see [algorithm.Group.Advantages]
}

// Answer says that a command was carried out. The member that the command had is
// set.
type Answer struct {
	ID        rawjson.Value    `json:"id"`
	Enqueue   *EnqueueAnswer   `json:"enqueue,omitempty"`
	Resources *ResourcesAnswer `json:"resources,omitempty"`
	Cancel    *CancelAnswer    `json:"cancel,omitempty"`
}

// EnqueueAnswer tells of a batch.
type EnqueueAnswer struct {
	Batch      string   `json:"batch"`
	RolloutIDs []string `json:"rollout_ids"` // in the order of tasks, the repeats of one together
	Stored     int      `json:"stored"`      // new ones; the others were there already
}

// ResourcesAnswer tells of stored resources.
type ResourcesAnswer struct {
	ResourcesID string `json:"resources_id"`
	Version     int64  `json:"version"`
}

// CancelAnswer tells how many rollouts were cancelled.
type CancelAnswer struct {
	Cancelled int `json:"cancelled"`
}

// Fault says that a line was not carried out.
type Fault struct {
	ID      rawjson.Value `json:"id"`   // of the command, null where it cannot be told
	Line    int           `json:"line"` // of the program's output, from 1
	Kind    string        `json:"kind"` // of the error: invalid, conflict, unavailable …
	Message string        `json:"message"`
}

// message is a line to the program.
type message struct {
	Hello    *Hello    `json:"hello,omitempty"`
	Finished *Finished `json:"finished,omitempty"`
	Group    *Group    `json:"group,omitempty"`
	OK       *Answer   `json:"ok,omitempty"`
	Error    *Fault    `json:"error,omitempty"`
}

func (m message) line() ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("writing a line for the program: %w", err)
	}
	return append(text, '\n'), nil
}

// ParseCommand reads a line of the program. With an error, which is Invalid, comes
// what could be read, the id at best.
func ParseCommand(line []byte) (Command, error) {
	v, err := rawjson.Parse(line)
	if err != nil {
		return Command{}, queue.Wrap(queue.Invalid, err, "a line must be a JSON object")
	}
	if v.Kind() != rawjson.KindObject {
		return Command{}, queue.Errorf(queue.Invalid, "a line must be a JSON object, this one is %.80s", v)
	}
	c := Command{ID: v.Get("id")}
	if err := decode(v, &c); err != nil {
		return Command{ID: v.Get("id")}, queue.Wrap(queue.Invalid, err, "a line has what it should not")
	}
	given := 0
	for _, set := range []bool{c.Enqueue != nil, c.Resources != nil, c.Cancel != nil, !c.Done.IsNull()} {
		if set {
			given++
		}
	}
	if given != 1 {
		return c, queue.Errorf(queue.Invalid, "a line must have one of enqueue, resources, cancel and done; this one has %d", given)
	}
	return c, c.check()
}

// check reports what no store is needed to see.
func (c Command) check() error {
	switch {
	case c.Enqueue != nil:
		return c.Enqueue.check()
	case c.Resources != nil && c.Resources.Resources.Kind() != rawjson.KindObject:
		return queue.Errorf(queue.Invalid, "resources must have resources, an object of name to resource")
	case c.Cancel != nil:
		given := 0
		for _, set := range []bool{c.Cancel.Batch != "", c.Cancel.RolloutIDs != nil, c.Cancel.All} {
			if set {
				given++
			}
		}
		if given != 1 {
			return queue.Errorf(queue.Invalid, "cancel must have one of batch, rollout_ids and all")
		}
	case !c.Done.IsNull():
		_, err := c.cancels()
		return err
	}
	return nil
}

// cancels reads what done says: whether to cancel the rest.
func (c Command) cancels() (bool, error) {
	if c.Done.Bool() {
		return false, nil
	}
	var done struct {
		Cancel bool `json:"cancel"`
	}
	if c.Done.Kind() != rawjson.KindObject || decode(c.Done, &done) != nil {
		return false, queue.Errorf(queue.Invalid, `done must be true or {"cancel": true}; it is %.80s`, c.Done)
	}
	return done.Cancel, nil
}

func (e *Enqueue) check() error {
	if len(e.Tasks) == 0 {
		return queue.Errorf(queue.Invalid, "enqueue must have tasks, a list with at least one")
	}
	for i, t := range e.Tasks {
		if t.Input == nil {
			return queue.Errorf(queue.Invalid, "task %d has no input; null is one", i)
		}
		if !t.Metadata.Get(algorithm.RunKey).IsNull() {
			return queue.Errorf(queue.Invalid, "the metadata of task %d has %q, which is aglq's", i, algorithm.RunKey)
		}
	}
	if !e.Metadata.Get(algorithm.RunKey).IsNull() {
		return queue.Errorf(queue.Invalid, "the metadata has %q, which is aglq's", algorithm.RunKey)
	}
	return nil
}

// config is the config of the batch, over that of the run; nil is the queue's own.
func (e *Enqueue) config(base *queue.Config) (*queue.Config, error) {
	if e.Config == nil {
		return base, nil
	}
	config := queue.DefaultConfig()
	if base != nil {
		config = *base
	}
	// What it shares with base must not be written to.
	config.TimeoutSeconds, config.UnresponsiveSeconds = clone(config.TimeoutSeconds), clone(config.UnresponsiveSeconds)
	config.RetryCondition = append([]queue.AttemptStatus{}, config.RetryCondition...)
	if err := decode(e.Config, &config); err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "the config is wrong")
	}
	return &config, config.Validate()
}

func clone(f *float64) *float64 {
	if f == nil {
		return nil
	}
	own := *f
	return &own
}

// decode reads JSON whose members must all be known.
func decode(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}
