package archive

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
)

func (im *importer) storeSpans() error {
	spans := im.chooseSpans(im.spans.take())
	if len(spans) == 0 {
		return nil
	}
	if err := im.raiseBySpans(spans); err != nil {
		return err
	}
	err := im.insertSpans(spans)
	if refusal(err) {
		return alone(im, spans, func(s queue.Span) string {
			return fmt.Sprintf("span %s of rollout %s, attempt %s,", s.SpanID, s.RolloutID, s.AttemptID)
		}, im.insertSpans)
	}
	return err
}

// chooseSpans leaves out those whose rollout did not come before them, or is
// another one here.
func (im *importer) chooseSpans(spans []queue.Span) []queue.Span {
	return slices.DeleteFunc(spans, func(s queue.Span) bool {
		m := im.member(s.RolloutID)
		switch {
		case m == nil:
			im.report.Refused++
			im.report.problem("span %s was refused: its rollout %s is not before it in the archive", s.SpanID, s.RolloutID)
		case m.alien:
			m.left++
		}
		return m == nil || m.alien
	})
}

// raiseBySpans makes sure that no number of a span is issued again, also where
// an archive was made while numbers were.
func (im *importer) raiseBySpans(spans []queue.Span) error {
	risen := map[string]bool{}
	for i := range spans {
		m := im.member(spans[i].RolloutID)
		if n := spans[i].SequenceID; n > m.counter {
			m.counter, risen[spans[i].RolloutID] = n, true
		}
	}
	raises := make([]collections.Counter, 0, len(risen))
	for id := range risen {
		raises = append(raises, collections.Counter{RolloutID: id, N: im.member(id).counter})
	}
	if len(raises) == 0 {
		return nil
	}
	return im.into.RaiseSequence(im.ctx, raises)
}

func (im *importer) insertSpans(spans []queue.Span) error {
	stored, err := im.into.InsertSpans(im.ctx, spans)
	if err != nil {
		return err
	}
	known := map[string][]queue.Span{} // by rollout, those that were there already
	for i, ok := range stored {
		if ok {
			im.report.Stored.Spans++
		} else {
			known[spans[i].RolloutID] = append(known[spans[i].RolloutID], spans[i])
		}
	}
	for id, spans := range known {
		if err := im.compareSpans(id, spans); err != nil {
			return err
		}
	}
	return nil
}

// compareSpans files the spans of a rollout that are there already.
func (im *importer) compareSpans(rolloutID string, spans []queue.Span) error {
	type key struct{ attempt, span string }
	wanted := make(map[key]*queue.Span, len(spans))
	for i := range spans {
		wanted[key{spans[i].AttemptID, spans[i].SpanID}] = &spans[i]
	}
	for cursor := collections.Cursor(""); ; {
		there, next, err := im.into.ScanSpans(im.ctx, []string{rolloutID}, cursor, batchSpans)
		if err != nil {
			return err
		}
		if len(there) == 0 {
			break
		}
		cursor = next
		for i := range there {
			s := wanted[key{there[i].AttemptID, there[i].SpanID}]
			if s == nil {
				continue
			}
			if bytes.Equal(s.AppendJSON(nil), there[i].AppendJSON(nil)) {
				im.report.Present.Spans++
				continue
			}
			im.report.Conflicts++
			im.report.problem("span %s of rollout %s, attempt %s, is there already and differs; it was left as it is", s.SpanID, rolloutID, s.AttemptID)
		}
	}
	return nil
}
