package apo

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// A critique is asked for in one of three ways, a rewrite in one of two, drawn at
// random: different questions find different faults.

// critiques ask what is wrong with a prompt. They are given the prompt and what
// agents did with it.
var critiques = []func(prompt string, results []algorithm.Result) string{
	func(prompt string, results []algorithm.Result) string {
		return "An agent works by the prompt below. You see some of its runs: how each ended, the reward it earned (more is better), and its conversation.\n" +
			"Find out what in the prompt keeps the rewards down. For each fault name the passage or the gap, the run that shows it, and the change that would mend it. " +
			"Judge the prompt, not the agent, and do not write a new prompt.\n\n" +
			section("prompt", prompt) + runs(results, conversation)
	},
	func(prompt string, results []algorithm.Result) string {
		return "These are a prompt and the raw traces of agents that used it, call by call, each with its reward (more is better).\n" +
			"Compare the runs that earned much with those that earned little. Which instructions were misread, ignored, or missing where the runs went wrong? " +
			"Answer with concrete advice for the author of the prompt, the weightiest first. Leave the rewriting to the author.\n\n" +
			section("prompt", prompt) + runs(results, traces)
	},
	func(prompt string, results []algorithm.Result) string {
		return "Review the prompt below in the light of the runs that follow it; the reward of a run says how good it was (more is better). Go through these points:\n" +
			"1. Goal: is it plain what counts as a good answer?\n" +
			"2. Input: does the prompt say what it is given, and how to read it?\n" +
			"3. Method: are steps missing, vague, or in the wrong order?\n" +
			"4. Special cases: which inputs of these runs does it not foresee?\n" +
			"5. Form: is the form of the answer laid down so that it cannot be missed?\n" +
			"6. Contradictions: do parts work against each other?\n" +
			"7. Ballast: what could go without loss?\n" +
			"Write at most 350 words, only on points where the runs give reason to, the most useful first. Do not write a new prompt.\n\n" +
			section("prompt", prompt) + runs(results, conversation)
	},
}

// edits ask for a better prompt.
var edits = []func(prompt, critique, keep string) string{
	func(prompt, critique, keep string) string {
		return "Rewrite the prompt below so that it answers the critique. You may change its structure and its length as you see fit; what it is for stays the same.\n" +
			keep + "\n\n" + section("prompt", prompt) + section("critique", critique)
	},
	func(prompt, critique, keep string) string {
		return "Take from the critique the one point that would help most, and mend just that in the prompt below. Leave the rest as it stands, and the length about the same.\n" +
			keep + "\n\n" + section("prompt", prompt) + section("critique", critique)
	},
}

// keeping is what every rewrite is told.
func keeping(engine string, placeholders []string) string {
	text := "Answer with the new prompt and nothing else: no introduction, no quotation marks, no code fence."
	if len(placeholders) == 0 {
		return text
	}
	names := make([]string, len(placeholders))
	for i, name := range placeholders {
		names[i] = shown(engine, name)
	}
	return "These placeholders are filled in later and must stay, written exactly so, with no others: " + strings.Join(names, ", ") + ".\n" + text
}

// again tells a model why its rewrite was refused.
func again(fault error, keep string) string {
	return fmt.Sprintf("This prompt cannot be used: %s. Write it again.\n%s", fault, keep)
}

func section(name, text string) string { return "<" + name + ">\n" + text + "\n</" + name + ">\n\n" }

// runMost bounds what is shown of one run, in bytes.
const runMost = 12_000

func runs(results []algorithm.Result, show func(r *algorithm.Result) string) string {
	var b strings.Builder
	for i := range results {
		r := &results[i]
		reward := "none"
		if v, ok := r.FiniteReward(); ok {
			reward = fmt.Sprintf("%.4g", v)
		}
		fmt.Fprintf(&b, "<run number=\"%d\" status=\"%s\" reward=\"%s\">\ntask: %s\n%s\n</run>\n\n",
			i+1, r.Rollout.Status, reward, clip(string(r.Rollout.Input), runMost/4), clip(show(r), runMost))
	}
	return b.String()
}

// conversation is what the agent and its model said to each other, else the trace.
func conversation(r *algorithm.Result) string {
	found, err := adapter.Messages{}.Adapt(r.Spans)
	if err != nil || len(found) == 0 {
		return traces(r)
	}
	parts := make([]string, len(found))
	for i := range found {
		parts[i] = string(found[i].AppendJSON(nil))
	}
	return strings.Join(parts, "\n")
}

// traces is what the spans say, but for ids and times.
func traces(r *algorithm.Result) string {
	type span struct {
		Name       string        `json:"name"`
		Status     rawjson.Value `json:"status"`
		Attributes rawjson.Value `json:"attributes"`
		Events     rawjson.Value `json:"events,omitempty"`
	}
	var b strings.Builder
	for i := range r.Spans {
		s := &r.Spans[i]
		out := span{Name: s.Name, Status: s.Status, Attributes: s.Attributes}
		if len(s.Events) > len("[]") {
			out.Events = s.Events
		}
		text, err := json.Marshal(out)
		if err != nil { // its parts are JSON
			continue
		}
		b.Write(append(text, '\n'))
	}
	if r.Attempt != nil {
		if why := r.Attempt.Metadata.Get("error").Text(); why != "" {
			b.WriteString("error: " + why + "\n")
		}
	}
	return b.String()
}

// clip cuts the middle out of a text that is too long.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	head, tail := text[:most/2], text[len(text)-most/2:]
	for len(head) > 0 && !utf8.ValidString(head) {
		head = head[:len(head)-1]
	}
	for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
		tail = tail[1:]
	}
	return head + " … " + tail
}

// unwrap takes a prompt out of what models put around it against their orders.
func unwrap(answer string) string {
	text := strings.TrimSpace(answer)
	if rest, ok := strings.CutPrefix(text, "```"); ok {
		if body, ok := strings.CutSuffix(rest, "```"); ok {
			if _, after, found := strings.Cut(body, "\n"); found {
				text = strings.TrimSpace(after)
			}
		}
	}
	if rest, ok := strings.CutPrefix(text, "<prompt>"); ok {
		if body, ok := strings.CutSuffix(rest, "</prompt>"); ok {
			text = strings.TrimSpace(body)
		}
	}
	return text
}

// PromptOf finds the first prompt template among resources and its name.
func PromptOf(resources rawjson.Value) (name string, prompt queue.PromptTemplate, err error) {
	for key, val := range resources.Members() {
		if val.Get("resource_type").Text() != queue.PromptType {
			continue
		}
		if err := json.Unmarshal(val, &prompt); err != nil {
			return "", prompt, queue.Wrap(queue.Invalid, err, "resource "+rawjson.Unescape(key)+" is no prompt template")
		}
		return rawjson.Unescape(key), prompt, nil
	}
	return "", prompt, queue.Errorf(queue.Invalid, "there is no prompt template among the resources")
}
