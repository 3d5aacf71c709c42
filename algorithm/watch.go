package algorithm

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue"
)

// WatchOptions says which rollouts a Watch is about.
type WatchOptions struct {
	// Since is the start time, in Unix seconds, of the oldest rollout to look at; 0
	// looks at all that the store has. [Watch.Watermark] gives one to go on from.
	Since float64
	// Want tells which rollouts are of interest, by how they are when they are first
	// seen, which may be before they finish; nil is all.
	Want func(r *queue.Rollout) bool
	// Once ends the results when no rollout of interest is unfinished.
	Once bool
	// Waiting, when not nil, is called before each pause with the oldest of the
	// rollouts of interest that are unfinished and their number, if there are any.
	Waiting func(oldest string, unfinished int)
	// SkipSpans leaves the spans and the reward out of results.
	SkipSpans bool
}

// Watch is a cursor over the rollouts of a store, whoever enqueued or started them,
// in the order in which they finish. It is used by one goroutine at a time.
//
// It asks for new rollouts from the newest back to those it has seen, and looks up
// the unfinished ones among them, so it costs the store little however much is
// stored. What it remembers grows with the number of rollouts of interest that were
// not handed out: at first, all of them. A rollout that is requeued after it was
// handed out is not handed out again, nor is one that was imported with a start time
// that is past.
type Watch struct {
	client *Client
	opts   WatchOptions

	open   []watched          // of interest, by start time; the first is not gone
	gone   map[string]bool    // those in open that were handed out, or are lost
	seen   map[string]float64 // start times of the rollouts of the last moments
	newest float64            // the latest start time seen
	turn   int                // where in open the next look goes on
	looked time.Time          // when rollouts that came late were last looked for
	broken bool               // the last look for new rollouts did not reach its end
	quiet  time.Duration      // how long the next pause without news is

	pause, far time.Duration // see watchPause and farLook
}

type watched struct {
	id    string
	start float64
}

const (
	// watchPage is how many rollouts a look takes at most.
	watchPage = 200
	// lateness is how much later than a rollout that started after it another one
	// may become visible: stores assign the time before they write.
	lateness = 60.0 // seconds
	// farLook is how often rollouts are looked for that came late.
	farLook = 10 * time.Second
	// watchPause is the least pause between looks; without news it doubles, up to
	// watchWork while rollouts are unfinished and up to watchRest while none is.
	watchPause = 50 * time.Millisecond
	watchWork  = 200 * time.Millisecond
	watchRest  = time.Second
)

// Watch makes a cursor that begins with the rollouts that have finished already.
func (c *Client) Watch(opts WatchOptions) *Watch {
	return &Watch{client: c, opts: opts, seen: map[string]float64{}, gone: map[string]bool{}, pause: watchPause, far: farLook}
}

// Watermark is a start time, in Unix seconds, before which every rollout of
// interest has been handed out: the Since of a later Watch that misses none. Some of
// those after it have been handed out as well. Within the loop over the results, it
// counts the one at hand as done.
func (w *Watch) Watermark() float64 {
	mark := max(w.newest-lateness, w.opts.Since)
	if len(w.open) > 0 {
		mark = min(mark, w.open[0].start)
	}
	return mark
}

// Results hands out rollouts as they finish, with the spans of their latest
// attempt; the index of a result is that of its batch. It ends with ctx or an error of
// the store, the last pair, and may be taken up again.
func (w *Watch) Results(ctx context.Context) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		for {
			done, err := w.next(ctx)
			if err != nil {
				yield(Result{}, fmt.Errorf("watching for finished rollouts: %w", err))
				return
			}
			if len(done) == 0 {
				return
			}
			for some := range slices.Chunk(done, harvestMost) {
				if !w.deliver(ctx, some, yield) {
					return
				}
			}
		}
	}
}

