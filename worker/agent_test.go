package worker

import (
	"log/slog"
	"testing"
)

// An agent that answers and ends in the same moment has worked, even when its task
// has not come to read the answer yet.
func TestAgentAnswersAndEnds(t *testing.T) {
	p := NewPool(PoolOptions{
		ExecOptions: ExecOptions{Command: []string{"sh", "-c", `read -r line; echo '{"id":"ro/at","reward":1}'`}},
		Logger:      slog.New(slog.DiscardHandler),
	})
	defer p.Close(t.Context())
	a, err := p.take(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	a.begin("ro/at")
	a.lines <- []byte("{}\n")
	<-a.ended
	p.running.Wait() // for what the pool makes of it
	if p.start.pause != 0 {
		t.Errorf("the next agent waits %s", p.start.pause)
	}
	if got := a.tasks(); got != 1 {
		t.Errorf("%d tasks were answered", got)
	}
}
