package llmproxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/aglq/aglq/worker/limit"
)

// acquire takes an upstream of the model that is not among tried, unless all
// are. When all are at their limits it waits for one, at most patience.
func (m *model) acquire(ctx context.Context, tried []*upstream, patience time.Duration) (u *upstream, err error) {
	err = m.line.Wait(ctx, patience, func(now time.Time) (again time.Duration, ok bool) {
		u, again = m.take(now, tried)
		return again, u != nil
	})
	return u, overLimit(err, fmt.Sprintf("model %s is at its limit of calls: try again later, or raise max_parallel_requests or rpm in the model table", m.name))
}

// overLimit turns the error of who has waited for a limit in vain into an answer.
func overLimit(err error, msg string) error {
	var full *limit.Full
	if !errors.As(err, &full) {
		return err
	}
	return &refusal{
		status: http.StatusTooManyRequests, kind: "rate_limit_error", retryAfter: max(full.Again, time.Second), msg: msg,
	}
}

// take takes a free upstream; without one it says when to look again.
func (m *model) take(now time.Time, tried []*upstream) (_ *upstream, again time.Duration) {
	again = limit.Forever
	untried := len(tried) < len(m.upstreams)
	for _, u := range m.candidates(now) {
		if untried && slices.Contains(tried, u) {
			continue
		}
		wait, ok := u.gate.Try(now)
		if ok {
			return u, 0
		}
		again = min(again, wait)
	}
	return nil, again
}

// release gives an upstream back.
func (m *model) release(u *upstream) {
	u.gate.Leave()
	m.line.Next()
}
