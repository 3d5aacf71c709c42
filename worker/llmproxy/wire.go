package llmproxy

import (
	"io"
	"time"

	"github.com/aglq/aglq/queue/rawjson"
)

// paths are where an upstream serves the endpoints, behind its base.
var paths = map[endpoint]string{
	chat: "/chat/completions", completions: "/completions", responses: "/responses", embeddings: "/embeddings",
	messages: "/messages", countTokens: "/messages/count_tokens",
}

// conversational are the endpoints that can be translated into each other.
var conversational = map[endpoint]bool{chat: true, messages: true, responses: true}

// wire is the endpoint of the upstream that a call of an endpoint is made with:
// the same where the upstream has it, otherwise one that it has.
func (e *Entry) wire(asked endpoint) endpoint {
	switch {
	case e.protocol() == anthropic && conversational[asked]:
		return messages
	case !conversational[asked], asked == responses && e.Responses, asked == chat && !e.NoChat:
		return asked
	case e.NoChat:
		return responses
	}
	return chat
}

// translateRequest makes a request for a wire of one for an endpoint, by way of
// a chat completion.
func translateRequest(body rawjson.Value, from, to endpoint) (rawjson.Value, error) {
	var err error
	switch from {
	case messages:
		body, err = messagesToChat(body)
	case responses:
		body, err = responsesToChat(body)
	}
	if err != nil {
		return nil, err
	}
	switch to {
	case messages:
		return chatToMessages(body)
	case responses:
		return chatToResponses(body)
	}
	return body, nil
}

// answerAsChat makes a chat completion of what came over a wire.
func answerAsChat(answer rawjson.Value, wire endpoint, at time.Time) rawjson.Value {
	switch wire {
	case messages:
		return messageToChat(answer, at)
	case responses:
		return responseToChat(answer)
	}
	return answer
}

// translateAnswer makes what the client gets of what came over the wire.
func (c *call) translateAnswer(answer rawjson.Value) rawjson.Value {
	answer = answerAsChat(answer, c.wire, time.Now())
	switch c.endpoint {
	case messages:
		return chatToMessage(answer)
	case responses:
		return chatToResponse(c.body, answer)
	}
	return answer
}

// events takes the events of a stream.
type events func(name string, data []byte) error

// writeEvents writes a stream's events to w.
func writeEvents(w io.Writer) events {
	return func(name string, data []byte) error { return writeEvent(w, name, data) }
}

// translator is what turns the stream that comes over the wire into the client's,
// nil where they are the same.
func (c *call) translator(out io.Writer) streamTranslator {
	if c.wire == c.endpoint {
		return nil
	}
	var last streamTranslator
	emit := writeEvents(out)
	switch c.endpoint {
	case messages:
		last = &toMessages{emit: emit}
	case responses:
		last = &toResponses{emit: emit, request: c.body}
	}
	usage := c.body.Get("stream_options").Get("include_usage").Bool()
	if last != nil {
		usage = true
		emit = func(name string, data []byte) error {
			if string(data) == doneMark {
				return nil
			}
			return last.add(name, data)
		}
	}
	chunks := chunkWriter{emit: emit, created: c.began, withUsage: usage}
	switch c.wire {
	case messages:
		return joined(&messagesToChunks{chunkWriter: chunks}, last)
	case responses:
		return joined(&responsesToChunks{chunkWriter: chunks}, last)
	}
	return last
}

// twoSteps is a translator whose events another one takes.
type twoSteps struct{ first, then streamTranslator }

func joined(first, then streamTranslator) streamTranslator {
	if then == nil {
		return first
	}
	return &twoSteps{first, then}
}

func (t *twoSteps) add(name string, data rawjson.Value) error { return t.first.add(name, data) }

func (t *twoSteps) end(failure error) error {
	if failure == nil {
		if err := t.first.end(nil); err != nil {
			return err
		}
	}
	return t.then.end(failure)
}
