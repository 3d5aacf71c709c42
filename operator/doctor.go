package operator

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/aglq/aglq/queue"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	OK      Severity = "ok"      // looked at, nothing wrong
	Skipped Severity = "skipped" // could not be looked at; the text says why
	Warning Severity = "warning" // works, but not well or not for long
	Problem Severity = "problem" // something does not work
)

// Finding is what one check found.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
	Remedy   string   `json:"remedy,omitempty"` // what to do, "" where nothing is
}

// Bad reports whether the finding wants something done.
func (f Finding) Bad() bool { return f.Severity == Warning || f.Severity == Problem }

// Remote is what a doctor asks of a store besides its data.
type Remote interface {
	Store
	Ready(ctx context.Context) error
	// Clock tells how far the store's clock is ahead, give or take within.
	Clock(ctx context.Context) (ahead, within time.Duration, err error)
	// Metrics is what the store publishes for Prometheus; NotFound for nothing.
	Metrics(ctx context.Context) ([]byte, error)
}

// Limits of health.
const (
	// MostSkew is how far two clocks may be apart. Times from different machines
	// are compared nowhere closer than by the second.
	MostSkew = 2 * time.Second
	// DefaultMaxQueueAge is how long a rollout may wait for a worker.
	DefaultMaxQueueAge = 10 * time.Minute
	// LeastFiles is the least limit of open files: each connection takes one.
	LeastFiles = 4096
)

// RaiseFileLimit is the remedy for a limit of open files that is too low.
const RaiseFileLimit = "raise it where the process is started: ulimit -n 65535, LimitNOFILE=65535 in a systemd unit, ulimits in compose"

// Doctor examines a store.
type Doctor struct {
	Store Remote
	// MaxQueueAge is how long a rollout may wait before that is a finding.
	MaxQueueAge time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	statistics queue.Statistics // as the examination found them
}

// Examine makes all checks of the store. Where it does not answer, the finding
// says so and there are no others.
func (d *Doctor) Examine(ctx context.Context) []Finding {
	if d.Now == nil {
		d.Now = time.Now
	}
	reached := d.reach(ctx)
	if reached.Severity == Problem {
		return []Finding{reached}
	}
	out := []Finding{reached}
	var err error
	if d.statistics, err = d.Store.Statistics(ctx); err != nil {
		return append(out, failure("store", err))
	}
	for _, check := range []struct {
		name string
		run  func(ctx context.Context) ([]Finding, error)
	}{
		{"clock of the store", d.clock},
		{"file limit of the store", d.files},
		{"memory", d.memory},
		{"workers", d.workers},
		{"clocks of the workers", d.workerClocks},
		{"queue age", d.queueAge},
		{"held rollouts", d.held},
		{"spans", d.spans},
	} {
		found, err := check.run(ctx)
		if err != nil {
			found = []Finding{failure(check.name, err)}
		}
		if len(found) == 0 {
			found = []Finding{{Severity: OK, Text: "fine"}}
		}
		for _, f := range found {
			f.Check = check.name
			out = append(out, f)
		}
	}
	return out
}

func failure(check string, err error) Finding {
	return Finding{check, Problem, "the store failed: " + err.Error(), "look into the store's log"}
}

// lease is what the store gives workers, in seconds, 0 for none.
func (d *Doctor) lease() float64 { return d.statistics.WorkerTTL.Seconds() }

// restart is the remedy of starting the store in another way. For a store that
// keeps its data in memory it is none for now.
func (d *Doctor) restart(how string) string {
	if d.statistics.Memory == nil {
		return "start the store " + how
	}
	return "start the store " + how + " the next time, but do not restart it for that: what is in its memory is lost, unless you move it (docs/moving.md)"
}

func (d *Doctor) reach(ctx context.Context) Finding {
	const check = "store"
	err := d.Store.Ready(ctx)
	if err == nil {
		return Finding{check, OK, "answers, and reaches its data", ""}
	}
	if queue.KindOf(err) == queue.NotFound { // the reference's
		if _, err = d.Store.Statistics(ctx); err == nil {
			return Finding{check, OK, "answers", ""}
		}
	}
	return Finding{check, Problem, err.Error(), "start the store, or name it by --store-url; if it runs, look into its log and at its database"}
}

