package worker

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Variable is an environment variable that programs started by [Exec] are given,
// and agents of [Pool] and [HTTP] are told.
type Variable struct {
	Name    string
	Meaning string
}

// The names of the variables.
const (
	envRollout       = "AGL_ROLLOUT_ID"
	envAttempt       = "AGL_ATTEMPT_ID"
	envMode          = "AGL_MODE"
	envStore         = "AGL_STORE_URL"
	envTaskFile      = "AGL_TASK_FILE"
	envResourcesFile = "AGL_RESOURCES_FILE"
	envPreviousError = "AGL_PREVIOUS_ERROR"
	envLimits        = "AGL_LIMITS_URL"
	envLLMBase       = "AGL_LLM_BASE_URL"
	envLLMModel      = "AGL_LLM_MODEL"
	envOpenAIBase    = "OPENAI_BASE_URL"
	envOpenAIAPIBase = "OPENAI_API_BASE"
	envOpenAIKey     = "OPENAI_API_KEY"
	envOTLPEndpoint  = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envOTLPProtocol  = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	envOTelResource  = "OTEL_RESOURCE_ATTRIBUTES"
)

// Variables lists the variables in the order to document them in. Those about
// the store are set where it has a URL, those about the LLM where the resources
// have one, AGL_LIMITS_URL where the worker has Options.Slots; AGL_MODE is empty
// where the rollout has no mode.
var Variables = []Variable{
	{envRollout, "id of the rollout"},
	{envAttempt, "id of the attempt"},
	{envMode, "train, val or test; empty for none"},
	{envStore, "URL of the store"},
	{envPreviousError, "why the attempt before this one failed; empty for the first attempt"},
	{envTaskFile, "file with the rollout as JSON: its members, attempt_id, attempt, previous_error and resources (null for none)"},
	{envResourcesFile, "file with the resources as JSON: an object of name to resource, {} for none"},
	{envLimits, "where to take slots of the worker's limits"},
	{envLLMBase, "endpoint of the first LLM among the resources; that of a proxy has the attempt in its path"},
	{envLLMModel, "model of that LLM"},
	{envOpenAIBase, "the same endpoint, where OpenAI's libraries look"},
	{envOpenAIAPIBase, "the same endpoint, where older ones look"},
	{envOpenAIKey, "api_key of that LLM, where it has one"},
	{envOTLPEndpoint, "where OpenTelemetry sends spans: /v1/traces of the store"},
	{envOTLPProtocol, "http/protobuf"},
	{envOTelResource, "what was there, and the ids that file spans under the attempt"},
}

// prepare writes the task's files into dir and makes its environment, on top of
// base.
func (t *Task) prepare(dir string, base []string) ([]string, error) {
	set, err := t.Resources()
	if err != nil {
		return nil, err
	}
	resources := rawjson.EmptyObject
	if set != nil {
		resources = set.Resources
	}
	taskFile, resourcesFile := filepath.Join(dir, "task.json"), filepath.Join(dir, "resources.json")
	if err := os.WriteFile(taskFile, t.document(set), 0o600); err != nil {
		return nil, fmt.Errorf("writing the task for its program: %w", err)
	}
	if err := os.WriteFile(resourcesFile, resources, 0o600); err != nil {
		return nil, fmt.Errorf("writing the resources for the program: %w", err)
	}
	env, err := t.variables(lookup(base, envOTelResource))
	if err != nil {
		return nil, err
	}
	// Of a variable given twice the last one counts.
	return append(append(base, envTaskFile+"="+taskFile, envResourcesFile+"="+resourcesFile), env...), nil
}

// variables are those of the task, but for the ones that name files. Given is
// what its OTEL_RESOURCE_ATTRIBUTES are to hold besides.
func (t *Task) variables(given string) ([]string, error) {
	env := append([]string{
		envRollout + "=" + t.ref.RolloutID,
		envAttempt + "=" + t.ref.AttemptID,
		envMode + "=" + string(t.Mode),
		envPreviousError + "=" + strings.ReplaceAll(clip(t.previousErrorText(), maxErrorText), "\x00", "\uFFFD"),
		envOTelResource + "=" + resourceAttributes(given, t.ref),
	}, storeVariables(t.StoreURL())...)
	if t.slotsURL != "" {
		env = append(env, envLimits+"="+t.slotsURL)
	}
	llm, err := t.LLM()
	switch {
	case err == nil:
		env = append(env, envLLMBase+"="+llm.Endpoint, envLLMModel+"="+llm.Model,
			envOpenAIBase+"="+llm.Endpoint, envOpenAIAPIBase+"="+llm.Endpoint)
		if llm.APIKey != nil {
			env = append(env, envOpenAIKey+"="+*llm.APIKey)
		}
	case queue.KindOf(err) != queue.NotFound:
		return nil, err
	}
	return env, nil
}

