package collections

import (
	"context"

	"github.com/aglq/aglq/queue"
)

// Cursor is a place in a scan: the zero Cursor is its beginning. It is the
// backend's own text, good for as long as what it stands behind exists, also in
// another process.
type Cursor string

// Scans read a whole partition in pages, each after a cursor. A page ends after
// limit items, or earlier, after about [ScanBytes]; an empty page is the end.
//
// Nothing is locked and no snapshot is held: each item is as it was at one
// moment while its page was read. Under live traffic a scan returns everything
// that is there from its first page to its last exactly once, and of what comes
// or goes meanwhile some.
type Scans interface {
	// ScanRollouts reads records in the order of lists: by StartTime, then by
	// insertion.
	ScanRollouts(ctx context.Context, after Cursor, limit int) ([]*queue.Record, Cursor, error)
	// ScanWorkers reads workers in order of insertion.
	ScanWorkers(ctx context.Context, after Cursor, limit int) ([]*queue.Worker, Cursor, error)
	// ScanResources reads sets of resources in order of insertion.
	ScanResources(ctx context.Context, after Cursor, limit int) ([]*queue.ResourcesUpdate, Cursor, error)
	// ScanSpans reads the spans of some rollouts: by rollout id, then by
	// SequenceID, then by insertion. Ids are distinct, in ascending order, and the
	// same for every page.
	ScanSpans(ctx context.Context, rolloutIDs []string, after Cursor, limit int) ([]queue.Span, Cursor, error)
	// Counters reads the span counters of rollouts; one that was never moved stands
	// at 0.
	Counters(ctx context.Context, rolloutIDs []string) ([]int64, error)
}

// ScanBytes is about how much of callers' payloads one page of a scan holds.
const ScanBytes = 4 << 20
