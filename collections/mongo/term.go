package mongo

import (
	"context"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
	monitor "go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

// Some writes wait for no journal, because another one follows on the same primary
// that does, and makes both durable. Between the two another primary may have been
// elected, which never had the first. Each answer to a write says by which election
// its primary came; where the two differ, the first is made again.

// term gathers which elections the primaries that answered some commands came by.
type term struct {
	mu    sync.Mutex
	of    string // of the first answer
	mixed bool   // others have come since
}

type termKey struct{}

// noting has the answers of commands under the context noted.
func noting(ctx context.Context, t *term) context.Context {
	return context.WithValue(ctx, termKey{}, t)
}

func (t *term) note(election string) {
	if election == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mixed = t.mixed || (t.of != "" && t.of != election)
	t.of = election
}

// differs reports whether answers came from more than one primary, in either or
// between both.
func (t *term) differs(other *term) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	other.mu.Lock()
	defer other.mu.Unlock()
	return t.mixed || other.mixed || (t.of != "" && other.of != "" && t.of != other.of)
}

// notingTerms is the command monitor that notes elections, before it tells
// another one, which may be nil.
func notingTerms(next *monitor.CommandMonitor) *monitor.CommandMonitor {
	out := &monitor.CommandMonitor{}
	if next != nil {
		*out = *next
	}
	succeeded := out.Succeeded
	out.Succeeded = func(ctx context.Context, e *monitor.CommandSucceededEvent) {
		if t, ok := ctx.Value(termKey{}).(*term); ok {
			if id, ok := e.Reply.Lookup("electionId").ObjectIDOK(); ok {
				t.note(string(id[:]))
			}
		}
		if succeeded != nil {
			succeeded(ctx, e)
		}
	}
	return out
}

// keepReceipts makes receipts durable whose primary has changed since they were
// written.
func (s *section) keepReceipts(written []bson.Raw, by *term) error {
	if len(written) == 0 || !by.differs(&s.wroteBy) {
		return nil
	}
	_, err := s.b.receipts.main.InsertMany(s.ctx, written, options.InsertMany().SetOrdered(false))
	_, err = duplicates(err)
	return wrap(err, "writing receipts to MongoDB again")
}

// keepNumbers makes the counters durable that spans got their numbers from, where
// the primary has changed since.
func (b *Backend) keepNumbers(ctx context.Context, spans []queue.Span, issued, stored *term) error {
	if !issued.differs(stored) {
		return nil
	}
	at := make(map[string]int)
	var entries []collections.Counter
	for i := range spans {
		id, n := spans[i].RolloutID, spans[i].SequenceID
		if _, ok := at[id]; !ok {
			at[id] = len(entries)
			entries = append(entries, collections.Counter{RolloutID: id})
		}
		entry := &entries[at[id]]
		entry.N = max(entry.N, n)
	}
	return b.raise(ctx, b.counters.main, entries)
}

// moved is by which primaries counters were moved, without a journal, since
// spans were last stored.
type moved struct {
	mu sync.Mutex
	by *term
}

// noting has commands under the context noted.
func (m *moved) noting(ctx context.Context) context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by == nil {
		m.by = new(term)
	}
	return noting(ctx, m.by)
}

// take returns them, and begins anew.
func (m *moved) take() *term {
	m.mu.Lock()
	defer m.mu.Unlock()
	by := m.by
	m.by = nil
	if by == nil {
		by = new(term)
	}
	return by
}
