package llmproxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// AnyModel is the name of an entry that serves models that no other entry names.
const AnyModel = "*"

// Entry is one line of the model table: a name that agents ask for, and an
// upstream that serves it. Entries of one name take turns.
type Entry struct {
	// Name is what agents ask for; [AnyModel] takes every name that is left.
	Name string
	// Provider is the word before the slash of litellm_params.model; it decides
	// the protocol and is part of the names of the raw span's attributes.
	Provider string
	// Model is what the upstream calls it; "" or "*" is the name the agent gave.
	Model string
	// APIBase is the URL that paths such as /chat/completions are put behind.
	APIBase string
	APIKey  string // "" is none
	// Headers are sent with each call.
	Headers map[string]string
	// Defaults are body members for calls that lack them, an object; Extra are
	// body members for all calls.
	Defaults, Extra rawjson.Value
	// Timeout bounds the time to the answer's headers, and each silence in it; 0
	// is the proxy's.
	Timeout time.Duration
	// Concurrency and RPM bound the calls at a time and in any minute; 0 is no
	// bound.
	Concurrency, RPM int
	// InputCost and OutputCost are what a token costs, in dollars.
	InputCost, OutputCost float64
	// ReturnTokenIDs and Logprobs ask the upstream for these; nil is the proxy's
	// choice, see [Options].
	ReturnTokenIDs, Logprobs *bool

	// Responses says that the upstream serves OpenAI's responses itself; without,
	// calls of it are made as chats. NoChat says that it serves nothing else, so
	// that chats are made as responses. Upstreams of Anthropic's have neither.
	Responses, NoChat bool

	text rawjson.Value // the entry as it was given
}

// maxRPM bounds a rate: the times of so many calls are remembered.
const maxRPM = 1_000_000

// protocol is the API that an upstream speaks.
type protocol int

const (
	openAI protocol = iota
	anthropic
)

func (e *Entry) protocol() protocol {
	if e.Provider == "anthropic" {
		return anthropic
	}
	return openAI
}

// DefaultProvider is the provider of a model whose name says none: an upstream
// of one's own.
const DefaultProvider = "hosted_vllm"

// providers are the words before a slash that name an API and not the owner of
// a model, each with the API's address, "" where it has none of its own.
var providers = map[string]string{
	"hosted_vllm": "", "vllm": "", "openai_like": "", "custom_openai": "", "text-completion-openai": "", "litellm_proxy": "",
	"openai":      "https://api.openai.com/v1",
	"anthropic":   "https://api.anthropic.com",
	"deepseek":    "https://api.deepseek.com/v1",
	"groq":        "https://api.groq.com/openai/v1",
	"mistral":     "https://api.mistral.ai/v1",
	"openrouter":  "https://openrouter.ai/api/v1",
	"together_ai": "https://api.together.xyz/v1",
	"xai":         "https://api.x.ai/v1",
}

// unsupported are providers whose API is neither OpenAI's nor Anthropic's.
var unsupported = []string{"azure", "azure_ai", "bedrock", "vertex_ai", "gemini", "sagemaker", "cohere", "watsonx", "replicate"}

// settings are litellm_params that concern neither the upstream nor this proxy.
var settings = []string{
	"tpm", "drop_params", "organization", "weight", "order", "tags",
	"use_in_pass_through", "merge_reasoning_content_in_choices", "mock_response", "max_budget", "budget_duration", "cache",
}

