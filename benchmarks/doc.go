// Package benchmarks measures a store from outside, over HTTP, with a driver
// that costs little itself, so that stores in any language can be compared on
// one machine.
//
// [Lifecycle] drives rollouts through their whole life: enqueue in batches,
// claim, spans, finish, wait, query the spans. It fails when a rollout is lost
// or claimed twice. [Ceiling] is an HTTP handler that answers the same requests
// with recorded bodies and does nothing else: what the driver gets from it is
// the most that any store on net/http could reach. [Growth] tells whether a
// store that holds much answers as fast as an empty one. [Compare] starts
// several stores in turn and reports medians and ratios.
package benchmarks
