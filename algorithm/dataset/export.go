package dataset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
)

// Options says what rows are made, and of what.
type Options struct {
	Filter
	Format Format
	// WithoutSystem leaves out messages of the system.
	WithoutSystem bool
	// WithoutToolCalls leaves out tools: calls, answers and definitions.
	WithoutToolCalls bool
	// EachCall makes a row of every call of a model. Otherwise a conversation that a
	// later one of the same attempt begins with makes none.
	EachCall bool
	// LastOnly has OpenAI's fine-tuning learn the last answer of a row and no
	// earlier one.
	LastOnly bool
	// Origin adds to each row where it comes from, and the final reward.
	Origin bool
	// DedupResponses leaves out calls whose response id was in an earlier row; it
	// takes 16 bytes for each. Those of one attempt are always told apart.
	DedupResponses bool
	// Max is the most rows there may be; nil is any number.
	Max *int64
	// Triplets adjusts the format of triplets.
	Triplets TripletOptions
}

// TripletOptions adjusts triplets; see package adapter for what is meant.
type TripletOptions struct {
	// Source is where they are taken from: "proxy", the spans of an LLM proxy,
	// "tracer", or "auto", the former where it recorded calls and else the latter.
	// "" is "auto".
	Source  string
	LLMCall *regexp.Regexp // names of spans that are calls, of a tracer; nil is OpenAI's
	Agent   *regexp.Regexp // names of agents whose calls count, of a tracer; nil is any
	Match   adapter.RewardMatch
}

// TripletSources are the values of [TripletOptions.Source].
var TripletSources = []string{"auto", "proxy", "tracer"}

// Validate reports what is wrong with o, as an Invalid error.
func (o *Options) Validate() error {
	switch {
	case !slices.Contains(Formats, o.Format):
		return queue.Errorf(queue.Invalid, "format is %q; it must be one of %s", o.Format, join(Formats))
	case o.Max != nil && *o.Max < 0:
		return queue.Errorf(queue.Invalid, "at most %d rows make no sense; it must be 0 or more", *o.Max)
	case o.LastOnly && o.Format != OpenAIFT:
		return queue.Errorf(queue.Invalid, "only the format %s says which answers are learned", OpenAIFT)
	case o.Triplets.Source != "" && !slices.Contains(TripletSources, o.Triplets.Source):
		return queue.Errorf(queue.Invalid, "triplets are taken from %q; it must be one of %s", o.Triplets.Source, strings.Join(TripletSources, ", "))
	}
	return o.Filter.Validate()
}

func join[S ~string](list []S) string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = string(s)
	}
	return strings.Join(texts, ", ")
}

// Counts says what became of what was read.
type Counts struct {
	RolloutsRead int64 `json:"rollouts_read"` // of the wanted statuses, or named
	SpansRead    int64 `json:"spans_read"`
	AttemptsKept int64 `json:"attempts_kept"` // that have a row
	Rows         int64 `json:"rows"`
	// Dropped counts attempts that are not in it, and rollouts none of whose attempts
	// was looked at, by reason.
	Dropped map[Reason]int64 `json:"dropped"`
	// DroppedRows counts conversations, calls and the like of kept attempts, or of
	// those that have no row, by reason.
	DroppedRows map[Reason]int64 `json:"dropped_rows"`
	// StoppedAtMax tells that there may have been more.
	StoppedAtMax bool `json:"stopped_at_max"`
}

// String sums the counts up in a line.
func (c *Counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rows of %d attempts; read %d rollouts and %d spans", c.Rows, c.AttemptsKept, c.RolloutsRead, c.SpansRead)
	for _, list := range []struct {
		what    string
		reasons map[Reason]int64
	}{{"attempts", c.Dropped}, {"rows", c.DroppedRows}} {
		for i, reason := range slices.Sorted(maps.Keys(list.reasons)) {
			if i == 0 {
				fmt.Fprintf(&b, "; %s left out:", list.what)
			} else {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, " %s %d", reason, list.reasons[reason])
		}
	}
	return b.String()
}

// Export reads what opts select and hands each row to write, in the order of the
// source. Options that make no sense are an Invalid error, and nothing is read. Counts
// are those up to an error, too.
func Export(ctx context.Context, src Source, opts Options, write func(Row) error) (Counts, error) {
	e := newExporter(src, opts)
	if err := opts.Validate(); err != nil {
		return e.counts, err
	}
	if opts.Max != nil && *opts.Max == 0 {
		e.counts.StoppedAtMax = true
		return e.counts, nil
	}
	cut, err := topCut(ctx, src, opts)
	if err != nil {
		return e.counts, fmt.Errorf("ranking the attempts: %w", err)
	}
	for c, err := range e.selected(ctx) {
		if err != nil {
			return e.counts, err
		}
		if cut != nil && standingOf(c, opts.Seed).below(*cut) {
			e.counts.Dropped[NotTop]++
			continue
		}
		if more, err := e.export(c, write); err != nil || !more {
			return e.counts, err
		}
	}
	return e.counts, nil
}

