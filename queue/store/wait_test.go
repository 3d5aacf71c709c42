package store

import "testing"

// A rollout may finish between the moment a waiter begins to listen and its
// first look.
func TestWaiterHearsBeforeItsFirstLook(t *testing.T) {
	var w waits
	n := w.listen([]string{"ro-1"})
	w.finished("ro-1")
	if !n.knows("ro-1") {
		t.Error("the waiter has not heard of the rollout")
	}
	select {
	case <-n.complete:
		t.Error("the waiter was woken before it knew how many are missing")
	default:
	}
	w.leave(n)
	if len(w.byID) != 0 {
		t.Errorf("%d rollouts are still waited for", len(w.byID))
	}
}
