//go:build !race

package llmproxy_test

// manyStreams is how many streams the proxy must hold at a time.
const manyStreams = 2000
