package store_test

import (
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// TestClaimRepeatsOneThatGotNoFurther finds the receipt of a claim whose process
// died before the rollout was written: the call is answered as a first one, and
// then again with the same answer.
func TestClaimRepeatsOneThatGotNoFurther(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		b := open()
		s := start(t, b, store.Options{})
		made := must[[]queue.Rollout](t)(s.Enqueue(t.Context(), requests(2)))
		ghost := &collections.Receipt{
			Key: "k", Operation: "claim", Time: 1, Refs: []queue.AttemptRef{{RolloutID: made[0].RolloutID, AttemptID: "at-ghost"}},
		}
		lost, err := b.Separately(t.Context(), func(tx collections.Tx) error { return tx.PutReceipt(ghost) })
		if err != nil || lost.Some() {
			t.Fatal(lost, err)
		}
		ctx := queue.WithIdempotencyKey(t.Context(), "k")
		first := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 1}))
		again := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 1}))
		if len(first) != 1 || len(again) != 1 || first[0].Attempt.AttemptID != again[0].Attempt.AttemptID {
			t.Fatalf("claimed %v, then %v", first, again)
		}
		if rest := must[[]queue.AttemptedRollout](t)(s.Claim(t.Context(), queue.Claim{Limit: 2})); len(rest) != 1 {
			t.Errorf("%d rollouts are left", len(rest))
		}
	})
}