func (w *Watch) deliver(ctx context.Context, done []queue.AttemptedRollout, yield func(Result, error) bool) bool {
	asked := time.Now()
	results, err := w.client.harvest(ctx, done, w.opts.SkipSpans)
	if err != nil {
		yield(Result{}, fmt.Errorf("fetching results: %w", err))
		return false
	}
	w.client.opts.Observer.Harvested(len(results), time.Since(asked))
	for _, r := range results {
		if place, ok := r.Rollout.Metadata.Get(BatchIndexKey).Int(); ok {
			r.Index = int(place)
		}
		w.drop(r.Rollout.RolloutID)
		w.client.opts.Observer.Delivered(&r)
		if !yield(r, nil) {
			return false
		}
	}
	return true
}

// drop forgets a rollout. Those that are gone stay in open until they are half of it,
// so that each costs no more the more there are.
func (w *Watch) drop(id string) {
	w.gone[id] = true
	if 2*len(w.gone) > len(w.open) {
		w.open = slices.DeleteFunc(w.open, func(o watched) bool { return w.gone[o.id] })
		clear(w.gone)
	}
	w.trim()
}

// trim has open begin with a rollout that is not gone.
func (w *Watch) trim() {
	for len(w.open) > 0 && w.gone[w.open[0].id] {
		delete(w.gone, w.open[0].id)
		w.open = w.open[1:]
	}
}

// left counts the rollouts of interest that were not handed out.
func (w *Watch) left() int { return len(w.open) - len(w.gone) }

// next waits for rollouts of interest that have finished. It returns none when
// nothing is left to wait for.
func (w *Watch) next(ctx context.Context) ([]queue.AttemptedRollout, error) {
	for {
		asked := time.Now()
		found, err := w.discover(ctx, asked)
		if err != nil {
			return nil, err
		}
		done, err := w.finished(ctx)
		if err != nil || len(done) > 0 {
			w.quiet = 0
			return done, err
		}
		if w.opts.Once && len(w.open) == 0 {
			return nil, nil
		}
		if n := w.left(); n > 0 && w.opts.Waiting != nil {
			w.opts.Waiting(w.open[0].id, n)
		}
		if w.quiet *= 2; found > 0 || w.quiet == 0 {
			w.quiet = w.pause
		}
		if err := w.idle(ctx, 4*time.Since(asked)); err != nil {
			return nil, err
		}
	}
}

// idle pauses between two looks, at least for so long as keeps their cost low. It
// ends early when the last unfinished rollouts finish.
func (w *Watch) idle(ctx context.Context, least time.Duration) error {
	rest := watchRest
	if len(w.open) > 0 {
		rest = watchWork
	}
	w.quiet = min(w.quiet, rest)
	pause := max(w.quiet, min(least, watchRest))
	if n := w.left(); n > 0 && n <= askMost {
		asked := time.Now()
		done, err := w.client.Store.Wait(ctx, w.some(), pause)
		if err != nil {
			return fmt.Errorf("waiting for the last rollouts: %w", err)
		}
		if pause -= time.Since(asked); len(done) > 0 {
			pause = 0
		}
	}
	if pause > 0 { // a store that knows none of them, or shuts down, does not wait
		_ = sleep.For(ctx, pause)
	}
	return context.Cause(ctx)
}

