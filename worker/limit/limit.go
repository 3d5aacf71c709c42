// Package limit bounds how much happens at a time, and how often.
//
// A [Gate] is the bound itself: it lets in or not. A [Line] has callers wait at one
// or several gates, first come first served. A [Set] is gates under names, as a
// worker has them for its tasks, each with its line; a [Session] is what one task
// holds of them, and gives all of it back at its end.
package limit

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Rule is one bound, or two. The zero Rule is none.
type Rule struct {
	// AtATime is how many may be inside; 0 is no bound.
	AtATime int
	// Calls is how many may enter in any stretch of time that is as long as Per; 0
	// is no bound.
	Calls int
	Per   time.Duration
}

// mostCalls bounds Rule.Calls, whose times are kept.
const mostCalls = 1_000_000

// ParseRule reads "64", at a time, or "100/m", calls in any minute. The units are
// s, m and h, also with a number before them, as 10/30s.
func ParseRule(text string) (Rule, error) {
	wrong := fmt.Errorf("a limit must be a number at a time, as 64, or calls in a time, as 10/s, 100/m, 5000/h or 10/30s")
	number, per, rate := strings.Cut(text, "/")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > mostCalls {
		return Rule{}, wrong
	}
	if !rate {
		return Rule{AtATime: n}, nil
	}
	if per != "" && strings.Trim(per[:1], "0123456789") != "" {
		per = "1" + per
	}
	d, err := time.ParseDuration(per)
	if err != nil || d <= 0 {
		return Rule{}, wrong
	}
	return Rule{Calls: n, Per: d}, nil
}

// Gate lets in what its rules allow. Its methods are safe for concurrent use.
type Gate struct {
	mu      sync.Mutex
	atATime int // 0 is no bound
	inside  int
	windows []window
}

// NewGate makes a gate that keeps all of some rules.
func NewGate(rules ...Rule) *Gate {
	g := &Gate{}
	for _, r := range rules {
		if r.AtATime > 0 && (g.atATime == 0 || r.AtATime < g.atATime) {
			g.atATime = r.AtATime
		}
		if r.Calls > 0 && r.Per > 0 {
			g.windows = append(g.windows, window{Rule: r})
		}
	}
	return g
}

// Try enters if the rules allow it; who entered must call Leave. Otherwise again
// is how long the rules on time forbid it, 0 when nothing does but those inside.
func (g *Gate) Try(now time.Time) (again time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.windows {
		again = max(again, g.windows[i].wait(now))
	}
	if again > 0 || g.atATime > 0 && g.inside >= g.atATime {
		return again, false
	}
	for i := range g.windows {
		g.windows[i].count(now)
	}
	g.inside++
	return 0, true
}

// Leave is the end of what Try let in.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
}

// Inside is how many have entered and not left.
func (g *Gate) Inside() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside
}

// window knows when the latest calls were.
type window struct {
	Rule
	starts []time.Time // a ring of the latest, Calls long when full
	next   int         // the oldest in a full one
}

// wait is how long there is no room for a call.
func (w *window) wait(now time.Time) time.Duration {
	if len(w.starts) < w.Calls {
		return 0
	}
	return max(0, w.starts[w.next].Add(w.Per).Sub(now))
}

// count notes a call that there is room for.
func (w *window) count(now time.Time) {
	if len(w.starts) < w.Calls {
		w.starts = append(w.starts, now)
		return
	}
	w.starts[w.next] = now
	w.next = (w.next + 1) % w.Calls
}
