package queue

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Evidence is what an [Explanation] is drawn from.
type Evidence struct {
	Record *Record
	// Now is the time of the explanation, Unix seconds.
	Now float64
	// Ahead counts the rollouts before this one in the queue. A store counts up
	// to [MostAhead] and one more.
	Ahead int
	// Workers are all that the store knows.
	Workers []*Worker
	// WorkerTTL is the lease that the store gives workers, in seconds; 0 is none.
	WorkerTTL float64
	// Traces tell of attempts by their id. Attempts may be missing.
	Traces map[string]Trace
}

const (
	// MostAhead is how far the rollouts ahead in the queue are counted.
	MostAhead = 1000
	// askingPause is how many seconds a free worker may let pass without asking for
	// work that waits: two pauses between the claims of the usual ones.
	askingPause = 10
)

// ReasonCode classes a [Reason]. Programs may rely on the codes, not on texts.
type ReasonCode string

// The codes.
const (
	ReasonNoWorker    ReasonCode = "no_worker"    // nobody has ever asked for work
	ReasonWorkersGone ReasonCode = "workers_gone" // those who did are silent
	ReasonWorkersBusy ReasonCode = "workers_busy" // each live worker holds a rollout
	ReasonWorkersIdle ReasonCode = "workers_idle" // live workers are free, but do not ask
	ReasonBehind      ReasonCode = "behind"       // others are before it in the queue
	ReasonNext        ReasonCode = "next"         // it is the next to be claimed
	ReasonHeld        ReasonCode = "held"         // an attempt is at work
	ReasonSilent      ReasonCode = "silent"       // the holder shows no sign of life
	ReasonUnwatched   ReasonCode = "unwatched"    // no limit would end a dead attempt
	ReasonOverdue     ReasonCode = "overdue"      // a limit is exceeded, the verdict is due
	ReasonUnheld      ReasonCode = "unheld"       // it counts as active, but nobody holds it
	ReasonFinished    ReasonCode = "finished"
)

// Reason is one thing that says why a rollout stands where it does.
type Reason struct {
	Code ReasonCode `json:"code"`
	Text string     `json:"text"`
}

// Event is something that may happen to a rollout next. At is in Unix seconds,
// nil where no time is set for it.
type Event struct {
	Event string   `json:"event"` // claim, timeout, unresponsive, lease_end, report or nothing
	At    *float64 `json:"at"`
	Text  string   `json:"text"`
}

// Place is where a rollout stands in the queue.
type Place struct {
	Ahead     int  `json:"ahead"`
	AheadOver bool `json:"ahead_over"` // there are more than Ahead
}

// Holder is who works on a rollout, and since when.
type Holder struct {
	AttemptRef
	WorkerID *string `json:"worker_id"` // nil for a caller that gave none
	Since    float64 `json:"since"`
	LastSign float64 `json:"last_sign"` // of the attempt or its worker
}

// WorkerCount sums up the workers of a store.
type WorkerCount struct {
	Known int `json:"known"`
	Alive int `json:"alive"` // see Worker.Alive
	Busy  int `json:"busy"`  // alive, and holding a rollout
}

// Explanation says why a rollout stands where it does and what happens next.
type Explanation struct {
	RolloutID string        `json:"rollout_id"`
	Status    RolloutStatus `json:"status"`
	Time      float64       `json:"time"` // of the explanation
	StartTime float64       `json:"start_time"`
	EndTime   *float64      `json:"end_time"`
	Config    Config        `json:"config"`
	// Summary is the whole in one sentence.
	Summary string `json:"summary"`
	// Reasons come most important first.
	Reasons []Reason    `json:"reasons"`
	Queue   *Place      `json:"queue"`  // nil when not queued
	Holder  *Holder     `json:"holder"` // nil when nobody holds it
	Workers WorkerCount `json:"workers"`
	// Attempts in order, first to latest.
	Attempts []AttemptStory `json:"attempts"`
	// Next comes soonest first, what has no time last.
	Next []Event `json:"next"`
	// AttemptsLeft is how many more attempts max_attempts allows. How they end
	// decides whether the retry condition wants them.
	AttemptsLeft int64 `json:"attempts_left"`
}

