package rawjson

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parse(t *testing.T, text string) Value {
	t.Helper()
	v, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return v
}

func TestKinds(t *testing.T) {
	tests := map[string]Kind{
		`null`: KindNull, `true`: KindBool, `false`: KindBool, `0`: KindInteger, `-12`: KindInteger,
		`1.0`: KindFloat, `1e+16`: KindFloat, `NaN`: KindNonFinite, `Infinity`: KindNonFinite, `-Infinity`: KindNonFinite,
		`"x"`: KindString, `[]`: KindArray, `{}`: KindObject, ``: Invalid,
	}
	for text, want := range tests {
		if got := Value(text).Kind(); got != want {
			t.Errorf("kind of %q is %d, want %d", text, got, want)
		}
	}
	if !Value(nil).IsNull() || !Null.IsNull() || Value(`0`).IsNull() || Value(`"n"`).IsNull() {
		t.Error("IsNull is wrong")
	}
	if !Value(`true`).Bool() || Value(`false`).Bool() || Value(nil).Bool() || Value(`"true"`).Bool() {
		t.Error("Bool is wrong")
	}
}

func TestNumbers(t *testing.T) {
	floats := map[string]float64{
		`1`: 1, `-1.5`: -1.5, `1e+16`: 1e16, `NaN`: math.NaN(), `Infinity`: math.Inf(1), `-Infinity`: math.Inf(-1),
		`12345678901234567890`: 12345678901234567890,
	}
	for text, want := range floats {
		got, ok := Value(text).Float()
		if !ok || (got != want && !(math.IsNaN(got) && math.IsNaN(want))) {
			t.Errorf("Float of %s = %v, %t", text, got, ok)
		}
	}
	huge := make(Value, 400)
	for i := range huge {
		huge[i] = '9'
	}
	if f, ok := huge.Float(); !ok || !math.IsInf(f, 1) {
		t.Errorf("Float of 400 nines = %v, %t", f, ok)
	}
	for _, text := range []string{`"1"`, `null`, `[]`, `true`, ``} {
		if f, ok := Value(text).Float(); ok {
			t.Errorf("Float of %s = %v", text, f)
		}
	}
	if n, ok := Value(`-9223372036854775808`).Int(); !ok || n != math.MinInt64 {
		t.Errorf("Int of the least = %d, %t", n, ok)
	}
	for _, text := range []string{`9223372036854775808`, `1.0`, `"1"`, `null`, ``} {
		if n, ok := Value(text).Int(); ok {
			t.Errorf("Int of %s = %d", text, n)
		}
	}
}

