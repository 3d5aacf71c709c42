package react

import "github.com/aglq/aglq/queue/rawjson"

// Drawn is how many turns a task gets.
func Drawn(r Range, seed uint64, task string) int { return r.draw(seed, rawjson.Value(task)) }

// CallKey and ReadTape are for fuzzing.
var (
	CallKey  = callKey
	ReadTape = readTape
)

// DecodeStep reads a structured step.
func DecodeStep(text string, into any) error { return stepForm.decode(text, into) }
