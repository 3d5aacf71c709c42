package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

// workerTTL is after how long a silent worker is taken for dead: three of its
// heartbeats.
const (
	workerTTL = 3 * time.Second
	heartbeat = "1"
)

// cluster is a store in this process and workers in processes of their own.
type cluster struct {
	url     string
	out     io.Writer
	opts    options
	store   *store.Store
	cancel  context.CancelFunc
	served  chan error
	workers []*process
	names   int
}

type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has been waited for
}

// startCluster opens a store in memory, serves it on a free port and starts the
// workers.
func startCluster(ctx context.Context, out io.Writer, o options) (*cluster, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening a port for the store: %w", err)
	}
	c := &cluster{url: "http://" + listener.Addr().String(), out: out, opts: o, served: make(chan error, 1)}
	c.store = store.New(memory.New(memory.Options{}), store.Options{WorkerTTL: workerTTL, Logger: logger()})
	// The server outlives an interrupted search: the workers finish first.
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	server := httpapi.New(c.store, httpapi.Options{Logger: logger()})
	go func() { c.served <- server.Serve(serving, listener) }()
	fmt.Fprintf(out, "store in memory at %s\n", c.url)
	for range o.workers {
		if err := c.startWorker(); err != nil {
			c.stop()
			return nil, err
		}
	}
	return c, nil
}

// startWorker runs one more aglq worker. It leads a process group of its own,
// so that Ctrl-C reaches it through stop only.
func (c *cluster) startWorker() error {
	c.names++
	p := &process{name: fmt.Sprintf("digits-%d", c.names), exited: make(chan struct{})}
	args := []string{
		"worker", "--store-url", c.url, "--worker-id", p.name, "--heartbeat-interval", heartbeat, "--interval-jitter", "0",
		"--log-level", "ERROR", "--", c.opts.python, c.opts.agent,
	}
	p.cmd = exec.Command(c.opts.aglq, args...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting a worker: %w", err)
	}
	fmt.Fprintf(c.out, "worker process %d: %s %s\n", p.cmd.Process.Pid, c.opts.aglq, strings.Join(args, " "))
	go func() {
		p.cmd.Wait() // how it ended is of no interest: it was told to, or its rollouts are run again
		close(p.exited)
	}()
	c.workers = append(c.workers, p)
	return nil
}

// killOne kills a worker with SIGKILL in the middle of a rollout, and starts
// another one in its place.
func (c *cluster) killOne() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	victim, err := c.busyWorker(ctx)
	if err != nil {
		fmt.Fprintln(c.out, "       no worker was killed:", err)
		return
	}
	p := c.process(victim.WorkerID)
	if err := p.cmd.Process.Kill(); err != nil {
		fmt.Fprintf(c.out, "       worker %s could not be killed: %v\n", p.name, err)
		return
	}
	<-p.exited
	fmt.Fprintf(c.out, "       worker %s (process %d) killed with SIGKILL while it ran rollout %s; another one starts\n       ",
		p.name, p.cmd.Process.Pid, *victim.CurrentRolloutID)
	if err := c.startWorker(); err != nil {
		fmt.Fprintln(c.out, err)
	}
}

// busyWorker waits until a worker of this cluster holds a rollout.
func (c *cluster) busyWorker(ctx context.Context) (*queue.Worker, error) {
	for {
		page, err := c.store.Workers(ctx, queue.WorkerQuery{Statuses: []queue.WorkerStatus{queue.WorkerBusy}, Paging: queue.All})
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			if w := &page.Items[i]; w.CurrentRolloutID != nil && c.process(w.WorkerID) != nil {
				return w, nil
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("none was busy: %w", ctx.Err())
		}
	}
}

func (c *cluster) process(name string) *process {
	for _, p := range c.workers {
		if p.name == name {
			return p
		}
	}
	return nil
}

// stop ends the workers, at first politely, and then the store.
func (c *cluster) stop() {
	var ending sync.WaitGroup
	for _, p := range c.workers {
		ending.Go(p.end)
	}
	ending.Wait()
	c.cancel()
	if err := <-c.served; err != nil {
		fmt.Fprintln(os.Stderr, "digits: serving the store:", err)
	}
	if err := c.store.Close(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "digits: closing the store:", err)
	}
}

// end tells a worker to finish what it does, then, after 5 s, to end at once.
func (p *process) end() {
	for _, patience := range []time.Duration{5 * time.Second, 5 * time.Second} {
		p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it is gone
		select {
		case <-p.exited:
			return
		case <-time.After(patience):
		}
	}
	p.cmd.Process.Kill()
	<-p.exited
}
