package verify

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHistoryFile(t *testing.T) {
	h := story()
	h.Faults = []Fault{{Kind: StepDown, Target: "primary", Begin: 1, End: 2}}
	h.Stuck, h.Crashes = []string{"ro-7"}, []string{"store 0 ended"}
	h.Counts = []Count{{Status: "queuing", Listed: 1, Counted: 2}}
	h.Meta.Phases = map[Phase]int64{PhaseDrain: 5}
	path := filepath.Join(t.TempDir(), "history.jsonl.zst")
	if err := h.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h, got); diff != "" {
		t.Errorf("it was read otherwise than written:\n%s", diff)
	}
}

func TestHistoryThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	if _, err := ReadHistory(path); err == nil {
		t.Error("a missing file is read")
	}
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadHistory(path); err == nil {
		t.Error("a file that is not compressed is read")
	}
	h := story()
	h.Meta.Version = 99
	if err := h.Write(path); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadHistory(path); err == nil || !strings.Contains(err.Error(), "99") {
		t.Errorf("a history of another version: %v", err)
	}
}

// TestFollow reads what a worker process wrote that was killed in a call and in
// the middle of a line.
func TestFollow(t *testing.T) {
	var text bytes.Buffer
	w := &wire{out: &text}
	first, second := &Call{Op: OpClaim, Outcome: Ok}, &Call{Op: OpFinish}
	w.begin(first)
	w.end(first)
	w.begin(second)
	text.WriteString(`{"id":3,"op":"ca`)
	book := newNotebook()
	if err := book.follow(&text); err != nil {
		t.Fatal(err)
	}
	calls := book.all()
	if len(calls) != 2 || calls[0].Op != OpClaim || calls[0].Outcome != Ok ||
		calls[1].Op != OpFinish || calls[1].Outcome != Unknown || calls[1].End != 0 {
		t.Errorf("it reads %+v", calls)
	}
	if err := book.follow(strings.NewReader("panic: no\n")); err == nil {
		t.Error("what is no call is read")
	}
}
