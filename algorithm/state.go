package algorithm

import (
	"encoding/json"
	"fmt"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// StateResource makes a resource that holds the JSON of v: a prompt template, since
// stores take no resource of a type of ours.
func StateResource(v any) (rawjson.Value, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding the state of an algorithm: %w", err)
	}
	return TextResource(string(text))
}

// TextResource makes a prompt template of a text.
func TextResource(text string) (rawjson.Value, error) {
	return rawjson.Marshal(queue.PromptTemplate{ResourceType: queue.PromptType, Template: text, Engine: queue.Jinja})
}

// ReadState reads what StateResource made into v. Found is false, and v as it was,
// when there is no such resource; the error is Invalid when it is something else.
func ReadState(resource rawjson.Value, v any) (found bool, err error) {
	text := resource.Get("template").Text()
	if text == "" {
		return false, nil
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return false, queue.Wrap(queue.Invalid, err, "the resource is no state of an algorithm")
	}
	return true, nil
}
