package testagent

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// ErrKilled is what a Dying store says when its time has come.
var ErrKilled = errors.New("killed")

// Dying is a store for an algorithm that is killed: so many calls that write are
// carried out, and those after them fail.
type Dying struct {
	queue.Store
	Left *atomic.Int64
}

func (s Dying) die() error {
	if s.Left.Add(-1) < 0 {
		return ErrKilled
	}
	return nil
}

// Enqueue implements queue.Store.
func (s Dying) Enqueue(ctx context.Context, reqs []queue.Request) ([]queue.Rollout, error) {
	if err := s.die(); err != nil {
		return nil, err
	}
	return s.Store.Enqueue(ctx, reqs)
}

// UpdateResources implements queue.Store.
func (s Dying) UpdateResources(ctx context.Context, id string, r rawjson.Value) (queue.ResourcesUpdate, error) {
	if err := s.die(); err != nil {
		return queue.ResourcesUpdate{}, err
	}
	return s.Store.UpdateResources(ctx, id, r)
}

// AddSpan implements queue.Store.
func (s Dying) AddSpan(ctx context.Context, span queue.Span) (*queue.Span, error) {
	if err := s.die(); err != nil {
		return nil, err
	}
	return s.Store.AddSpan(ctx, span)
}
