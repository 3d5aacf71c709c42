package cem

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

var testSpace = Space{Parameters: []Parameter{
	{Name: "rate", Type: Float, Low: 1e-5, High: 1, Scale: Log},
	{Name: "share", Type: Float, Low: -2, High: 2},
	{Name: "units", Type: Int, Low: 1, High: 4},
	{Name: "size", Type: Int, Low: 1, High: 1024, Scale: Log},
	{Name: "kind", Type: Categorical, Choices: []rawjson.Value{
		rawjson.Value(`"a"`), rawjson.Value(`1`), rawjson.Value(`1.0`), rawjson.Value(`{"x":null}`),
	}},
}}

func TestParseSpaceRefuses(t *testing.T) {
	tests := map[string]string{
		`{"parameters":[]}`: "no parameters",
		`{"parameters":[{"name":"x","type":"float","low":0,"high":1},{"name":"x","type":"float","low":0,"high":1}]}`: "one of its own",
		`{"parameters":[{"type":"float","low":0,"high":1}]}`:                                                         "one of its own",
		`{"parameters":[{"name":"x","type":"real","low":0,"high":1}]}`:                                               "float, int or categorical",
		`{"parameters":[{"name":"x","type":"float","low":1,"high":1}]}`:                                              "low must be the smaller",
		`{"parameters":[{"name":"x","type":"float","low":0,"high":1,"scale":"log"}]}`:                                "above 0",
		`{"parameters":[{"name":"x","type":"float","low":0,"high":1,"scale":"cubic"}]}`:                              "linear or log",
		`{"parameters":[{"name":"x","type":"int","low":0,"high":1.5}]}`:                                              "whole numbers",
		`{"parameters":[{"name":"x","type":"int","low":0,"high":1e300}]}`:                                            "whole numbers",
		`{"parameters":[{"name":"x","type":"float","low":-1.7e308,"high":1.7e308}]}`:                                 "low is",
		`{"parameters":[{"name":"x","type":"categorical"}]}`:                                                         "needs choices",
		`{"parameters":[{"name":"x","type":"float","low":0,"high":1,"choices":[1]}]}`:                                "for categorical",
		`{"parameters":[{"name":"x","type":"float","lo":0,"high":1}]}`:                                               "unknown field",
		`{"parameters":`:         "unexpected EOF",
		`{"parameters":[]} true`: "more than one",
	}
	for text, want := range tests {
		_, err := ParseSpace([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || queue.KindOf(err) != queue.Invalid {
			t.Errorf("%s: error %v; want an Invalid one with %q", text, err, want)
		}
	}
}

func TestLoadSpace(t *testing.T) {
	text, err := json.Marshal(testSpace)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "space.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := LoadSpace(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testSpace, got); diff != "" {
		t.Error(diff)
	}
	if _, err := LoadSpace(path + "x"); err == nil {
		t.Error("loaded a file that does not exist")
	}
}

func TestMarginalsSurviveJSON(t *testing.T) {
	want := fit(wide(testSpace), draw(wide(testSpace), 3, rand.New(rand.NewPCG(1, 2))), 0.5, 0.1)
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got []Marginal
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Each draw is inside the space, whatever the distribution has come to.
func TestDrawsStayInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		marginals := wide(testSpace)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		rate := rapid.Float64Range(0.01, 1).Draw(t, "rate")
		for range rapid.IntRange(0, 20).Draw(t, "rounds") {
			points := draw(marginals, 8, rng)
			elite := points[:rapid.IntRange(1, 8).Draw(t, "elite")]
			marginals = fit(marginals, elite, rate, 0.01)
		}
		for _, p := range draw(marginals, 8, rng) {
			checkParams(t, params(marginals, p))
		}
		total := 0.0
		for _, p := range marginals[4].Probabilities {
			total += p
			if p < leastShare/4*0.999 {
				t.Fatalf("a choice has probability %g and will never come back", p)
			}
		}
		if math.Abs(total-1) > 1e-9 {
			t.Fatalf("the probabilities sum to %g", total)
		}
	})
}

func checkParams(t *rapid.T, task rawjson.Value) {
	for _, p := range testSpace.Parameters {
		v := task.Get(p.Name)
		if p.Type == Categorical {
			continue
		}
		f, ok := v.Float()
		if !ok || f < p.Low || f > p.High {
			t.Fatalf("%s is %s, outside %g to %g", p.Name, v, p.Low, p.High)
		}
		if p.Type == Int && v.Kind() != rawjson.KindInteger {
			t.Fatalf("%s is %s, no integer", p.Name, v)
		}
	}
}

func TestChoicesKeepTheirText(t *testing.T) {
	marginals := wide(Space{Parameters: testSpace.Parameters[4:]})
	for i, want := range []string{`{"kind":"a"}`, `{"kind":1}`, `{"kind":1.0}`, `{"kind":{"x":null}}`} {
		if got := params(marginals, point{float64(i)}).String(); got != want {
			t.Errorf("choice %d is %s, want %s", i, got, want)
		}
	}
}

func TestScales(t *testing.T) {
	tests := []struct {
		p    Parameter
		u    float64
		want float64
	}{
		{testSpace.Parameters[0], 0, 1e-5},
		{testSpace.Parameters[0], 0.4, 1e-3},
		{testSpace.Parameters[0], 1, 1},
		{testSpace.Parameters[1], 0.75, 1},
		{testSpace.Parameters[2], 0.24, 1},
		{testSpace.Parameters[2], 0.26, 2},
		{testSpace.Parameters[2], 1, 4},
		{testSpace.Parameters[3], 0, 1},
		{testSpace.Parameters[3], 1, 1024},
	}
	for _, test := range tests {
		if got := test.p.value(test.u); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%s at %g is %g, want %g", test.p.Name, test.u, got, test.want)
		}
	}
}

func TestFit(t *testing.T) {
	space := Space{Parameters: []Parameter{testSpace.Parameters[1], testSpace.Parameters[4]}}
	elite := []point{{0.2, 1}, {0.4, 1}}
	got := fit(wide(space), elite, 0.5, 0.01)
	if m := got[0]; math.Abs(m.Mean-0.4) > 1e-12 || math.Abs(m.Std-0.3) > 1e-12 {
		t.Errorf("mean %g and std %g; want 0.4 and 0.3: half way to 0.3 and 0.1", m.Mean, m.Std)
	}
	// Half way from 0.25 to 1, and a twentieth of the way back to even.
	want := []float64{0.13125, 0.60625, 0.13125, 0.13125}
	for i, p := range got[1].Probabilities {
		if math.Abs(p-want[i]) > 1e-12 {
			t.Errorf("probabilities %v; want %v", got[1].Probabilities, want)
			break
		}
	}
	for range 50 {
		got = fit(got, elite[:1], 0.5, 0.07)
	}
	if got[0].Std != 0.07 {
		t.Errorf("the std fell to %g, below its floor", got[0].Std)
	}
}

// The first population spreads over the whole space.
func TestBeginsWide(t *testing.T) {
	points := draw(wide(testSpace), 2000, rand.New(rand.NewPCG(1, 1)))
	for i, p := range testSpace.Parameters[:4] {
		bins := [4]int{}
		for _, at := range points {
			bins[min(int(at[i]*4), 3)]++
		}
		for _, n := range bins {
			if n < 380 {
				t.Errorf("%s: a quarter of the range got %d of 2000 draws", p.Name, n)
			}
		}
	}
}
