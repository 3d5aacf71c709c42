// Package llmproxy stands between agents and language models. It forwards calls
// of OpenAI's and Anthropic's APIs to the upstreams of a model table, and files
// what was said, with token ids and log probabilities, as spans of the attempt
// that called.
//
// A call goes through these steps: who calls (attribution.go, auth.go), which
// model and which of its upstreams (models.go, balance.go, limits.go), in which
// protocol (wire.go, translate_*.go, response.go, stream_responses.go), forwarding
// (call.go, deliver.go), and the two spans (record.go, spans.go). Bytes of a stream are forwarded as they
// come; the message is put together beside them (assemble_*.go).
//
// No call waits for spans to be stored: they go through a bounded queue, and what
// does not fit is dropped, counted and logged. Proxy needs only three methods of
// queue.Store, see [Store].
//
// Package fakellm is an upstream for tests.
package llmproxy
