// Package scenario drives a store the way a training run does: an algorithm that
// enqueues tasks and checks what comes back, and many runners that claim them,
// run an agent that sleeps and makes spans, and report. It knows the workloads
// that the reference's benchmark publishes figures of ([Presets]), and two ways
// to talk to a store ([Client]): as the reference's Python runners do, and as
// aglq's own.
//
// A run fails when a rollout or a span is lost, when one comes twice, or when an
// answer is not what the agent did.
package scenario
