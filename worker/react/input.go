package react

import (
	"cmp"
	"encoding/json"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Input is what a task may say. A task that is a text is a Question.
type Input struct {
	// Question is the user's first request.
	Question string `json:"question"`
	// Topic is what a user, played by a model, asks about where there is no question.
	Topic string `json:"topic"`
	// Scenario is what the user is up to, in conversations of several turns; a model
	// invents one where there is none.
	Scenario string `json:"scenario"`
	// Files are put into the sandbox, by their paths in it.
	Files map[string]string `json:"files"`
	// Turns is how many turns the conversation has: the agent's range when nil.
	Turns *Range `json:"turns"`
}

// decodeInput reads a task. A template makes the question of whatever the task is:
// members that mean something else there are not those of an Input.
func decodeInput(v rawjson.Value, question *template.Template) (Input, error) {
	var in Input
	switch v.Kind() {
	case rawjson.KindString:
		in.Question = v.Text()
	case rawjson.KindObject:
		lenient := question != nil
		err := cmp.Or(
			member(v, "question", lenient, &in.Question), member(v, "topic", lenient, &in.Topic), member(v, "scenario", lenient, &in.Scenario),
			member(v, "files", lenient, &in.Files), member(v, "turns", lenient, &in.Turns),
		)
		if err != nil {
			return in, err
		}
	}
	if question != nil {
		var text strings.Builder
		if err := question.Execute(&text, v.Any()); err != nil {
			return in, queue.Wrap(queue.Invalid, err, "making the question of the task")
		}
		in.Question = text.String()
	}
	if in.Question == "" && in.Topic == "" && in.Scenario == "" {
		return in, queue.Errorf(queue.Invalid, "the task is %.80s; it must be a text, or an object with question, topic or scenario", v)
	}
	if in.Turns != nil {
		return in, in.Turns.validate()
	}
	return in, nil
}

// member reads a member of a task, if it is there. One of another type is an error,
// or left out.
func member[T any](task rawjson.Value, name string, lenient bool, into *T) error {
	v := task.Get(name)
	if v == nil {
		return nil
	}
	var read T
	if err := json.Unmarshal(v, &read); err != nil {
		if lenient {
			return nil
		}
		return queue.Wrap(queue.Invalid, err, "reading the task's "+name)
	}
	*into = read
	return nil
}

// Range is how many turns a conversation has: the number is drawn from all in it. As
// JSON and YAML it may be one number.
type Range struct {
	Min int `json:"min" yaml:"min"`
	Max int `json:"max" yaml:"max"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Range) UnmarshalJSON(text []byte) error {
	type plain Range
	return r.read(func(into any) error { return json.Unmarshal(text, into) }, (*plain)(r))
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (r *Range) UnmarshalYAML(node *yaml.Node) error {
	type plain Range
	return r.read(node.Decode, (*plain)(r))
}

// read takes one number, or what plain, which is r, can be read from.
func (r *Range) read(decode func(any) error, plain any) error {
	var n int
	if decode(&n) == nil {
		*r = Range{n, n}
		return nil
	}
	return decode(plain)
}

// mostTurns bounds what a task may ask for.
const mostTurns = 1000

func (r Range) validate() error {
	if r.Min < 1 || r.Max < r.Min || r.Max > mostTurns {
		return queue.Errorf(queue.Invalid, "turns are %d to %d; they must be from 1 to %d, the least first", r.Min, r.Max, mostTurns)
	}
	return nil
}

// draw is how many turns a conversation has: the same for the same seed and task.
func (r Range) draw(seed uint64, task rawjson.Value) int {
	h := fnv.New64a()
	_, _ = h.Write(task)
	return r.Min + rand.New(rand.NewPCG(seed, h.Sum64())).IntN(r.Max-r.Min+1)
}
