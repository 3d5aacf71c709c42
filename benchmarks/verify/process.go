package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/aglq/aglq/internal/child"
	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue/client"
)

// storeProcess is one aglq store, over all its restarts.
type storeProcess struct {
	name    string
	addr    string
	command []string
	logPath string

	mu      sync.Mutex
	run     *child.Process
	crashes []string // how it ended without having been killed
}

func newStoreProcess(n int, command []string, dir string) (*storeProcess, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("store %d", n)
	return &storeProcess{
		name: name, addr: addr, command: command, logPath: filepath.Join(dir, fmt.Sprintf("store-%d.log", n)),
	}, nil
}

// start returns when the store answers.
func (s *storeProcess) start(ctx context.Context) error {
	s.mu.Lock()
	err := s.launch()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.healthy(ctx)
}

// launch is called with mu held.
func (s *storeProcess) launch() error {
	log, err := os.OpenFile(s.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Env = cleanEnv()
	cmd.Stdout, cmd.Stderr = log, log
	if s.run, err = child.Start(cmd); err != nil {
		s.run = nil
		return fmt.Errorf("starting %s: %w", s.name, err)
	}
	return nil
}

// startTimeout bounds the start of a store until it answers, its database being
// away for some of it.
const startTimeout = 60 * time.Second

// healthy waits until the store answers. One that ends by itself, because its
// database is away at its start, is started again.
func (s *storeProcess) healthy(ctx context.Context) error {
	c := client.New("http://"+s.addr, client.Options{RequestTimeout: time.Second})
	defer c.Close()
	for deadline := time.Now().Add(startTimeout); ; {
		err := c.Healthy(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || sleep.For(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("%s does not answer: %w; its last words: %s", s.name, err, s.lastWords())
		}
		s.mu.Lock()
		if s.run == nil || s.run.Ended() {
			err = s.launch()
		} else {
			err = nil
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// killAndRestart leaves the store dead for that time.
func (s *storeProcess) killAndRestart(ctx context.Context, dead time.Duration) error {
	s.stop()
	_ = sleep.For(ctx, dead)
	return s.start(context.WithoutCancel(ctx))
}

// stop kills the store, and notes if it had ended before.
func (s *storeProcess) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return
	}
	s.noteCrash()
	s.run.Kill()
	s.run = nil
}

// noteCrash is called with mu held.
func (s *storeProcess) noteCrash() {
	if s.run != nil && s.run.Ended() {
		s.crashes = append(s.crashes, fmt.Sprintf("%s ended by itself: %s; its last words: %s",
			s.name, s.run.State(), s.lastWords()))
	}
}

// pause stops the store and lets it go on after that time.
func (s *storeProcess) pause(ctx context.Context, d time.Duration) error {
	s.mu.Lock()
	run := s.run
	s.mu.Unlock()
	if run == nil {
		return errSkipped{errors.New("it is dead")}
	}
	if err := run.Signal(syscall.SIGSTOP); err != nil {
		return errSkipped{err}
	}
	_ = sleep.For(ctx, d)
	_ = run.Signal(syscall.SIGCONT) // it may have been killed meanwhile
	return nil
}

func (s *storeProcess) lastWords() string {
	text, err := os.ReadFile(s.logPath)
	if err != nil {
		return "none"
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-1500):]))
}
