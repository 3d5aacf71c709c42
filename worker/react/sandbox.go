package react

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/aglq/aglq/internal/child"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Sandbox gives each task a place of its own for its tools.
type Sandbox interface {
	// Open opens a session with files in it, by their paths. A session that could
	// not be opened leaves nothing behind.
	Open(ctx context.Context, o Opening) (*Session, error)
}

// Opening is what a session is opened with.
type Opening struct {
	SessionID string            `json:"session_id"` // a UUID
	RolloutID string            `json:"rollout_id"`
	AttemptID string            `json:"attempt_id"`
	Files     map[string]string `json:"files"`
}

// Session is an open place for tools.
type Session struct {
	ID string
	// Dir is where programs run: the worker's own directory when "".
	Dir string
	// Execute runs a tool that does not say how it runs.
	Execute func(ctx context.Context, tool string, arguments rawjson.Value) (string, error)
	// Close ends the session. It is called once, whatever happened, with a context of
	// its own.
	Close func(ctx context.Context) error
}

// Folder is a sandbox that is a folder of its own for each task, in which programs
// run. The folder goes with the task, and with a worker that is killed. It keeps
// apart what programs leave where they run; it does not hold them in.
type Folder struct {
	// Setup and Teardown are commands run in the folder after the files were put there
	// and before it is removed; nil for none. What fails in Setup fails the attempt.
	Setup, Teardown []string
	// Execute is a command for tools that do not say how they run: it is given
	// {"tool": …, "args": {…}} as its input, and its output is the result. Nil for none.
	Execute []string
}

// Open implements Sandbox.
func (f Folder) Open(ctx context.Context, o Opening) (*Session, error) {
	dir, err := os.MkdirTemp("", "aglq-session-")
	if err != nil {
		return nil, fmt.Errorf("making the session's folder: %w", err)
	}
	release, err := child.Guard(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("guarding the session's folder: %w", err), os.RemoveAll(dir))
	}
	s := &Session{ID: o.SessionID, Dir: dir}
	command := func(ctx context.Context, words []string, input []byte) (string, error) {
		if words == nil {
			return "", nil
		}
		p := Program{Command: words}
		return p.run(ctx, s, input, DefaultMaxResult)
	}
	s.Execute = func(ctx context.Context, tool string, arguments rawjson.Value) (string, error) {
		if f.Execute == nil {
			return "", fmt.Errorf("the sandbox has no command for the tool %s", tool)
		}
		return command(ctx, f.Execute, executeBody(s.ID, tool, arguments))
	}
	remove := func() error {
		release()
		return os.RemoveAll(dir)
	}
	s.Close = func(ctx context.Context) error {
		_, err := command(ctx, f.Teardown, nil)
		return errors.Join(err, remove())
	}
	if err := seed(dir, o.Files); err != nil {
		return nil, errors.Join(err, remove())
	}
	if _, err := command(ctx, f.Setup, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("setting the session up: %w", err), remove())
	}
	return s, nil
}

// seed puts files into a folder; none may be outside it.
func seed(dir string, files map[string]string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the session's folder: %w", err)
	}
	defer root.Close()
	for name, text := range files {
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return queue.Wrap(queue.Invalid, err, fmt.Sprintf("making a folder for the file %q", name))
		}
		if err := root.WriteFile(name, []byte(text), 0o644); err != nil {
			return queue.Wrap(queue.Invalid, err, fmt.Sprintf("putting the file %q into the session", name))
		}
	}
	return nil
}

// executeBody asks a sandbox to run a tool.
func executeBody(session, tool string, arguments rawjson.Value) []byte {
	body := rawjson.AppendString([]byte(`{"session_id":`), session)
	body = rawjson.AppendString(append(body, `,"tool":`...), tool)
	return append(append(append(body, `,"args":`...), arguments...), '}')
}

// HTTPSandbox is a sandbox that is a server:
//
//	POST   URL/sessions       {"session_id", "rollout_id", "attempt_id", "files"}
//	POST   URL/execute        {"session_id", "tool", "args"}, answered by {"result"} or {"error"}
//	DELETE URL/sessions/{id}
//
// A status other than 2xx is a failure. A session that was not answered for is
// deleted too: the server may have opened it.
type HTTPSandbox struct {
	URL    string
	Header http.Header  // sent with each request
	Client *http.Client // http.DefaultClient when nil
}

// Open implements Sandbox.
func (h HTTPSandbox) Open(ctx context.Context, o Opening) (*Session, error) {
	base := strings.TrimSuffix(h.URL, "/")
	if o.Files == nil {
		o.Files = map[string]string{}
	}
	body, err := rawjson.Marshal(o)
	if err != nil {
		return nil, err
	}
	s := &Session{ID: o.SessionID}
	s.Close = func(ctx context.Context) error {
		_, err := h.request(ctx, http.MethodDelete, base+"/sessions/"+url.PathEscape(o.SessionID), nil)
		return err
	}
	s.Execute = func(ctx context.Context, tool string, arguments rawjson.Value) (string, error) {
		answer, err := h.request(ctx, http.MethodPost, base+"/execute", executeBody(o.SessionID, tool, arguments))
		if err != nil {
			return "", err
		}
		return executed(answer)
	}
	if _, err := h.request(ctx, http.MethodPost, base+"/sessions", body); err != nil {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
		defer cancel()
		_ = s.Close(detached) // what is not there cannot be deleted
		return nil, err
	}
	return s, nil
}

// executed reads the answer of a sandbox to a tool call.
func executed(answer []byte) (string, error) {
	v, err := rawjson.Parse(answer)
	if err != nil || v.Kind() != rawjson.KindObject {
		return "", fmt.Errorf("the sandbox answered %.80q; it must be an object with result or error", answer)
	}
	if e := v.Get("error"); !e.IsNull() {
		return "", errors.New(textOf(e))
	}
	return textOf(v.Get("result")), nil
}

// textOf is a text as it is, null as nothing, and all else as JSON.
func textOf(v rawjson.Value) string {
	switch v.Kind() {
	case rawjson.KindString:
		return v.Text()
	case rawjson.Invalid, rawjson.KindNull:
		return ""
	}
	return string(v)
}

func (h HTTPSandbox) request(ctx context.Context, method, address string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	setHeader(req, h.Header, body != nil)
	answer, err := do(h.Client, req, mostAnswer)
	if err != nil {
		return nil, fmt.Errorf("the sandbox: %w", err)
	}
	return answer, nil
}
