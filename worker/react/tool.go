package react

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
)

// Defaults of a Tool.
const (
	DefaultToolTimeout = 30 * time.Second
	// DefaultMaxResult is about as much as a model reads with profit.
	DefaultMaxResult = 64 << 10
)

// Tool is something that the model may call.
type Tool struct {
	Name        string // of letters, digits, _ and -, 64 at most
	Description string
	// Parameters is the JSON schema (draft 2020-12 or 7) of the arguments, which are
	// an object; nil for a tool without any.
	Parameters rawjson.Value
	// Timeout bounds a call: 30 s when 0.
	Timeout time.Duration
	// Concurrency bounds how many calls are made at a time, in all conversations: 0
	// for no bound.
	Concurrency int
	// MaxResult is how many bytes of a result the model is shown: 64 KiB when 0.
	MaxResult int
	// Run makes a call, and returns when its context ends. Its error is a result that
	// says so. Nil has the sandbox do it.
	Run func(ctx context.Context, c Call) (string, error)
	// Unchecked leaves the check of arguments to the tool.
	Unchecked bool
}

// Call is a call of a tool.
type Call struct {
	ID        string
	Tool      string
	Arguments rawjson.Value // an object that the tool's schema allows
	MaxResult int           // what is longer, in bytes, is cut
	Session   *Session      // the sandbox's, nil without one
}

// Func makes a tool of a function. The schema of its arguments is that of In, a
// struct: fields by their json tags, described by their jsonschema tags, and
// required unless they are omitempty.
func Func[In any](name, description string, run func(ctx context.Context, in In) (string, error)) (Tool, error) {
	schema, err := jsonschema.For[In](nil)
	if err != nil {
		return Tool{}, queue.Wrap(queue.Invalid, err, "making the schema of the tool "+name)
	}
	parameters, err := rawjson.Marshal(schema)
	if err != nil {
		return Tool{}, queue.Wrap(queue.Invalid, err, "writing the schema of the tool "+name)
	}
	return Tool{Name: name, Description: description, Parameters: parameters, Run: func(ctx context.Context, c Call) (string, error) {
		var in In
		if err := json.Unmarshal(c.Arguments, &in); err != nil {
			return "", err
		}
		return run(ctx, in)
	}}, nil
}

// toolset is the tools of an agent.
type toolset struct {
	list   []llmclient.Tool
	byName map[string]*tool
}

// tool is a tool that is ready to be called.
type tool struct {
	Tool
	schema *jsonschema.Resolved // nil leaves the check to the tool
	slots  chan struct{}        // nil for no bound
}

var toolName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

func newToolset(list []Tool) (*toolset, error) {
	set := &toolset{byName: map[string]*tool{}}
	for _, t := range list {
		ready, err := prepare(t)
		if err != nil {
			return nil, err
		}
		if set.byName[t.Name] != nil {
			return nil, queue.Errorf(queue.Invalid, "there are two tools %s; names must be unique (an MCP server's tools can have a prefix)", t.Name)
		}
		set.byName[t.Name] = ready
		set.list = append(set.list, llmclient.Tool{Name: t.Name, Description: t.Description, Parameters: ready.Parameters})
	}
	return set, nil
}

// noParameters is the schema of a tool without any.
var noParameters = rawjson.Value(`{"type":"object","properties":{}}`)

func prepare(t Tool) (*tool, error) {
	if !toolName.MatchString(t.Name) {
		return nil, queue.Errorf(queue.Invalid, "a tool's name is %q; it must be 1 to 64 letters, digits, _ and -", t.Name)
	}
	if t.Timeout < 0 || t.Concurrency < 0 || t.MaxResult < 0 {
		return nil, queue.Errorf(queue.Invalid, "timeout, concurrency and max_result of the tool %s must not be negative", t.Name)
	}
	t.Timeout = cmp.Or(t.Timeout, DefaultToolTimeout)
	t.MaxResult = cmp.Or(t.MaxResult, DefaultMaxResult)
	if t.Parameters == nil {
		t.Parameters = noParameters
	}
	ready := &tool{Tool: t}
	if t.Concurrency > 0 {
		ready.slots = make(chan struct{}, t.Concurrency)
	}
	if t.Unchecked {
		return ready, nil
	}
	var err error
	if ready.schema, err = compileSchema(t.Parameters); err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "reading the parameters of the tool "+t.Name)
	}
	return ready, nil
}

// compileSchema reads a JSON schema. References to elsewhere are an error.
func compileSchema(v rawjson.Value) (*jsonschema.Resolved, error) {
	var schema jsonschema.Schema
	if err := json.Unmarshal(v, &schema); err != nil {
		return nil, err
	}
	return schema.Resolve(nil)
}

// validate checks a value against a schema.
func validate(schema *jsonschema.Resolved, v rawjson.Value) error {
	var value any
	if err := json.Unmarshal(v, &value); err != nil {
		return err
	}
	return schema.Validate(value)
}

// arguments reads the arguments of a call: an object, none for "".
func (t *tool) arguments(text string) (rawjson.Value, error) {
	if strings.TrimSpace(text) == "" {
		text = "{}" // as some servers write it
	}
	v, nonFinite, err := rawjson.Compact(nil, []byte(text))
	if err != nil {
		return nil, fmt.Errorf("the arguments are not JSON: %w", err)
	}
	if nonFinite {
		return nil, fmt.Errorf("the arguments hold NaN or an infinite number, which are not JSON")
	}
	if v.Kind() != rawjson.KindObject {
		return nil, fmt.Errorf("the arguments are %.80s; they must be a JSON object", v)
	}
	if t.schema == nil {
		return v, nil
	}
	if err := validate(t.schema, v); err != nil {
		return nil, fmt.Errorf("the arguments do not fit the tool's parameters: %w", err)
	}
	return v, nil
}

// call makes a call, within the tool's bounds.
func (t *tool) call(ctx context.Context, c Call) (result string, err error) {
	if t.slots != nil {
		select {
		case t.slots <- struct{}{}:
			defer func() { <-t.slots }()
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.Timeout, fmt.Errorf("the tool did not answer within %s", t.Timeout))
	defer cancel()
	c.MaxResult = t.MaxResult
	switch {
	case t.Run != nil:
		result, err = t.Run(ctx, c)
	case c.Session != nil && c.Session.Execute != nil:
		result, err = c.Session.Execute(ctx, c.Tool, c.Arguments)
	default:
		return "", errors.New("there is nothing that runs the tool")
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return result, err
}

// clip cuts a text to at most n bytes, says so, and makes it valid UTF-8.
func clip(text string, n int) string {
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n], "") + fmt.Sprintf("\n… (cut after %d bytes)", n)
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
