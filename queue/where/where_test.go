package where

import (
	"strings"
	"testing"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// subject is the rollout that the tables ask about: failed, with a reward of 0.25.
func subject() (*queue.AttemptedRollout, []queue.Span) {
	end, worker := 130.5, "w-1"
	r := &queue.AttemptedRollout{
		Rollout: queue.Rollout{
			RolloutID: "ro-1", Status: queue.RolloutFailed, Mode: queue.ModeTrain, StartTime: 100, EndTime: &end,
			Config:   queue.DefaultConfig(),
			Input:    rawjson.Value(`{"question":"2+2","level":3,"parts":[{"ok":true},{"ok":null}],"big":12345678901234567890}`),
			Metadata: rawjson.Value(`{"project":"x","n":2,"f":2.0,"flag":true,"a":{"b":[1,"two"]},"dotted.key":1,"quo\"te":1}`),
		},
		Attempt: &queue.Attempt{
			AttemptID: "at-1", SequenceID: 2, Status: queue.AttemptTimeout, WorkerID: &worker,
			Metadata: rawjson.Value(`{"error":"it took too long"}`),
		},
	}
	spans := []queue.Span{
		{SpanID: "1", Attributes: rawjson.Value(`{"agentlightning.reward.0.name":"primary","agentlightning.reward.0.value":0.9,"agentlightning.tag.0":"early"}`)},
		{SpanID: "2", Attributes: rawjson.Value(`{"agentlightning.reward.0.name":"primary","agentlightning.reward.0.value":0.25,"agentlightning.reward.1.name":"style","agentlightning.reward.1.value":1.0}`)},
		{SpanID: "3", Attributes: rawjson.Value(`{"agentlightning.tag.0":"hard","agentlightning.tag.1":"judgment:acceptable"}`)},
		{SpanID: "4", Attributes: rawjson.Value(`{"agentlightning.tag.1":"numbered wrongly","agentlightning.reward.0.name":"bad"}`)},
	}
	return r, spans
}

func TestMatch(t *testing.T) {
	yes := []string{
		`reward < 0.5 or status == "failed"`, `reward<0.5`, `reward == 0.25`, `not (reward >= 0.5)`, `reward != nil`,
		`rewards.style == 1`, `rewards["primary"] < 0.3`, `rewards.nothing == nil`, `"hard" in tags`, `"soft" not in tags`,
		`any(tags, # startsWith "judgment:")`, `len(tags) == 3`,
		`metadata.project == "x" and metadata.n == 2 and metadata.f == 2`, `metadata.n > 1.5`, `metadata.flag`,
		`metadata.a.b[1] == "two" and metadata.a.b[-1] == "two" and metadata.a.b[7] == nil`, `metadata["dotted.key"] == 1`,
		`metadata["quo\"te"] == 1`, `metadata?.a?.b[0] == 1`, `"project" in metadata`, `1 in metadata.a.b`,
		`input.level >= 3 && input.question contains "+"`, `any(input.parts, .ok)`, `count(input.parts, .ok) == 1`,
		`input.big > 1e19`, `input.question matches "^[0-9]"`,
		`mode == "train" and mode in ["train", "val"]`, `resources_id == nil`, `duration > 30 and duration < 31`,
		`attempts == 2 and attempt_status == "timeout" and worker_id startsWith "w-" and error contains "too long"`,
		`finished`, `max_attempts == 1`, `(metadata.nothing ?? 5) == 5`, `(metadata.score ?? reward) < 1`, `lower(status) == "failed"`,
		`metadata.flag ? true : false`, `rollout_id == 'ro-1'`, `end_time > start_time`, `now().Unix() > 1`,
	}
	no := []string{
		`reward >= 0.5`, `status == "succeeded"`, `metadata.nothing`, `metadata.nothing.at.all == 1`, `metadata.nothing < 1`,
		`metadata.nothing > 1`, `metadata.project < 1`, `metadata.project > 1`, `metadata.n < "3"`, `metadata.n contains "2"`,
		`"x" in metadata.project`, `"x" in metadata.nothing`, `metadata.nothing matches ".*"`, `metadata.n matches ".*"`,
		`"2" startsWith metadata.n`, `resources_id startsWith "v"`, `resources_id < "z"`, `not metadata.flag`,
		`input.parts[9].ok`, `all(input.parts, .ok)`, `1 in tags`, `metadata.a.b.c == 1`,
	}
	r, spans := subject()
	for want, texts := range map[bool][]string{true: yes, false: no} {
		for _, text := range texts {
			f, err := Compile(text)
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			if got, err := f.Match(r, spans); err != nil || got != want {
				t.Errorf("%s is %t, %v; want %t", text, got, err, want)
			}
		}
	}
}

// TestNothing is about a rollout that has next to nothing.
func TestNothing(t *testing.T) {
	r := &queue.AttemptedRollout{Rollout: queue.Rollout{RolloutID: "ro-2", Status: queue.RolloutQueuing, Input: rawjson.Null}}
	for text, want := range map[string]bool{
		`reward < 0.5`: false, `reward >= 0.5`: false, `reward == nil`: true, `not (reward > 1)`: true, `mode == nil`: true,
		`mode == "train"`: false, `mode in ["train"]`: false, `error contains "x"`: false, `duration > 0`: false, `attempts == 0`: true,
		`"x" in tags`: false, `metadata.x == 1`: false, `input == nil`: true, `rewards.primary > 0`: false, `worker_id matches ".*"`: false,
		`reward`: false, `(reward ?? 0) < 0.5`: true,
	} {
		f, err := Compile(text)
		if text == `reward` {
			if err == nil {
				t.Error("a number was taken as a condition")
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := f.Match(r, nil); err != nil || got != want {
			t.Errorf("%s is %t, %v; want %t", text, got, err, want)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                       "unexpected token EOF",
		`reward <`:               "(1:8)",
		`rewrad < 0.5`:           "unknown name rewrad (1:1)",
		`reward < "x"`:           "(1:8)",
		`status > 3`:             "mismatched types",
		`reward + 1`:             "expected bool",
		`"a" matches "("`:        "missing closing )",
		`$env["reward"] < 1`:     "$env",
		`status == "a" b`:        "(1:15)",
		`metadata.x == 'open`:    "literal not terminated",
		`compare values(1, 2)`:   "unexpected token",
		`repeat("x", 9) == 1`:    "mismatched types",
		`reward < 1 and status`:  "mismatched types",
		`status = "failed"`:      "(1:8)",
		`nosuch(reward) == true`: "unknown name nosuch",
	} {
		f, err := Compile(text)
		if queue.KindOf(err) != queue.Invalid || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, %v; want an error with %q", text, f, err, want)
		}
	}
}

func TestMatchErrors(t *testing.T) {
	r, spans := subject()
	for text, want := range map[string]string{
		`metadata.project + 1 == 2`: "ro-1",
		`metadata.n`:                "neither true nor false",
		`metadata.n and finished`:   "neither true nor false",
		`metadata.flag()`:           "(1:10)",
	} {
		f, err := Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err := f.Match(r, spans); queue.KindOf(err) != queue.Invalid || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v; want an error with %q", text, err, want)
		}
	}
}

func TestNumber(t *testing.T) {
	r, spans := subject()
	for text, want := range map[string]float64{
		`3`: 3, `reward`: 0.25, `reward == nil ? 4 : 4 * (1 - reward)`: 3, `max(0, 4 - 4 * (reward ?? 0))`: 3, `max(0, -3 * reward)`: 0, `(metadata.nothing ?? 2) + 1`: 3, `attempts`: 2, `metadata.n`: 2,
		`metadata.f / 4`: 0.5, `metadata.flag ? 1 : 0`: 1, `metadata.nothing ? 1 : 0`: 0, `len(tags)`: 3, `-duration`: -30.5, `round(1.5)`: 2,
		`metadata.nothing < 1 ? 1 : 5`: 5,
	} {
		n, err := CompileNumber(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := n.Of(r, spans); err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestNumberErrors(t *testing.T) {
	for text, want := range map[string]string{
		`status`: "it is of type string", `reward <`: "the number is wrong", `nosuch`: "unknown name nosuch", `$env.reward + 1.0`: "$env",
	} {
		if _, err := CompileNumber(text); queue.KindOf(err) != queue.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v; want an error with %q", text, err, want)
		}
	}
	r, spans := subject()
	for text, want := range map[string]string{
		`metadata.nothing`: "it has no value", `metadata.project`: "no number", `1 / 0`: "+Inf", `reward - metadata.nothing`: "(reward ?? 0)",
	} {
		n, err := CompileNumber(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err := n.Of(r, spans); queue.KindOf(err) != queue.Invalid || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v; want an error with %q", text, err, want)
		}
	}
	n, err := CompileNumber(`reward`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Of(&queue.AttemptedRollout{}, nil); err == nil || !strings.Contains(err.Error(), "??") {
		t.Errorf("no reward gives %v", err)
	}
}

func TestNeedsSpans(t *testing.T) {
	for text, want := range map[string]bool{
		`status == "failed"`: false, `reward < 1`: true, `any(metadata.l, rewards[#] > 1)`: true, `"x" in tags`: true, `metadata.reward == 1`: false,
	} {
		f, err := Compile(text)
		if err != nil || f.NeedsSpans() != want || f.String() != text {
			t.Errorf("%s: needs spans is %t, %v", text, !want, err)
		}
	}
}

// FuzzCompile checks that no text does more than fail, neither when it is read nor
// when it is applied.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		`reward < 0.5 or status == "failed"`, `any(tags, # startsWith "a")`, `metadata.a.b[1] == input.x ?? 3`, `{"a": 1}.a in [1..3]`,
		`let x = metadata.n; x > 1 ? x in tags : not x`, `metadata?.x matches "(" + status`, `1..1000000000 == nil`, `repeat("a", 1e9) == ""`,
		`map(input.parts, .ok)[0]`, `reduce(tags, #acc + #, "") == status`, `tags[:1] == ["hard"]`, `$env`, "`raw`", `-reward < +1`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := Compile(text)
		if err != nil {
			if queue.KindOf(err) != queue.Invalid {
				t.Fatalf("%q: %v is no Invalid error", text, err)
			}
			return
		}
		r, spans := subject()
		if _, err := filter.Match(r, spans); err != nil && queue.KindOf(err) != queue.Invalid {
			t.Fatalf("%q: %v is no Invalid error", text, err)
		}
		_, _ = filter.Match(&queue.AttemptedRollout{}, nil)
		if number, err := CompileNumber("(" + text + ") ? 1 : 0"); err == nil {
			if _, err := number.Of(r, spans); err != nil && queue.KindOf(err) != queue.Invalid {
				t.Fatalf("%q: %v is no Invalid error", text, err)
			}
		}
	})
}
