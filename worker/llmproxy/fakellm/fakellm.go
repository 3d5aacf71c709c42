// Package fakellm is a language model for tests: an HTTP server that speaks
// OpenAI's chat completions, completions, responses and embeddings and
// Anthropic's messages, whole and as streams, with token ids and log
// probabilities as vLLM gives them. What it answers is up to a [Script].
//
// It stands in for an upstream of the LLM proxy, and for a model that agents and
// algorithms talk to:
//
//	upstream := httptest.NewServer(fakellm.New(func(r fakellm.Request) fakellm.Answer {
//		return fakellm.Answer{Text: strings.ToUpper(r.Prompt())}
//	}))
package fakellm

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/aglq/aglq/queue/rawjson"
)

// Protocol is the API of a call.
type Protocol string

// The protocols.
const (
	Chat        Protocol = "chat"        // OpenAI's chat completions
	Completions Protocol = "completions" // OpenAI's older completions
	Responses   Protocol = "responses"   // OpenAI's responses
	Embeddings  Protocol = "embeddings"  // OpenAI's embeddings
	Messages    Protocol = "messages"    // Anthropic's messages
)

// Request is a call that came in.
type Request struct {
	Protocol Protocol
	Header   http.Header
	Body     rawjson.Value
	Model    string
	Stream   bool
	N        int // 1 for the first call of the server
}

// Prompt is the text of the last message, prompt or input.
func (r Request) Prompt() string {
	switch r.Protocol {
	case Completions:
		return textOf(r.Body.Get("prompt"))
	case Responses, Embeddings:
		if input := r.Body.Get("input"); input.Kind() == rawjson.KindString || r.Protocol == Embeddings {
			return textOf(input)
		}
		item := last(r.Body.Get("input"))
		return textOf(item.Get("content")) + textOf(item.Get("output"))
	}
	return textOf(last(r.Body.Get("messages")).Get("content"))
}

// System is the text of the system prompt, "" where there is none.
func (r Request) System() string {
	switch r.Protocol {
	case Responses:
		if text := r.Body.Get("instructions").Text(); text != "" {
			return text
		}
		return systemOf(r.Body.Get("input"))
	case Messages:
		return textOf(r.Body.Get("system"))
	}
	return systemOf(r.Body.Get("messages"))
}

func systemOf(messages rawjson.Value) string {
	for m := range messages.Elements() {
		if role := m.Get("role").Text(); role == "system" || role == "developer" {
			return textOf(m.Get("content"))
		}
	}
	return ""
}

func last(v rawjson.Value) (out rawjson.Value) {
	for e := range v.Elements() {
		out = e
	}
	return out
}

// textOf is a text, or the texts in a list of texts or of parts.
func textOf(v rawjson.Value) string {
	if v.Kind() == rawjson.KindString {
		return v.Text()
	}
	var out strings.Builder
	for part := range v.Elements() {
		out.WriteString(part.Text() + part.Get("text").Text() + textOf(part.Get("content")))
	}
	return out.String()
}

// ToolCall is a call of a function that an answer makes. Arguments are JSON.
type ToolCall struct{ ID, Name, Arguments string }

// Answer is what the model says to a request. The zero Answer is an empty text.
type Answer struct {
	ID        string // "" is made of the protocol and the number of the call
	Text      string
	Reasoning string
	ToolCalls []ToolCall
	// FinishReason is OpenAI's word for why the answer ends; "" is tool_calls where
	// there are any, else stop.
	FinishReason string

	// Status, if not 0 or 200, makes the answer an error that says Error.
	Status int
	Error  string
	// Header is sent along.
	Header http.Header

	// Wait, if not nil, is called before the headers with 0, and before each piece
	// of a stream with 1, 2 … An error cuts the connection.
	Wait func(ctx context.Context, piece int) error
	// BreakAfter, if not 0, cuts the connection of a stream after so many pieces.
	BreakAfter int
	// NoEnd ends a stream in good order, but without the events that close it.
	NoEnd bool
	// StreamError, if not "", takes the place of the end of a stream.
	StreamError string
}

// Script gives the answer to a request. It is called by many goroutines.
type Script func(Request) Answer

// Echo says what the last message said.
func Echo(r Request) Answer { return Answer{Text: r.Prompt()} }

// Server is the http.Handler. It is safe for concurrent use.
type Server struct {
	script Script
	mux    *http.ServeMux

	mu       sync.Mutex
	seen     int
	requests []Request
}

// kept bounds the requests that a server remembers.
const kept = 1000

// New makes a Server; a nil script is Echo. Paths are as those of the real
// services, with and without /v1.
func New(script Script) *Server {
	if script == nil {
		script = Echo
	}
	s := &Server{script: script, mux: http.NewServeMux()}
	for path, p := range map[string]Protocol{
		"/chat/completions": Chat, "/completions": Completions, "/responses": Responses, "/embeddings": Embeddings, "/messages": Messages,
	} {
		for _, prefix := range []string{"", "/v1"} {
			s.mux.HandleFunc("POST "+prefix+path, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, p) })
		}
	}
	s.mux.HandleFunc("POST /v1/messages/count_tokens", s.countTokens)
	s.mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, fields{"object": "list", "data": []fields{{"id": "fake", "object": "model"}}})
	})
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Requests are the latest calls, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// fields is a JSON object.
type fields map[string]any

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // a script put something into an answer that is no JSON
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

