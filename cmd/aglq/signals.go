package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signals turns SIGINT, SIGTERM and SIGHUP into two contexts: the first one asks
// to end in good order, the second one to end at once. A third ends the process.
type signals struct {
	drain context.Context // ends with the first signal
	hard  context.Context // ends with the second

	ch   chan os.Signal
	done chan struct{}

	mu    sync.Mutex
	first syscall.Signal // 0 is none yet
}

func watchSignals() *signals {
	s := &signals{ch: make(chan os.Signal, 3), done: make(chan struct{})}
	hard, endHard := context.WithCancel(context.Background())
	drain, endDrain := context.WithCancel(hard)
	s.drain, s.hard = drain, hard
	signal.Notify(s.ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		defer close(s.done)
		defer endHard()
		defer endDrain()
		for n := 1; ; n++ {
			sig, ok := <-s.ch
			if !ok {
				return
			}
			switch n {
			case 1:
				s.mu.Lock()
				s.first, _ = sig.(syscall.Signal)
				s.mu.Unlock()
				endDrain()
			case 2:
				endHard()
			default:
				os.Exit(s.exitCode())
			}
		}
	}()
	return s
}

// exitCode is 128 and the number of the first signal, 0 without one.
func (s *signals) exitCode() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == 0 {
		return 0
	}
	return 128 + int(s.first)
}

func (s *signals) stop() {
	signal.Stop(s.ch)
	close(s.ch)
	<-s.done
}
