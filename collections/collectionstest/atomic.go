package collectionstest

import (
	"context"
	"errors"
	"testing"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func testAtomic(t *testing.T, open OpenFunc) {
	t.Run("WritesEverything", func(t *testing.T) { writesEverything(t, open(t)) })
	t.Run("SeesOwnWrites", func(t *testing.T) { seesOwnWrites(t, open(t)) })
	t.Run("FailureLeavesNothing", func(t *testing.T) { failureLeavesNothing(t, open(t)) })
	t.Run("ExistingIDIsConflict", func(t *testing.T) { existingIDIsConflict(t, open(t)) })
	t.Run("MissingIsNil", func(t *testing.T) { missingIsNil(t, open(t)) })
	t.Run("EndedContext", func(t *testing.T) { endedContext(t, open(t)) })
	t.Run("EarlierReadsStay", func(t *testing.T) { earlierReadsStay(t, open(t)) })
	t.Run("EmptySection", func(t *testing.T) {
		atomic(t, open(t), func(tx collections.Tx) error { return tx.InsertRollouts(nil) })
	})
}

// sample is one of each thing a section writes.
func sampleRecord(id string) *queue.Record {
	r := queued(id, 10)
	r.Begin("at-1", ptr("w-1"), true, 30, 11)
	r.SpansStored("at-1", 3, 12)
	r.Attempts[0].Metadata = rawjson.Value(`{"a":1}`)
	r.Begin("at-2", nil, true, 60, 13)
	r.Attempts[0].Lost = true
	return r
}

func sampleWorker(id string) *queue.Worker {
	return &queue.Worker{
		WorkerID: id, Status: queue.WorkerBusy, HeartbeatStats: rawjson.Value(`{"cpu":1.0}`),
		LastHeartbeatTime: ptr(1.5), LastDequeueTime: ptr(2.5), LastBusyTime: ptr(3.5), LastIdleTime: ptr(4.5),
		CurrentRolloutID: ptr("ro-1"), CurrentAttemptID: ptr("at-1"),
	}
}

func sampleResources(id string, update float64) *queue.ResourcesUpdate {
	return &queue.ResourcesUpdate{
		ResourcesID: id, CreateTime: 1.25, UpdateTime: update, Version: 3,
		Resources: rawjson.Value(`{"main":{"resource_type":"prompt_template","template":"x","engine":"jinja"}}`),
	}
}

func sampleReceipt(key string) *collections.Receipt {
	return &collections.Receipt{
		Key: key, Operation: "enqueue", Time: 1e9,
		Refs: []queue.AttemptRef{{RolloutID: "ro-2"}, {RolloutID: "ro-1", AttemptID: "at-1"}},
	}
}

func writeSamples(tx collections.Tx) error {
	r := sampleRecord("ro-1")
	return errors.Join(
		tx.InsertRollouts([]*queue.Record{r, queued("ro-2", 11)}),
		tx.PutWorker(sampleWorker("w-1")),
		tx.PutResources(sampleResources("rs-1", 5)),
		tx.PutReceipt(sampleReceipt("key-1")),
	)
}

func writesEverything(t *testing.T, b collections.Backend) {
	ctx := testContext(t)
	atomic(t, b, writeSamples)
	same(t, "record", text(record(t, b, "ro-1")), text(sampleRecord("ro-1")))
	w, err := b.Worker(ctx, "w-1")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "worker", workerText(w), workerText(sampleWorker("w-1")))
	u, err := b.Resources(ctx, "rs-1")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "resources", resourcesText(u), resourcesText(sampleResources("rs-1", 5)))
	atomic(t, b, func(tx collections.Tx) error {
		r, err := tx.Receipt("key-1")
		same(t, "receipt", r, sampleReceipt("key-1"))
		return err
	})
	same(t, "queue", head(t, b, 5), []string{"ro-2"})
}

