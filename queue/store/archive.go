package store

import (
	"context"
	"io"

	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue"
)

// Export writes an archive of the whole partition; package archive says what it
// holds while others write.
func (s *Store) Export(ctx context.Context, w io.Writer) (archive.Counts, error) {
	s.settle(ctx)
	s.settleWorkers(ctx)
	return archive.Write(w, archive.Scan(ctx, s.backend))
}

// Import stores what is in an archive, as [archive.Import] does. Workers that
// wait for work get what is queued in it at once, and those who wait for a
// rollout hear of its end.
func (s *Store) Import(ctx context.Context, r io.Reader, merge bool) (archive.Report, error) {
	reader, err := archive.NewReader(r)
	if err != nil {
		return archive.Report{}, err
	}
	defer reader.Close()
	return archive.Import(ctx, s.backend, reader.Items(), archive.Options{Merge: merge, Inserted: s.welcome})
}

// welcome tells those who wait of rollouts that came from elsewhere.
func (s *Store) welcome(rs []*queue.Record) {
	queued := 0
	for _, r := range rs {
		switch {
		case r.Place > 0:
			queued++
		case r.Rollout.Status.Finished():
			s.waits.finished(r.Rollout.RolloutID)
		}
	}
	if queued > 0 {
		s.claims.wake(queued)
	}
}
