// Package recent remembers what was dealt with last.
package recent

import "sync"

// Memory is a memory of bounded size, in two generations: when the young one is
// full the old one is dropped. It is safe for concurrent use.
type Memory[K comparable, V any] struct {
	// Limit is how many entries one generation holds, at least 1. It is set before
	// the first call.
	Limit int

	mu         sync.Mutex
	young, old map[K]V
}

// Get returns what is remembered for key.
func (m *Memory[K, V]) Get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.find(key)
}

func (m *Memory[K, V]) find(key K) (V, bool) {
	if v, ok := m.young[key]; ok {
		return v, true
	}
	v, ok := m.old[key]
	return v, ok
}

// Put remembers v for key.
func (m *Memory[K, V]) Put(key K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, v)
}

func (m *Memory[K, V]) put(key K, v V) {
	if _, ok := m.young[key]; !ok && (m.young == nil || len(m.young) >= m.Limit) {
		m.old, m.young = m.young, make(map[K]V)
	}
	m.young[key] = v
}

// Update remembers what change makes of what is remembered for key, the zero
// value if that is nothing. Change must not use the Memory.
func (m *Memory[K, V]) Update(key K, change func(V) V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, _ := m.find(key)
	m.put(key, change(v))
}

// UpdateKnown is Update for a key that something is remembered for; for others it
// does nothing.
func (m *Memory[K, V]) UpdateKnown(key K, change func(V) V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.find(key); ok {
		m.put(key, change(v))
	}
}

// Forget drops what is remembered for key.
func (m *Memory[K, V]) Forget(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(key)
}

func (m *Memory[K, V]) forget(key K) {
	delete(m.young, key)
	delete(m.old, key)
}

// ForgetIf drops what is remembered for key if it is so. So must not use the
// Memory.
func (m *Memory[K, V]) ForgetIf(key K, so func(V) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.find(key); ok && so(v) {
		m.forget(key)
	}
}

// Clear drops everything.
func (m *Memory[K, V]) Clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.young, m.old = nil, nil
}
