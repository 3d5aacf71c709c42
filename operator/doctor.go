package operator

import (
	"context"
	"errors"
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
			found = []Finding{{Check: check.name, Severity: Problem, Text: "the store failed: " + err.Error(), Remedy: "look into the store's log"}}
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
		return skip("the store publishes no metrics; start it with --tracker prometheus"), nil
	}
	if err != nil {
		return nil, err
	}
	limit, ok := gauge(text, "process_max_fds")
	if !ok {
		return skip("the store does not publish its limit"), nil
	}
	open, _ := gauge(text, "process_open_fds")
	return []Finding{fileLimit(limit, open)}, nil
}

// fileLimit judges a limit of open files.
func fileLimit(limit, open float64) Finding {
	f := Finding{Severity: OK, Text: fmt.Sprintf("%.0f of %.0f files are open", open, limit)}
	if limit < LeastFiles || open > 0.8*limit {
		f.Severity = Warning
		f.Remedy = RaiseFileLimit
	}
	return f
}

func (d *Doctor) memory(ctx context.Context) ([]Finding, error) {
	st, err := d.Store.Statistics(ctx)
	if err != nil {
		return nil, err
	}
	m := st.Memory
	switch {
	case m == nil:
		return []Finding{{Severity: OK, Text: "the data is not in the store's memory"}}, nil
	case m.EvictedSpans > 0:
		return []Finding{{Severity: Warning, Text: group(m.EvictedSpans) + " spans were evicted to make room",
			Remedy: "harvest sooner, raise --max-memory, or use --backend mongo"}}, nil
	case m.EvictionThreshold > 0 && float64(m.SpanBytes) > 0.9*float64(m.EvictionThreshold):
		return []Finding{{Severity: Warning, Text: "spans fill more than 90 % of the memory they may take; the oldest will be evicted soon",
			Remedy: "harvest and delete, raise --max-memory, or use --backend mongo"}}, nil
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

// held looks for rollouts that nobody will end.
func (d *Doctor) held(ctx context.Context) ([]Finding, error) {
	page, err := d.Store.Rollouts(ctx, queue.RolloutQuery{
		Statuses: []queue.RolloutStatus{queue.RolloutPreparing, queue.RolloutRunning},
		Paging:   queue.Paging{SortBy: "start_time", Limit: mostRunning},
	})
	if err != nil {
		return nil, err
	}
	now, asked := queue.Seconds(d.Now()), 0
	var out []Finding
	for _, r := range page.Items {
		if a := r.Attempt; a != nil && now-max(a.StartTime, valueOf(a.LastHeartbeatTime)) <= queue.WorkerSilence {
			continue
		}
		if asked++; asked > mostExplained {
			break
		}
		x, err := d.Store.Explain(ctx, r.RolloutID)
		var e *queue.Error
		switch {
		case errors.As(err, &e) && e.Kind == queue.NotFound:
			continue // gone meanwhile
		case errors.As(err, &e) && e.Kind == queue.Invalid:
			return skip("%v", err), nil
		case err != nil:
			return nil, err
		}
		out = append(out, stuck(x)...)
	}
	return out, nil
}

// mostExplained bounds how many silent rollouts are looked at one by one.
const mostExplained = 20

// stuck finds in an explanation that the rollout will not end by itself.
func stuck(x queue.Explanation) []Finding {
	has := map[queue.ReasonCode]bool{}
	for _, reason := range x.Reasons {
		has[reason.Code] = true
	}
	switch {
	case has[queue.ReasonUnheld]:
		return []Finding{{Severity: Problem, Text: x.RolloutID + " is " + x.Summary, Remedy: "aglq requeue " + x.RolloutID}}
	case has[queue.ReasonSilent] && has[queue.ReasonUnwatched]:
		return []Finding{{Severity: Problem, Text: x.RolloutID + " is " + x.Summary,
			Remedy: "aglq cancel " + x.RolloutID + " and aglq requeue " + x.RolloutID + ", and start the store with --worker-ttl 30"}}
	}
	return nil
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
