package store_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/store"
)

// TestArchiveOfARunningStore moves the work of one store to another while
// somebody waits there for it.
func TestArchiveOfARunningStore(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := t.Context()
		from, into := start(t, open(), store.Options{}), start(t, open(), store.Options{})
		must[[]queue.Rollout](t)(from.Enqueue(ctx, requests(3)))
		worker := "w-1"
		claimed := must[[]queue.AttemptedRollout](t)(from.Claim(ctx, queue.Claim{Limit: 2, WorkerID: &worker}))
		must[*queue.Span](t)(from.AddSpan(ctx, span(claimed[0].Attempt, "a"))) // its heartbeat is written later
		done := queue.AttemptUpdate{Status: queue.Set(queue.AttemptSucceeded)}
		must[queue.Attempt](t)(from.UpdateAttempt(ctx, claimed[1].RolloutID, "latest", done))

		var file bytes.Buffer
		counts := must[archive.Counts](t)(from.Export(ctx, &file))
		if want := (archive.Counts{Workers: 1, Rollouts: 3, Attempts: 2, Spans: 1}); counts != want {
			t.Errorf("exported %s, want %s", counts, want)
		}
		got := make(chan []queue.AttemptedRollout, 1)
		go func() {
			out, err := into.Claim(ctx, queue.Claim{Limit: 1, Wait: time.Minute})
			if err != nil {
				t.Error(err)
			}
			got <- out
		}()
		report := must[archive.Report](t)(into.Import(ctx, bytes.NewReader(file.Bytes()), false))
		if report.Stored != counts || len(report.Problems) > 0 {
			t.Errorf("imported: %s %q", report.String(), report.Problems)
		}
		if out := <-got; len(out) != 1 || out[0].Status != queue.RolloutPreparing {
			t.Errorf("the worker that waited got %v", out)
		}
		ended := must[[]queue.Rollout](t)(into.Wait(ctx, []string{claimed[1].RolloutID}, 0))
		if len(ended) != 1 {
			t.Error("the finished rollout is not known to be finished")
		}
		running := must[*queue.AttemptedRollout](t)(into.Rollout(ctx, claimed[0].RolloutID))
		before := must[*queue.AttemptedRollout](t)(from.Rollout(ctx, claimed[0].RolloutID))
		if diff := cmp.Diff(string(before.AppendJSON(nil)), string(running.AppendJSON(nil))); diff != "" || running.Status != queue.RolloutRunning {
			t.Errorf("the running rollout differs:\n%s", diff)
		}
		// Whoever runs it goes on here.
		must[*queue.Span](t)(into.AddSpan(ctx, span(claimed[0].Attempt, "b")))
		must[queue.Attempt](t)(into.UpdateAttempt(ctx, claimed[0].RolloutID, claimed[0].Attempt.AttemptID, done))
	})
}

// TestImportWakesWaits has a rollout end by being imported.
func TestImportWakesWaits(t *testing.T) {
	onEach(t, func(t *testing.T, open func() collections.Backend) {
		ctx := t.Context()
		from, into := start(t, open(), store.Options{}), start(t, open(), store.Options{})
		r := must[[]queue.Rollout](t)(from.Enqueue(ctx, requests(2)))
		must[queue.Rollout](t)(from.UpdateRollout(ctx, r[1].RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}))
		var file bytes.Buffer
		must[archive.Counts](t)(from.Export(ctx, &file))
		// The first is here and unfinished, so that there is something to wait for.
		other := must[[]queue.Rollout](t)(into.Enqueue(ctx, requests(1)))
		got := make(chan int, 1)
		go func() {
			out, err := into.Wait(ctx, []string{other[0].RolloutID, r[1].RolloutID}, time.Minute)
			if err != nil {
				t.Error(err)
			}
			got <- len(out)
		}()
		must[archive.Report](t)(into.Import(ctx, &file, true))
		must[queue.Rollout](t)(into.UpdateRollout(ctx, other[0].RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}))
		if n := <-got; n != 2 {
			t.Errorf("the wait ended with %d rollouts", n)
		}
	})
}
