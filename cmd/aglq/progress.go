package main

import (
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"
)

// progress is how far a long job is.
type progress struct {
	total          int // 0 is unknown
	done, running  int // done counts failed ones too
	queued, failed int
	rewardSum      float64
	rewards        int
	elapsed        time.Duration
}

// rate is rollouts a second since the start.
func (p progress) rate() float64 {
	if p.elapsed <= 0 {
		return 0
	}
	return float64(p.done) / p.elapsed.Seconds()
}

// left estimates the time to the end; false while there is nothing to go by.
func (p progress) left() (time.Duration, bool) {
	if p.total == 0 || p.done == 0 || p.elapsed <= 0 {
		return 0, false
	}
	seconds := float64(max(p.total-p.done, 0)) / p.rate()
	return time.Duration(seconds * float64(time.Second)), seconds < math.MaxInt32
}

func (p progress) meanReward() (float64, bool) {
	if p.rewards == 0 {
		return 0, false
	}
	return p.rewardSum / float64(p.rewards), true
}

// line is the live line, cut to width columns (0 is no bound): the bar goes
// first.
func (p progress) line(width int) string {
	var parts []string
	if p.total > 0 {
		parts = append(parts, fmt.Sprintf("%d/%d done", p.done, p.total))
	} else {
		parts = append(parts, fmt.Sprintf("%d done", p.done))
	}
	parts = append(parts, fmt.Sprintf("%d running", p.running), fmt.Sprintf("%d queued", p.queued),
		fmt.Sprintf("%d failed", p.failed), fmt.Sprintf("%.1f/s", p.rate()))
	if mean, ok := p.meanReward(); ok {
		parts = append(parts, fmt.Sprintf("reward %.4g", mean))
	}
	if left, ok := p.left(); ok {
		parts = append(parts, shortDuration(left)+" left")
	}
	line := strings.Join(parts, "  ")
	if p.total > 0 {
		if long := bar(p.done, p.total, 20) + "  " + line; width <= 0 || len(long) <= width {
			line = long
		}
	}
	if width > 0 && len(line) > width {
		line = line[:width]
	}
	return line
}

// attrs is the same for the log.
func (p progress) attrs() []any {
	attrs := []any{
		slog.Int("done", p.done), slog.Int("running", p.running), slog.Int("queued", p.queued),
		slog.Int("failed", p.failed), slog.String("rate", fmt.Sprintf("%.1f/s", p.rate())),
	}
	if p.total > 0 {
		attrs = append(attrs, slog.Int("total", p.total))
	}
	if mean, ok := p.meanReward(); ok {
		attrs = append(attrs, slog.Float64("mean_reward", roundTo(mean, 4)))
	}
	if left, ok := p.left(); ok {
		attrs = append(attrs, slog.String("left", shortDuration(left)))
	}
	return attrs
}

func bar(done, total, width int) string {
	full := min(width*done/total, width)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}

func roundTo(f float64, digits int) float64 {
	shift := math.Pow10(digits)
	return math.Round(f*shift) / shift
}

// shortDuration is d with its two largest units.
func shortDuration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
