package verify

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// workerJob is what a worker process is told on its standard input.
type workerJob struct {
	Name    string        `json:"name"`
	URLs    []string      `json:"urls"`
	Token   string        `json:"token"`
	Clients int           `json:"clients"`
	Seed    uint64        `json:"seed"`
	Silence time.Duration `json:"silence"`
	Leased  bool          `json:"leased"`
}

// Work is a worker process of a run: it reads its job from in, claims and works
// until ctx ends, and reports each call on out, a line before it and one after
// it. The process that started it reads them, and kills it now and then.
func Work(ctx context.Context, in io.Reader, out io.Writer) error {
	var job workerJob
	text, err := bufio.NewReader(in).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(text, &job)
	}
	if err != nil {
		return fmt.Errorf("reading the job of a worker process: %w; aglq verify starts them itself", err)
	}
	stores := dial(job.URLs, job.Token)
	rec := &wire{out: out}
	var clients sync.WaitGroup
	for i := range job.Clients {
		c := newCaller(fmt.Sprintf("%s.%d", job.Name, i), stores, rec, job.Seed)
		clients.Go(func() { c.work(ctx, habits{Silence: job.Silence, Leased: job.Leased}) })
	}
	clients.Wait()
	return nil
}