func TestWalks(t *testing.T) {
	v := parse(t, `{"a":1,"b\n":[1,"]}",{"x":"\\\""}],"":null,"c":{"a":2},"\\":"\\"}`)
	want := [][2]string{{"a", "1"}, {`b\n`, `[1,"]}",{"x":"\\\""}]`}, {"", "null"}, {"c", `{"a":2}`}, {`\\`, `"\\"`}}
	var got [][2]string
	for key, val := range v.Members() {
		got = append(got, [2]string{string(key), val.String()})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	var elements []string
	for e := range v.Get("b\n").Elements() {
		elements = append(elements, e.String())
	}
	if diff := cmp.Diff([]string{`1`, `"]}"`, `{"x":"\\\""}`}, elements); diff != "" {
		t.Errorf("elements (-want +got):\n%s", diff)
	}
	if v.Get(`\`).Text() != `\` || !v.Get("").IsNull() || v.Get("none") != nil || v.Get("c").Get("a").String() != "2" {
		t.Error("Get is wrong")
	}
	for range v.Members() {
		break // stopping early is fine
	}
	for _, text := range []string{``, `null`, `1`, `"{}"`, `[]`, `{}`} {
		for range Value(text).Members() {
			t.Errorf("%q has members", text)
		}
		for range Value(text).Elements() {
			t.Errorf("%q has elements", text)
		}
		if Value(text).Get("a") != nil {
			t.Errorf("%q has an a", text)
		}
	}
	// A walked value does not let its holder write into its neighbour.
	first := parse(t, `[1,2]`)
	for e := range first.Elements() {
		_ = append(e, 'x')
	}
	if first.String() != `[1,2]` {
		t.Errorf("appending to an element made %s", first)
	}
}

func TestText(t *testing.T) {
	for _, s := range []string{"", "plain", "\x00\x1f\"\\/\b\f\n\r\t", "é日😀\u2028", "\uFFFD"} {
		quoted := Value(AppendString(nil, s))
		if got := quoted.Text(); got != s {
			t.Errorf("%q came back as %q by %s", s, got, quoted)
		}
		if again := parse(t, quoted.String()); again.String() != quoted.String() {
			t.Errorf("%s is not canonical: %s", quoted, again)
		}
	}
	if got := string(AppendString(nil, "a\xffb")); got != "\"a\uFFFDb\"" {
		t.Errorf("invalid UTF-8 became %q", got)
	}
	if Value(`1`).Text() != "" || Value(nil).Text() != "" {
		t.Error("Text of other kinds is not empty")
	}
}

func TestAppendFloat(t *testing.T) {
	tests := map[float64]string{
		0: "0.0", 5: "5.0", -1.5: "-1.5", 0.1: "0.1", 1795239616.8496506: "1795239616.8496506", 1e15: "1000000000000000.0",
		1e16: "1e+16", 1e-5: "0.00001", 9e-6: "9e-06", math.MaxFloat64: "1.7976931348623157e+308", 5e-324: "5e-324",
		math.Inf(1): "null", math.Inf(-1): "null",
	}
	for f, want := range tests {
		if got := string(AppendFloat(nil, f)); got != want {
			t.Errorf("AppendFloat(%v) = %s, want %s", f, got, want)
		}
	}
	if got := string(AppendFloat(nil, math.NaN())); got != "null" {
		t.Errorf("AppendFloat(NaN) = %s", got)
	}
}

func TestReplaceNonFinite(t *testing.T) {
	in := Value(`{"NaN":[NaN,-Infinity,-1,"Infinity \" NaN"],"I":Infinity,"n":null}`)
	if got, want := ReplaceNonFinite([]byte("x"), in, false).String(), `x{"NaN":[null,null,-1,"Infinity \" NaN"],"I":null,"n":null}`; got != want {
		t.Errorf("by null: %s", got)
	}
	if got, want := ReplaceNonFinite(nil, in, true).String(), `{"NaN":["NaN","-Infinity",-1,"Infinity \" NaN"],"I":"Infinity","n":null}`; got != want {
		t.Errorf("by strings: %s", got)
	}
	if got := parse(t, `[NaN, 1e999]`).String(); got != `[null,null]` {
		t.Errorf("Parse: %s", got)
	}
}

func TestMarshaling(t *testing.T) {
	v, err := Marshal(map[string]any{"a": 1, "b": "<é>"})
	if err != nil || v.String() != `{"a":1,"b":"<é>"}` {
		t.Errorf("Marshal: %s, %v", v, err)
	}
	if _, err := Marshal(func() {}); err == nil {
		t.Error("a function was marshaled")
	}
	var s struct{ A, B, C Value }
	if err := json.Unmarshal([]byte(`{"A": {"x" : 1.0}, "B": null}`), &s); err != nil {
		t.Fatal(err)
	}
	if s.A.String() != `{"x":1.0}` || s.B.String() != "null" || s.C != nil {
		t.Errorf("unmarshaled %q, %q, %q", s.A, s.B, s.C)
	}
	out, err := json.Marshal(s)
	if err != nil || string(out) != `{"A":{"x":1.0},"B":null,"C":null}` {
		t.Errorf("marshaled %s, %v", out, err)
	}
	c := s.A.Clone()
	c[0] = 'x'
	if s.A[0] != '{' {
		t.Error("a clone shares memory")
	}
}
