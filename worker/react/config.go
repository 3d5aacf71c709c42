package react

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker"
	"github.com/aglq/aglq/worker/llmclient"
)

// Config is an agent as YAML, for those who write no Go. What it leaves out has the
// defaults of [Options]. Times are seconds.
//
// In commands, words that begin with ./ or ../ are files next to the config. In models,
// URLs, header fields and environments, ${NAME} is the variable of the environment; one that
// is not set is an error.
type Config struct {
	System         string         `yaml:"system"`
	Question       string         `yaml:"question"` // a template of text/template over the task
	Steps          string         `yaml:"steps"`    // tools (the default) or structured
	ResponseFormat string         `yaml:"response_format"`
	MaxSteps       int            `yaml:"max_steps"`
	SampleRetries  *int           `yaml:"sample_retries"`
	Duplicates     string         `yaml:"duplicates"`
	Turns          *Range         `yaml:"turns"`
	Seed           uint64         `yaml:"seed"`
	MinToolCalls   *int           `yaml:"min_tool_calls"`
	Context        string         `yaml:"context"` // full (the default) or text
	LLM            *ModelConfig   `yaml:"llm"`
	UserLLM        *ModelConfig   `yaml:"user_llm"`
	Tools          []ToolConfig   `yaml:"tools"`
	MCP            []MCPConfig    `yaml:"mcp"`
	Sandbox        *SandboxConfig `yaml:"sandbox"`
	Grader         []string       `yaml:"grader"` // a command, see GradeWith
}

// ModelConfig is a model. What it leaves out is that of the task's first LLM; one with
// an endpoint and a model of its own takes nothing of it.
type ModelConfig struct {
	Endpoint   string         `yaml:"endpoint"` // what comes before /chat/completions
	Model      string         `yaml:"model"`
	APIKey     string         `yaml:"api_key"`
	Parameters map[string]any `yaml:"parameters"` // such as temperature
}

// ToolConfig is a tool. It has one of command, http and url, or is run by the sandbox.
type ToolConfig struct {
	Name        string            `yaml:"name"`
	Description string            `yaml:"description"`
	Parameters  map[string]any    `yaml:"parameters"` // a JSON schema
	Command     []string          `yaml:"command"`
	Env         map[string]string `yaml:"env"`
	URL         string            `yaml:"url"`
	Method      string            `yaml:"method"`
	Headers     map[string]string `yaml:"headers"`
	Limits      `yaml:",inline"`
}

// Limits bound the calls of a tool.
type Limits struct {
	Timeout     float64 `yaml:"timeout"`
	Concurrency int     `yaml:"concurrency"`
	MaxResult   int     `yaml:"max_result"`
}

// MCPConfig is an MCP server, with a command or a URL.
type MCPConfig struct {
	Command []string          `yaml:"command"`
	Env     map[string]string `yaml:"env"`
	URL     string            `yaml:"url"`
	Headers map[string]string `yaml:"headers"`
	Prefix  string            `yaml:"prefix"`
	Tools   []string          `yaml:"tools"` // those to take; all when absent
	Limits  `yaml:",inline"`
}

// SandboxConfig is a sandbox: a server at a URL, or a folder with commands.
type SandboxConfig struct {
	URL      string            `yaml:"url"`
	Headers  map[string]string `yaml:"headers"`
	Setup    []string          `yaml:"setup"`
	Teardown []string          `yaml:"teardown"`
	Execute  []string          `yaml:"execute"`
	Timeout  float64           `yaml:"timeout"` // of opening, and of closing
}

// Load reads a config file. What is wrong with it is an Invalid error. Llm gives the
// model as far as the config does not: [TaskLLM] when nil.
func Load(path string, llm func(*worker.Task) (*llmclient.Client, error)) (Options, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Options{}, queue.Wrap(queue.Invalid, err, "reading the agent's config")
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Options{}, fmt.Errorf("finding the folder of %s: %w", path, err)
	}
	c, err := ParseConfig(text)
	if err != nil {
		return Options{}, queue.Wrap(queue.Invalid, err, path)
	}
	o, err := c.Options(dir, llm)
	return o, queue.Wrap(queue.Invalid, err, path)
}

