package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// maxTaskBytes bounds a line of a task file; the store's own limit is about as
// large.
const maxTaskBytes = 64 << 20

// taskFile is a JSONL file of tasks.
type taskFile struct{ inputFile }

func (a *app) taskFile(name string) taskFile { return taskFile{a.inputFile(name)} }

// tasks reads the file line by line. An error, which ends it, names the line; the end
// of ctx is one too. Waits, which may be nil, is called when more has yet to come.
func (f taskFile) tasks(ctx context.Context, base queue.Request, waits func()) iter.Seq2[queue.Request, error] {
	return func(yield func(queue.Request, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		file, err := f.reader(ctx, waits)
		if err != nil {
			yield(queue.Request{}, err)
			return
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		lines.Buffer(make([]byte, 0, 1<<16), maxTaskBytes)
		for n := 1; lines.Scan() && lines.Err() == nil; n++ { // with an error comes half a line
			line := bytes.TrimSpace(lines.Bytes())
			if len(line) == 0 {
				continue
			}
			req, err := parseTask(line, base)
			if err != nil {
				err = fmt.Errorf("%s:%d: %w", f.name, n, err)
			}
			if !yield(req, err) || err != nil {
				return
			}
		}
		switch err := lines.Err(); {
		case err == nil:
		case errors.Is(err, bufio.ErrTooLong):
			yield(queue.Request{}, fmt.Errorf("%s: a line is longer than %d MiB; a task is one line", f.name, maxTaskBytes>>20))
		case ctx.Err() != nil:
			yield(queue.Request{}, err)
		default:
			yield(queue.Request{}, fmt.Errorf("reading %s: %w", f.name, err))
		}
	}
}

// check reads the whole file and reports the first thing that is wrong with it.
func (f taskFile) check(ctx context.Context, base queue.Request) (count int, err error) {
	for _, err := range f.tasks(ctx, base, nil) {
		if err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}

// parseTask reads one line: the task's input itself, or an object whose member
// input is it, beside mode, resources_id, config and metadata.
func parseTask(line []byte, base queue.Request) (queue.Request, error) {
	v, err := rawjson.Parse(line)
	if err != nil {
		return queue.Request{}, fmt.Errorf("a task must be JSON: %w", err)
	}
	if v.Kind() != rawjson.KindObject || v.Get("input") == nil {
		base.Input = v
		return base, nil
	}
	for key, val := range v.Members() {
		if err := setTaskMember(&base, rawjson.Unescape(key), val); err != nil {
			return queue.Request{}, err
		}
	}
	return base, nil
}

func setTaskMember(req *queue.Request, key string, val rawjson.Value) error {
	switch {
	case key == "input":
		req.Input = val
	case val.IsNull(): // as if it was not there
	case key == "mode":
		req.Mode = queue.Mode(val.Text())
		if !req.Mode.Valid() {
			return fmt.Errorf("mode is %s; it must be train, val or test", val)
		}
	case key == "resources_id":
		if val.Kind() != rawjson.KindString {
			return fmt.Errorf("resources_id is %s; it must be text", val)
		}
		id := val.Text()
		req.ResourcesID = &id
	case key == "metadata":
		if val.Kind() != rawjson.KindObject {
			return fmt.Errorf("metadata is %.80s; it must be an object", val)
		}
		req.Metadata = val
	case key == "config":
		return setTaskConfig(req, val)
	default:
		return fmt.Errorf("a task with an \"input\" has no member %q: put it into the input, or into metadata", key)
	}
	return nil
}

// setTaskConfig changes a copy of the config: other tasks share it, and decoding
// writes through its pointers.
func setTaskConfig(req *queue.Request, val rawjson.Value) error {
	config := queue.DefaultConfig()
	if base := req.Config; base != nil {
		config = queue.Config{
			TimeoutSeconds: ownFloat(base.TimeoutSeconds), UnresponsiveSeconds: ownFloat(base.UnresponsiveSeconds),
			MaxAttempts: base.MaxAttempts, RetryCondition: slices.Clone(base.RetryCondition),
		}
	}
	d := json.NewDecoder(bytes.NewReader(val))
	d.DisallowUnknownFields()
	if err := d.Decode(&config); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if config.RetryCondition == nil {
		config.RetryCondition = []queue.AttemptStatus{}
	}
	if err := config.Validate(); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	req.Config = &config
	return nil
}

func ownFloat(f *float64) *float64 {
	if f == nil {
		return nil
	}
	own := *f
	return &own
}

// One call enqueues so many tasks, or so many bytes of them, at most.
const (
	enqueueMost  = 500
	enqueueBytes = 4 << 20
)

// enqueuer is the part of the store that takes tasks.
type enqueuer interface {
	Enqueue(ctx context.Context, reqs []queue.Request) ([]queue.Rollout, error)
}

// enqueue streams tasks into the store, in batches that end where more has yet to come,
// and tells of the rollouts of each.
func enqueue(
	ctx context.Context, s enqueuer, file taskFile, base queue.Request, told func([]queue.Rollout) error,
) (n int, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var batch []queue.Request
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		rollouts, err := s.Enqueue(ctx, batch)
		batch, size = batch[:0], 0
		if err != nil {
			return err
		}
		n += len(rollouts)
		return told(rollouts)
	}
	waits := func() {
		if err := flush(); err != nil {
			fail(err)
		}
	}
	for req, err := range file.tasks(ctx, base, waits) {
		if err != nil {
			if ctx.Err() == nil {
				err = errors.Join(flush(), err)
			}
			return n, err
		}
		batch = append(batch, req)
		size += len(req.Input) + len(req.Metadata)
		if len(batch) == enqueueMost || size >= enqueueBytes {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	return n, flush()
}

// readObject reads a file that holds one JSON object.
func readObject(path string) (rawjson.Value, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	v, err := rawjson.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if v.Kind() != rawjson.KindObject {
		return nil, fmt.Errorf("%s: it must hold a JSON object, name by name the resources", path)
	}
	return v, nil
}
