package metrics

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// The console's view: rates and quantiles of the last minute, one line or record at
// most every ten seconds, written by the event that comes after.
const (
	consoleSlots    = 60 // of a second each
	consoleInterval = 10 * time.Second
	// slotSamples bounds the memory of a slot; quantiles of a busier second come
	// from a random sample.
	slotSamples = 256
)

type console struct {
	out io.Writer
	log *slog.Logger // instead of out, if not nil
	now func() time.Time

	mu     sync.Mutex
	logged time.Time // of the last line
	groups map[string]*consoleGroup
}

// consoleGroup holds the events of one kind whose leading labels agree.
type consoleGroup struct {
	event  *eventDefinition
	suffix string // the labels in braces
	slots  [consoleSlots]consoleSlot
}

type consoleSlot struct {
	second  int64 // Unix time; a slot of another minute is stale
	count   int
	samples []float64
}

func newConsole(o Options) *console {
	return &console{out: o.Console, log: o.ConsoleLog, now: o.Now, groups: map[string]*consoleGroup{}}
}

func (c *console) record(e *eventDefinition, seconds float64, labels []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	key := e.counter + "\x00" + strings.Join(labels[:e.group], "\x00")
	g := c.groups[key]
	if g == nil {
		g = &consoleGroup{event: e, suffix: labelSuffix(e, labels)}
		c.groups[key] = g
	}
	g.slot(now.Unix()).add(seconds)
	if c.logged.IsZero() || now.Sub(c.logged) >= consoleInterval {
		c.logged = now
		c.write(c.rates(now.Unix()))
	}
}

// consoleRate is what happened within the window.
type consoleRate struct {
	group     *consoleGroup
	perSecond float64
	quantiles [3]float64 // in seconds
}

func (c *console) write(rates []consoleRate) {
	if c.log == nil {
		fmt.Fprintln(c.out, consoleLine(rates))
		return
	}
	perSecond, seconds := map[string]float64{}, map[string][3]float64{}
	for _, r := range rates {
		perSecond[r.group.event.counter+r.group.suffix] = r.perSecond
		seconds[r.group.event.histogram+r.group.suffix] = r.quantiles
	}
	c.log.Info("metrics", "per_second", perSecond, "seconds_p50_p95_p99", seconds)
}

func labelSuffix(e *eventDefinition, labels []string) string {
	pairs := make([]string, e.group)
	for i := range pairs {
		pairs[i] = e.labels[i] + "=" + labels[i]
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

func (g *consoleGroup) slot(second int64) *consoleSlot {
	s := &g.slots[second%consoleSlots]
	if s.second != second {
		*s = consoleSlot{second: second, samples: s.samples[:0]}
	}
	return s
}

func (s *consoleSlot) add(v float64) {
	s.count++
	if len(s.samples) < slotSamples {
		s.samples = append(s.samples, v)
	} else if i := rand.IntN(s.count); i < slotSamples {
		s.samples[i] = v
	}
}

// rates is the snapshot of everything that happened within the window. Groups
// without an event in it are forgotten.
func (c *console) rates(now int64) []consoleRate {
	var rates []consoleRate
	for key, g := range c.groups {
		count, first, samples := g.window(now)
		if count == 0 {
			delete(c.groups, key)
			continue
		}
		elapsed := max(float64(now-first), consoleInterval.Seconds())
		slices.Sort(samples)
		rates = append(rates, consoleRate{g, float64(count) / elapsed, [3]float64{quantile(samples, .50), quantile(samples, .95), quantile(samples, .99)}})
	}
	return rates
}

func consoleLine(rates []consoleRate) string {
	var entries []string
	for _, r := range rates {
		entries = append(entries,
			fmt.Sprintf("%s%s=%.2f/s", r.group.event.counter, r.group.suffix, r.perSecond),
			fmt.Sprintf("%s%s=%s,%s,%s", r.group.event.histogram, r.group.suffix,
				shortSeconds(r.quantiles[0]), shortSeconds(r.quantiles[1]), shortSeconds(r.quantiles[2])))
	}
	slices.Sort(entries)
	return strings.Join(entries, "  ")
}

func (g *consoleGroup) window(now int64) (count int, first int64, samples []float64) {
	first = now
	for i := range g.slots {
		s := &g.slots[i]
		if s.count == 0 || s.second <= now-consoleSlots {
			continue
		}
		count += s.count
		first = min(first, s.second)
		samples = append(samples, s.samples...)
	}
	return count, first, samples
}

// quantile interpolates linearly; sorted must not be empty.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	lo := int(at)
	hi := min(lo+1, len(sorted)-1)
	w := at - float64(lo)
	return sorted[lo]*(1-w) + sorted[hi]*w
}

func shortSeconds(s float64) string {
	switch {
	case s >= 1:
		return fmt.Sprintf("%.2fs", s)
	case s >= 1e-3:
		return fmt.Sprintf("%.2fms", s*1e3)
	case s >= 1e-6:
		return fmt.Sprintf("%.2fµs", s*1e6)
	}
	return fmt.Sprintf("%.2fns", s*1e9)
}
