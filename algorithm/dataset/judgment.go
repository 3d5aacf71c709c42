package dataset

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"math"
	"strings"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/emit"
)

// JudgmentTag begins the tag of an annotation that judges: "judgment:acceptable".
const JudgmentTag = "judgment:"

// The attributes of annotations by which attempts are judged and measured.
const (
	judgmentKey   = "aglq.judgment"
	judgmentText  = judgmentKey + ".text"
	judgmentNote  = judgmentKey + ".note"
	judgmentScore = judgmentKey + ".score"

	measureKey    = "aglq.measure"
	measureName   = measureKey + ".name"
	measurePassed = measureKey + ".passed"
	measureReason = measureKey + ".reason"
	measureScore  = measureKey + ".score"
)

// Judgment is what somebody thinks of an attempt. Of several, the last counts.
type Judgment struct {
	Text  string   // "acceptable", "unacceptable", or another word
	Note  string   // why; "" says nothing
	Score *float64 // finite; nil for none
}

// Verdict is what a measure found.
type Verdict struct {
	Passed bool
	Reason string   // "" says nothing
	Score  *float64 // nil for none
}

// Assessment is all that was said of an attempt after the fact.
type Assessment struct {
	Judgment *Judgment // nil when nobody judged
	Verdicts map[string]Verdict
	Tags     map[string]bool // of all its spans
}

// assess reads what the spans of an attempt, in their order, say of it, and returns
// the others: what was said afterwards is no part of what an agent did. Malformed tags
// are passed over.
func assess(spans []queue.Span) (own []queue.Span, a Assessment) {
	a = Assessment{Verdicts: map[string]Verdict{}, Tags: map[string]bool{}}
	own = spans[:0:0]
	for i := range spans {
		s := &spans[i]
		for _, tag := range tagsOf(s) {
			a.Tags[tag] = true
			if text, ok := strings.CutPrefix(tag, JudgmentTag); ok {
				a.Judgment = &Judgment{Text: text, Note: s.Attribute(judgmentNote).Text(), Score: s.Attribute(judgmentScore).FloatOrNil()}
			}
		}
		if name := s.Attribute(measureName).Text(); name != "" {
			a.Verdicts[name] = Verdict{s.Attribute(measurePassed).Bool(), s.Attribute(measureReason).Text(), s.Attribute(measureScore).FloatOrNil()}
		}
		if s.Name != semconv.AnnotationSpan || s.Attribute(judgmentText) == nil && s.Attribute(measureName) == nil {
			own = append(own, *s)
		}
	}
	return own, a
}

// tagsOf reads the tags of a span, none where they are malformed.
func tagsOf(s *queue.Span) []string {
	if !bytes.Contains(s.Attributes, []byte(semconv.TagPrefix)) {
		return nil // as most spans; it saves looking at each attribute
	}
	tags, _ := semconv.SpanTags(s)
	return tags
}

// Judged is the part of a store that judgments need.
type Judged interface {
	Rollout(ctx context.Context, id string) (*queue.AttemptedRollout, error)
	Attempts(ctx context.Context, q queue.AttemptQuery) (queue.Page[queue.Attempt], error)
	AddSpan(ctx context.Context, s queue.Span) (*queue.Span, error)
}

// Judge files a judgment of an attempt, the latest for "", as an annotation. The
// rollout must have finished, and stays as it is. The error is NotFound where there is
// no such rollout or attempt, Conflict where it has not finished, and Invalid for a
// judgment without a text.
func Judge(ctx context.Context, s Judged, rolloutID, attemptID string, j Judgment) error {
	j.Text = strings.TrimSpace(j.Text)
	switch {
	case j.Text == "":
		return queue.Errorf(queue.Invalid, "a judgment needs a text, as acceptable")
	case j.Score != nil && (math.IsNaN(*j.Score) || math.IsInf(*j.Score, 0)):
		return queue.Errorf(queue.Invalid, "the score is %g; it must be a finite number", *j.Score)
	}
	r, err := s.Rollout(ctx, rolloutID)
	if err != nil {
		return err
	}
	if r == nil {
		return queue.ErrNoRollout(rolloutID)
	}
	a := r.Attempt
	if attemptID != "" && (a == nil || a.AttemptID != attemptID) {
		if a, err = attempt(ctx, s, rolloutID, attemptID); err != nil {
			return err
		}
	}
	if a == nil {
		return queue.ErrNoAttempts(rolloutID)
	}
	attributes := []any{emit.Tags{JudgmentTag + j.Text}, map[string]any{judgmentText: j.Text}}
	if j.Note != "" {
		attributes = append(attributes, map[string]any{judgmentNote: j.Note})
	}
	if j.Score != nil {
		attributes = append(attributes, map[string]any{judgmentScore: *j.Score})
	}
	return annotate(ctx, s, r.Rollout, *a, attributes...)
}

func attempt(ctx context.Context, s Judged, rolloutID, attemptID string) (*queue.Attempt, error) {
	page, err := s.Attempts(ctx, queue.AttemptQuery{RolloutID: rolloutID, Paging: queue.All})
	if err != nil {
		return nil, err
	}
	for i := range page.Items {
		if page.Items[i].AttemptID == attemptID {
			return &page.Items[i], nil
		}
	}
	return nil, queue.ErrNoAttempt(rolloutID, attemptID)
}

// annotate adds an annotation to an attempt that is over. A span brings an attempt
// back that went silent, or that has shown nothing yet, so these are refused.
func annotate(ctx context.Context, s Judged, r queue.Rollout, a queue.Attempt, attributes ...any) error {
	switch {
	case !r.Status.Finished():
		return queue.Errorf(queue.Conflict, "rollout %s is %s: judge it when it has finished", r.RolloutID, r.Status)
	case a.Status == queue.AttemptUnresponsive || a.Status == queue.AttemptPreparing:
		return queue.Errorf(queue.Conflict, "attempt %s of rollout %s is %s: a judgment would count as a sign of life of its worker", a.AttemptID, r.RolloutID, a.Status)
	}
	span, err := emit.AnnotationSpan(attributes...)
	if err != nil {
		return err
	}
	now := queue.Seconds(time.Now())
	span.RolloutID, span.AttemptID, span.SequenceID = r.RolloutID, a.AttemptID, queue.NumberOnArrival
	span.TraceID, span.SpanID = randomHex(16), randomHex(8)
	span.StartTime, span.EndTime = &now, &now
	span.Context = rawjson.Value(`{"trace_id":"` + span.TraceID + `","span_id":"` + span.SpanID + `","is_remote":false,"trace_state":{}}`)
	span.FillIn()
	_, err = s.AddSpan(ctx, span)
	return err
}

// randomHex is n random bytes as lower-case hex digits.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
