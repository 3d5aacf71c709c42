package mongo_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/collections/mongo/mongotest"
	"github.com/aglq/aglq/queue"
)

// TestNumbersOfTwoProcesses has two processes number and raise the same rollouts in
// turn, several with one call: each number follows the last one.
func TestNumbersOfTwoProcesses(t *testing.T) {
	first, second := two(t, 0, nil)
	both := [2]*mongo.Backend{first, second}
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		last := map[string]int64{}
		for range rapid.IntRange(1, 12).Draw(t, "calls") {
			by := rapid.IntRange(0, 1).Draw(t, "process")
			var entries []collections.Counter
			for _, r := range rapid.SliceOfNDistinct(rapid.IntRange(0, 4), 1, 5, rapid.ID).Draw(t, "rollouts") {
				entries = append(entries, collections.Counter{RolloutID: fmt.Sprintf("ro-%d-%d", run, r), N: rapid.Int64Range(1, 4).Draw(t, "n")})
			}
			if rapid.IntRange(0, 4).Draw(t, "raise") == 0 {
				for i := range entries {
					entries[i].N += last[entries[i].RolloutID]
				}
				if err := both[by].RaiseSequence(t.Context(), entries); err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					last[e.RolloutID] = max(last[e.RolloutID], e.N)
				}
				continue
			}
			got, err := both[by].NextSequence(t.Context(), entries, rapid.Bool().Draw(t, "durable"))
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range entries {
				if got[i] != last[e.RolloutID]+1 {
					t.Fatalf("%s: number %d comes after %d", e.RolloutID, got[i], last[e.RolloutID])
				}
				last[e.RolloutID] = got[i] + e.N - 1
			}
		}
	})
}

// TestNumbersAtOnce has many callers of two processes number the same rollouts at
// the same time: no number is issued twice, and none is left out.
func TestNumbersAtOnce(t *testing.T) {
	first, second := two(t, 0, nil)
	both := [2]*mongo.Backend{first, second}
	entries := make([]collections.Counter, 6)
	for i := range entries {
		entries[i] = collections.Counter{RolloutID: fmt.Sprintf("ro-%d", i), N: 3}
	}
	const callers, calls = 8, 20
	answers := make([][][]int64, callers)
	var group errgroup.Group
	for c := range callers {
		group.Go(func() error {
			for range calls {
				got, err := both[c%2].NextSequence(t.Context(), entries, false)
				if err != nil {
					return err
				}
				answers[c] = append(answers[c], got)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		var all []int64
		for _, of := range answers {
			for _, got := range of {
				all = append(all, got[i])
			}
		}
		slices.Sort(all)
		for k := 1; k < len(all); k++ {
			if all[k]-all[k-1] != 3 {
				t.Fatalf("rollout %d has numbers from %d and from %d", i, all[k-1], all[k])
			}
		}
	}
}

// TestNumbersUsedUpHere moves a counter to its end together with another.
func TestNumbersUsedUpHere(t *testing.T) {
	b := mongotest.Open(t)
	ctx := t.Context()
	full, other := collections.Counter{RolloutID: "ro-1", N: math.MaxInt64 - 1}, collections.Counter{RolloutID: "ro-2", N: 1}
	if _, err := b.NextSequence(ctx, []collections.Counter{full, other}, true); err != nil {
		t.Fatal(err)
	}
	full.N = 2
	if _, err := b.NextSequence(ctx, []collections.Counter{full, other}, true); queue.KindOf(err) != queue.Conflict {
		t.Errorf("numbers beyond the end: %v", err)
	}
	full.N = 1
	got, err := b.NextSequence(ctx, []collections.Counter{full, other}, true)
	if err != nil || got[0] != math.MaxInt64 || got[1] < 2 || got[1] > 3 { // the call that failed may have taken one
		t.Errorf("the last numbers are %v, %v", got, err)
	}
}

// TestNumbersOfBrokenMove cuts off the update that moves several counters: nobody
// gets a number twice.
func TestNumbersOfBrokenMove(t *testing.T) {
	var cut context.CancelFunc
	o := mongo.Options{URI: mongotest.URI(t), Database: mongotest.Database(t), Logger: slog.New(slog.DiscardHandler)}
	b, err := mongo.OpenWith(t.Context(), o, options.Client().SetMonitor(&event.CommandMonitor{
		Succeeded: func(_ context.Context, e *event.CommandSucceededEvent) {
			if e.CommandName == "update" && cut != nil {
				cut()
			}
		},
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	entries := []collections.Counter{{RolloutID: "ro-1", N: 2}, {RolloutID: "ro-2", N: 2}}
	if _, err := b.NextSequence(t.Context(), entries, true); err != nil {
		t.Fatal(err)
	}
	if _, err := b.AnotherMoves(t.Context(), entries[1]); err != nil { // so that the marks have to be read
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cut = cancel
	if _, err := b.NextSequence(ctx, entries, true); err == nil {
		t.Fatal("a call that was cut off has an answer")
	}
	cut = nil
	got, err := b.NextSequence(t.Context(), entries, true)
	if err != nil || got[0] != 5 || got[1] != 5 { // 3 and 4 are lost, and another's
		t.Errorf("the next numbers are %v, %v", got, err)
	}
}

// TestManyNumbersAtOnce moves more counters than one command holds.
func TestManyNumbersAtOnce(t *testing.T) {
	b := mongotest.Open(t)
	entries := make([]collections.Counter, 1600)
	for i := range entries {
		entries[i] = collections.Counter{RolloutID: fmt.Sprintf("ro-%d-%s", i, strings.Repeat("x", 9000)), N: 1}
	}
	for want := int64(1); want <= 2; want++ {
		got, err := b.NextSequence(t.Context(), entries, false)
		if err != nil || slices.ContainsFunc(got, func(n int64) bool { return n != want }) {
			t.Fatalf("number %d: %v", want, err)
		}
	}
}
