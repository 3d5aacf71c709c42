package llmproxy

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aglq/aglq/queue"
)

const (
	// numberTimeout bounds a request for numbers.
	numberTimeout = 5 * time.Second
	// numberPatience is how long the end of a call waits for its number, which is
	// asked for at its start: a store that takes longer than the model is sick, and
	// the call's spans are numbered when they arrive.
	numberPatience = 250 * time.Millisecond
	// askMost bounds the requests for numbers at a time.
	askMost = 128
	// blocksMost bounds the rollouts whose blocks are remembered.
	blocksMost = 16 << 10
)

// numbers fetches the numbers of calls beside them.
type numbers struct {
	store   Store
	size    int
	log     *slog.Logger
	asking  sync.WaitGroup
	slots   chan struct{}
	ctx     context.Context
	stop    context.CancelFunc
	sick    atomic.Bool // the last request failed: nobody waits
	mu      sync.Mutex
	blocks  map[string]*block
	warning rarely
}

// block is what is left of the numbers fetched for a rollout.
type block struct {
	mu         sync.Mutex
	next, last int64
}

// number is one on its way.
type number struct {
	done  chan struct{}
	value int64 // queue.NumberOnArrival where the store gave none
}

func newNumbers(store Store, size int, log *slog.Logger) *numbers {
	n := &numbers{store: store, size: size, log: log, slots: make(chan struct{}, askMost), blocks: map[string]*block{}}
	n.ctx, n.stop = context.WithCancel(context.Background())
	return n
}

// ask begins to fetch a number.
func (n *numbers) ask(rolloutID string) *number {
	out := &number{done: make(chan struct{}), value: queue.NumberOnArrival}
	n.asking.Go(func() {
		defer close(out.done)
		select {
		case n.slots <- struct{}{}:
		case <-n.ctx.Done():
			return
		}
		defer func() { <-n.slots }()
		ctx, cancel := context.WithTimeout(n.ctx, numberTimeout)
		defer cancel()
		value, err := n.fetch(ctx, rolloutID)
		n.sick.Store(err != nil && !queue.Hopeless(err)) // a wrong rollout is no fault of the store's
		if err == nil {
			out.value = value
		} else if n.warning.now() {
			n.log.Warn("the store gave no number; spans are numbered when they arrive", "rollout_id", rolloutID, "error", err)
		}
	})
	return out
}

func (n *numbers) fetch(ctx context.Context, rolloutID string) (int64, error) {
	if n.size == 1 {
		return n.store.NextSequence(ctx, rolloutID, 1)
	}
	b := n.block(rolloutID)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next > b.last {
		first, err := n.store.NextSequence(ctx, rolloutID, n.size)
		if err != nil {
			return 0, err
		}
		b.next, b.last = first, first+int64(n.size)-1
	}
	b.next++
	return b.next - 1, nil
}

func (n *numbers) block(rolloutID string) *block {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.blocks[rolloutID]
	if b == nil {
		if len(n.blocks) >= blocksMost {
			clear(n.blocks) // numbers that were fetched are lost, and nothing else
		}
		b = &block{next: 1}
		n.blocks[rolloutID] = b
	}
	return b
}

// wait gives a number, or what stands for one when it is late.
func (n *numbers) wait(num *number) int64 {
	select {
	case <-num.done:
		return num.value
	default:
	}
	if n.sick.Load() {
		return queue.NumberOnArrival
	}
	timer := time.NewTimer(numberPatience)
	defer timer.Stop()
	select {
	case <-num.done:
		return num.value
	case <-timer.C:
		return queue.NumberOnArrival
	}
}

func (n *numbers) close() {
	n.stop()
	n.asking.Wait()
}

// rarely lets one event in a while through. The zero rarely is ready.
type rarely struct{ last atomic.Int64 }

const rareInterval = 10 * time.Second

func (r *rarely) now() bool {
	now, last := time.Now().UnixNano(), r.last.Load()
	return (last == 0 || now-last >= int64(rareInterval)) && r.last.CompareAndSwap(last, now)
}
