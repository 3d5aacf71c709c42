// Command agent is an agent in plain Go: it adds numbers.
//
//	go build -o bin/adder ./examples/agents/go
//	aglq run --tasks examples/agents/tasks.jsonl -- bin/adder
//
// A Go agent may as well be a handler of package worker, in the worker's own
// process; this form works for a program in any language.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	var task struct {
		Numbers []float64 `json:"numbers"`
		Answer  float64   `json:"answer"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&task); err != nil {
		fmt.Fprintln(os.Stderr, "reading the task:", err)
		os.Exit(1)
	}
	sum, reward := 0.0, 0.0
	for _, n := range task.Numbers {
		sum += n
	}
	if sum == task.Answer {
		reward = 1
	}
	fmt.Println("the sum is", sum)
	fmt.Printf("{\"reward\": %g}\n", reward)
}
