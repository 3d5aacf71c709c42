package emit_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/aglq/aglq/internal/pyenv"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
	"github.com/aglq/aglq/worker/emit"
)

// maker makes calls of emitters with whatever values may be put in.
type maker struct{ *rand.Rand }

func (m maker) text() string {
	return []string{"", "a", "b", "two words", "é 你好 🎉", "line\nbreak\ttab", `"quoted" \ /`, "null", "0", "\x00\x1f\x7f", "\u2028", "x.y", "true"}[m.IntN(13)]
}

func (m maker) key() string {
	return []string{"a", "b", "c", "name", "é", "0", "1", "a.b", "with space", "x-y", "type", "deep"}[m.IntN(12)]
}

func (m maker) float() float64 {
	return []float64{0, -0.5, 1, 3.25, 1e-5, 1e-4, 9.9e15, 1e16, 1e22, 1e300, -1e-300, math.Pi, 0.1 + 0.2, m.NormFloat64(), m.NormFloat64() * 1e9}[m.IntN(15)]
}

func (m maker) scalar(dst []byte) []byte {
	switch m.IntN(7) {
	case 0:
		return append(dst, "null"...)
	case 1:
		return strconv.AppendBool(dst, m.IntN(2) == 0)
	case 2:
		return strconv.AppendInt(dst, m.Int64N(2000)-1000, 10)
	case 3:
		return append(dst, "123456789012345678901234567890"[:1+m.IntN(29)]...)
	case 4:
		return semconv.AppendPythonFloat(dst, m.float())
	}
	return rawjson.AppendString(dst, m.text())
}

func (m maker) value(dst []byte, depth int) []byte {
	switch {
	case depth == 0 || m.IntN(3) == 0:
		return m.scalar(dst)
	case m.IntN(2) == 0:
		return m.object(dst, depth-1)
	}
	dst = append(dst, '[')
	one := m.IntN(2) == 0 // of one kind
	kind := m.IntN(4)
	for i := range m.IntN(4) {
		if i > 0 {
			dst = append(dst, ',')
		}
		switch {
		case one && kind == 0:
			dst = rawjson.AppendString(dst, m.text())
		case one && kind == 1:
			dst = semconv.AppendPythonFloat(dst, m.float())
		case one && kind == 2:
			dst = strconv.AppendInt(dst, m.Int64N(99), 10)
		case one:
			dst = m.object(dst, depth-1)
		default:
			dst = m.value(dst, depth-1)
		}
	}
	return append(dst, ']')
}

func (m maker) object(dst []byte, depth int) []byte {
	dst = append(dst, '{')
	seen := map[string]bool{}
	for range m.IntN(4) {
		key := m.key()
		if seen[key] {
			continue
		}
		if len(seen) > 0 {
			dst = append(dst, ',')
		}
		seen[key] = true
		dst = append(rawjson.AppendString(dst, key), ':')
		dst = m.value(dst, depth)
	}
	return append(dst, '}')
}

// call is one for both sides.
type call struct {
	kind                            string
	name                            string
	value, attributes, args, output rawjson.Value
}

func (m maker) call(kind string) call {
	c := call{kind: kind, name: "n", attributes: m.object(nil, 2), args: rawjson.EmptyArray, output: rawjson.Null}
	switch kind {
	case "reward":
		c.value = semconv.AppendPythonFloat(nil, m.float())
	case "rewards":
		c.name = "b"
		c.value = fmt.Appendf(nil, `{"a":%s,"b":%s,"c":1.0}`, semconv.AppendPythonFloat(nil, m.float()), semconv.AppendPythonFloat(nil, m.float()))
	case "annotation":
		c.value = m.object(nil, 3)
	case "message", "exception":
		c.value = rawjson.AppendString(nil, m.text())
	case "object":
		c.value = m.value(nil, 3)
	case "operation":
		for c.attributes.Get("name") != nil { // is a parameter of the reference's
			c.attributes = m.object(nil, 2)
		}
		c.value, c.args, c.output = m.object(nil, 2), rawjson.Value("["+string(m.value(nil, 2))+"]"), m.value(nil, 3)
	case "tags":
		c.value = fmt.Appendf(nil, `[%s,%s]`, rawjson.AppendString(nil, m.text()), rawjson.AppendString(nil, m.text()))
	case "links":
		c.value = fmt.Appendf(nil, `{"gen_ai.response.id":%s,"span_id":"01"}`, rawjson.AppendString(nil, m.text()))
	}
	return c
}