// ParseModels reads a model table, JSON or YAML: a list of entries, or an object
// with the list as model_list. Its errors are Invalid and say which entry is
// wrong.
func ParseModels(text []byte) ([]Entry, error) {
	v, err := parseTable(text)
	if err != nil {
		return nil, err
	}
	if v.Kind() == rawjson.KindObject {
		v = v.Get("model_list")
	}
	if v.Kind() != rawjson.KindArray {
		return nil, queue.Errorf(queue.Invalid, `the model table must be a list, or an object with "model_list": […]`)
	}
	entries := []Entry{}
	for item := range v.Elements() {
		e, err := parseEntry(item)
		if err != nil {
			return nil, queue.Wrap(queue.Invalid, err, fmt.Sprintf("entry %d of the model table", len(entries)+1))
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func parseTable(text []byte) (rawjson.Value, error) {
	trimmed := bytes.TrimSpace(text)
	if len(trimmed) == 0 {
		return nil, queue.Errorf(queue.Invalid, "the model table is empty")
	}
	if trimmed[0] == '{' || trimmed[0] == '[' {
		if v, err := rawjson.Parse(trimmed); err == nil {
			return v, nil
		} else if json.Valid(trimmed) {
			return nil, queue.Wrap(queue.Invalid, err, "the model table")
		}
	}
	var x any
	if err := yaml.Unmarshal(text, &x); err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "the model table is neither JSON nor YAML")
	}
	v, err := rawjson.Marshal(x)
	return v, queue.Wrap(queue.Invalid, err, "the model table")
}

func parseEntry(v rawjson.Value) (Entry, error) {
	e := Entry{Name: v.Get("model_name").Text(), text: v}
	if e.Name == "" {
		return e, fmt.Errorf("model_name is missing; it is the name that agents ask for")
	}
	params := v.Get("litellm_params")
	if params.Kind() != rawjson.KindObject {
		return e, fmt.Errorf(`%s: litellm_params is missing; give at least {"model": …, "api_base": …}`, e.Name)
	}
	r := entryReader{entry: &e, params: params, info: v.Get("model_info")}
	r.read()
	if r.err == nil {
		r.err = e.check()
	}
	if r.err != nil {
		return e, fmt.Errorf("%s: %w", e.Name, r.err)
	}
	return e, nil
}

// entryReader reads litellm_params; it keeps the first error.
type entryReader struct {
	entry  *Entry
	params rawjson.Value // litellm_params
	info   rawjson.Value // model_info
	err    error
}

func (r *entryReader) read() {
	e := r.entry
	var defaults object
	model, provider := "", ""
	for key, val := range r.params.Members() {
		if val.IsNull() {
			continue
		}
		switch name := rawjson.Unescape(key); name {
		case "model":
			model = r.text(name, val)
		case "custom_llm_provider":
			provider = r.text(name, val)
		case "api_base", "base_url":
			e.APIBase = r.secret(name, val)
		case "api_key":
			e.APIKey = r.secret(name, val)
		case "extra_headers", "headers":
			e.Headers = r.headers(name, val)
		case "extra_body":
			e.Extra = r.object(name, val)
		case "timeout", "request_timeout", "stream_timeout":
			e.Timeout = max(e.Timeout, time.Duration(r.number(name, val)*float64(time.Second)))
		case "max_parallel_requests":
			e.Concurrency = int(r.number(name, val))
		case "rpm":
			if e.RPM = int(r.number(name, val)); e.RPM > maxRPM {
				r.fail(name, fmt.Sprintf("at most %d; leave it out for no limit", maxRPM))
			}
		case "input_cost_per_token":
			e.InputCost = r.number(name, val)
		case "output_cost_per_token":
			e.OutputCost = r.number(name, val)
		case "return_token_ids":
			e.ReturnTokenIDs = r.truth(name, val)
		case "logprobs":
			e.Logprobs = r.truth(name, val)
		default:
			if !slices.Contains(settings, name) {
				defaults.raw(name, val)
			}
		}
	}
	e.Defaults = defaults.close()
	e.Provider, e.Model = provider, model
	if prefix, rest, ok := strings.Cut(model, "/"); ok && provider == "" {
		_, known := providers[prefix]
		if known || slices.Contains(unsupported, prefix) {
			e.Provider, e.Model = prefix, rest
		}
	}
	if e.Provider == "" {
		e.Provider = DefaultProvider
	}
	if e.APIBase == "" {
		e.APIBase = providers[e.Provider]
	}
	r.endpoints()
}

// servesResponses are the services that have OpenAI's responses.
var servesResponses = []string{"openai", "xai", "groq", "openrouter"}

// endpoints settles what the upstream serves: what model_info says of it, else
// what its kind does. Servers of one's own are asked for chats, since those
// come with token ids.
func (r *entryReader) endpoints() {
	e := r.entry
	if e.protocol() == anthropic {
		return
	}
	e.Responses = slices.Contains(servesResponses, e.Provider) && e.APIBase == providers[e.Provider]
	model, prefixed := strings.CutPrefix(e.Model, "responses/")
	if prefixed || r.info.Get("mode").Text() == "responses" {
		e.Model, e.Responses, e.NoChat = model, true, true
	}
	list := present(r.info.Get("supported_endpoints"))
	if list == nil {
		return
	}
	if list.Kind() != rawjson.KindArray && r.err == nil {
		r.err = fmt.Errorf(`model_info.supported_endpoints must be a list, as ["/v1/chat/completions", "/v1/responses"]`)
	}
	served := map[endpoint]bool{}
	for path := range list.Elements() {
		served[endpoints[strings.TrimPrefix(path.Text(), "/v1")]] = true
	}
	e.Responses, e.NoChat = served[responses], served[responses] && !served[chat]
}

func (r *entryReader) fail(name, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("litellm_params.%s must be %s", name, want)
	}
}

