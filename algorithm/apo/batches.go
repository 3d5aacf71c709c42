package apo

import (
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/aglq/aglq/algorithm"
)

// batches draws batches of tasks without end, the same for the same seed. Passes
// over all tasks in random order follow each other; a batch may reach from one into
// the next, but has no task twice. A batch as large as all tasks is all of them in
// random order. It is safe for concurrent use.
type batches struct {
	tasks []algorithm.Task
	size  int

	mu    sync.Mutex
	rng   *rand.Rand
	left  []int // of the pass at hand
	drawn [][]int
}

func newBatches(tasks []algorithm.Task, size int, seed, stream uint64) *batches {
	return &batches{tasks: tasks, size: min(size, len(tasks)), rng: rand.New(rand.NewPCG(seed, stream))}
}

// at is the batch of a number, from 0.
func (b *batches) at(number int) []algorithm.Task {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.drawn) <= number {
		b.drawn = append(b.drawn, b.draw())
	}
	tasks := make([]algorithm.Task, b.size)
	for i, index := range b.drawn[number] {
		tasks[i] = b.tasks[index]
	}
	return tasks
}

func (b *batches) draw() []int {
	if b.size == len(b.tasks) {
		return b.rng.Perm(len(b.tasks))
	}
	var batch []int
	for len(batch) < b.size {
		if len(b.left) == 0 {
			b.left = b.rng.Perm(len(b.tasks))
		}
		next := b.left[0]
		b.left = b.left[1:]
		if !slices.Contains(batch, next) {
			batch = append(batch, next)
		}
	}
	return batch
}
