package operator

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aglq/aglq/queue"
)

// workers looks for those that hold a rollout in silence, and for those that
// send no heartbeats at all.
func (d *Doctor) workers(ctx context.Context) ([]Finding, error) {
	page, err := d.Store.Workers(ctx, queue.WorkerQuery{Paging: queue.Paging{Limit: mostWorkers}})
	if err != nil {
		return nil, err
	}
	now, silence := queue.Seconds(d.Now()), queue.Silence(d.lease())
	var silent, mute []string
	alive := 0
	for _, w := range page.Items {
		switch lives := w.Alive(now, d.lease()); {
		case !lives && w.Status == queue.WorkerBusy:
			silent = append(silent, w.WorkerID)
		case lives && w.LastHeartbeatTime == nil && now-valueOf(w.LastDequeueTime) < silence:
			mute = append(mute, w.WorkerID)
			alive++
		case lives:
			alive++
		}
	}
	var out []Finding
	if len(silent) > 0 {
		f := Finding{Severity: Problem, Remedy: "see whether they still run"}
		f.Text = fmt.Sprintf("%s or been silent for more than %g s: %s",
			these(len(silent), "worker holds a rollout and has ended", "workers hold rollouts and have ended"), silence, some(silent))
		if d.lease() == 0 {
			f.Remedy += "; for their rollouts to return to the queue by themselves, " + d.restart("with --worker-ttl 30")
		}
		out = append(out, f)
	}
	if len(mute) > 0 {
		out = append(out, Finding{Severity: Warning,
			Text: these(len(mute), "worker has asked for work and never sent a heartbeat: ",
				"workers have asked for work and never sent a heartbeat: ") + some(mute),
			Remedy: "switch heartbeats on (--heartbeat-interval): without them a dead worker looks like a busy one"})
	}
	if alive == 0 {
		return append(out, d.noWorker(page.Total)), nil
	}
	if out == nil {
		out = []Finding{{Severity: OK, Text: these(alive, fmt.Sprintf("of %d is alive", page.Total), fmt.Sprintf("of %d are alive", page.Total))}}
	}
	return out, nil
}

// noWorker judges that none of those known is alive: that matters where work
// waits for one.
func (d *Doctor) noWorker(known int) Finding {
	queued := d.statistics.ByStatus
	waiting := queued[queue.RolloutQueuing] + queued[queue.RolloutRequeuing]
	f := Finding{Severity: OK, Text: fmt.Sprintf("none of %d is alive", known)}
	if known == 0 {
		f.Text = "none has ever asked for work"
	}
	if waiting > 0 {
		f.Severity, f.Remedy = Problem, "start one: aglq worker --store-url URL -- COMMAND"
		f.Text += ", and " + these(int(waiting), "rollout waits for one", "rollouts wait for one")
	}
	return f
}

// some names the first of many.
func some(ids []string) string {
	const most = 5
	if len(ids) > most {
		return strings.Join(ids[:most], ", ") + " …"
	}
	return strings.Join(ids, ", ")
}

// workerClocks compares what workers said the time was with when they said it,
// by the store's clock.
func (d *Doctor) workerClocks(ctx context.Context) ([]Finding, error) {
	page, err := d.Store.Workers(ctx, queue.WorkerQuery{Paging: queue.Paging{Limit: mostWorkers}})
	if err != nil {
		return nil, err
	}
	var off []string
	compared := 0
	for _, w := range page.Items {
		ahead, ok := workerSkew(&w)
		if !ok {
			continue
		}
		// The snapshot was taken a moment before it was sent, and says whole seconds.
		const within = 2 * time.Second
		if compared++; ahead.Abs()-within > MostSkew {
			off = append(off, fmt.Sprintf("%s is %s the store's", w.WorkerID, apart(ahead)))
		}
	}
	switch {
	case compared == 0:
		return skip("no worker has said its time"), nil
	case len(off) > 0:
		return []Finding{{Severity: Warning, Text: some(off), Remedy: "synchronise the clocks, by NTP"}}, nil
	}
	return []Finding{{Severity: OK, Text: these(compared, "agrees with the store's", "agree with the store's")}}, nil
}

// workerSkew is how far a worker's clock is ahead of the store's. Workers say
// their local time without its zone; zones differ by quarters of an hour, so
// what is left beside the nearest of these is the skew.
func workerSkew(w *queue.Worker) (time.Duration, bool) {
	said, err := time.Parse("2006-01-02T15:04:05", w.HeartbeatStats.Get("timestamp").Text())
	if err != nil || w.LastHeartbeatTime == nil {
		return 0, false
	}
	const quarter = 15 * time.Minute
	ahead := said.Sub(time.UnixMicro(int64(*w.LastHeartbeatTime * 1e6)))
	return ahead - ahead.Round(quarter), true
}