func seesOwnWrites(t *testing.T, b collections.Backend) {
	check := func(tx collections.Tx) error {
		r, err := tx.Rollout("ro-1")
		if err != nil {
			return err
		}
		if r == nil {
			t.Fatal("section does not see the rollout that it wrote")
		}
		same(t, "record", text(r), text(sampleRecord("ro-1")))
		w, err1 := tx.Worker("w-1")
		u, err2 := tx.Resources("rs-1")
		k, err3 := tx.Receipt("key-1")
		same(t, "worker", workerText(w), workerText(sampleWorker("w-1")))
		same(t, "resources", resourcesText(u), resourcesText(sampleResources("rs-1", 5)))
		same(t, "receipt", k, sampleReceipt("key-1"))
		return errors.Join(err1, err2, err3)
	}
	t.Run("SameSection", func(t *testing.T) {
		atomic(t, b, func(tx collections.Tx) error {
			if err := writeSamples(tx); err != nil {
				return err
			}
			return check(tx)
		})
	})
	t.Run("NextSection", func(t *testing.T) {
		atomic(t, b, func(tx collections.Tx) error {
			if err := tx.Prefetch([]string{"ro-1", "ro-0"}, []string{"w-1", "w-0"}); err != nil {
				return err
			}
			return check(tx)
		})
	})
	t.Run("SecondPut", func(t *testing.T) {
		atomic(t, b, func(tx collections.Tx) error {
			for status := range map[queue.RolloutStatus]bool{queue.RolloutRunning: true, queue.RolloutFailed: true} {
				r, err := tx.Rollout("ro-1")
				if err != nil {
					return err
				}
				r = r.Clone()
				r.Update(queue.RolloutUpdate{Status: queue.Set(status)}, 20)
				r.Spans++
				if err := tx.PutRollout(r); err != nil {
					return err
				}
				if r, err = tx.Rollout("ro-1"); err != nil || r.Rollout.Status != status {
					t.Errorf("after the put: status %v, error %v; want %v", r.Rollout.Status, err, status)
				}
			}
			return nil
		})
		if got, want := record(t, b, "ro-1").Spans, sampleRecord("").Spans+2; got != want {
			t.Errorf("two puts in a section left Spans %d, want %d", got, want)
		}
	})
}

// failureLeavesNothing compares everything visible before and after a section
// that changes all there is and then fails.
func failureLeavesNothing(t *testing.T, b collections.Backend) {
	atomic(t, b, writeSamples)
	insert(t, b, queued("ro-3", 12))
	before := snapshot(t, b)
	refusal := errors.New("refused")
	for range 2 {
		err := b.Atomic(testContext(t), func(tx collections.Tx) error {
			err := tx.InsertRollouts([]*queue.Record{queued("ro-9", 13), sampleRecord("ro-8")})
			if err != nil {
				return err
			}
			r, err := tx.Rollout("ro-1")
			if err != nil {
				return err
			}
			r = r.Clone()
			r.Update(queue.RolloutUpdate{Status: queue.Set(queue.RolloutRequeuing)}, 20)
			rs, err1 := tx.Head(1)
			err = errors.Join(err1, tx.PutRollout(r), begin(tx, rs),
				tx.PutWorker(queue.NewWorker("w-1")), tx.PutWorker(queue.NewWorker("w-9")),
				tx.PutResources(sampleResources("rs-1", 7)), tx.PutResources(sampleResources("rs-9", 8)),
				tx.PutReceipt(sampleReceipt("key-9")))
			if err != nil {
				return err
			}
			return refusal
		})
		if !errors.Is(err, refusal) {
			t.Fatalf("Atomic returned %v, want the section's own error", err)
		}
		same(t, "what is stored", snapshot(t, b), before)
	}
	same(t, "claimed", claim(t, b, 5), []string{"ro-2", "ro-3"})
}

