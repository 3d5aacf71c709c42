package child

import "testing"

func TestAnswer(t *testing.T) {
	for output, want := range map[string]string{
		`{"a":1}`:                   `{"a":1}`,
		"{\n \"a\": 1\n}\n":         `{"a":1}`,
		"thinking\n{\"a\":1}\n\n":   `{"a":1}`,
		"{\"b\":2}\n{\"a\":1}":      `{"a":1}`,
		"{\"a\":1}\nthat was it":    "",
		"":                          "",
		"[1]":                       "",
		"thinking\n{\n \"a\": 1\n}": "",
	} {
		if got := Answer([]byte(output)); string(got) != want {
			t.Errorf("%q is answered by %q, want %q", output, got, want)
		}
	}
}
