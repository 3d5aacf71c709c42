package memory_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/aglq/aglq/collections"
	"github.com/aglq/aglq/collections/collectionstest"
	"github.com/aglq/aglq/collections/memory"
)

// counts counts operations and those that failed.
type counts struct {
	mu     sync.Mutex
	done   map[collections.Operation]int
	failed int
}

func (c *counts) Operation(op collections.Operation, took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[op]++
	if err != nil {
		c.failed++
	}
}

func (c *counts) SectionRan(int) {}

// TestObservedConformance runs the suite on a backend that is observed: it behaves
// as before, and the suite leaves no operation out.
func TestObservedConformance(t *testing.T) {
	c := &counts{done: map[collections.Operation]int{}}
	t.Run("suite", func(t *testing.T) {
		collectionstest.Run(t, func(t *testing.T) collections.Backend {
			b := collections.Observe(memory.New(memory.Options{}), c)
			t.Cleanup(func() {
				if err := b.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
			return b
		})
	})
	b := collections.Observe(memory.New(memory.Options{}), c)
	nothing := func(collections.Tx) error { return nil }
	if _, err := b.Separately(t.Context(), nothing); err != nil {
		t.Error(err)
	}
	for op, o := range collections.Operations {
		if c.done[collections.Operation(op)] == 0 {
			t.Errorf("no %s of %s was told", o.Name, o.Collection)
		}
	}
	before, fault := c.failed, errors.New("fault")
	if err := b.Atomic(t.Context(), func(collections.Tx) error { return fault }); err != fault || c.failed != before+1 {
		t.Errorf("%v, %d failures told", err, c.failed-before)
	}
}
