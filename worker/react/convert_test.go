package react_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/algorithm/dataset"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/react"
)

func drawn(r react.Range, seed uint64, task string) int { return react.Drawn(r, seed, task) }

// rewardOf is the reward among spans.
func rewardOf(spans []queue.Span) (float64, bool) {
	for _, s := range spans {
		if v := s.Attribute(semconv.RewardPrefix + ".0.value"); v != nil {
			return v.Float()
		}
	}
	return 0, false
}

// converts checks that the last conversation that the adapter makes of the agent's
// spans is the one that was held.
func converts(t *testing.T, o outcome) {
	t.Helper()
	all, err := adapter.Messages{}.Adapt(o.spans)
	if err != nil || len(all) == 0 {
		t.Fatalf("%d conversations, %v", len(all), err)
	}
	got := all[len(all)-1]
	var want []any
	held, err := rawjson.Marshal(o.conv.Messages())
	must(t, err)
	for m := range held.Elements() {
		message := decoded(t, m).(map[string]any)
		if message["tool_calls"] != nil {
			message["content"] = nil // as the reference's adapter has it
		}
		want = append(want, message)
	}
	if diff := cmp.Diff(any(want), decoded(t, got.Messages)); diff != "" {
		t.Errorf("messages (-held +converted):\n%s", diff)
	}
	tools, err := rawjson.Marshal(o.conv.Tools)
	must(t, err)
	if len(o.conv.Tools) == 0 {
		tools = rawjson.Null
	}
	if diff := cmp.Diff(withDescriptions(decoded(t, tools)), decoded(t, got.Tools)); diff != "" {
		t.Errorf("tools (-held +converted):\n%s", diff)
	}
}

// exports checks that the dataset of the attempt is the conversation that was held, and
// nothing else.
func exports(t *testing.T, o outcome) {
	t.Helper()
	all, err := dataset.Conversations(o.spans)
	must(t, err)
	longest := dataset.Longest(all)
	if len(longest) != 1 {
		t.Fatalf("%d conversations of one", len(longest))
	}
	held, err := rawjson.Marshal(o.conv.Messages())
	must(t, err)
	want, _ := dataset.NewHistory(held)
	if diff := cmp.Diff(want, longest[0].Messages); diff != "" {
		t.Errorf("(-held +exported):\n%s", diff)
	}
	if (longest[0].Tools == nil) != (len(o.conv.Tools) == 0) {
		t.Errorf("tools %s", longest[0].Tools)
	}
}

// withDescriptions gives tools without a description an empty one, as the adapter does.
func withDescriptions(tools any) any {
	list, _ := tools.([]any)
	for _, tool := range list {
		f := tool.(map[string]any)["function"].(map[string]any)
		if f["description"] == nil {
			f["description"] = ""
		}
	}
	return tools
}
