package llmclient

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Client calls one language model. It is safe for concurrent use.
type Client struct {
	BaseURL string // what comes before /chat/completions
	Model   string // used where a request names none
	APIKey  string // "" sends none
	// Parameters is an object with parameters of each request, such as
	// temperature; nil for none.
	Parameters rawjson.Value
	// HTTP makes the requests; one with a [Transport] when nil.
	HTTP *http.Client
}

// ForLLM makes a client of a language model among a task's resources.
func ForLLM(llm queue.LLM) *Client {
	c := &Client{BaseURL: llm.Endpoint, Model: llm.Model, Parameters: llm.SamplingParameters}
	if llm.APIKey != nil {
		c.APIKey = *llm.APIKey
	}
	return c
}

// Request asks for a completion.
type Request struct {
	Model    string // the client's when ""
	Messages []Message
	Tools    []Tool
	// Parameters is an object with further parameters, which go over the client's;
	// nil for none. return_token_ids and logprobs are what training wants.
	Parameters rawjson.Value
	// OnText makes the answer come as a stream: it is called with each piece of
	// text of the first choice as it comes. An error ends the call, which returns
	// it. Nil asks for the answer as a whole.
	OnText func(piece string) error
}

// Message is one message of a conversation.
type Message struct {
	Role       string     `json:"role"`
	Content    string     `json:"-"`
	Parts      []Part     `json:"-"` // in place of Content, when not nil
	ToolCalls  []ToolCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
	Refusal    string     `json:"refusal,omitempty"`
	// Reasoning is what some servers tell of how the model came to its answer.
	Reasoning string `json:"reasoning_content,omitempty"`
}

// Part is one part of a content.
type Part struct {
	Type     string    `json:"type"` // "text" or "image_url"
	Text     string    `json:"text,omitempty"`
	ImageURL *ImageURL `json:"image_url,omitempty"`
}

// ImageURL is an image, by its address or as a data: URL.
type ImageURL struct {
	URL    string `json:"url"`
	Detail string `json:"detail,omitempty"` // "low", "high", or "" for the server's choice
}

// MarshalJSON implements json.Marshaler. The content of a message that only calls
// tools is null.
func (m Message) MarshalJSON() ([]byte, error) {
	type plain Message
	var content any = m.Content
	switch {
	case m.Parts != nil:
		content = m.Parts
	case m.Content == "" && m.ToolCalls != nil:
		content = nil
	}
	return json.Marshal(struct {
		plain
		Content any `json:"content"`
	}{plain(m), content})
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Message) UnmarshalJSON(text []byte) error {
	type plain Message
	in := struct {
		*plain
		Content json.RawMessage `json:"content"`
	}{plain: (*plain)(m)}
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	if len(in.Content) > 0 && in.Content[0] == '[' {
		return json.Unmarshal(in.Content, &m.Parts)
	}
	if len(in.Content) == 0 {
		return nil
	}
	return json.Unmarshal(in.Content, &m.Content)
}

// Tool is a function that the model may call.
type Tool struct {
	Name        string
	Description string
	Parameters  rawjson.Value // a JSON schema
}

// MarshalJSON implements json.Marshaler.
func (t Tool) MarshalJSON() ([]byte, error) {
	type function struct {
		Name        string        `json:"name"`
		Description string        `json:"description,omitempty"`
		Parameters  rawjson.Value `json:"parameters,omitempty"`
	}
	return json.Marshal(struct {
		Type     string   `json:"type"`
		Function function `json:"function"`
	}{"function", function(t)})
}

// ToolCall is a function that the model calls.
type ToolCall struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"` // "function"
	Function FunctionCall `json:"function"`
}

// FunctionCall names a function and its arguments, as JSON text.
type FunctionCall struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// Response is a completion.
type Response struct {
	ID             string   `json:"id"`
	Model          string   `json:"model"`
	Choices        []Choice `json:"choices"`
	Usage          Usage    `json:"usage"`
	PromptTokenIDs []int64  `json:"prompt_token_ids"`
	// Raw is the answer as it came, or what a stream amounts to.
	Raw rawjson.Value `json:"-"`
}

// Choice is one of the answers.
type Choice struct {
	Message      Message       `json:"message"`
	FinishReason string        `json:"finish_reason"`
	TokenIDs     []int64       `json:"token_ids"`
	Logprobs     rawjson.Value `json:"logprobs"`
}

// Usage counts tokens.
type Usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

// Text is the text of the first choice, "" when there is none.
func (r *Response) Text() string {
	if len(r.Choices) == 0 {
		return ""
	}
	return r.Choices[0].Message.Content
}

// StatusError is an answer that is an error.
type StatusError struct {
	Status  int // of HTTP
	Message string
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("the model's server answered %d %s: %s", e.Status, http.StatusText(e.Status), e.Message)
}

// Chat asks for a completion. Errors of the server are a *StatusError.
func (c *Client) Chat(ctx context.Context, r Request) (*Response, error) {
	body, err := c.body(r)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.BaseURL, "/")+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.APIKey)
	}
	res, err := cmp.Or(c.HTTP, recording).Do(req)
	if err != nil {
		return nil, fmt.Errorf("calling the model: %w", err)
	}
	defer res.Body.Close()
	return read(res, r.OnText)
}

var recording = &http.Client{Transport: &Transport{}}

// body writes a request: parameters first, so that what is said by itself wins.
func (c *Client) body(r Request) ([]byte, error) {
	own, err := rawjson.Marshal(struct {
		Model    string    `json:"model"`
		Messages []Message `json:"messages"`
		Tools    []Tool    `json:"tools,omitempty"`
		Stream   bool      `json:"stream,omitempty"`
	}{cmp.Or(r.Model, c.Model), r.Messages, r.Tools, r.OnText != nil})
	if err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "writing a request to a model")
	}
	text := []byte{'{'}
	for _, object := range []rawjson.Value{c.Parameters, r.Parameters, own} {
		for key, val := range object.Members() {
			if len(text) > 1 {
				text = append(text, ',')
			}
			text = append(append(append(text, '"'), key...), '"', ':')
			text = append(text, val...)
		}
	}
	v, err := rawjson.Parse(append(text, '}'))
	return v, queue.Wrap(queue.Invalid, err, "joining the parameters of a request to a model")
}

// read reads an answer, whole or as a stream.
func read(res *http.Response, onText func(string) error) (*Response, error) {
	var body []byte
	var err error
	stream := onText != nil && res.StatusCode == http.StatusOK && strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")
	if stream {
		body, err = readStream(res.Body, onText)
	} else {
		body, err = io.ReadAll(io.LimitReader(res.Body, MaxRecorded))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the model's answer: %w", err)
	}
	var raw rawjson.Value
	if stream {
		var done bool
		if raw, done = assemble(body); !done {
			return nil, fmt.Errorf("reading the model's answer: %w", io.ErrUnexpectedEOF)
		}
	} else if raw, err = rawjson.Parse(body); err != nil && res.StatusCode == http.StatusOK {
		return nil, fmt.Errorf("reading the model's answer: %w", err)
	}
	if message := raw.Get("error"); res.StatusCode != http.StatusOK || !message.IsNull() {
		text := cmp.Or(message.Get("message").Text(), message.Text(), string(body[:min(len(body), 500)]))
		return nil, &StatusError{Status: res.StatusCode, Message: text}
	}
	var out Response
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("reading the model's answer: %w", err)
	}
	out.Raw = raw
	if onText != nil && !stream {
		err = onText(out.Text())
	}
	return &out, err
}
