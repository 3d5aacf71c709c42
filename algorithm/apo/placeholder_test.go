package apo

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlaceholders(t *testing.T) {
	for _, c := range []struct {
		engine, template string
		want             []string
		fault            string
	}{
		{FString, "{b} and {a!r:>{width}} and {{no}} {a}", []string{"a", "b"}, ""},
		{FString, "{x.y[0]:%d} {}", []string{"", "x.y[0]"}, ""},
		{FString, "nothing", nil, ""},
		{FString, "a } b", nil, "a single }"},
		{FString, "a {b", nil, "not closed"},
		{FString, `{"json": 1}`, []string{`"json"`}, ""},
		{Jinja, "{{ a }} {{-b|upper -}} {% for x in xs %}{{x}}{% endfor %} {single}", []string{"% endfor", "% for x in xs", "a", "b|upper", "x"}, ""},
		{Jinja, "{{ a }} {{ b", []string{"a"}, "not closed"},
		{POML, "<p>{{ a }}</p> {% x", []string{"a"}, "not closed"},
	} {
		got, err := Placeholders(c.engine, c.template)
		if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s %q: error %v, want %q", c.engine, c.template, err, c.fault)
		}
		if diff := cmp.Diff(c.want, got); diff != "" && c.fault == "" {
			t.Errorf("%s %q: %s", c.engine, c.template, diff)
		}
	}
}

func TestCheckPlaceholders(t *testing.T) {
	for _, c := range []struct{ engine, candidate, fault string }{
		{FString, "do {b} with {a}", ""},
		{FString, "do {a}", "it has lost {b}"},
		{FString, "do {a} {b} {c}", "it has {c}, which nothing fills in"},
		{FString, "do {a} {b} }", "single }"},
		{Jinja, "do {{b}} with {{ a }}", ""},
		{Jinja, "do {a} {b}", "it has lost {{ a }}, {{ b }}"},
		{Jinja, "do {{a}} {{b}} {% x %}", "it has {% x %}"},
	} {
		err := checkPlaceholders(c.engine, c.candidate, []string{"a", "b"})
		if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s %q: %v, want %q", c.engine, c.candidate, err, c.fault)
		}
	}
}

func FuzzPlaceholders(f *testing.F) {
	for _, seed := range []string{"{a}", "{{", "}", "{a:{b}}", "{{ x }} {% y %}", "{", "é{é}", "{{{a}}}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, template string) {
		for _, engine := range Engines {
			found, err := Placeholders(engine, template)
			if err != nil {
				continue
			}
			if err := checkPlaceholders(engine, template, found); err != nil {
				t.Fatalf("%s %q has other placeholders than it has: %v", engine, template, err)
			}
			if !slices.IsSorted(found) {
				t.Fatalf("%q is not in order", found)
			}
		}
	})
}

func TestUnwrap(t *testing.T) {
	for answer, want := range map[string]string{
		" a \n": "a", "```\na\nb\n```": "a\nb", "```text\na\n```\n": "a", "<prompt>\na\n</prompt>": "a",
		"```a```": "```a```", "a ```b```": "a ```b```", "```\n<prompt>a</prompt>\n```": "a", "": "",
	} {
		if got := unwrap(answer); got != want {
			t.Errorf("%q becomes %q, want %q", answer, got, want)
		}
	}
}

func TestClip(t *testing.T) {
	text := strings.Repeat("é", 100)
	for most := range 20 {
		if got := clip(text, most); len(got) > most+len(" … ") || !strings.Contains(got, "…") || strings.ToValidUTF8(got, "") != got {
			t.Errorf("clipped to %d: %q", most, got)
		}
	}
	if got := clip("abc", 3); got != "abc" {
		t.Error(got)
	}
}