func (r *entryReader) text(name string, v rawjson.Value) string {
	if v.Kind() != rawjson.KindString {
		r.fail(name, "a string")
	}
	return v.Text()
}

// secret is text that may stand in the environment: "os.environ/NAME".
func (r *entryReader) secret(name string, v rawjson.Value) string {
	text := r.text(name, v)
	variable, ok := strings.CutPrefix(text, "os.environ/")
	if !ok {
		return text
	}
	value, set := os.LookupEnv(variable)
	if !set && r.err == nil {
		r.err = fmt.Errorf("litellm_params.%s names the environment variable %s, which is not set", name, variable)
	}
	return value
}

func (r *entryReader) number(name string, v rawjson.Value) float64 {
	f, ok := v.Float()
	if !ok || !(f >= 0 && f <= 1e9) {
		r.fail(name, "a number, 0 or more")
		return 0
	}
	return f
}

func (r *entryReader) truth(name string, v rawjson.Value) *bool {
	on := v.Bool()
	if n, ok := v.Float(); ok {
		on = n != 0 // the reference's logprobs is 1
	} else if v.Kind() != rawjson.KindBool {
		r.fail(name, "true or false")
	}
	return &on
}

func (r *entryReader) object(name string, v rawjson.Value) rawjson.Value {
	if v.Kind() != rawjson.KindObject {
		r.fail(name, "an object")
	}
	return v
}

func (r *entryReader) headers(name string, v rawjson.Value) map[string]string {
	headers := map[string]string{}
	for key, val := range r.object(name, v).Members() {
		headers[rawjson.Unescape(key)] = r.secret(name, val)
	}
	return headers
}

// check completes an entry and reports what is wrong with it.
func (e *Entry) check() error {
	if slices.Contains(unsupported, e.Provider) {
		return fmt.Errorf("provider %s is not supported: upstreams speak the API of OpenAI or of Anthropic; put a gateway that does in front", e.Provider)
	}
	if e.APIBase == "" {
		return fmt.Errorf("litellm_params.api_base is missing; it is the URL of the upstream, as http://localhost:8000/v1")
	}
	u, err := url.Parse(e.APIBase)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" {
		return fmt.Errorf("litellm_params.api_base is %q; it must be a URL, as http://localhost:8000/v1", e.APIBase)
	}
	path := strings.TrimSuffix(u.Path, "/")
	switch {
	case e.protocol() == anthropic:
		path = strings.TrimSuffix(path, "/v1") + "/v1"
	case path == "":
		path = "/v1"
	}
	u.Path = path
	e.APIBase = u.String()
	if (e.Model == "" || e.Model == AnyModel) && e.Name != AnyModel {
		e.Model = e.Name
	}
	return nil
}

// upstreamModel is the name that the upstream knows a model by.
func (e *Entry) upstreamModel(asked string) string {
	if e.Model == "" || e.Model == AnyModel {
		return asked
	}
	return e.Model
}

// takesTokenIDs reports whether the upstream may be asked for token ids without
// being told so: the public services refuse members they do not know.
func (e *Entry) takesTokenIDs() bool {
	return e.protocol() == openAI && providers[e.Provider] == "" ||
		e.Provider == "openai" && e.APIBase != providers["openai"]
}

// resourceEntries makes an entry of each language model among resources, by the
// resource's own name and by the name of its model. Those that point back at a
// proxy (type proxy_llm) are none.
func resourceEntries(resources rawjson.Value) ([]Entry, error) {
	var entries []Entry
	for key, val := range resources.Members() {
		if val.Get("resource_type").Text() != "llm" {
			continue
		}
		var llm queue.LLM
		if err := json.Unmarshal(val, &llm); err != nil {
			return nil, queue.Wrap(queue.Invalid, err, fmt.Sprintf("resource %s", rawjson.Unescape(key)))
		}
		names := []string{rawjson.Unescape(key)}
		if llm.Model != names[0] {
			names = append(names, llm.Model)
		}
		for _, name := range names {
			var params object
			params.text("model", llm.Model)
			params.text("api_base", llm.Endpoint)
			if llm.APIKey != nil {
				params.text("api_key", *llm.APIKey)
			}
			var entry object
			entry.text("model_name", name)
			entry.raw("litellm_params", merge(llm.SamplingParameters, params.close()))
			e, err := parseEntry(entry.close())
			if err != nil {
				return nil, queue.Wrap(queue.Invalid, err, "resource "+names[0])
			}
			entries = append(entries, e)
		}
	}
	return entries, nil
}
