package worker

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// FuzzVerdict holds that a result does not depend on how the output comes in
// pieces, and that no output upsets the reader.
func FuzzVerdict(f *testing.F) {
	f.Add([]byte("1\n{\"reward\": 2}\ndone"), 3)
	f.Add([]byte(`{"rewards":{"a":1,"b":NaN},"primary":"a","spans":[{"name":"x"}]}`), 1)
	f.Add([]byte("{\"spans\":[1]}\r\n\xff\n+inf\n"), 7)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		var whole, pieces verdict
		_, _ = whole.Write(text)
		whole.end()
		size = max(size, 1)
		for rest := text; len(rest) > 0; {
			n := min(size, len(rest))
			_, _ = pieces.Write(rest[:n])
			rest = rest[n:]
		}
		pieces.end()
		if diff := cmp.Diff(whole.result, pieces.result, cmpopts.EquateNaNs()); diff != "" || whole.found != pieces.found {
			t.Errorf("in pieces of %d: %s", size, diff)
		}
	})
}

func TestTailKeepsTheEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var kept tail
		var all bytes.Buffer
		for _, unit := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "ü", "世", "\n", strings.Repeat("x", 3000), strings.Repeat("é", 5000)}), 0, 20).Draw(t, "writes") {
			_, _ = kept.Write([]byte(unit))
			all.WriteString(unit)
		}
		got := kept.String()
		if !strings.HasSuffix(all.String(), got) || !utf8.ValidString(got) {
			t.Fatalf("%q is not the end of the output", got)
		}
		if int64(all.Len()) != kept.total || len(got) < min(all.Len(), tailBytes)-3 {
			t.Fatalf("kept %d of %d bytes", len(got), all.Len())
		}
	})
}

func TestResourceAttributesAreEscaped(t *testing.T) {
	got := percentEncode("a b,c=%ü")
	if want := "a%20b%2Cc%3D%25%C3%BC"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
