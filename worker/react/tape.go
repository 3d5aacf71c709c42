package react

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
)

// ErrNotRecorded means that a recording has no answer to what an agent asks: it asks
// other things than when it was recorded. Record anew.
var ErrNotRecorded = errors.New("the recording has no answer to this")

// Tape has the answers of models and tools, as JSON lines: to record them, or to give
// them again, so that agents can be tested without models and tools. An answer belongs
// to a request with all that was said before it; the n-th time it is asked for, the
// n-th recorded is given, and after the last the first again. It is safe for concurrent
// use.
type Tape struct {
	mu     sync.Mutex
	file   *os.File // nil when it replays
	failed error    // of writing
	played map[string][]taped
	next   map[string]int
}

// taped is a line of a recording.
type taped struct {
	Kind   string `json:"kind"` // "llm" or "tool"
	Key    string `json:"key"`  // of the request
	What   string `json:"what"` // for readers
	Status int    `json:"status,omitempty"`
	Text   string `json:"text"`            // the body, or the result
	Error  string `json:"error,omitempty"` // of a tool
}

// Record makes a tape that writes to a new file. Close it at the end.
func Record(path string) (*Tape, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("making the recording: %w", err)
	}
	return &Tape{file: f}, nil
}

// Replay reads a tape.
func Replay(path string) (*Tape, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the recording: %w", err)
	}
	defer f.Close()
	t := &Tape{next: map[string]int{}}
	if t.played, err = readTape(f); err != nil {
		return nil, fmt.Errorf("reading the recording %s: %w", path, err)
	}
	return t, nil
}

// longestLine bounds a line of a recording, in bytes.
const longestLine = 2 * llmclient.MaxRecorded

func readTape(r io.Reader) (map[string][]taped, error) {
	played := map[string][]taped{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longestLine)
	for n := 1; lines.Scan(); n++ {
		var line taped
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if line.Key == "" || line.Kind == "llm" && (line.Status < 100 || line.Status > 999) {
			return nil, fmt.Errorf("line %d has no key or no status", n)
		}
		played[line.Kind+line.Key] = append(played[line.Kind+line.Key], line)
	}
	return played, lines.Err()
}

// Close ends a recording. Its error says that the recording is not whole.
func (t *Tape) Close() error {
	if t == nil || t.file == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := errors.Join(t.failed, t.file.Close()); err != nil {
		return fmt.Errorf("writing the recording: %w", err)
	}
	return nil
}

// replays reports whether answers come from the tape.
func (t *Tape) replays() bool { return t != nil && t.file == nil }

func (t *Tape) write(line taped) {
	text, err := json.Marshal(line)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		_, err = t.file.Write(append(text, '\n'))
	}
	t.failed = errors.Join(t.failed, err)
}

func (t *Tape) read(kind, key, what string) (taped, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key = kind + key
	list := t.played[key]
	if len(list) == 0 {
		return taped{}, fmt.Errorf("%w: %s", ErrNotRecorded, what)
	}
	t.next[key]++
	return list[(t.next[key]-1)%len(list)], nil
}

func tapeKey(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d ", len(p))
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// history tells a call of a tool from others: the task, all that was said before it,
// and the call.
func (r *run) history(c ToolCall) (key, what string) {
	messages, err := rawjson.Marshal(r.conv.Messages())
	if err != nil { // they came as JSON
		messages = nil
	}
	return tapeKey(r.task.Input, messages, []byte(callKey(c.Name, c.Arguments))), clip(c.Name+" "+c.Arguments, 200)
}

// tool is a result, of the tape or for it. What the end of the task cut short is not
// recorded.
func (t *Tape) tool(ctx context.Context, key, what string, run func() (string, error)) (string, error) {
	if t.replays() {
		line, err := t.read("tool", key, what)
		if err == nil && line.Error != "" {
			err = errors.New(line.Error)
		}
		return line.Text, err
	}
	text, err := run()
	line := taped{Kind: "tool", Key: key, What: what, Text: text}
	if err != nil {
		line.Error = err.Error()
	}
	if ctx.Err() == nil {
		t.write(line)
	}
	return text, err
}

// client is a model whose answers are on the tape.
func (t *Tape) client(c *llmclient.Client) (*llmclient.Client, error) {
	if c.HTTP != nil {
		return nil, errors.New("a model with an http.Client of its own cannot be recorded or replayed: leave its HTTP nil")
	}
	copied := *c
	copied.HTTP = &http.Client{Transport: &llmclient.Transport{Base: tapedModel{t}}}
	return &copied, nil
}

// tapedModel is the way to a model, or to its recording.
type tapedModel struct{ tape *Tape }

// RoundTrip implements http.RoundTripper.
func (m tapedModel) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err = errors.Join(err, req.Body.Close()); err != nil {
		return nil, err
	}
	key, what := tapeKey(body), clip(string(body), 200)
	if m.tape.replays() {
		line, err := m.tape.read("llm", key, what)
		if err != nil {
			return nil, err
		}
		return answered(req, line.Status, []byte(line.Text)), nil
	}
	sent := req.Clone(req.Context())
	sent.Body = io.NopCloser(bytes.NewReader(body))
	res, err := http.DefaultTransport.RoundTrip(sent)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, llmclient.MaxRecorded))
	if err != nil {
		return nil, err
	}
	m.tape.write(taped{Kind: "llm", Key: key, What: what, Status: res.StatusCode, Text: string(answer)})
	return answered(req, res.StatusCode, answer), nil
}

func answered(req *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}
