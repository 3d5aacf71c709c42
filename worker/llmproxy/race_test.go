//go:build race

package llmproxy_test

// manyStreams is fewer than without the race detector, which takes no more than
// 8,128 goroutines: each stream has nine, in client, proxy and upstream.
const manyStreams = 600