func fail(w http.ResponseWriter, p Protocol, status int, msg string) {
	kind := "invalid_request_error"
	if status >= http.StatusInternalServerError {
		kind = "api_error"
	}
	body := fields{"error": fields{"message": msg, "type": kind, "param": nil, "code": nil}}
	if p == Messages {
		body = fields{"type": "error", "error": fields{"type": kind, "message": msg}}
	}
	writeJSON(w, status, body)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, p Protocol) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	body, err := rawjson.Parse(text)
	if err != nil || body.Kind() != rawjson.KindObject {
		fail(w, p, http.StatusBadRequest, "the body is not a JSON object")
		return
	}
	for _, name := range required[p] {
		if body.Get(name).IsNull() {
			fail(w, p, http.StatusBadRequest, name+": Field required")
			return
		}
	}
	if p == Messages && r.Header.Get("Anthropic-Version") == "" {
		fail(w, p, http.StatusBadRequest, "anthropic-version: header is required")
		return
	}
	req := Request{Protocol: p, Header: r.Header.Clone(), Body: body, Model: body.Get("model").Text(), Stream: body.Get("stream").Bool()}
	s.mu.Lock()
	s.seen++
	req.N = s.seen
	if len(s.requests) == kept {
		s.requests = s.requests[1:]
	}
	s.requests = append(s.requests, req)
	s.mu.Unlock()
	t := &turn{w: w, r: r, req: req, answer: s.script(req)}
	t.serve()
}

// required are the members that a request must have.
var required = map[Protocol][]string{
	Chat: {"model", "messages"}, Completions: {"model", "prompt"}, Responses: {"model", "input"},
	Embeddings: {"model", "input"}, Messages: {"model", "messages", "max_tokens"},
}

func (s *Server) countTokens(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	body, err := rawjson.Parse(text)
	if err != nil {
		fail(w, Messages, http.StatusBadRequest, "the body is not JSON")
		return
	}
	writeJSON(w, http.StatusOK, fields{"input_tokens": len(Tokens(textOf(body.Get("messages"))))})
}

// turn is one request and its answer.
type turn struct {
	w      http.ResponseWriter
	r      *http.Request
	req    Request
	answer Answer
	pieces int
}

func (t *turn) serve() {
	t.wait(0)
	for name, values := range t.answer.Header {
		t.w.Header()[name] = values
	}
	switch {
	case t.answer.Status != 0 && t.answer.Status != http.StatusOK:
		fail(t.w, t.req.Protocol, t.answer.Status, t.answer.Error)
	case t.req.Protocol == Embeddings:
		t.embeddings()
	case t.req.Stream:
		t.w.Header().Set("Content-Type", "text/event-stream")
		map[Protocol]func(){
			Chat: t.streamChat, Completions: t.streamText, Responses: t.streamResponse, Messages: t.streamMessage,
		}[t.req.Protocol]()
	default:
		writeJSON(t.w, http.StatusOK, map[Protocol]func() fields{
			Chat: t.chat, Completions: t.text, Responses: t.response, Messages: t.message,
		}[t.req.Protocol]())
	}
}

func (t *turn) wait(piece int) {
	if t.answer.Wait == nil {
		return
	}
	if err := t.answer.Wait(t.r.Context(), piece); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// event sends one event of a stream, which counts as a piece.
func (t *turn) event(name string, v any) {
	t.pieces++
	if t.answer.BreakAfter > 0 && t.pieces > t.answer.BreakAfter {
		panic(http.ErrAbortHandler)
	}
	t.wait(t.pieces)
	data, ok := v.(string)
	if !ok {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // a script put something into an answer that is no JSON
		}
		data = string(text)
	}
	if name != "" {
		fmt.Fprintf(t.w, "event: %s\n", name)
	}
	fmt.Fprintf(t.w, "data: %s\n\n", data)
	_ = http.NewResponseController(t.w).Flush() // recorders have none
}

func (t *turn) id(prefix string) string {
	if t.answer.ID != "" {
		return t.answer.ID
	}
	return fmt.Sprintf("%s%d", prefix, t.req.N)
}

// finish is why the answer ends.
func (t *turn) finish() string {
	switch {
	case t.answer.FinishReason != "":
		return t.answer.FinishReason
	case len(t.answer.ToolCalls) > 0:
		return "tool_calls"
	}
	return "stop"
}

// Token is a piece of text as the model counts it: a word with what is before
// it.
type Token struct {
	Text    string
	ID      int
	Logprob float64
}

// Tokens takes a text apart. The same text always gives the same tokens.
func Tokens(text string) []Token {
	var out []Token
	for len(text) > 0 {
		n := len(text)
		if i := strings.IndexAny(text[1:], " \n"); i >= 0 {
			n = i + 1
		}
		h := fnv.New32a()
		h.Write([]byte(text[:n]))
		id := int(h.Sum32() % 150_000)
		out = append(out, Token{text[:n], id, -float64(id%100) / 100})
		text = text[n:]
	}
	return out
}

// IDs are the token ids of a text.
func IDs(text string) []int { return idsOf(Tokens(text)) }

func idsOf(tokens []Token) []int {
	out := []int{}
	for _, t := range tokens {
		out = append(out, t.ID)
	}
	return out
}

// tokens are all that a model generates for an answer, thoughts and the arguments
// of calls among them.
func (a Answer) tokens() []Token {
	out := append(Tokens(a.Reasoning), Tokens(a.Text)...)
	for _, c := range a.ToolCalls {
		out = append(out, Tokens(c.Arguments)...)
	}
	return out
}

// promptTokens are those of all that a request says.
func (r Request) promptTokens() []int {
	if m := r.Body.Get("messages"); m != nil {
		return IDs(r.systemOfMessages() + textOf(m))
	}
	return IDs(r.Prompt())
}

func (r Request) systemOfMessages() string {
	if r.Protocol == Messages {
		return r.System()
	}
	return ""
}
