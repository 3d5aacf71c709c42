package child

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestOutput writes a stream in pieces: the one keeps its beginning, the other its
// end.
func TestOutput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(0, 20).Draw(t, "most")
		head, tail := Head{Most: most}, Tail{Most: most}
		var all []byte
		for _, p := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 30), 0, 8).Draw(t, "pieces") {
			all = append(all, p...)
			for _, w := range []interface{ Write([]byte) (int, error) }{&head, &tail} {
				if n, err := w.Write(p); n != len(p) || err != nil {
					t.Fatalf("Write returned %d, %v", n, err)
				}
			}
		}
		n := min(most, len(all))
		if !bytes.Equal(head.Bytes(), all[:n]) || head.Over != (len(all) > most) {
			t.Errorf("the head of %q is %q, %v", all, head.Bytes(), head.Over)
		}
		if !bytes.Equal(tail.Bytes(), all[len(all)-n:]) {
			t.Errorf("the tail of %q is %q", all, tail.Bytes())
		}
	})
}