// Select reads the attempts that a filter wants, in the order of the source. What it
// does not want is counted in counts. An error is the last pair.
func Select(ctx context.Context, src Source, f Filter, counts *Counts) iter.Seq2[*Candidate, error] {
	return func(yield func(*Candidate, error) bool) {
		e := newExporter(src, Options{Filter: f})
		defer func() { *counts = e.counts }()
		err := f.Validate()
		var cut *standing
		if err == nil {
			cut, err = topCut(ctx, src, e.opts)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		for c, err := range e.selected(ctx) {
			if err == nil && cut != nil && standingOf(c, f.Seed).below(*cut) {
				e.counts.Dropped[NotTop]++
				continue
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

type exporter struct {
	src       Source
	opts      Options
	counts    Counts
	responses map[[16]byte]struct{} // sums of the response ids of rows
}

func newExporter(src Source, opts Options) *exporter {
	return &exporter{
		src: src, opts: opts, responses: map[[16]byte]struct{}{},
		counts: Counts{Dropped: map[Reason]int64{}, DroppedRows: map[Reason]int64{}},
	}
}

// selected reads what the filter wants, its top fraction aside.
func (e *exporter) selected(ctx context.Context) iter.Seq2[*Candidate, error] {
	f := &e.opts.Filter
	q := Query{Statuses: f.statuses(), RolloutIDs: f.RolloutIDs, AllAttempts: f.Attempt == BestAttempt || f.Attempt == AllAttempts}
	q.Want = func(r *queue.AttemptedRollout) bool {
		e.counts.RolloutsRead++
		why := f.rejectRollout(r)
		if why != "" {
			e.counts.Dropped[why]++
		}
		return why == ""
	}
	return func(yield func(*Candidate, error) bool) {
		for t, err := range e.src.Traces(ctx, q) {
			if err != nil {
				yield(nil, err)
				return
			}
			e.counts.SpansRead += int64(len(t.Spans))
			list, unfit := f.candidates(t)
			for _, why := range unfit {
				e.counts.Dropped[why]++
			}
			for _, c := range list {
				if why := f.reject(c); why != "" {
					e.counts.Dropped[why]++
				} else if !yield(c, nil) {
					return
				}
			}
		}
	}
}

// export writes the rows of an attempt; more is false when there may be no others.
func (e *exporter) export(c *Candidate, write func(Row) error) (more bool, err error) {
	rows, dropped, err := e.opts.rows(c)
	if err != nil {
		if queue.KindOf(err) != queue.Invalid {
			return false, err
		}
		e.counts.Dropped[Malformed]++
		return true, nil
	}
	for _, why := range dropped {
		e.counts.DroppedRows[why]++
	}
	written := e.counts.Rows
	for _, row := range rows {
		if e.repeated(row) {
			e.counts.DroppedRows[Duplicate]++
			continue
		}
		if e.opts.Max != nil && e.counts.Rows >= *e.opts.Max {
			e.counts.StoppedAtMax = true
			break
		}
		if err := write(row); err != nil {
			return false, err
		}
		e.counts.Rows++
	}
	switch {
	case e.counts.Rows > written:
		e.counts.AttemptsKept++
	case len(rows) == 0 && len(dropped) == 0:
		e.counts.Dropped[NothingSaid]++
	case !e.counts.StoppedAtMax:
		e.counts.Dropped[NoRows]++
	}
	return !e.counts.StoppedAtMax, nil
}

// repeated reports whether a row's response was in an earlier one.
func (e *exporter) repeated(row Row) bool {
	id := row.responseID()
	if !e.opts.DedupResponses || id == "" {
		return false
	}
	sum := sha256.Sum256([]byte(id))
	short := [16]byte(sum[:16])
	_, known := e.responses[short]
	e.responses[short] = struct{}{}
	return known
}

// standing is where an attempt stands among others: by its reward, and among equals
// by chance.
type standing struct {
	reward float64
	chance uint64
}

func (s standing) below(other standing) bool { return s.compare(other) < 0 }

func (s standing) compare(other standing) int {
	return cmp.Or(cmp.Compare(s.reward, other.reward), cmp.Compare(s.chance, other.chance))
}

// standingOf draws the chance of an attempt from its ids and the seed.
func standingOf(c *Candidate, seed uint64) standing {
	text := binary.BigEndian.AppendUint64(nil, seed)
	text = append(append(append(text, c.Rollout.RolloutID...), 0), c.AttemptID...)
	sum := sha256.Sum256(text)
	return standing{*c.Reward, binary.BigEndian.Uint64(sum[:])}
}

// topCut reads all that the filter wants, and finds where the last attempt of the top
// fraction stands; nil when all of them are in. It remembers 16 bytes of each.
func topCut(ctx context.Context, src Source, opts Options) (*standing, error) {
	if opts.TopFraction == 0 {
		return nil, nil
	}
	var all []standing
	for c, err := range newExporter(src, opts).selected(ctx) {
		if err != nil {
			return nil, err
		}
		all = append(all, standingOf(c, opts.Seed))
	}
	// 0.07 of 100 is 7, and not the 8 that rounding up the product would make of it.
	n := int(math.Ceil(opts.TopFraction*float64(len(all)) - 1e-9))
	if n == 0 || n >= len(all) {
		return nil, nil
	}
	slices.SortFunc(all, func(a, b standing) int { return b.compare(a) })
	return &all[n-1], nil
}
