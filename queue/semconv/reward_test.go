package semconv_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

func span(name, attributes string) queue.Span {
	return queue.Span{Name: name, Attributes: rawjson.Value(attributes)}
}

func TestSpanReward(t *testing.T) {
	tests := map[string]struct {
		name       string
		attributes string
		want       float64
		none       bool
		malformed  bool
	}{
		"one dimension": {attributes: `{"agentlightning.reward.0.name":"primary","agentlightning.reward.0.value":0.5}`, want: 0.5},
		"first of two, sent out of order": {
			attributes: `{"agentlightning.reward.1.value":2,"agentlightning.reward.1.name":"b","agentlightning.reward.0.value":1,"agentlightning.reward.0.name":"a"}`,
			want:       1,
		},
		"integer":               {attributes: `{"agentlightning.reward.0.name":"p","agentlightning.reward.0.value":3}`, want: 3},
		"boolean":               {attributes: `{"agentlightning.reward.0.name":"p","agentlightning.reward.0.value":true}`, want: 1},
		"gap in the numbering":  {attributes: `{"agentlightning.reward.1.name":"p","agentlightning.reward.1.value":3}`, none: true, malformed: true},
		"no name":               {attributes: `{"agentlightning.reward.0.value":3}`, none: true, malformed: true},
		"no number":             {attributes: `{"agentlightning.reward.0.name":"p","agentlightning.reward.0.value":"high"}`, none: true, malformed: true},
		"index is no number":    {attributes: `{"agentlightning.reward.x.name":"p","agentlightning.reward.x.value":1}`, none: true, malformed: true},
		"absurd index":          {attributes: `{"agentlightning.reward.999999999.name":"p","agentlightning.reward.999999999.value":1}`, none: true, malformed: true},
		"another key":           {attributes: `{"agentlightning.rewards.0.value":3}`, none: true},
		"task output":           {attributes: `{"agentops.task.output":"{\"type\":\"reward\",\"value\":0.25}"}`, want: 0.25},
		"entity output":         {attributes: `{"agentops.entity.output":"{\"type\":\"reward\",\"value\":1}"}`, want: 1},
		"task before entity":    {attributes: `{"agentops.entity.output":"{\"type\":\"reward\",\"value\":1}","agentops.task.output":"{\"type\":\"reward\",\"value\":2}"}`, want: 2},
		"null task output ends": {attributes: `{"agentops.entity.output":"{\"type\":\"reward\",\"value\":1}","agentops.task.output":"{\"type\":\"reward\",\"value\":null}"}`, none: true},
		"output of other type":  {attributes: `{"agentops.task.output":"{\"type\":\"text\",\"value\":2}"}`, none: true},
		"output is no JSON":     {attributes: `{"agentops.task.output":"fine"}`, none: true},
		"list before output": {
			attributes: `{"agentops.task.output":"{\"type\":\"reward\",\"value\":2}","agentlightning.reward.0.name":"p","agentlightning.reward.0.value":7}`,
			want:       7,
		},
		"malformed list hides output": {
			attributes: `{"agentops.task.output":"{\"type\":\"reward\",\"value\":2}","agentlightning.reward.0.value":7}`,
			none:       true,
			malformed:  true,
		},
		"bare annotation":       {name: "agentlightning.annotation", attributes: `{"reward":0.75}`, want: 0.75},
		"bare reward elsewhere": {name: "llm", attributes: `{"reward":0.75}`, none: true},
		"output before bare":    {name: "agentlightning.annotation", attributes: `{"reward":0.75,"agentops.task.output":"{\"type\":\"reward\",\"value\":2}"}`, want: 2},
		"nothing":               {attributes: `{}`, none: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := span(test.name, test.attributes)
			got, ok, err := semconv.SpanReward(&s)
			if ok == test.none || got != test.want {
				t.Errorf("reward %v, %v; want %v, %v", got, ok, test.want, !test.none)
			}
			if (err != nil) != test.malformed {
				t.Errorf("error %v; malformed is %v", err, test.malformed)
			}
		})
	}
}

func TestSpanRewardsKeepsOrder(t *testing.T) {
	s := span("", `{"agentlightning.reward.1.name":"speed","agentlightning.reward.1.value":0.25,"agentlightning.reward.0.name":"quality","agentlightning.reward.0.value":1}`)
	want := []semconv.Reward{{Name: "quality", Value: 1}, {Name: "speed", Value: 0.25}}
	got, err := semconv.SpanRewards(&s)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestFinalReward(t *testing.T) {
	bare := func(v string) queue.Span { return span("agentlightning.annotation", `{"reward":`+v+`}`) }
	spans := []queue.Span{bare("1"), bare("2"), span("llm", `{}`)}
	if got, ok := semconv.FinalReward(spans); !ok || got != 2 {
		t.Errorf("reward %v, %v; want the last one, 2", got, ok)
	}
	if _, ok := semconv.FinalReward(spans[2:]); ok {
		t.Error("found a reward in spans without one")
	}
	if got, ok := semconv.FinalReward([]queue.Span{bare("1"), bare(`"NaN"`)}); !ok || !math.IsNaN(got) {
		t.Errorf("reward %v, %v; want NaN as it was sent", got, ok)
	}
}
