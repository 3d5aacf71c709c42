package groupcommit

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/aglq/aglq/queue"
)

func lane(commit func([]*Call[int])) *Group[int] {
	return New(commit, nil, 1)
}

// What arrives during a commit is written together by the next one, and each
// caller gets its own answer.
func TestGroupGathers(t *testing.T) {
	odd := errors.New("odd")
	entered, release := make(chan struct{}), make(chan struct{})
	var sizes []int
	g := lane(nil)
	g.commit = func(batch []*Call[int]) {
		if len(sizes) == 0 {
			close(entered)
			<-release
		}
		sizes = append(sizes, len(batch))
		for _, c := range batch {
			if c.Item%2 == 1 {
				c.Err = odd
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := g.Do(t.Context(), 0); err != nil {
			t.Error(err)
		}
	})
	<-entered
	const callers = 10
	for i := range callers {
		wg.Go(func() {
			if err := g.Do(t.Context(), i); errors.Is(err, odd) != (i%2 == 1) {
				t.Errorf("caller %d got %v", i, err)
			}
		})
	}
	for waiting := 0; waiting < callers; {
		g.mu.Lock()
		waiting = len(g.waiting)
		g.mu.Unlock()
	}
	close(release)
	wg.Wait()
	g.Wait()
	if len(sizes) != 2 || sizes[0] != 1 || sizes[1] != callers {
		t.Errorf("the commits held %v calls", sizes)
	}
}

// A caller that gives up before its item is taken is not committed.
func TestGroupWithdraws(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	var items []int
	g := lane(nil)
	g.commit = func(batch []*Call[int]) {
		for _, c := range batch {
			items = append(items, c.Item)
		}
		if len(items) == 1 {
			close(entered)
			<-release
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Do(t.Context(), 1) })
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Do(ctx, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("the withdrawn call got %v", err)
	}
	close(release)
	wg.Wait()
	g.Wait()
	if len(items) != 1 {
		t.Errorf("committed %v", items)
	}
}

// A caller of a lane that may be abandoned goes when its context ends, alone or in
// company; the lane goes on.
func TestGroupIsAbandoned(t *testing.T) {
	release := make(chan struct{})
	g := lane(func([]*Call[int]) { <-release })
	g.Abandon = true
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	for range 3 {
		go func() { gone <- g.Do(ctx, 0) }()
	}
	for flying := 0; flying == 0; {
		g.mu.Lock()
		flying = g.flights
		g.mu.Unlock()
	}
	cancel()
	for range 3 {
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("an abandoning caller got %v", err)
		}
	}
	close(release)
	if err := g.Do(t.Context(), 1); err != nil {
		t.Errorf("the next call got %v", err)
	}
	g.Wait()
}

// A commit that panics fails its calls and leaves the lane usable.
func TestGroupSurvivesAPanic(t *testing.T) {
	g := lane(func(batch []*Call[int]) {
		if batch[0].Item == 13 {
			panic("unlucky")
		}
	})
	if err := g.Do(t.Context(), 13); queue.KindOf(err) != queue.Internal {
		t.Errorf("the call got %v", err)
	}
	if err := g.Do(t.Context(), 1); err != nil {
		t.Errorf("the next call got %v", err)
	}
}