func (c call) line() string {
	return fmt.Sprintf(`{"call":%q,"name":%q,"value":%s,"attributes":%s,"args":%s,"output":%s}`, c.kind, c.name, c.value, c.attributes, c.args, c.output)
}

// make makes the same call here.
func (c call) make(t *testing.T) (queue.Span, error) {
	t.Helper()
	number, _ := c.value.Float()
	switch c.kind {
	case "reward":
		return reward(number, c.attributes)
	case "rewards":
		values := map[string]float64{}
		for key, v := range c.value.Members() {
			values[string(key)], _ = v.Float()
		}
		dimensions, err := emit.Dimensions(c.name, values)
		must(t, err)
		return emit.RewardSpan(dimensions, c.attributes)
	case "annotation":
		return emit.AnnotationSpan(c.value)
	case "message":
		return emit.MessageSpan(c.value.Text(), c.attributes)
	case "object":
		return emit.ObjectSpan(c.value, c.attributes)
	case "exception":
		f := emit.Failure{Type: "ValueError", Message: c.value.Text(), Stack: "ValueError: " + c.value.Text() + "\n"}
		if f.Message == "" {
			f.Stack = "ValueError\n"
		}
		return emit.ExceptionSpan(f, c.attributes)
	case "tags":
		var tags emit.Tags
		for v := range c.value.Elements() {
			tags = append(tags, v.Text())
		}
		return reward(1, tags)
	case "links":
		links := emit.Links{}
		for key, v := range c.value.Members() {
			links[string(key)] = v.Text()
		}
		return reward(1, links)
	}
	var failed error
	s := operation(t, func(ctx context.Context) {
		_, op, err := emit.Begin(ctx, c.name, c.attributes)
		if failed = err; err != nil {
			return
		}
		for arg := range c.args.Elements() {
			must(t, op.Args(arg))
		}
		must(t, op.Input(c.value))
		must(t, op.Output(c.output))
		must(t, op.End())
	})
	return s, failed
}

// TestTheReferenceEmitsTheSame makes calls with generated values here and with the
// reference's own emitters: the attributes must be the same, byte for byte.
func TestTheReferenceEmitsTheSame(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(1, 2))}
	var calls []call
	var lines strings.Builder
	for i := range 900 {
		c := m.call([]string{"reward", "rewards", "annotation", "message", "object", "exception", "operation", "tags", "links"}[i%9])
		calls = append(calls, c)
		lines.WriteString(c.line() + "\n")
	}
	python := exec.CommandContext(t.Context(), pyenv.Python(t, "compat"), "testdata/goldens.py", "answer")
	python.Stdin = strings.NewReader(lines.String())
	var stderr bytes.Buffer
	python.Stderr = &stderr
	out, err := python.Output()
	if err != nil {
		t.Fatalf("the reference's emitters: %v\n%s", err, stderr.String())
	}
	answers := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(answers) != len(calls) {
		t.Fatalf("%d answers to %d calls\n%s", len(answers), len(calls), stderr.String())
	}
	made := 0
	for i, c := range calls {
		want := parse(t, answers[i])
		s, err := c.make(t)
		if name := want.Get("error"); name != nil {
			if queue.KindOf(err) != queue.Invalid {
				t.Errorf("%s\nerror %v; the reference has a %s", c.line(), err, name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s\n%v; the reference made %s", c.line(), err, want)
			continue
		}
		made++
		if s.Name != want.Get("name").Text() || string(s.Attributes) != string(want.Get("attributes")) {
			t.Errorf("%s\n got %s %s\nwant %s %s", c.line(), s.Name, s.Attributes, want.Get("name").Text(), want.Get("attributes"))
		}
	}
	if made < len(calls)/2 {
		t.Errorf("only %d of %d calls made a span", made, len(calls))
	}
}
