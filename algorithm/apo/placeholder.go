package apo

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The engines that fill in prompts.
const (
	FString = "f-string" // Python's: {name}, {name:>10}; {{ and }} are braces
	Jinja   = "jinja"    // {{ name }}, {% … %}
	POML    = "poml"     // {{ name }}
)

// Engines lists them.
var Engines = []string{FString, Jinja, POML}

// Placeholders lists what an engine fills in of a template: the names of an
// f-string's fields, the expressions and statements of the others. An error says that
// the engine would refuse the template.
func Placeholders(engine, template string) ([]string, error) {
	var found map[string]bool
	var err error
	if engine == FString {
		found, err = fields(template)
	} else {
		found, err = expressions(template)
	}
	return slices.Sorted(maps.Keys(found)), err
}

// fields reads the replacement fields of a Python format string.
func fields(template string) (map[string]bool, error) {
	found := map[string]bool{}
	for i := 0; i < len(template); i++ {
		switch c := template[i]; {
		case c != '{' && c != '}':
		case i+1 < len(template) && template[i+1] == c:
			i++
		case c == '}':
			return nil, fmt.Errorf("a single } at %s; write }} for a brace", around(template, i))
		default:
			end, depth := i+1, 1
			for ; end < len(template) && depth > 0; end++ {
				switch template[end] {
				case '{':
					depth++
				case '}':
					depth--
				}
			}
			if depth > 0 {
				return nil, fmt.Errorf("the { at %s is not closed; write {{ for a brace", around(template, i))
			}
			field := template[i+1 : end-1]
			name, _, _ := strings.Cut(field, ":")
			name, _, _ = strings.Cut(name, "!")
			found[name] = true
			i = end - 1
		}
	}
	return found, nil
}

// around shows the place of a fault.
func around(template string, at int) string {
	from, to := max(0, at-20), min(len(template), at+20)
	return fmt.Sprintf("%q", strings.ToValidUTF8(template[from:to], ""))
}

var (
	expression = regexp.MustCompile(`(?s)\{\{[-+]?\s*(.*?)\s*[-+]?\}\}`)
	statement  = regexp.MustCompile(`(?s)\{%[-+]?\s*(.*?)\s*[-+]?%\}`)
)

func expressions(template string) (map[string]bool, error) {
	found := map[string]bool{}
	for _, m := range expression.FindAllStringSubmatch(template, -1) {
		found[m[1]] = true
	}
	for _, m := range statement.FindAllStringSubmatch(template, -1) {
		found["% "+m[1]] = true
	}
	rest := statement.ReplaceAllString(expression.ReplaceAllString(template, ""), "")
	for _, mark := range []string{"{{", "{%"} {
		if at := strings.Index(rest, mark); at >= 0 {
			return nil, fmt.Errorf("the %s at %s is not closed", mark, around(rest, at))
		}
	}
	return found, nil
}

// checkPlaceholders reports why a candidate cannot take the place of a template with
// these placeholders.
func checkPlaceholders(engine, candidate string, want []string) error {
	got, err := Placeholders(engine, candidate)
	if err != nil {
		return err
	}
	var lost, added []string
	for _, name := range want {
		if !slices.Contains(got, name) {
			lost = append(lost, shown(engine, name))
		}
	}
	for _, name := range got {
		if !slices.Contains(want, name) {
			added = append(added, shown(engine, name))
		}
	}
	switch {
	case lost != nil:
		return fmt.Errorf("it has lost %s", strings.Join(lost, ", "))
	case added != nil:
		return fmt.Errorf("it has %s, which nothing fills in", strings.Join(added, ", "))
	}
	return nil
}

// shown is a placeholder as it stands in a template.
func shown(engine, name string) string {
	if rest, ok := strings.CutPrefix(name, "% "); ok && engine != FString {
		return "{% " + rest + " %}"
	}
	if engine == FString {
		return "{" + name + "}"
	}
	return "{{ " + name + " }}"
}
