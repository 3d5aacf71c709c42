package queue

import (
	"context"
	"time"

	"github.com/aglq/aglq/queue/rawjson"
)

// Store is the queue and trace store as workers and algorithms see it. It is
// implemented by store.Store, in the process itself, and by client.Client, over
// HTTP; both behave alike. It is the one wide interface of aglq: whoever needs
// less declares less.
//
// All methods are safe for concurrent use. Each looks atomic to every other
// caller. Records returned are the caller's to keep; payloads in them (Input,
// Metadata, Attributes …) are shared and must not be written to. Errors carry a
// [Kind]. A method that creates something honours [WithIdempotencyKey].
type Store interface {
	// Enqueue stores one queued rollout for each request, all or none, in order.
	Enqueue(ctx context.Context, reqs []Request) ([]Rollout, error)
	// Claim takes up to limit rollouts from the head of the queue and begins an
	// attempt on each. With wait > 0 and an empty queue it waits that long for
	// one. Fewer than limit, or none, is no error.
	Claim(ctx context.Context, c Claim) ([]AttemptedRollout, error)
	// Unclaim gives claims back that never reached their worker. Attempts that
	// have shown life are left alone.
	Unclaim(ctx context.Context, claims []AttemptRef) error
	// Start makes a rollout with a first attempt, past the queue.
	Start(ctx context.Context, req Request, workerID *string) (AttemptedRollout, error)
	// StartAttempt begins another attempt in any status of the rollout, whatever
	// max_attempts says.
	StartAttempt(ctx context.Context, rolloutID string, workerID *string) (AttemptedRollout, error)

	// Rollout returns nil without an error when there is none.
	Rollout(ctx context.Context, id string) (*AttemptedRollout, error)
	// Rollouts lists rollouts, each with its latest attempt.
	Rollouts(ctx context.Context, q RolloutQuery) (Page[AttemptedRollout], error)
	// Explain says why a rollout stands where it does and what happens next;
	// NotFound when there is none.
	Explain(ctx context.Context, id string) (Explanation, error)
	// UpdateRollout changes a rollout; NotFound when there is none.
	UpdateRollout(ctx context.Context, id string, u RolloutUpdate) (Rollout, error)
	// Wait returns those of ids that have finished, in the order of ids, as soon
	// as all known ones have, or after timeout; a negative timeout waits as long
	// as ctx lasts. Unknown ids are ignored.
	Wait(ctx context.Context, ids []string, timeout time.Duration) ([]Rollout, error)

	// Attempts lists the attempts of a rollout; none for an unknown one.
	Attempts(ctx context.Context, q AttemptQuery) (Page[Attempt], error)
	// LatestAttempt returns nil without an error when there is none.
	LatestAttempt(ctx context.Context, rolloutID string) (*Attempt, error)
	// UpdateAttempt changes an attempt, the latest for "latest"; NotFound when
	// there is none. See [Record.UpdateAttempt] for what reaches the rollout.
	UpdateAttempt(ctx context.Context, rolloutID, attemptID string, u AttemptUpdate) (Attempt, error)

	// Workers lists workers.
	Workers(ctx context.Context, q WorkerQuery) (Page[Worker], error)
	// Worker returns nil without an error when there is none.
	Worker(ctx context.Context, id string) (*Worker, error)
	// Heartbeat records a sign of life of a worker, renews the attempts it says
	// it holds, and answers which of them it really does.
	Heartbeat(ctx context.Context, h Heartbeat) (HeartbeatAnswer, error)

	// AddResources stores a new set, an object of name to resource.
	AddResources(ctx context.Context, resources rawjson.Value) (ResourcesUpdate, error)
	// UpdateResources replaces the set, or creates it as version 1.
	UpdateResources(ctx context.Context, id string, resources rawjson.Value) (ResourcesUpdate, error)
	// Resources returns nil without an error when there is none.
	Resources(ctx context.Context, id string) (*ResourcesUpdate, error)
	// LatestResources is the set that was added or updated last, hidden ones aside,
	// see [Hidden]. It returns nil without an error when there is none.
	LatestResources(ctx context.Context) (*ResourcesUpdate, error)
	// QueryResources lists sets of resources.
	QueryResources(ctx context.Context, q ResourcesQuery) (Page[ResourcesUpdate], error)

	// NextSequence issues n numbers of a rollout, known or not, and returns the
	// first: 1, 2, 3 …, never one twice. N is 1 or more.
	NextSequence(ctx context.Context, rolloutID string, n int) (int64, error)
	// AddSpan stores one span. It returns nil without an error when the attempt
	// already has a span of that id.
	AddSpan(ctx context.Context, s Span) (*Span, error)
	// AddSpans stores spans of any number of attempts. Spans of unknown attempts
	// are rejected and the rest stored; duplicates are neither.
	AddSpans(ctx context.Context, spans []Span) (SpansAdded, error)
	// Spans lists spans of one rollout; none for an unknown one.
	Spans(ctx context.Context, q SpanQuery) (Page[Span], error)

	// Statistics counts what the store holds.
	Statistics(ctx context.Context) (Statistics, error)
}

// Claim asks for work. A Limit of 0 or less claims nothing and touches nothing.
type Claim struct {
	Limit    int
	WorkerID *string       // nil is nobody in particular
	Wait     time.Duration // how long to wait for the first rollout
}

