package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"github.com/aglq/aglq/internal/child"
)

// workerPool is the worker processes of a run.
type workerPool struct {
	replacing sync.Mutex // held while one process takes another's place

	command []string
	job     workerJob
	book    *notebook
	log     *os.File // their standard error

	mu      sync.Mutex
	members []*workerProcess
	started int
	err     error // failures to follow them
}

// workerProcess is one of them.
type workerProcess struct {
	name     string
	run      *child.Process
	followed chan struct{} // closed when all it reported has been read
}

// start adds n processes.
func (w *workerPool) start(n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range n {
		p, err := w.launch()
		if err != nil {
			return err
		}
		w.members = append(w.members, p)
	}
	return nil
}

// launch is called with mu held.
func (w *workerPool) launch() (*workerProcess, error) {
	job := w.job
	job.Name = fmt.Sprintf("%s-process%d", w.job.Name, w.started)
	w.started++
	text, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting a worker process: %w", err)
	}
	defer in.Close()
	cmd := exec.Command(w.command[0], w.command[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = cleanEnv(), bytes.NewReader(append(text, '\n')), in, w.log
	p := &workerProcess{name: job.Name, followed: make(chan struct{})}
	if p.run, err = child.Start(cmd); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a worker process: %w", err), out.Close())
	}
	go func() {
		defer close(p.followed)
		defer out.Close()
		if err := w.book.follow(out); err != nil {
			w.mu.Lock()
			w.err = errors.Join(w.err, err)
			w.mu.Unlock()
		}
	}()
	return p, nil
}

// replace kills one of the processes and starts another in its place.
func (w *workerPool) replace(which uint64) (name string, err error) {
	w.replacing.Lock() // else two could choose the same
	defer w.replacing.Unlock()
	w.mu.Lock()
	i := int(which % uint64(len(w.members)))
	old := w.members[i]
	w.mu.Unlock()
	old.run.Kill()
	<-old.followed
	w.mu.Lock()
	defer w.mu.Unlock()
	fresh, err := w.launch()
	if err != nil {
		return old.name, err
	}
	w.members[i] = fresh
	return old.name, nil
}

// stop kills all and returns when everything that they reported is known.
func (w *workerPool) stop() error {
	w.replacing.Lock()
	defer w.replacing.Unlock()
	w.mu.Lock()
	members := w.members
	w.members = nil
	w.mu.Unlock()
	for _, p := range members {
		p.run.Kill()
		<-p.followed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// healthy reports a process that ended without having been killed.
func (w *workerPool) healthy() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.members {
		if p.run.Ended() {
			return fmt.Errorf("worker process %s ended by itself: %s", p.name, p.run.State())
		}
	}
	return nil
}