// Explain draws the explanation. It is a pure function: what a new reason or
// event needs to know becomes a field of Evidence.
func Explain(e Evidence) Explanation {
	r := e.Record
	x := Explanation{
		RolloutID: r.Rollout.RolloutID, Status: r.Rollout.Status, Time: e.Now,
		StartTime: r.Rollout.StartTime, EndTime: r.Rollout.EndTime, Config: r.Rollout.Config,
		Workers: e.countWorkers(), Attempts: e.stories(), AttemptsLeft: r.attemptsLeft(),
	}
	if x.Config.RetryCondition == nil {
		x.Config.RetryCondition = []AttemptStatus{} // an array on the wire
	}
	switch {
	case r.Rollout.Status.Queued():
		x.queued(e)
	case r.Rollout.Status.Active():
		x.active(e)
	default:
		x.finished(e)
	}
	// What has no time stays behind what has one.
	slices.SortStableFunc(x.Next, func(a, b Event) int { return cmp.Compare(eventTime(a), eventTime(b)) })
	texts := make([]string, len(x.Reasons))
	for i, reason := range x.Reasons {
		texts[i] = reason.Text
	}
	x.Summary = string(x.Status) + ": " + strings.Join(texts, "; ")
	return x
}

func eventTime(e Event) float64 {
	if e.At == nil {
		return math.Inf(1)
	}
	return *e.At
}

func (x *Explanation) because(code ReasonCode, format string, args ...any) {
	x.Reasons = append(x.Reasons, Reason{code, fmt.Sprintf(format, args...)})
}

// comes adds an event; a time that is no number is none.
func (x *Explanation) comes(event string, at float64, text string) {
	e := Event{Event: event, Text: text}
	if !math.IsNaN(at) && !math.IsInf(at, 0) {
		e.At = &at
	}
	x.Next = append(x.Next, e)
}

var whenever = math.Inf(1)

func (e Evidence) countWorkers() WorkerCount {
	c := WorkerCount{Known: len(e.Workers)}
	for _, w := range e.Workers {
		if w.Alive(e.Now, e.WorkerTTL) {
			c.Alive++
			if w.Status == WorkerBusy {
				c.Busy++
			}
		}
	}
	return c
}

// queued explains a rollout that waits to be claimed.
func (x *Explanation) queued(e Evidence) {
	ahead := min(e.Ahead, MostAhead)
	x.Queue = &Place{Ahead: ahead, AheadOver: e.Ahead > MostAhead}
	x.whyNotClaimed(e)
	switch {
	case x.Queue.AheadOver:
		x.because(ReasonBehind, "behind more than %d others in the queue", ahead)
	case ahead == 1:
		x.because(ReasonBehind, "behind 1 other in the queue")
	case ahead > 1:
		x.because(ReasonBehind, "behind %d others in the queue", ahead)
	default:
		x.because(ReasonNext, "the next to be claimed")
	}
	x.comes("claim", whenever, fmt.Sprintf("a worker claims it and attempt %d begins", e.Record.nextSequence()))
}

// whyNotClaimed tells of the workers, as far as they are the reason.
func (x *Explanation) whyNotClaimed(e Evidence) {
	switch c := x.Workers; {
	case c.Known == 0:
		x.because(ReasonNoWorker, "no worker has ever asked for work; start one with aglq worker")
	case c.Alive == 0:
		last := slices.MaxFunc(e.Workers, func(a, b *Worker) int { return cmp.Compare(a.LastSeen(), b.LastSeen()) })
		if last.LastSeen() == 0 {
			x.because(ReasonWorkersGone, "none of %s has shown a sign of life; start one with aglq worker", counted(c.Known, "worker"))
			return
		}
		x.because(ReasonWorkersGone, "no worker is alive: of %s, the last sign came from %s, %s ago; start one with aglq worker",
			counted(c.Known, "worker"), last.WorkerID, duration(e.Now-last.LastSeen()))
	case c.Busy == c.Alive:
		x.because(ReasonWorkersBusy, "%s alive, and busy with other rollouts", areCounted(c.Alive, "worker"))
	default:
		x.whyNotAskedFor(e)
	}
}