// ParseConfig reads a config. Fields that it does not know are errors.
func ParseConfig(text []byte) (Config, error) {
	var c Config
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, err
	}
	return c, nil
}

// Options makes the agent's options, with files next to the config in dir. Llm is that
// of [Load].
func (c Config) Options(dir string, llm func(*worker.Task) (*llmclient.Client, error)) (Options, error) {
	if llm == nil {
		llm = TaskLLM
	}
	o := Options{
		System: c.System, Format: ResponseFormat(c.ResponseFormat), MaxSteps: c.MaxSteps, Duplicates: Duplicates(c.Duplicates),
		Seed: c.Seed, SampleRetries: orNone(c.SampleRetries), MinToolCalls: orNone(c.MinToolCalls),
	}
	r := resolver{dir: dir}
	o.Structured = r.choice("steps", c.Steps, "tools", "structured")
	o.TextContext = r.choice("context", c.Context, "full", "text")
	if c.Turns != nil {
		o.Turns = *c.Turns
		r.fail(c.Turns.validate())
	}
	if c.Question != "" {
		t, err := template.New("question").Option("missingkey=error").Parse(c.Question)
		r.fail(err)
		o.Question = t
	}
	o.LLM = r.model(c.LLM, llm)
	o.UserLLM = o.LLM
	if c.UserLLM != nil {
		o.UserLLM = r.model(c.UserLLM, llm)
	}
	for _, t := range c.Tools {
		o.Tools = append(o.Tools, r.tool(t))
	}
	for _, m := range c.MCP {
		o.MCP = append(o.MCP, MCPServer{
			Command: r.command(m.Command), Env: r.env(m.Env), URL: r.expand(m.URL), Header: r.header(m.Headers), Prefix: m.Prefix,
			Only: m.Tools, Timeout: r.seconds(m.Timeout), Concurrency: m.Concurrency, MaxResult: m.MaxResult,
		})
	}
	if c.Sandbox != nil {
		o.Sandbox, o.SandboxTimeout = r.sandbox(c.Sandbox), r.seconds(c.Sandbox.Timeout)
	}
	if c.Grader != nil {
		o.Grade = GradeProgram(r.command(c.Grader))
	}
	return o, r.err
}

// orNone makes a 0 that was said what switches something off in Options.
func orNone(n *int) int {
	switch {
	case n == nil:
		return 0
	case *n == 0:
		return -1
	}
	return *n
}

// resolver makes of texts what they stand for, and keeps the first error.
type resolver struct {
	dir string
	err error
}

func (r *resolver) fail(err error) { r.err = cmp.Or(r.err, err) }

// choice reports whether the second of two words is said; "" is the first.
func (r *resolver) choice(name, said, first, second string) bool {
	if said != "" && said != first && said != second {
		r.fail(fmt.Errorf("%s is %q; it must be %s or %s", name, said, first, second))
	}
	return said == second
}

func (r *resolver) seconds(s float64) time.Duration {
	if !(s >= 0) {
		r.fail(fmt.Errorf("a timeout is %g; it must be a number of seconds", s))
		return 0
	}
	return seconds(s)
}

func (r *resolver) command(words []string) []string {
	var out []string
	for _, w := range words {
		if strings.HasPrefix(w, "./") || strings.HasPrefix(w, "../") {
			w = filepath.Join(r.dir, w)
		}
		out = append(out, w)
	}
	if len(out) > 0 {
		r.fail(worker.ExecOptions{Command: out}.Validate())
	}
	return out
}

// reference is a variable of the environment in a text.
var reference = regexp.MustCompile(`\$\{[^}]*\}`)

