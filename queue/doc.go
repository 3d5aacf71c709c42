// Package queue is aglq's domain: what a rollout, an attempt, a span, a worker
// and a set of resources are, the [Store] that holds them, and the rules by
// which they change.
//
// A rollout is one task for an agent. It waits in the queue, a worker claims it
// (which begins an attempt), the attempt sends spans and ends; a failed attempt
// may send the rollout back to the queue.
//
//	                    claim                    span
//	enqueue -> queuing --------> preparing --------------> running
//	             ^                  |                        |
//	             |                  +-----------+------------+
//	         requeuing <---- retry -------------+----> succeeded, failed
//	                                                   cancelled (by update only)
//
// The rules are methods of [Record] and [Worker]: pure functions of a state, an
// event and a time, without I/O and without a clock. Every backend applies the
// same ones. The package imports nothing else of aglq but rawjson, its JSON
// text type.
package queue