// storeVariables are the same for all tasks of a worker.
func storeVariables(storeURL string) []string {
	url := strings.TrimSuffix(storeURL, "/")
	if url == "" {
		return nil
	}
	return []string{envStore + "=" + url, envOTLPEndpoint + "=" + url + "/v1/traces", envOTLPProtocol + "=http/protobuf"}
}

// document is what AGL_TASK_FILE holds.
func (t *Task) document(set *queue.ResourcesUpdate) []byte {
	view := queue.AttemptedRollout{Rollout: t.Rollout, Attempt: &t.Attempt}
	dst := view.AppendJSON(nil)
	dst = append(dst[:len(dst)-1], `,"attempt_id":`...)
	dst = rawjson.AppendString(dst, t.ref.AttemptID)
	dst = append(dst, `,"previous_error":`...)
	dst = append(dst, t.previousErrorJSON()...)
	dst = append(dst, `,"resources":`...)
	return append(append(dst, resourcesJSON(set)...), '}')
}

func resourcesJSON(set *queue.ResourcesUpdate) rawjson.Value {
	if set == nil {
		return rawjson.Null
	}
	return set.Resources
}

// message is the task as an agent is told of it that runs already: one JSON object
// on one line. More are variables that win over those of the task.
func (t *Task) message(given string, more []string) (rawjson.Value, error) {
	set, err := t.Resources()
	if err != nil {
		return nil, err
	}
	variables, err := t.variables(given)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, v := range append(variables, more...) {
		name, val, _ := strings.Cut(v, "=")
		values[name] = val
	}
	var env, rollout, m object
	for _, name := range slices.Sorted(maps.Keys(values)) {
		env.text(name, values[name])
	}
	for key, val := range rawjson.Value(t.Rollout.AppendJSON(nil)).Members() {
		if name := rawjson.Unescape(key); name != "input" { // it may be large, and is beside it
			rollout.raw(name, val)
		}
	}
	m.text("id", t.messageID())
	m.raw("rollout", rollout.close())
	m.raw("attempt", t.Attempt.AppendJSON(nil))
	m.raw("input", t.Input)
	m.raw("resources", resourcesJSON(set))
	m.raw("previous_error", t.previousErrorJSON())
	m.raw("env", env.close())
	return oneLine(m.close()), nil
}

// oneLine writes JSON without what programs take for the end of a line: the
// newlines of a text that is not in its canonical form, and U+2028 and U+2029,
// which can stand in strings as they are.
func oneLine(v rawjson.Value) rawjson.Value {
	if bytes.ContainsAny(v, "\n\r") {
		if compact, _, err := rawjson.Compact(nil, v); err == nil {
			v = compact
		}
	}
	v = bytes.ReplaceAll(v, []byte("\u2028"), []byte(`\u2028`))
	return bytes.ReplaceAll(v, []byte("\u2029"), []byte(`\u2029`))
}

// previousErrorText is PreviousError for agents, which can do without.
func (t *Task) previousErrorText() string {
	text, err := t.PreviousError()
	if err != nil {
		t.worker.log.Warn("an agent is not told of the attempt before", t.attrs("error", err)...)
	}
	return text
}

func (t *Task) previousErrorJSON() rawjson.Value {
	if text := t.previousErrorText(); text != "" {
		return rawjson.AppendString(nil, text)
	}
	return rawjson.Null
}

// messageID names the task to an agent.
func (t *Task) messageID() string { return t.ref.RolloutID + "/" + t.ref.AttemptID }

func lookup(env []string, name string) (val string) {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			val = v
		}
	}
	return val
}

// resourceAttributes puts the ids of an attempt into what is set already.
func resourceAttributes(existing string, ref queue.AttemptRef) string {
	const rollout, attempt = "agentlightning.rollout_id", "agentlightning.attempt_id"
	var pairs []string
	for pair := range strings.SplitSeq(existing, ",") {
		key, _, _ := strings.Cut(pair, "=")
		if key = strings.TrimSpace(key); key != "" && key != rollout && key != attempt {
			pairs = append(pairs, pair)
		}
	}
	pairs = append(pairs, rollout+"="+percentEncode(ref.RolloutID), attempt+"="+percentEncode(ref.AttemptID))
	return strings.Join(pairs, ",")
}

// percentEncode escapes all but letters, digits and "-._~".
func percentEncode(s string) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(plain, s[i]) >= 0 {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}