// snapshot is everything that the samples and their changes touch.
func snapshot(t *testing.T, b collections.Backend) map[string]any {
	t.Helper()
	ctx := testContext(t)
	out := map[string]any{"head": head(t, b, 10)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rollouts, err := b.QueryRollouts(ctx, queue.RolloutQuery{Paging: queue.All})
	must(err)
	for _, r := range rollouts.Items {
		out[r.Rollout.RolloutID] = text(r)
	}
	workers, err := b.QueryWorkers(ctx, queue.WorkerQuery{Paging: queue.All})
	must(err)
	for _, w := range workers.Items {
		out[w.WorkerID] = workerText(w)
	}
	latest, err := b.LatestResources(ctx)
	must(err)
	out["latest"] = resourcesText(latest)
	sets, err := b.QueryResources(ctx, queue.ResourcesQuery{Paging: queue.All})
	must(err)
	for _, u := range sets.Items {
		out[u.ResourcesID] = resourcesText(u)
	}
	out["overdue"], err = b.Overdue(ctx, 1e9, 10)
	must(err)
	atomic(t, b, func(tx collections.Tx) error {
		for _, key := range []string{"key-1", "key-9"} {
			r, err := tx.Receipt(key)
			if err != nil {
				return err
			}
			out[key] = r != nil
		}
		return nil
	})
	st, err := b.Statistics(ctx)
	must(err)
	st.Name, st.Uptime, st.Memory = "", 0, nil
	out["statistics"] = st
	return out
}

func existingIDIsConflict(t *testing.T, b collections.Backend) {
	ctx := testContext(t)
	insert(t, b, queued("ro-1", 1))
	batches := map[string][]*queue.Record{
		"stored already":   {queued("ro-2", 2), queued("ro-1", 3)},
		"twice in a batch": {queued("ro-2", 2), queued("ro-3", 3), queued("ro-2", 4)},
	}
	for name, rs := range batches {
		err := b.Atomic(ctx, func(tx collections.Tx) error { return tx.InsertRollouts(clones(rs)) })
		if queue.KindOf(err) != queue.Conflict {
			t.Errorf("%s: error %v of kind %v, want a conflict", name, err, queue.KindOf(err))
		}
	}
	same(t, "queue", head(t, b, 5), []string{"ro-1"})
	same(t, "start of ro-1", record(t, b, "ro-1").Rollout.StartTime, 1)
}

func missingIsNil(t *testing.T, b collections.Backend) {
	ctx := testContext(t)
	atomic(t, b, func(tx collections.Tx) error {
		if r, err := tx.Rollout("ro-0"); r != nil || err != nil {
			t.Errorf("Rollout = %v, %v", r, err)
		}
		if w, err := tx.Worker("w-0"); w != nil || err != nil {
			t.Errorf("Worker = %v, %v", w, err)
		}
		if u, err := tx.Resources("rs-0"); u != nil || err != nil {
			t.Errorf("Resources = %v, %v", u, err)
		}
		if r, err := tx.Receipt("key-0"); r != nil || err != nil {
			t.Errorf("Receipt = %v, %v", r, err)
		}
		if rs, err := tx.Head(3); len(rs) != 0 || err != nil {
			t.Errorf("Head = %v, %v", rs, err)
		}
		return nil
	})
	if w, err := b.Worker(ctx, "w-0"); w != nil || err != nil {
		t.Errorf("Backend.Worker = %v, %v", w, err)
	}
	if u, err := b.Resources(ctx, "rs-0"); u != nil || err != nil {
		t.Errorf("Backend.Resources = %v, %v", u, err)
	}
	if u, err := b.LatestResources(ctx); u != nil || err != nil {
		t.Errorf("LatestResources = %v, %v", u, err)
	}
	if rs, err := b.Records(ctx, []string{"ro-0"}); len(rs) != 0 || err != nil {
		t.Errorf("Records = %v, %v", rs, err)
	}
	if err := b.Ping(ctx); err != nil {
		t.Errorf("Ping: %v", err)
	}
}

func endedContext(t *testing.T, b collections.Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := b.Atomic(ctx, func(tx collections.Tx) error {
		return tx.InsertRollouts([]*queue.Record{queued("ro-1", 1)})
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Atomic under an ended context returned %v, want context.Canceled", err)
	}
	same(t, "queue", head(t, b, 5), []string{})
}

// earlierReadsStay checks that what was read is not changed by later sections.
func earlierReadsStay(t *testing.T, b collections.Backend) {
	insert(t, b, queued("ro-1", 1))
	putWorker(t, b, queue.NewWorker("w-1"))
	ctx := testContext(t)
	r := record(t, b, "ro-1")
	w, err := b.Worker(ctx, "w-1")
	if err != nil {
		t.Fatal(err)
	}
	recordBefore, workerBefore := text(r), workerText(w)
	claim(t, b, 1)
	busy := sampleWorker("w-1")
	putWorker(t, b, busy)
	same(t, "record read before", text(r), recordBefore)
	same(t, "worker read before", workerText(w), workerBefore)
}