// Heartbeat is a worker's sign of life.
type Heartbeat struct {
	WorkerID string
	Stats    rawjson.Value // nil keeps the previous ones
	Held     []AttemptRef  // the attempts it is working on
}

// HeartbeatAnswer is what the store makes of a heartbeat.
type HeartbeatAnswer struct {
	Worker Worker
	// Held has one entry for each of Heartbeat.Held, in order.
	Held []HeldAttempt
}

// HeldAttempt tells a worker about one attempt it said it holds.
type HeldAttempt struct {
	AttemptRef
	// Held is false when the rollout was cancelled or has ended, or when the
	// attempt is no longer the rollout's: the worker should stop it.
	Held          bool          `json:"held"`
	RolloutStatus RolloutStatus `json:"rollout_status"` // "" when the rollout is gone
}

// SpansAdded is the outcome of storing a batch of spans.
type SpansAdded struct {
	Stored   []Span // with their numbers, in the order given
	Rejected int    // spans of unknown rollouts or attempts
	Reason   string // why, for the first rejected one
}

// Logic joins the conditions of a query.
type Logic int

// And needs every condition, Or one of them; no condition matches all.
const (
	And Logic = iota
	Or
)

// Paging orders a list and cuts a page out of it. The zero Paging is not
// useful: a Limit of -1 is everything.
type Paging struct {
	SortBy     string // a sortable field; "" is order of insertion
	Descending bool
	Limit      int // -1 for all
	Offset     int
}

// All is the Paging of a whole list in order of insertion.
var All = Paging{Limit: -1}

// RolloutQuery selects rollouts. A nil list or string is no condition; an empty
// list matches nothing. IDContains ignores letter case.
type RolloutQuery struct {
	Statuses   []RolloutStatus
	IDs        []string
	IDContains *string
	Modes      []Mode
	Logic      Logic
	Paging
}

// RolloutSorts are the fields that rollouts sort by; the last three are those of
// the latest attempt, duration is computed.
var RolloutSorts = []string{
	"rollout_id", "start_time", "end_time", "mode", "resources_id", "status",
	"duration", "attempt_id", "worker_id", "last_heartbeat_time",
}

// AttemptQuery selects the attempts of one rollout.
type AttemptQuery struct {
	RolloutID string
	Paging
}

// AttemptSorts are the fields that attempts sort by.
var AttemptSorts = []string{
	"rollout_id", "attempt_id", "sequence_id", "start_time", "end_time", "status", "worker_id", "last_heartbeat_time",
}

// WorkerQuery selects workers.
type WorkerQuery struct {
	Statuses   []WorkerStatus
	IDContains *string
	Logic      Logic
	Paging
}

// WorkerSorts are the fields that workers sort by.
var WorkerSorts = []string{
	"worker_id", "status", "last_heartbeat_time", "last_dequeue_time", "last_busy_time", "last_idle_time",
	"current_rollout_id", "current_attempt_id",
}

// ResourcesQuery selects sets of resources; its conditions are joined by And.
type ResourcesQuery struct {
	ID         *string
	IDContains *string
	Paging
}

// ResourcesSorts are the fields that resources sort by.
var ResourcesSorts = []string{"resources_id", "create_time", "update_time", "version"}

// SpanQuery selects spans of one rollout. AttemptID nil is all attempts,
// "latest" the one with the highest sequence number. Logic joins the text
// conditions only.
type SpanQuery struct {
	RolloutID string
	AttemptID *string
	TraceID   TextMatch
	SpanID    TextMatch
	ParentID  TextMatch
	Name      TextMatch
	Logic     Logic
	Paging
}

// TextMatch holds two conditions on a text field; nil is no condition. Contains
// ignores letter case and never matches null.
type TextMatch struct {
	Equals   *string
	Contains *string
}

// None reports whether m has no condition.
func (m TextMatch) None() bool { return m.Equals == nil && m.Contains == nil }

// SpanSorts are the fields that spans sort by.
var SpanSorts = []string{
	"rollout_id", "attempt_id", "sequence_id", "trace_id", "span_id", "parent_id", "name",
	"start_time", "end_time", "duration", "status_code",
}

// Statistics counts what a store holds.
type Statistics struct {
	Name      string // the reference's name for the kind of store
	Rollouts  int64
	Attempts  int64
	Spans     int64
	Resources int64
	Workers   int64
	Uptime    time.Duration
	// WorkerTTL is the lease that the store gives workers, see [Silence]; 0 is none.
	WorkerTTL time.Duration
	// ByStatus counts rollouts; absent statuses are 0.
	ByStatus map[RolloutStatus]int64
	// Memory is nil where the backend keeps nothing in memory.
	Memory *MemoryStatistics
}

// MemoryStatistics tells how full a memory backend is, in bytes.
type MemoryStatistics struct {
	SpanBytes         int64
	EvictionThreshold int64 // spans are evicted above it
	SafeThreshold     int64 // down to it
	Capacity          int64 // of the machine
	EvictedSpans      int64 // since the start, a count
}

type idempotencyKey struct{}

// WithIdempotencyKey makes the next creating call under ctx repeatable: a call
// with the same key returns what the first one created.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}

// IdempotencyKey is the key that ctx carries, "" for none.
func IdempotencyKey(ctx context.Context) string {
	key, _ := ctx.Value(idempotencyKey{}).(string)
	return key
}

// Seconds is t as the wire's Unix seconds.
func Seconds(t time.Time) float64 {
	return float64(t.Unix()) + float64(t.Nanosecond())/1e9
}
