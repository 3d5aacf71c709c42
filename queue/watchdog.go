package queue

import "math"

// schedule sets Due from the limits of an active rollout. W is the worker of its
// attempt where the caller knows it: its signs of life put the lease off.
func (r *Record) schedule(w *Worker) {
	r.Due = 0
	a := r.Latest()
	if !r.Rollout.Status.Active() || a == nil {
		return
	}
	if limit := r.Rollout.Config.TimeoutSeconds; limit != nil {
		r.check(a.StartTime + *limit)
	}
	// A heartbeat of exactly 0 switches this check off, as in the reference.
	if limit := r.Rollout.Config.UnresponsiveSeconds; limit != nil {
		switch hb := a.LastHeartbeatTime; {
		case hb == nil:
			r.check(a.StartTime + *limit)
		case *hb != 0:
			r.check(*hb + *limit)
		}
	}
	if r.leased(a) {
		r.check(lastSign(a, w) + r.Lease)
	}
}

// check makes Due no later than t. A limit in the past of the epoch is due too,
// so t is kept above 0, which means none.
func (r *Record) check(t float64) {
	t = max(t, math.SmallestNonzeroFloat64)
	if r.Due == 0 || t < r.Due {
		r.Due = t
	}
}

func (r *Record) leased(a *Attempt) bool {
	return r.Lease > 0 && a.WorkerID != nil && *a.WorkerID != "" && !a.Status.Terminal()
}

// lastSign is the latest sign of life of an attempt and its worker, which may
// be nil.
func lastSign(a *Attempt, w *Worker) float64 {
	sign := a.StartTime
	if a.LastHeartbeatTime != nil {
		sign = max(sign, *a.LastHeartbeatTime)
	}
	if w != nil {
		sign = max(sign, w.LastSeen())
	}
	return sign
}

// Expire is the watchdog's verdict on the latest attempt of an active rollout:
// timeout, unresponsive, lost with its worker, or nothing but a later Due.
// Limits are exceeded strictly; timeout comes first. A lost attempt is
// unresponsive, is retried whatever the retry condition, and is not charged to
// max_attempts: the agent did not fail, its machine did. W is the attempt's
// worker, nil when unknown. Expired reports a verdict.
func (r *Record) Expire(w *Worker, now float64) (events []WorkerEvent, expired bool) {
	a := r.Latest()
	if !r.Rollout.Status.Active() || a == nil {
		r.Due = 0
		return nil, false
	}
	if verdict := overdue(a, r.Rollout.Config, now); verdict != "" {
		a.setStatus(verdict)
		r.propagate(a, now)
		return r.workerEvents(a, false), true
	}
	if r.leased(a) && now-lastSign(a, w) > r.Lease {
		a.setStatus(AttemptUnresponsive)
		a.Lost = true
		r.setStatus(RolloutRequeuing, now)
		return r.workerEvents(a, false), true
	}
	r.schedule(w)
	return nil, false
}

// Adopt puts an attempt that began without a lease, or with another, under this
// one. It reports whether that changed anything.
func (r *Record) Adopt(lease float64) bool {
	a := r.Latest()
	if r.Lease == lease || a == nil || !r.Rollout.Status.Active() {
		return false
	}
	r.Lease = lease
	r.schedule(nil)
	return true
}

func overdue(a *Attempt, c Config, now float64) AttemptStatus {
	if c.TimeoutSeconds != nil && now-a.StartTime > *c.TimeoutSeconds {
		return AttemptTimeout
	}
	if c.UnresponsiveSeconds == nil {
		return ""
	}
	since := a.StartTime
	if a.LastHeartbeatTime != nil {
		if *a.LastHeartbeatTime == 0 {
			return ""
		}
		since = *a.LastHeartbeatTime
	}
	if now-since > *c.UnresponsiveSeconds {
		return AttemptUnresponsive
	}
	return ""
}
