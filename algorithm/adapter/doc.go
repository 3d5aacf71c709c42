// Package adapter turns the spans of attempts into training data.
//
//   - [Messages] makes conversations as OpenAI's chat format writes them.
//   - [TracerTriplets] makes triplets of prompt, response and reward from the
//     spans of an agent that was traced.
//   - [ProxyTriplets] makes triplets from the spans of an LLM proxy.
//
// Each takes the spans of one attempt. Their zero values give what the
// reference's classes of like purpose give, save where those lose something
// (docs/adapters.md lists the cases); [Stream] applies one to any number of
// rollouts, a few at a time in memory. An adapter holds no state: it is safe for
// concurrent use.
package adapter

import "github.com/aglq/aglq/queue"

// Adapter makes data of the spans of one attempt. Errors have the kind
// queue.Invalid: the spans say something that cannot be.
type Adapter[T any] interface {
	Adapt(spans []queue.Span) ([]T, error)
}
