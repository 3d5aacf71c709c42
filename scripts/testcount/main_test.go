package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	events := `{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/one"}
{"Action":"run","Package":"p","Test":"A/two"}
{"Action":"output","Package":"p","Test":"A/two","Output":"wrong\n"}
{"Action":"pass","Package":"p","Test":"A/one"}
{"Action":"fail","Package":"p","Test":"A/two"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Test":"B","Output":"quiet\n"}
{"Action":"pass","Package":"p","Test":"B"}
{"Action":"run","Package":"p","Test":"C"}
{"Action":"skip","Package":"p","Test":"C"}
{"Action":"fail","Package":"p","Elapsed":1.5}
{"ImportPath":"q","Action":"build-output","Output":"q.go:1: broken\n"}
{"ImportPath":"q","Action":"build-fail"}
{"Action":"fail","Package":"q","FailedBuild":"q"}
{"Action":"run","Package":"r","Test":"D"}
{"Action":"run","Package":"r","Test":"D/one"}
{"Action":"pass","Package":"r","Test":"D/one"}
{"Action":"fail","Package":"r","Test":"D"}
{"Action":"fail","Package":"r"}
{"Action":"run","Package":"s","Test":"E"}
{"Action":"run","Package":"s","Test":"E/with/slash"}
{"Action":"pass","Package":"s","Test":"E/with/slash"}
{"Action":"pass","Package":"s","Test":"E"}
{"Action":"pass","Package":"s"}
{"Action":"run","Package":"t","Test":"F"}
{"Action":"output","Package":"t","Test":"F","Output":"panic: nil map\n"}
{"Action":"output","Package":"t","Output":"FAIL\tt\n"}
{"Action":"fail","Package":"t"}
`
	var out bytes.Buffer
	c := newCounter(&out)
	if err := c.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	// A/one, B, D/one and E/with/slash; A/two, the build of q, D for itself, and the panic in t; C.
	if c.passed != 4 || c.failed != 4 || c.skipped != 1 {
		t.Errorf("%d passed, %d failed, %d skipped; want 4, 4, 1", c.passed, c.failed, c.skipped)
	}
	for _, want := range []string{"wrong\n", "q.go:1: broken\n", "FAIL  p  1.5s\n", "panic: nil map\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "quiet") {
		t.Errorf("output shows what a passing test printed:\n%s", out.String())
	}
}