// whyNotAskedFor tells of live workers that are free: while work waits, one that
// asks gets some at once.
func (x *Explanation) whyNotAskedFor(e Evidence) {
	last := 0.0
	for _, w := range e.Workers {
		if w.Alive(e.Now, e.WorkerTTL) && w.Status != WorkerBusy && w.LastDequeueTime != nil {
			last = max(last, *w.LastDequeueTime)
		}
	}
	if e.Now-last <= askingPause {
		return
	}
	free := areCounted(x.Workers.Alive-x.Workers.Busy, "worker") + " free, but without "
	if last == 0 {
		x.because(ReasonWorkersIdle, "%sever having asked for work", free)
		return
	}
	x.because(ReasonWorkersIdle, "%shaving asked for work for %s", free, duration(e.Now-last))
}

// active explains a rollout that an attempt holds, or should hold.
func (x *Explanation) active(e Evidence) {
	r := e.Record
	a := r.Latest()
	if a == nil || (a.Status != AttemptPreparing && a.Status != AttemptRunning) {
		x.unheld(a)
		x.limits(e, nil)
		x.comes("nothing", whenever, "nobody is there to report")
		return
	}
	w := workerOf(a, e.Workers)
	x.Holder = &Holder{AttemptRef: a.ref(), WorkerID: a.WorkerID, Since: a.StartTime, LastSign: lastSign(a, w)}
	held := fmt.Sprintf("attempt %d, held by %s for %s", a.SequenceID, holderName(a), duration(e.Now-a.StartTime))
	if a.Status == AttemptPreparing {
		held += ", has sent no span yet"
	}
	x.because(ReasonHeld, "%s; last sign of life %s ago", held, duration(e.Now-x.Holder.LastSign))
	switch silence := e.Now - x.Holder.LastSign; {
	case w != nil && w.Stopped():
		x.because(ReasonSilent, "its worker has ended, %s ago", duration(e.Now-w.LastSeen()))
	case silence > Silence(e.WorkerTTL):
		x.because(ReasonSilent, "neither the attempt nor its worker has shown a sign of life for %s", duration(silence))
	}
	if !x.limits(e, w) {
		x.because(ReasonUnwatched, "nothing ends the attempt if its worker has died: give the rollout timeout_seconds or "+
			"unresponsive_seconds, or the store --worker-ttl")
	}
	x.comes("report", whenever, "the worker reports the end; if it fails, "+r.consequence(AttemptFailed))
}

func (x *Explanation) unheld(a *Attempt) {
	const remedy = "no worker has it and none will get it: put it back with aglq requeue --force"
	if a == nil {
		x.because(ReasonUnheld, "it has no attempt; %s", remedy)
		return
	}
	x.because(ReasonUnheld, "its latest attempt, number %d, has ended (%s); %s", a.SequenceID, a.Status, remedy)
}

// limits tells when the watchdog acts on the latest attempt; false is never.
func (x *Explanation) limits(e Evidence, w *Worker) bool {
	list := e.Record.deadlines(w)
	for _, d := range list {
		x.comes(d.event, d.at, d.text)
		if e.Now > d.at {
			x.because(ReasonOverdue, "%s since %s; the watchdog's next look ends it", d.exceeded, duration(e.Now-d.at))
		}
	}
	return len(list) > 0
}

// finished explains how a rollout ended.
func (x *Explanation) finished(e Evidence) {
	r := e.Record
	a := r.Latest()
	since := ""
	if end := r.Rollout.EndTime; end != nil {
		since = fmt.Sprintf(" %s ago, %s after it was enqueued", duration(e.Now-*end), duration(*end-r.Rollout.StartTime))
	}
	switch {
	case r.Rollout.Status == RolloutCancelled:
		x.because(ReasonFinished, "cancelled by a caller%s", since)
	case a == nil:
		x.because(ReasonFinished, "set by a caller%s; no attempt was made", since)
	case r.Rollout.Status == RolloutSucceeded && a.Status == AttemptSucceeded:
		x.because(ReasonFinished, "attempt %d succeeded%s", a.SequenceID, since)
	case r.Rollout.Status == RolloutFailed && a.Status.endsUnwell():
		x.because(ReasonFinished, "attempt %d ended %s%s, and %s", a.SequenceID, a.Status, since, r.whyNoRetry(a.Status))
	default:
		x.because(ReasonFinished, "set by a caller%s; its latest attempt, number %d, is %s", since, a.SequenceID, a.Status)
	}
	x.comes("nothing", whenever, "it has finished; aglq requeue runs it again")
}

