package program

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/internal/child"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/where"
)

// RunPrefix begins the names that runs give themselves.
const RunPrefix queue.IDPrefix = "exec-"

// Variables that the program is given besides its environment.
const (
	RunVariable   = "AGL_RUN"       // the name of the run
	StoreVariable = "AGL_STORE_URL" // the URL of the store, where it has one
)

// Defaults of Config.
const (
	DefaultMaxUnfinished = 10_000
	DefaultGrace         = 10 * time.Second
)

// Triplets says of which spans triplets are made.
type Triplets string

// What triplets are made of.
const (
	NoTriplets     Triplets = ""
	TracerTriplets Triplets = "tracer" // see [adapter.TracerTriplets]
	ProxyTriplets  Triplets = "proxy"  // see [adapter.ProxyTriplets]
)

// Config says which program to run and what to tell it. Zero fields take the
// defaults.
type Config struct {
	Command []string // the program, looked for in PATH, and its arguments
	// Run names the run. "" makes a new name; the name of an earlier run goes on with
	// it.
	Run      string
	StoreURL string        // told to the program
	Mode     queue.Mode    // of rollouts whose batch says none; "" is null
	Rollout  *queue.Config // of the rollouts; nil is the queue's default

	Spans    bool // tell the spans of the latest attempt
	Messages bool // tell conversations, see [adapter.Messages]
	Triplets Triplets
	Groups   bool // tell the statistics of groups
	// All tells also rollouts that are not of the run, those of others and of workers
	// that work past the queue, which started at Since (Unix seconds) or later.
	All   bool
	Since float64
	Where *where.Filter // of the rollouts to tell; nil is all
	// MaxUnfinished bounds the rollouts that are enqueued and not told: a command
	// that would exceed it is carried out later, and the commands after it wait.
	// A batch alone may exceed it.
	MaxUnfinished int
	Grace         time.Duration // from SIGTERM to SIGKILL

	Stderr io.Writer    // of the program; nil discards
	Logger *slog.Logger // slog.Default when nil
	// Observer is told what happens; nil for nobody.
	Observer algorithm.Observer
	// OnResult is called with each rollout that the program is told, by one goroutine
	// at a time; nil is allowed.
	OnResult func(algorithm.Result)

	unreadMost int // bytes of answers that the program may leave unread
}

func (c Config) withDefaults() (Config, error) {
	c.Run = cmp.Or(c.Run, queue.RandomID(RunPrefix))
	c.MaxUnfinished = cmp.Or(c.MaxUnfinished, DefaultMaxUnfinished)
	c.Grace = cmp.Or(c.Grace, DefaultGrace)
	c.unreadMost = cmp.Or(c.unreadMost, 64<<20)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Stderr == nil {
		c.Stderr = io.Discard
	}
	if c.Observer == nil {
		c.Observer = algorithm.Unobserved{}
	}
	switch {
	case len(c.Command) == 0 || c.Command[0] == "":
		return c, queue.Errorf(queue.Invalid, "there is no program to run")
	case c.MaxUnfinished < 0:
		return c, queue.Errorf(queue.Invalid, "at most %d unfinished rollouts are allowed; it must be 1 or more", c.MaxUnfinished)
	case c.Mode != "" && !c.Mode.Valid():
		return c, queue.Errorf(queue.Invalid, "mode is %q; it must be train, val or test", c.Mode)
	case c.Triplets != NoTriplets && c.Triplets != TracerTriplets && c.Triplets != ProxyTriplets:
		return c, queue.Errorf(queue.Invalid, "triplets are made of tracer or proxy spans, not of %q", c.Triplets)
	}
	if _, err := exec.LookPath(c.Command[0]); err != nil {
		return c, queue.Wrap(queue.Invalid, err, "the program cannot be started")
	}
	return c, nil
}

// Summary tells how a run ended.
type Summary struct {
	Run        string
	Told       int // finished rollouts that the program was told
	Unfinished int // rollouts of the run that it was not told
}

// Run runs the program to its end. An exit status other than 0 is an error; what has
// not finished then stays in the queue for a later Run under the same name. The
// program and all it starts end with ctx, and with this process, even a killed one.
func Run(ctx context.Context, store queue.Store, config Config) (Summary, error) {
	config, err := config.withDefaults()
	if err != nil {
		return Summary{}, err
	}
	s := newSession(store, config)
	if err := s.load(ctx); err != nil {
		return Summary{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.stop = cancel
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		if err := s.watch(watching); err != nil && watching.Err() == nil {
			cancel(err)
		}
	})
	state, err := s.start(ctx)
	stop()
	watcher.Wait()
	summary := Summary{Run: config.Run, Told: s.told, Unfinished: s.unfinished}
	switch {
	case err != nil:
		return summary, fmt.Errorf("starting %s: %w", config.Command[0], err)
	case ctx.Err() != nil:
		return summary, fmt.Errorf("run %s was stopped: %w", config.Run, context.Cause(ctx))
	case !state.Success():
		return summary, fmt.Errorf("the algorithm of run %s ended with %s", config.Run, state)
	}
	return summary, nil
}

// start runs the program.
func (s *session) start(ctx context.Context) (*os.ProcessState, error) {
	cmd := exec.Command(s.Command[0], s.Command[1:]...)
	cmd.Env = append(os.Environ(), RunVariable+"="+s.Run)
	if s.StoreURL != "" {
		cmd.Env = append(cmd.Env, StoreVariable+"="+s.StoreURL)
	}
	reader := &lineReader{each: func(line []byte, n int) { s.command(ctx, line, n) }}
	state, err := child.Run(ctx, cmd, child.Options{
		Feed: s.feed, Stdout: reader, Stderr: s.Stderr, Grace: s.Grace,
	})
	if err == nil {
		reader.end()
	}
	return state, err
}

// adapt adds what the program wants to know of a result.
func (s *session) adapt(f *Finished, spans []queue.Span) {
	if s.Spans {
		f.Spans = spans
	}
	note := func(v rawjson.Value, err error) rawjson.Value {
		if err != nil {
			f.AdapterError = err.Error()
			return rawjson.Null
		}
		return v
	}
	if s.Messages {
		f.Messages = note(adapted(adapter.Messages{}, spans))
	}
	switch s.Triplets {
	case TracerTriplets:
		f.Triplets = note(adapted(adapter.TracerTriplets{}, spans))
	case ProxyTriplets:
		f.Triplets = note(adapted(adapter.ProxyTriplets{}, spans))
	}
}

func adapted[T any](a adapter.Adapter[T], spans []queue.Span) (rawjson.Value, error) {
	items, err := a.Adapt(spans)
	if err != nil {
		return nil, err
	}
	if items == nil {
		items = []T{}
	}
	return rawjson.Marshal(items)
}
