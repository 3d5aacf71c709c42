package worker

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
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

// FuzzAnswer holds that any answer is a result or a failure that says why.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		"", " null ", "1e3", "nan", "-inf", `"x"`, `[]`, `{}`, `{"id":"a/b","reward":0.5}`, `{"error":{"message":"m","type":"t","stack":"s"}}`,
		`{"error":"x","spans":[{"name":"s"}]}`, `{"error":false}`, `{"rewards":{"a":1},"primary":"b"}`, `{"reward":"high"}`, `{"spans":[1]}`, "{", "\xff",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		result, err := answer(text)
		if err != nil {
			if failure := failureOf(err); failure.Message == "" || failure.Type == "" || len(result.Rewards) > 0 {
				t.Errorf("failure %+v with %+v", failure, result)
			}
		}
		for _, s := range result.Spans {
			if s.Name == "" {
				t.Error("a span without a name")
			}
		}
	})
}

func TestThrottle(t *testing.T) {
	now := time.Unix(1e9, 0)
	th := throttle{now: func() time.Time { return now }}
	for _, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000} {
		for range 8 { // what runs at the same time fails at the same time
			th.failed()
		}
		if want *= time.Millisecond; th.pause != want || !th.until.Equal(now.Add(want)) {
			t.Errorf("a pause of %s until %s, want %s", th.pause, th.until, want)
		}
		now = th.until
	}
	th.failed()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ErrTimeout)
	if err := th.wait(ctx); err != ErrTimeout {
		t.Errorf("waiting while ctx has ended: %v", err)
	}
	th.worked()
	if err := th.wait(t.Context()); err != nil || th.pause != 0 {
		t.Errorf("after a success: %v, %s", err, th.pause)
	}
}

func TestTailSince(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var kept tail
		before := strings.Repeat("é", rapid.IntRange(0, 9000).Draw(t, "before"))
		after := strings.Repeat("x", rapid.IntRange(0, 20000).Draw(t, "after"))
		_, _ = kept.Write([]byte(before))
		mark := kept.total
		_, _ = kept.Write([]byte(after))
		if got, want := kept.since(mark), after[max(0, len(after)-tailBytes):]; got != want {
			t.Fatalf("%d bytes since the mark, want %d", len(got), len(want))
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