func (s AttemptStatus) endsUnwell() bool {
	return s == AttemptFailed || s == AttemptTimeout || s == AttemptUnresponsive
}

// deadline is a time at which the watchdog ends the latest attempt.
type deadline struct {
	event    string
	at       float64
	exceeded string // what it means when at has passed
	text     string
}

// deadlines are the limits that apply now; the earliest of them is what
// [Record.Due] may not be later than.
func (r *Record) deadlines(w *Worker) []deadline {
	a := r.Latest()
	if !r.Rollout.Status.Active() || a == nil {
		return nil
	}
	var list []deadline
	add := func(event string, at float64, exceeded, text string) {
		list = append(list, deadline{event, at, exceeded, text})
	}
	if limit := r.Rollout.Config.TimeoutSeconds; limit != nil {
		add("timeout", a.StartTime+*limit, "timeout_seconds are exceeded",
			fmt.Sprintf("after %s the attempt times out; %s", duration(*limit), r.consequence(AttemptTimeout)))
	}
	if limit := r.Rollout.Config.UnresponsiveSeconds; limit != nil && (a.LastHeartbeatTime == nil || *a.LastHeartbeatTime != 0) {
		since := a.StartTime
		if a.LastHeartbeatTime != nil {
			since = *a.LastHeartbeatTime
		}
		add("unresponsive", since+*limit, "unresponsive_seconds are exceeded",
			fmt.Sprintf("after %s without a sign of life the attempt is unresponsive; %s", duration(*limit), r.consequence(AttemptUnresponsive)))
	}
	if r.leased(a) {
		add("lease_end", lastSign(a, w)+r.Lease, "the lease has ended",
			fmt.Sprintf("after %s without a sign of life the worker is dead; the rollout is requeued and not charged", duration(r.Lease)))
	}
	return list
}

// consequence says what an end of the latest attempt would mean.
func (r *Record) consequence(s AttemptStatus) string {
	if r.retries(s) {
		return fmt.Sprintf("the rollout is requeued, with %s left", counted(int(r.attemptsLeft()), "attempt"))
	}
	return "the rollout fails: " + r.whyNoRetry(s)
}

func (r *Record) retries(s AttemptStatus) bool {
	return slices.Contains(r.Rollout.Config.RetryCondition, s) && r.attemptsLeft() > 0
}

func (r *Record) whyNoRetry(s AttemptStatus) string {
	switch c := r.Rollout.Config; {
	case !slices.Contains(c.RetryCondition, s):
		return fmt.Sprintf("%s is not in its retry_condition", s)
	case r.attemptsLeft() == 0:
		return fmt.Sprintf("no attempt is left of max_attempts %d", c.MaxAttempts)
	}
	return "it was not retried: the status was set by a caller, or the config has changed since"
}

func (r *Record) attemptsLeft() int64 {
	if r.Latest() == nil {
		return r.Rollout.Config.MaxAttempts
	}
	return max(0, r.Rollout.Config.MaxAttempts-r.charged())
}

func workerOf(a *Attempt, workers []*Worker) *Worker {
	for _, w := range workers {
		if a.WorkerID != nil && w.WorkerID == *a.WorkerID {
			return w
		}
	}
	return nil
}

func holderName(a *Attempt) string {
	if a.WorkerID == nil || *a.WorkerID == "" {
		return "a caller that gave no worker id"
	}
	return "worker " + *a.WorkerID
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func areCounted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " is"
	}
	return fmt.Sprintf("%d %ss are", n, noun)
}

// duration writes seconds in short; a clock that runs ahead makes no negative
// ones.
func duration(seconds float64) string {
	switch s := max(0, seconds); {
	case math.IsNaN(seconds) || s > 1e9:
		return "for ever"
	case s < 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", s), ".0") + "s"
	case s < 60:
		return fmt.Sprintf("%.0fs", math.Floor(s))
	case s >= 48*3600:
		return fmt.Sprintf("%dd%02dh", int(s)/86400, int(s)/3600%24)
	default:
		text := time.Duration(int(s) * int(time.Second)).String()
		if s >= 3600 {
			text, _, _ = strings.Cut(text, "m")
			text += "m"
		}
		return text
	}
}