// discover takes in rollouts that are new, from the newest back, and returns how
// many of them are of interest.
func (w *Watch) discover(ctx context.Context, now time.Time) (int, error) {
	far := w.broken || now.Sub(w.looked) >= w.far
	floor := max(w.opts.Since, w.newest-lateness)
	newest, found := w.newest, 0
	w.broken = true
	for offset := 0; ; {
		page, err := w.client.Store.Rollouts(ctx, queue.RolloutQuery{
			Paging: queue.Paging{SortBy: "start_time", Descending: true, Limit: watchPage, Offset: offset},
		})
		if err != nil {
			return 0, fmt.Errorf("looking for new rollouts: %w", err)
		}
		// A page begins with the last rollout of the page before, or with one that
		// has come since. Otherwise some were deleted, and others moved up.
		if offset > 0 && (len(page.Items) == 0 || !w.known(&page.Items[0])) {
			offset = max(0, offset-watchPage/2)
			continue
		}
		fresh := 0
		for i := range page.Items {
			r := &page.Items[i].Rollout
			if r.StartTime < floor || w.known(&page.Items[i]) {
				continue
			}
			fresh++
			w.seen[r.RolloutID] = r.StartTime
			newest = max(newest, r.StartTime)
			if w.opts.Want == nil || w.opts.Want(r) {
				w.open = append(w.open, watched{r.RolloutID, r.StartTime})
				found++
			}
		}
		if len(page.Items) < watchPage || page.Items[len(page.Items)-1].StartTime < floor || fresh == 0 && !far {
			break
		}
		offset += len(page.Items) - 1
	}
	if far {
		w.looked = now
		if err := w.forgetLost(ctx); err != nil {
			return 0, err
		}
	}
	w.newest, w.broken = newest, false
	for id, start := range w.seen {
		if start < w.newest-2*lateness {
			delete(w.seen, id)
		}
	}
	if found > 0 {
		slices.SortStableFunc(w.open, func(a, b watched) int { return cmp.Compare(a.start, b.start) })
		w.trim() // what is older than all others may have come in front of one that is gone
	}
	w.client.opts.Observer.Expected(found)
	return found, nil
}

func (w *Watch) known(r *queue.AttemptedRollout) bool {
	_, ok := w.seen[r.RolloutID]
	return ok
}

// some are the unfinished rollouts of one look: the oldest, which are the next to
// finish in a queue, and a part of the others in turn.
func (w *Watch) some() []string {
	var ids []string
	take := func(o watched, most int) {
		if len(ids) < most && !w.gone[o.id] {
			ids = append(ids, o.id)
		}
	}
	at := 0
	for ; at < len(w.open) && len(ids) < watchPage; at++ {
		take(w.open[at], watchPage)
	}
	rest := w.open[at:]
	for n := len(rest); n > 0 && len(ids) < 2*watchPage; n-- {
		w.turn = (w.turn + 1) % len(rest)
		take(rest[w.turn], 2*watchPage)
	}
	return ids
}

// finished looks up which of some rollouts have finished, in that order.
func (w *Watch) finished(ctx context.Context) ([]queue.AttemptedRollout, error) {
	if len(w.open) == 0 {
		return nil, nil
	}
	page, err := w.client.Store.Rollouts(ctx, queue.RolloutQuery{
		IDs: w.some(), Statuses: finishedStatuses, Paging: queue.Paging{Limit: harvestMost},
	})
	if err != nil {
		return nil, fmt.Errorf("looking up %d rollouts: %w", w.left(), err)
	}
	end := func(r queue.AttemptedRollout) float64 {
		if r.EndTime == nil {
			return r.StartTime
		}
		return *r.EndTime
	}
	slices.SortStableFunc(page.Items, func(a, b queue.AttemptedRollout) int { return cmp.Compare(end(a), end(b)) })
	return page.Items, nil
}

var finishedStatuses = []queue.RolloutStatus{queue.RolloutSucceeded, queue.RolloutFailed, queue.RolloutCancelled}

// forgetLost drops rollouts that are gone from the store.
func (w *Watch) forgetLost(ctx context.Context) error {
	ids := w.some()
	if len(ids) == 0 {
		return nil
	}
	query := queue.RolloutQuery{IDs: ids, Paging: queue.Paging{Limit: 1}}
	page, err := w.client.Store.Rollouts(ctx, query)
	if err == nil && page.Total < len(ids) {
		query.Limit = -1
		page, err = w.client.Store.Rollouts(ctx, query)
	}
	if err != nil {
		return fmt.Errorf("looking for rollouts that were deleted: %w", err)
	}
	if page.Total == len(ids) {
		return nil
	}
	gone := map[string]bool{}
	for _, id := range ids {
		gone[id] = true
	}
	for i := range page.Items {
		delete(gone, page.Items[i].RolloutID)
	}
	for id := range gone {
		w.drop(id)
	}
	w.client.opts.Observer.Expected(-len(gone))
	return nil
}
