package operator

import (
	"cmp"
	"context"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/semconv"
)

// How much one look reads.
const (
	mostWorkers  = 1000
	mostRunning  = 200
	mostFailed   = 50
	mostRewarded = 50
	// What is not known yet of single rollouts is read a few at a time.
	newErrors  = 5
	newRewards = 10
)

// rateWindow is the time that rates are measured over.
const rateWindow = 10 * time.Second

// Top follows a store. It remembers what it has read from one look to the next,
// and is for one goroutine.
type Top struct {
	store Store
	now   func() time.Time

	samples []sample
	rewards recall[*float64]
	errors  recall[string]
}

// NewTop follows a store by the clock now; nil is time.Now.
func NewTop(s Store, now func() time.Time) *Top {
	if now == nil {
		now = time.Now
	}
	return &Top{store: s, now: now}
}

// View is what one look saw.
type View struct {
	Time       time.Time
	Statistics queue.Statistics
	// Per second; NaN until there are two looks to compare.
	Enqueued, Finished, Spans float64
	// Reward is the mean of the Rewarded newest rollouts that have one.
	Reward   float64
	Rewarded int
	// Workers are the live ones, those who work longest first, then the idle ones,
	// and those that are silent or have ended; there are Known in all.
	Workers     []queue.Worker
	Known       int
	Alive, Busy int
	// Running are the rollouts whose attempt has lasted longest, of all Active.
	Running []queue.AttemptedRollout
	Active  int
	// Errors are why attempts failed lately, the most frequent first.
	Errors []ErrorGroup
}

// ErrorGroup is attempts that failed with the same words, save for ids and figures
// in them.
type ErrorGroup struct {
	Text      string // of the newest
	Count     int
	RolloutID string // the newest of them
}

// Look reads the store.
func (t *Top) Look(ctx context.Context) (View, error) {
	v := View{Time: t.now()}
	var workers queue.Page[queue.Worker]
	var running queue.Page[queue.AttemptedRollout]
	var failed, succeeded []queue.AttemptedRollout
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { v.Statistics, err = t.store.Statistics(gctx); return err })
	group.Go(func() (err error) {
		workers, err = t.store.Workers(gctx, queue.WorkerQuery{
			Paging: queue.Paging{SortBy: "last_heartbeat_time", Descending: true, Limit: mostWorkers},
		})
		return err
	})
	group.Go(func() (err error) {
		running, err = t.store.Rollouts(gctx, queue.RolloutQuery{
			Statuses: []queue.RolloutStatus{queue.RolloutPreparing, queue.RolloutRunning},
			Paging:   queue.Paging{SortBy: "start_time", Limit: mostRunning},
		})
		return err
	})
	group.Go(func() (err error) {
		failed, err = newest(gctx, t.store, mostFailed, queue.RolloutFailed, queue.RolloutRequeuing)
		return err
	})
	group.Go(func() (err error) {
		succeeded, err = newest(gctx, t.store, mostRewarded, queue.RolloutSucceeded)
		return err
	})
	if err := group.Wait(); err != nil {
		return v, err
	}
	t.rate(&v)
	v.sortWorkers(workers)
	v.Running, v.Active = slowest(running.Items), running.Total
	if err := t.readErrors(ctx, &v, failed); err != nil {
		return v, err
	}
	return v, t.readRewards(ctx, &v, succeeded)
}

// sample is what rates are the difference of.
type sample struct {
	at                        time.Time
	enqueued, finished, spans int64
}

func (t *Top) rate(v *View) {
	st := v.Statistics
	now := sample{at: v.Time, enqueued: st.Rollouts, spans: st.Spans}
	for status, n := range st.ByStatus {
		if status.Finished() {
			now.finished += n
		}
	}
	t.samples = append(t.samples, now)
	for len(t.samples) > 2 && v.Time.Sub(t.samples[0].at) > rateWindow {
		t.samples = t.samples[1:]
	}
	first := t.samples[0]
	seconds := now.at.Sub(first.at).Seconds()
	perSecond := func(from, to int64) float64 {
		if seconds <= 0 {
			return math.NaN()
		}
		return float64(max(0, to-from)) / seconds // what is deleted counts for nothing
	}
	v.Enqueued = perSecond(first.enqueued, now.enqueued)
	v.Finished = perSecond(first.finished, now.finished)
	if st.ByStatus == nil { // the reference's store does not count by status
		v.Finished = math.NaN()
	}
	v.Spans = perSecond(first.spans, now.spans)
}

// alive reports whether the store takes a worker for alive.
func (v *View) alive(w *queue.Worker) bool {
	return w.Alive(queue.Seconds(v.Time), v.Statistics.WorkerTTL.Seconds())
}

func (v *View) sortWorkers(page queue.Page[queue.Worker]) {
	v.Known = page.Total
	rank := func(w *queue.Worker) int {
		switch {
		case !v.alive(w):
			return 2
		case w.Status != queue.WorkerBusy:
			return 1
		}
		return 0
	}
	for i := range page.Items {
		switch rank(&page.Items[i]) {
		case 0:
			v.Busy++
			v.Alive++
		case 1:
			v.Alive++
		}
	}
	v.Workers = page.Items
	slices.SortFunc(v.Workers, func(a, b queue.Worker) int {
		if c := cmp.Compare(rank(&a), rank(&b)); c != 0 {
			return c
		}
		if rank(&a) == 0 {
			if c := cmp.Compare(valueOf(a.LastBusyTime), valueOf(b.LastBusyTime)); c != 0 {
				return c
			}
		} else if c := cmp.Compare(b.LastSeen(), a.LastSeen()); c != 0 {
			return c
		}
		return strings.Compare(a.WorkerID, b.WorkerID)
	})
}

