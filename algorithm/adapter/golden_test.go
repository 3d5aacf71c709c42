package adapter

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// The files in testdata hold what the reference's Python classes make of spans;
// testdata/goldens.py writes them.

// variants are the options that the files name.
var variants = map[string]TracerTriplets{
	"default":        {},
	"keep_hierarchy": {KeepHierarchy: true},
	"agent":          {Agent: regexp.MustCompile("alpha|beta")},
	"reward_calls":   {RewardCalls: true},
	"first_sibling":  {Match: FirstSibling},
	"any_span":       {LLMCall: regexp.MustCompile(".")},
	"skip_empty":     {SkipEmpty: true},
}

// golden is a line of a file.
type golden struct {
	name            string
	spans           []queue.Span
	tracer          map[string]rawjson.Value
	proxy, messages rawjson.Value
}

func goldens(t testing.TB, file string) []golden {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(file, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	var list []golden
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		v, err := rawjson.Parse(lines.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		g := golden{name: v.Get("name").Text(), tracer: map[string]rawjson.Value{}, proxy: v.Get("proxy"), messages: v.Get("messages")}
		for s := range v.Get("spans").Elements() {
			g.spans = append(g.spans, queue.DecodeSpan(s))
		}
		for key, val := range v.Get("tracer").Members() {
			g.tracer[string(key)] = val
		}
		list = append(list, g)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestEqualsTheReferenceOnGeneratedSpans(t *testing.T) {
	list := goldens(t, "generated.jsonl.gz")
	if len(list) != 1000 {
		t.Fatalf("%d attempts; there should be 1000", len(list))
	}
	for _, g := range list {
		g.check(t)
	}
}

func TestEqualsTheReferenceOnRecordedSpans(t *testing.T) {
	for _, g := range goldens(t, "recorded.jsonl.gz") {
		t.Run(g.name, func(t *testing.T) {
			g.check(t)
			if g.name == "proxy" {
				if n := len(mustAdapt(t, ProxyTriplets{}, g.spans)); n != 3 {
					t.Errorf("%d calls; the recording has 3", n)
				}
			}
			if g.name == "agentops" {
				// One call is in a reward operation.
				if n := len(mustAdapt(t, TracerTriplets{}, g.spans)); n != 4 {
					t.Errorf("%d calls; the recording has 4", n)
				}
			}
		})
	}
}

func TestEqualsTheReferenceOnEdgeCases(t *testing.T) {
	for _, g := range goldens(t, "edge.jsonl.gz") {
		t.Run(g.name, g.check)
	}
}

func mustAdapt[T any](t testing.TB, a Adapter[T], spans []queue.Span) []T {
	t.Helper()
	items, err := a.Adapt(spans)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func (g *golden) check(t *testing.T) {
	t.Helper()
	for variant, want := range g.tracer {
		a, ok := variants[variant]
		if !ok {
			t.Fatalf("unknown variant %s", variant)
		}
		triplets, err := a.Adapt(g.spans)
		g.compare(t, variant, want, jsonOf(triplets, func(x *Triplet) rawjson.Value { return asReference(x) }), err)
	}
	triplets, err := ProxyTriplets{}.Adapt(g.spans)
	g.compare(t, "proxy", g.proxy, jsonOf(triplets, func(x *Triplet) rawjson.Value {
		x.Prompt.RawContent, x.Prompt.ImageURLs, x.Response.RawContent, x.Response.Logprobs = nil, nil, nil, nil
		return asReference(x)
	}), err)
	conversations, err := Messages{OnlyToolSpans: true}.Adapt(g.spans)
	g.compare(t, "messages", g.messages, jsonOf(conversations, func(x *Conversation) rawjson.Value { return x.AppendJSON(nil) }), err)
}

func (g *golden) compare(t *testing.T, what string, want, got rawjson.Value, err error) {
	t.Helper()
	if name := want.Get("error").Text(); name != "" {
		if err == nil {
			t.Errorf("%s, %s: no error; the reference has a %s", g.name, what, name)
		} else if queue.KindOf(err) != queue.Invalid {
			t.Errorf("%s, %s: the error is of another kind: %v", g.name, what, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%s, %s: %v", g.name, what, err)
	} else if !bytes.Equal(got, want) {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		t.Errorf("%s, %s: at byte %d\n got %.200s\nwant %.200s", g.name, what, i, got[max(0, i-80):], want[max(0, i-80):])
	}
}

func jsonOf[T any](items []T, text func(*T) rawjson.Value) rawjson.Value {
	list := []rawjson.Value{}
	for i := range items {
		list = append(list, text(&items[i]))
	}
	return appendList(nil, list)
}

// asReference is a triplet's JSON without what the reference has not.
func asReference(t *Triplet) rawjson.Value {
	text, err := rawjson.Parse(t.AppendJSON(nil))
	if err != nil {
		panic(err)
	}
	var dst []byte
	for key, val := range text.Members() {
		if string(key) == "metadata" {
			val = without(val, "sequence_id", "span_id")
		}
		dst = rawjson.AppendMember(dst, key, val)
	}
	return append(dst, '}')
}
