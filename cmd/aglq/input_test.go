package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/aglq/aglq/queue"
)

// piped is a file of tasks that come through a pipe.
func piped(t *testing.T) (taskFile, io.Writer) {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	return (&app{stdin: r}).taskFile("-"), w
}

// TestEnqueueAsItComes writes each task when the one before it is stored.
func TestEnqueueAsItComes(t *testing.T) {
	file, w := piped(t)
	stored := make(chan int)
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		_, err := enqueue(ctx, &fakeQueue{}, file, queue.Request{}, func(r []queue.Rollout) error {
			stored <- len(r)
			return nil
		})
		ended <- err
	}()
	for _, text := range []string{"1\n", "2\n3\n4"} { // the last line has yet to end
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if got, want := <-stored, strings.Count(text, "\n"); got != want {
			t.Errorf("%d tasks were stored of %q, want %d", got, text, want)
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v; half a line must not be stored", err)
	}
}

// TestEnqueueStopsReading has a store that refuses what came while more is waited for.
func TestEnqueueStopsReading(t *testing.T) {
	file, w := piped(t)
	go func() { _, _ = io.WriteString(w, "1\n") }()
	full := &fakeQueue{calls: make([][]queue.Request, 2)}
	n, err := enqueue(t.Context(), full, file, queue.Request{}, func([]queue.Rollout) error { return nil })
	if n != 0 || err == nil || err.Error() != "full" {
		t.Errorf("%d enqueued, error %v", n, err)
	}
}

// TestSignalEndsReading signals commands that wait for their standard input.
func TestSignalEndsReading(t *testing.T) {
	t.Parallel()
	url := start(t, nil, storeArgs()...).url()
	// Readers of zstd skip such a frame.
	frame := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, 1<<30)
	frame = append(frame, bytes.Repeat([]byte{0}, 1<<20)...)
	for _, c := range []struct {
		input string
		line  []string
		ready string // on standard error or standard output; "" is that all input was taken
		with  syscall.Signal
	}{
		{"1\n2", []string{"enqueue", "-"}, "ro-", syscall.SIGINT},
		{"", []string{"run", "--tasks", "-", "--", "true"}, "msg=listening", syscall.SIGTERM},
		{string(frame), []string{"import", "--merge", "-"}, "", syscall.SIGINT},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := startReading(t, r, []string{"AGL_STORE_URL=" + url}, c.line...)
		r.Close()
		if _, err := w.WriteString(c.input); err != nil {
			t.Fatal(err)
		}
		until(t, "aglq to read", func() bool { return strings.Contains(p.log.String()+p.out.String(), c.ready) || p.ended() })
		p.signal(c.with)
		p.exit(128 + int(c.with))
		w.Close()
	}
	if text := aglq(t, url, "rollouts", "--json"); strings.Count(text, "\n") != 1 {
		t.Errorf("stored:\n%s", text)
	}
}
