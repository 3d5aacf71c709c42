//go:build !race

package groupcommit

import (
	"context"
	"testing"
)

// TestGroupAllocations keeps a call that is committed alone within its budget:
// the call, the batch of it, and what guards the commit.
func TestGroupAllocations(t *testing.T) {
	g := lane(func([]*Call[int]) {})
	got := testing.AllocsPerRun(200, func() {
		if err := g.Do(context.Background(), 1); err != nil {
			t.Fatal(err)
		}
	})
	if got > 3 {
		t.Errorf("%.0f allocations, budget 3", got)
	}
	g.Wait()
}
