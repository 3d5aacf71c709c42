package operator

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/aglq/aglq/queue"
)

// mostExplained bounds how many silent rollouts are looked at one by one.
const mostExplained = 20

// held looks for rollouts that nobody will end.
func (d *Doctor) held(ctx context.Context) ([]Finding, error) {
	page, err := d.Store.Rollouts(ctx, queue.RolloutQuery{
		Statuses: []queue.RolloutStatus{queue.RolloutPreparing, queue.RolloutRunning},
		Paging:   queue.Paging{SortBy: "start_time", Limit: mostRunning},
	})
	if err != nil {
		return nil, err
	}
	now := queue.Seconds(d.Now())
	silent := slices.DeleteFunc(page.Items, func(r queue.AttemptedRollout) bool {
		a := r.Attempt
		return a != nil && now-max(a.StartTime, valueOf(a.LastHeartbeatTime)) <= queue.Silence(d.lease())
	})
	s := stuck{more: len(silent) > mostExplained || page.Total > mostRunning}
	for _, r := range silent[:min(len(silent), mostExplained)] {
		x, err := d.Store.Explain(ctx, r.RolloutID)
		switch queue.KindOf(err) {
		case queue.NotFound:
			continue // gone meanwhile
		case queue.Invalid:
			return skip("%v", err), nil
		}
		if err != nil {
			return nil, err
		}
		s.add(x)
	}
	return s.findings(d), nil
}

// stuck are rollouts that will not end by themselves.
type stuck struct {
	unheld, orphaned []string
	workers          []string // who hold the orphaned ones, as an expression names them
	more             bool     // there are others that were not looked at
}

func (s *stuck) add(x queue.Explanation) {
	has := func(code queue.ReasonCode) bool {
		return slices.ContainsFunc(x.Reasons, func(r queue.Reason) bool { return r.Code == code })
	}
	switch {
	case has(queue.ReasonUnheld):
		s.unheld = append(s.unheld, x.RolloutID)
	case has(queue.ReasonSilent) && has(queue.ReasonUnwatched):
		s.orphaned = append(s.orphaned, x.RolloutID)
		worker := "nil"
		if x.Holder != nil && x.Holder.WorkerID != nil {
			worker = strconv.Quote(*x.Holder.WorkerID)
		}
		if !slices.Contains(s.workers, worker) {
			s.workers = append(s.workers, worker)
		}
	}
}

// findings are one for each kind, however many rollouts are stuck.
func (s *stuck) findings(d *Doctor) []Finding {
	var out []Finding
	found := func(ids []string, one, many, remedy string) {
		text := these(len(ids), one, many)
		if s.more {
			text = group(len(ids)) + " or more " + many
		}
		out = append(out, Finding{Severity: Problem, Text: text + ": " + some(ids), Remedy: remedy})
	}
	if len(s.unheld) > 0 {
		found(s.unheld, "rollout is shown at work, but nobody holds it", "rollouts are shown at work, but nobody holds them",
			requeueWhere(`attempt_status not in ["preparing", "running"]`))
	}
	if len(s.orphaned) > 0 {
		remedy := requeueWhere("worker_id in ["+strings.Join(s.workers, ", ")+"]") +
			"; from now on give rollouts unresponsive_seconds or timeout_seconds"
		if d.lease() == 0 {
			remedy += ", or " + d.restart("with --worker-ttl 30")
		}
		found(s.orphaned, "rollout is held by a worker that is silent or has ended, and no limit ends it",
			"rollouts are held by workers that are silent or have ended, and no limit ends them", remedy)
	}
	return out
}

// requeueWhere is the command that takes the rollouts of which an expression is
// true from those who hold them.
func requeueWhere(expression string) string {
	return "aglq requeue --force --status preparing,running --where '" + strings.ReplaceAll(expression, "'", `'\''`) + "'"
}

// these counts things: one or many is what follows the number.
func these(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return group(n) + " " + many
}