func valueOf(f *float64) float64 {
	if f == nil {
		return 0
	}
	return *f
}

// slowest sorts by the beginning of the attempt; those without one come last.
func slowest(rs []queue.AttemptedRollout) []queue.AttemptedRollout {
	began := func(r queue.AttemptedRollout) float64 {
		if r.Attempt == nil {
			return math.Inf(1)
		}
		return r.Attempt.StartTime
	}
	slices.SortStableFunc(rs, func(a, b queue.AttemptedRollout) int { return cmp.Compare(began(a), began(b)) })
	return rs
}

// readErrors groups the failures by what was said.
func (t *Top) readErrors(ctx context.Context, v *View, failed []queue.AttemptedRollout) error {
	at := map[string]int{}
	asked := 0
	for _, r := range failed { // newest first
		if r.Attempt == nil {
			continue
		}
		key := r.RolloutID + "/" + r.Attempt.AttemptID
		text, known := t.errors.look(key)
		if !known {
			if asked++; asked > newErrors {
				continue // next time
			}
			var err error
			if text, err = t.errorText(ctx, r); queue.KindOf(err) == queue.NotFound {
				continue // deleted meanwhile
			} else if err != nil {
				return err
			}
			t.errors.learn(key, text)
		}
		kind := errorKey(text)
		i, ok := at[kind]
		if !ok {
			i = len(v.Errors)
			at[kind] = i
			v.Errors = append(v.Errors, ErrorGroup{Text: text, RolloutID: r.RolloutID})
		}
		v.Errors[i].Count++
	}
	slices.SortStableFunc(v.Errors, func(a, b ErrorGroup) int { return cmp.Compare(b.Count, a.Count) })
	return nil
}

// particular is what differs from one error to the next of its kind: UUIDs, ids of
// rollouts and attempts, hexadecimal numbers, digests, and figures. Its group is
// what does not: the number of a status or code is the kind itself.
var particular = regexp.MustCompile(`(?i)(\b(?:status|code|http)\b[ :=]*\d+)` +
	`|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b(?:ro|at|rs|sp)-[0-9a-f]{4,}\b|\b0x[0-9a-f]+\b|\b[0-9a-f]{8,}\b|\d+(?:[.,:]\d+)*`)

// errorKey is an error without what is particular to one case of it.
func errorKey(text string) string { return particular.ReplaceAllString(text, "$1#") }

// errorText is the first line of what the latest attempt said, or how it ended.
func (t *Top) errorText(ctx context.Context, r queue.AttemptedRollout) (string, error) {
	x, err := t.store.Explain(ctx, r.RolloutID)
	if queue.KindOf(err) == queue.Invalid { // a store that cannot explain, as the reference's
		x, err = queue.Explain(queue.Evidence{Record: &queue.Record{Rollout: r.Rollout, Attempts: []queue.Attempt{*r.Attempt}}}), nil
	}
	if err != nil {
		return "", err
	}
	for _, a := range x.Attempts {
		if a.AttemptID == r.Attempt.AttemptID && a.Error != nil {
			text := a.Error.Message
			if a.Error.Type != "" {
				text = a.Error.Type + ": " + text
			}
			line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
			return line, nil
		}
	}
	return string(r.Attempt.Status), nil
}

// rewardSpans is how far from the end of an attempt its reward is looked for.
const rewardSpans = 20

func (t *Top) readRewards(ctx context.Context, v *View, succeeded []queue.AttemptedRollout) error {
	sum, asked := 0.0, 0
	for _, r := range succeeded {
		if r.Attempt == nil {
			continue
		}
		key := r.RolloutID + "/" + r.Attempt.AttemptID
		reward, known := t.rewards.look(key)
		if !known {
			if asked++; asked > newRewards {
				continue
			}
			spans, _, err := lastSpans(ctx, t.store, r.RolloutID, rewardSpans)
			if err != nil {
				return err
			}
			if value, ok := semconv.FinalReward(spans); ok && !math.IsNaN(value) && !math.IsInf(value, 0) {
				reward = &value
			}
			t.rewards.learn(key, reward)
		}
		if reward != nil {
			sum += *reward
			v.Rewarded++
		}
	}
	if v.Rewarded > 0 {
		v.Reward = sum / float64(v.Rewarded)
	}
	return nil
}

// recall keeps what was read of single attempts. It forgets all when it is full:
// what is needed is read again.
type recall[T any] struct{ known map[string]T }

const recallLimit = 10_000

func (m *recall[T]) look(key string) (T, bool) {
	v, ok := m.known[key]
	return v, ok
}

func (m *recall[T]) learn(key string, v T) {
	if m.known == nil || len(m.known) >= recallLimit {
		m.known = map[string]T{}
	}
	m.known[key] = v
}