// expand puts in the variables of the environment. Any other $ is itself.
func (r *resolver) expand(text string) string {
	return reference.ReplaceAllStringFunc(text, func(found string) string {
		name := found[len("${") : len(found)-len("}")]
		val, ok := os.LookupEnv(name)
		if !ok { // the text itself may hold a secret
			r.fail(fmt.Errorf("the environment variable %s is needed, and is not set", name))
		}
		return val
	})
}

func (r *resolver) env(vars map[string]string) []string {
	var out []string
	for name, val := range vars {
		out = append(out, name+"="+r.expand(val))
	}
	return out
}

func (r *resolver) header(fields map[string]string) http.Header {
	h := http.Header{}
	for name, val := range fields {
		h.Set(name, r.expand(val))
	}
	return h
}

// json is a value of YAML as JSON; nil for nil.
func (r *resolver) json(what string, v map[string]any) rawjson.Value {
	if v == nil {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		r.fail(fmt.Errorf("%s cannot be JSON: %w", what, err))
		return nil
	}
	out, err := rawjson.Parse(text)
	r.fail(err)
	return out
}

func (r *resolver) tool(c ToolConfig) Tool {
	t := Tool{
		Name: c.Name, Description: c.Description, Parameters: r.json("the parameters of the tool "+c.Name, c.Parameters),
		Timeout: r.seconds(c.Timeout), Concurrency: c.Concurrency, MaxResult: c.MaxResult,
	}
	switch {
	case len(c.Command) > 0 && c.URL != "":
		r.fail(fmt.Errorf("the tool %s has both a command and a url", c.Name))
	case len(c.Command) > 0:
		t.Run = Program{Command: r.command(c.Command), Env: r.env(c.Env)}.Run
	case c.URL != "":
		t.Run = Endpoint{URL: r.expand(c.URL), Method: strings.ToUpper(c.Method), Header: r.header(c.Headers)}.Run
	}
	return t
}

func (r *resolver) sandbox(c *SandboxConfig) Sandbox {
	if c.URL == "" {
		return Folder{Setup: r.command(c.Setup), Teardown: r.command(c.Teardown), Execute: r.command(c.Execute)}
	}
	if c.Setup != nil || c.Teardown != nil || c.Execute != nil {
		r.fail(errors.New("the sandbox has both a url and commands"))
	}
	return HTTPSandbox{URL: r.expand(c.URL), Header: r.header(c.Headers)}
}

// model is the one that llm gives, with what the config says over it.
func (r *resolver) model(c *ModelConfig, llm func(*worker.Task) (*llmclient.Client, error)) func(*worker.Task) (*llmclient.Client, error) {
	if c == nil {
		return llm
	}
	said := llmclient.Client{
		BaseURL: r.expand(c.Endpoint), Model: r.expand(c.Model), APIKey: r.expand(c.APIKey), Parameters: r.json("the model's parameters", c.Parameters),
	}
	if said.BaseURL != "" && said.Model != "" { // nothing of another server's is to be sent to this one
		return func(*worker.Task) (*llmclient.Client, error) { return &said, nil }
	}
	return func(t *worker.Task) (*llmclient.Client, error) {
		own, err := llm(t)
		if err != nil {
			return nil, err
		}
		merged := *own
		merged.Model = cmp.Or(said.Model, own.Model)
		merged.Parameters = joined(own.Parameters, said.Parameters)
		if said.BaseURL != "" {
			merged.BaseURL, merged.APIKey = said.BaseURL, said.APIKey
		} else if said.APIKey != "" {
			merged.APIKey = said.APIKey
		}
		return &merged, nil
	}
}

// joined is an object with the members of both, the second's where both have one; nil
// is none.
func joined(a, b rawjson.Value) rawjson.Value {
	if a.Kind() != rawjson.KindObject {
		return b
	}
	var dst []byte
	for _, v := range []rawjson.Value{a, b} {
		for key, val := range v.Members() {
			dst = rawjson.AppendMember(dst, key, val)
		}
	}
	if dst == nil {
		return rawjson.EmptyObject
	}
	out, err := rawjson.Parse(append(dst, '}'))
	if err != nil { // both were JSON
		return b
	}
	return out
}
