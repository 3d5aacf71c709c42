// Package promreport tells what a store did in a stretch of time: rates and
// latencies by route, by call, by collection and by outcome, as the reference's
// benchmark report does, and the state of the machine and the database where
// their exporters are scraped. It reads a Prometheus, or scrapes a store itself.
//
// All arithmetic is done here, on the samples: the same for both, with counters
// that began or were reset in the middle counted from zero.
package promreport
