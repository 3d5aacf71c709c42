package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

// TestLargePayloads carries inputs and metadata of many megabytes through the
// life of a rollout; each answer shows them whole.
func TestLargePayloads(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		t.Parallel()
		ctx := t.Context()
		s := start(t, open(), store.Options{})
		text := func(n int, c string) rawjson.Value { return rawjson.Value(`"` + strings.Repeat(c, n) + `"`) }
		input, metadata, told := text(20<<20, "i"), text(100_000, "m"), text(70_000, "t")
		check := func(what string, got, want rawjson.Value) {
			t.Helper()
			if string(got) != string(want) {
				t.Errorf("%s: %.20q of %d bytes, want %.20q of %d", what, got, len(got), want, len(want))
			}
		}
		keyed := queue.WithIdempotencyKey(ctx, "k")
		for range 2 {
			made := must[[]queue.Rollout](t)(s.Enqueue(keyed, []queue.Request{{Input: input, Metadata: metadata}, {Input: told}}))
			check("enqueued input", made[0].Input, input)
			check("enqueued metadata", made[0].Metadata, metadata)
			check("other input", made[1].Input, told)
		}
		w := "w"
		claimed := must[[]queue.AttemptedRollout](t)(s.Claim(ctx, queue.Claim{Limit: 5, WorkerID: &w}))
		if len(claimed) != 2 {
			t.Fatalf("claimed %d", len(claimed))
		}
		check("claimed input", claimed[0].Input, input)
		ref := queue.AttemptRef{RolloutID: claimed[0].RolloutID, AttemptID: claimed[0].Attempt.AttemptID}
		must[queue.HeartbeatAnswer](t)(s.Heartbeat(ctx, queue.Heartbeat{WorkerID: w, Held: []queue.AttemptRef{ref}}))
		must[*queue.Span](t)(s.AddSpan(ctx, span(claimed[0].Attempt, "a")))
		ended := must[queue.Attempt](t)(s.UpdateAttempt(ctx, ref.RolloutID, ref.AttemptID,
			queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded), Metadata: queue.Set(told)}))
		check("metadata of the attempt", ended.Metadata, told)
		got := must[*queue.AttemptedRollout](t)(s.Rollout(ctx, ref.RolloutID))
		check("input read", got.Input, input)
		check("metadata read", got.Rollout.Metadata, metadata)
		check("metadata of the attempt read", got.Attempt.Metadata, told)
		done := must[[]queue.Rollout](t)(s.Wait(ctx, []string{ref.RolloutID}, time.Second))
		check("input waited for", done[0].Input, input)
		page := must[queue.Page[queue.AttemptedRollout]](t)(s.Rollouts(ctx, queue.RolloutQuery{Paging: queue.All}))
		check("input listed", page.Items[0].Input, input)
		updated := must[queue.Rollout](t)(s.UpdateRollout(ctx, ref.RolloutID, queue.RolloutUpdate{Metadata: queue.Set(told)}))
		check("input of the updated one", updated.Input, input)
		check("metadata of the updated one", updated.Metadata, told)
		again := must[queue.AttemptedRollout](t)(s.StartAttempt(ctx, ref.RolloutID, nil))
		check("input of another attempt", again.Input, input)
		started := must[queue.AttemptedRollout](t)(s.Start(ctx, queue.Request{Input: metadata}, nil))
		check("input of a started one", started.Input, metadata)
		resources := text(20<<20, "r")
		set := must[queue.ResourcesUpdate](t)(s.AddResources(ctx, resources))
		check("resources added", set.Resources, resources)
		set = must[queue.ResourcesUpdate](t)(s.UpdateResources(ctx, set.ResourcesID, resources))
		check("resources updated", set.Resources, resources)
		check("resources read", must[*queue.ResourcesUpdate](t)(s.LatestResources(ctx)).Resources, resources)
		_, err := s.Enqueue(ctx, []queue.Request{{Input: text(collections.MaxPayload, "x")}})
		if kind := queue.KindOf(err); err != nil && kind != queue.TooLarge {
			t.Errorf("a payload above the limit: %v", err)
		}
	})
}