func (d *Doctor) clock(ctx context.Context) ([]Finding, error) {
	ahead, within, err := d.Store.Clock(ctx)
	if err != nil {
		return skip("%v", err), nil
	}
	return []Finding{skewed("the store's clock", ahead, within)}, nil
}

// skewed judges a clock.
func skewed(whose string, ahead, within time.Duration) Finding {
	if ahead.Abs()-within > MostSkew {
		return Finding{Severity: Warning, Text: fmt.Sprintf("%s is %s this machine's", whose, apart(ahead)), Remedy: "synchronise the clocks, by NTP"}
	}
	return Finding{Severity: OK, Text: whose + " agrees with this machine's"}
}

func apart(ahead time.Duration) string {
	if ahead < 0 {
		return short(-ahead.Seconds()) + " behind"
	}
	return short(ahead.Seconds()) + " ahead of"
}

func (d *Doctor) files(ctx context.Context) ([]Finding, error) {
	text, err := d.Store.Metrics(ctx)
	if queue.KindOf(err) == queue.NotFound {
		return skip("the store publishes no metrics: it was started without --tracker prometheus"), nil
	}
	if err != nil {
		return nil, err
	}
	limit, ok := gauge(text, "process_max_fds")
	if !ok {
		return skip("the store does not publish its limit"), nil
	}
	open, _ := gauge(text, "process_open_fds")
	f := Finding{Severity: OK, Text: fmt.Sprintf("%.0f of %.0f files are open", open, limit)}
	if limit < LeastFiles || open > 0.8*limit {
		f.Severity, f.Remedy = Warning, d.restart("with a higher one")+"; "+RaiseFileLimit
	}
	return []Finding{f}, nil
}

func (d *Doctor) memory(context.Context) ([]Finding, error) {
	m := d.statistics.Memory
	switch {
	case m == nil:
		return []Finding{{Severity: OK, Text: "the data is not in the store's memory"}}, nil
	case m.EvictedSpans > 0:
		return []Finding{{Severity: Warning, Text: these(int(m.EvictedSpans), "span was evicted", "spans were evicted") + " to make room",
			Remedy: "harvest sooner; " + d.restart("with a higher --max-memory, or with --backend mongo,")}}, nil
	case m.EvictionThreshold > 0 && float64(m.SpanBytes) > 0.9*float64(m.EvictionThreshold):
		return []Finding{{Severity: Warning, Text: "spans fill more than 90 % of the memory they may take; the oldest will be evicted soon",
			Remedy: "harvest and delete; " + d.restart("with a higher --max-memory, or with --backend mongo,")}}, nil
	}
	return nil, nil
}

func (d *Doctor) queueAge(ctx context.Context) ([]Finding, error) {
	page, err := d.Store.Rollouts(ctx, queue.RolloutQuery{
		Statuses: []queue.RolloutStatus{queue.RolloutQueuing, queue.RolloutRequeuing},
		Paging:   queue.Paging{SortBy: "start_time", Limit: 1},
	})
	if err != nil {
		return nil, err
	}
	if len(page.Items) == 0 {
		return []Finding{{Severity: OK, Text: "nothing is queued"}}, nil
	}
	oldest := page.Items[0]
	age := queue.Seconds(d.Now()) - oldest.StartTime
	f := Finding{Severity: OK, Text: fmt.Sprintf("%d queued, the oldest was enqueued %s ago", page.Total, short(age))}
	if age > d.MaxQueueAge.Seconds() {
		f.Severity = Warning
		f.Text += ": " + oldest.RolloutID
		f.Remedy = "start more workers; aglq explain " + oldest.RolloutID + " says more"
	}
	return []Finding{f}, nil
}

func skip(format string, args ...any) []Finding {
	return []Finding{{Severity: Skipped, Text: fmt.Sprintf(format, args...)}}
}

// gauge reads a series without labels from the text that Prometheus reads.
func gauge(text []byte, name string) (float64, bool) {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return v, err == nil && !math.IsNaN(v)
		}
	}
	return 0, false
}
