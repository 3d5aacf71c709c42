package trace_test

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/trace"
)

// TestAFullDiskIsCounted has a disk that takes 64 KiB of a file and no more: spans
// are counted as given up, and nothing half-written is left for the next process.
func TestAFullDiskIsCounted(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ) // writing fails instead
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	dir := t.TempDir()
	dropped := 0
	sender := trace.NewSender(&gate{Store: s}, trace.Options{Logger: quiet, SpillDir: dir, Dropped: func(n int, reason string) {
		if reason == trace.Stopped {
			dropped += n
		}
	}})
	sc := sender.Scope(begin(t, s, nil))
	long := rawjson.AppendString([]byte(`{"text":`), strings.Repeat("x", 1<<10))
	for range 200 {
		if err := sc.Send(t.Context(), queue.Span{Name: "x", Attributes: append(long, '}')}); err != nil {
			t.Fatal(err)
		}
	}
	small := before
	small.Cur = 64 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		t.Fatal(err)
	}
	run(sender)()
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if missing := sc.Flush(t.Context()); missing != 200 || dropped != 200 {
		t.Errorf("%d missing, %d dropped, want 200 of each", missing, dropped)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("%d files are left: %v", len(files), err)
	}
}
