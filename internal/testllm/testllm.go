// Package testllm is a language model for the tests of algorithms that improve
// prompts. It plays three parts, by the name of the model that is asked: the better
// the system prompt of the solver is, the harder the tasks it solves; the critic
// says what a prompt lacks; the editor adds it. What it answers follows from the
// question alone, so that two searches that do the same come to the same.
package testllm

import (
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"

	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

// The models.
const (
	Solver = "solver"
	Critic = "critic"
	Editor = "editor"
)

// Advice makes a prompt better, each a step.
var Advice = []string{"Work step by step.", "Check the result.", "Name the unit."}

// Fatal is advice of which nothing comes: the editor always loses a placeholder over
// it.
const Fatal = "Be brief."

// Stubborn is the advice over which the editor loses a placeholder until it is told.
var Stubborn = Advice[1]

// Skill is how hard a task, from 1, a prompt can cope with.
func Skill(prompt string) int {
	n := 0
	for _, a := range Advice {
		if strings.Contains(prompt, a) {
			n++
		}
	}
	return n
}

// Script is the model.
func Script(r fakellm.Request) fakellm.Answer {
	switch r.Model {
	case Solver:
		var level int
		if _, err := fmt.Sscanf(r.Prompt(), "level %d", &level); err != nil {
			return fakellm.Answer{Status: 400, Error: "the task has no level: " + r.Prompt()}
		}
		if Skill(r.System()) >= level {
			return fakellm.Answer{Text: "right"}
		}
		return fakellm.Answer{Text: "wrong"}
	case Critic:
		return fakellm.Answer{Text: missing(r.Prompt())}
	case Editor:
		return fakellm.Answer{Text: edit(r)}
	}
	return fakellm.Answer{Status: 404, Error: "there is no model " + r.Model}
}

var (
	promptSection = regexp.MustCompile(`(?s)<prompt>\n(.*?)\n</prompt>`)
	lacking       = regexp.MustCompile(`The prompt lacks this: (.*)`)
	task          = regexp.MustCompile(`(?m)^task: .*$`)
)

// missing names a piece of advice that the prompt has not, which one by the tasks; ""
// where it has all.
func missing(question string) string {
	prompt := promptSection.FindStringSubmatch(question)
	if prompt == nil {
		return "There is no prompt."
	}
	var left []string
	for _, a := range append([]string{Fatal}, Advice...) {
		if !strings.Contains(prompt[1], a) {
			left = append(left, a)
		}
	}
	if len(left) == 1 {
		return ""
	}
	hash := fnv.New32a()
	fmt.Fprint(hash, task.FindAllString(question, -1))
	return "The prompt lacks this: " + left[int(hash.Sum32())%len(left)]
}

func edit(r fakellm.Request) string {
	var first string
	turns := 0
	for m := range r.Body.Get("messages").Elements() {
		if turns++; turns == 1 {
			first = m.Get("content").Text()
		}
	}
	prompt, lacks := promptSection.FindStringSubmatch(first), lacking.FindStringSubmatch(first)
	if prompt == nil || lacks == nil {
		return ""
	}
	text := "```\n" + prompt[1] + "\n" + lacks[1] + "\n```"
	if lacks[1] == Fatal || lacks[1] == Stubborn && turns == 1 {
		text = strings.ReplaceAll(text, "{question}", "the question")
	}
	return text
}
