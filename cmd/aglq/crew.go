package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/worker"
)

// crew is the workers of this process.
type crew struct {
	members []*worker.Worker
	stop    context.CancelFunc
	ended   chan struct{} // closed when all have ended
	err     error         // what they ended with; read it after ended
}

// startWorkers starts the workers that the options ask for. They end by
// themselves, when they are drained, or at once with the second signal. Llm is
// the proxy that their agents call, nil for none; x must outlive them.
func (a *app) startWorkers(cmd *cli.Command, logs *logs, s queue.Store, url string, llm *llmServer, x *extras) *crew {
	log := logs.of("worker")
	handler, closeAgent := a.agentHandler(cmd, llm, x, log)
	ctx, stop := context.WithCancel(a.signals.hard)
	c := &crew{stop: stop, ended: make(chan struct{})}
	for _, id := range workerIDs(cmd.String("worker-id"), cmd.Int("n-runners")) {
		o := a.workerOptions(cmd, url, x)
		o.ID, o.Logger = id, log
		c.members = append(c.members, worker.New(s, handler, o))
	}
	errs := make([]error, len(c.members))
	var running sync.WaitGroup
	for i, w := range c.members {
		running.Go(func() { errs[i] = w.Run(ctx) })
	}
	go func() {
		defer close(c.ended)
		running.Wait()
		closeAgent(ctx)
		c.err = errors.Join(errs...)
	}()
	return c
}

// workerOptions are what the options ask for, but for the id and the log.
func (a *app) workerOptions(cmd *cli.Command, url string, x *extras) worker.Options {
	return worker.Options{
		Version:           version(),
		Concurrency:       cmd.Int("concurrency"),
		MaxRollouts:       cmd.Int("max-rollouts"),
		PollInterval:      max(cmd.Duration("poll-interval"), time.Millisecond),
		Jitter:            zeroIsNone(cmd.Duration("interval-jitter")),
		HeartbeatInterval: zeroIsNone(cmd.Duration("heartbeat-interval")),
		TaskTimeout:       cmd.Duration("task-timeout"),
		DrainTimeout:      zeroIsNone(cmd.Duration("drain-timeout")),
		ExitWhenIdle:      cmd.Duration("exit-when-idle"),
		ExitWhenStoreGone: zeroIsNone(cmd.Duration("exit-when-store-gone")),
		StoreURL:          url,
		SpillDir:          cmd.String("span-spill-dir"),
		Limits:            x.limits,
		Slots:             x.slots,
		Hooks:             x.hooks,
		Observer:          a.workerObserver(cmd),
	}
}

// zeroIsNone turns an option's 0 into what switches something off in worker
// options, whose 0 is the default.
func zeroIsNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// drain lets the workers end what they run and then end themselves.
func (c *crew) drain() {
	for _, w := range c.members {
		w.Drain()
	}
}

// wait returns when all workers have ended. The end of ctx drains them.
func (c *crew) wait(ctx context.Context) error {
	defer c.stop()
	select {
	case <-ctx.Done():
		c.drain()
		<-c.ended
	case <-c.ended:
	}
	return c.err
}
