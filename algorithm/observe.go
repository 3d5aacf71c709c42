package algorithm

import "time"

// Observer is told what an algorithm does. Its methods may be called by several
// goroutines and must not block.
type Observer interface {
	// Enqueued tells of a call that enqueued n rollouts.
	Enqueued(n int, took time.Duration)
	// Expected tells of n rollouts that others enqueued and whose results will
	// be handed out here; a negative n, of rollouts that will not be after all.
	Expected(n int)
	// Harvested tells that the results of n finished rollouts were fetched.
	Harvested(n int, took time.Duration)
	// Delivered tells of a result that is handed out.
	Delivered(r *Result)
	// BatchEnded tells how long a batch took, from its first rollout to its last
	// result.
	BatchEnded(took time.Duration)
}

// Unobserved is the Observer of those who want none.
type Unobserved struct{}

var _ Observer = Unobserved{}

// Enqueued implements Observer.
func (Unobserved) Enqueued(int, time.Duration) {}

// Expected implements Observer.
func (Unobserved) Expected(int) {}

// Harvested implements Observer.
func (Unobserved) Harvested(int, time.Duration) {}

// Delivered implements Observer.
func (Unobserved) Delivered(*Result) {}

// BatchEnded implements Observer.
func (Unobserved) BatchEnded(time.Duration) {}
