package store

import (
	"context"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// When payloads are staged.
const (
	stageOver          = collections.StageOver
	stageResourcesOver = collections.StageResourcesOver
)

// staged holds the payloads that a call has staged, by the stubs in their
// places, so that its answer need not read them back.
type staged map[string]rawjson.Value

// stage writes large payloads ahead of the batch that will refer to them, so
// that they hold up nobody else.
func (s *Store) stage(ctx context.Context, over int, payloads ...*rawjson.Value) (staged, error) {
	var large []*rawjson.Value
	var before []rawjson.Value
	for _, p := range payloads {
		if len(*p) > over {
			large, before = append(large, p), append(before, *p)
		}
	}
	if large == nil {
		return nil, nil
	}
	if err := s.backend.Stage(ctx, over, large...); err != nil {
		return nil, err
	}
	out := make(staged, len(large))
	for i, p := range large {
		if len(*p) <= over {
			out[string(*p)] = before[i]
		}
	}
	return out, nil
}

// unstage replaces the stubs in an answer by what they stand for.
func (s *Store) unstage(ctx context.Context, own staged, answer ...*rawjson.Value) error {
	if len(own) > 0 {
		for _, p := range answer {
			if len(*p) <= stageOver {
				if v, ok := own[string(*p)]; ok {
					*p = v
				}
			}
		}
	}
	return s.backend.Complete(ctx, answer...)
}

// unstageClaims completes the answer of a claim. A claim that cannot be answered
// is taken back.
func (s *Store) unstageClaims(ctx context.Context, claims []queue.AttemptedRollout) error {
	payloads := make([]*rawjson.Value, 0, 3*len(claims))
	for i := range claims {
		payloads = append(payloads, payloadsOf(&claims[i])...)
	}
	err := s.unstage(ctx, nil, payloads...)
	if err == nil {
		return nil
	}
	refs := make([]queue.AttemptRef, len(claims))
	for i := range claims {
		refs[i] = attemptRef(claims[i].Attempt)
	}
	ctx, cancel := s.commitContext(ctx)
	defer cancel()
	if failed := s.Unclaim(ctx, refs); failed != nil {
		s.log.Warn("claims that could not be answered are held until they time out", "claims", len(refs), "error", failed)
	}
	return err
}

func payloadsOf(r *queue.AttemptedRollout) []*rawjson.Value {
	out := []*rawjson.Value{&r.Input, &r.Rollout.Metadata}
	if r.Attempt != nil {
		out = append(out, &r.Attempt.Metadata)
	}
	return out
}
