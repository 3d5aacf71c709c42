package queue

import (
	"slices"

	"github.com/aglq/aglq/queue/rawjson"
)

// Tail is the Place of a rollout that has just entered the queue and has not
// been given its place yet: the store numbers it when it writes the record.
const Tail = -1

// Record is a rollout with everything that is decided together with it: its
// attempts and its place in the queue. Backends store and replace it as one, so
// a rollout is always either queued, held by an attempt, or finished.
//
// Its methods are the lifecycle. They change the record they are called on,
// which must therefore be the caller's own ([Record.Clone]), and return what
// the change means for workers.
type Record struct {
	Rollout Rollout
	// Attempts in sequence order; the last one is the latest.
	Attempts []Attempt
	// Place orders the queue: smaller is sooner, 0 is not queued, [Tail] is
	// queued and not numbered yet.
	Place int64
	// Due is the earliest time worth a watchdog check, 0 for none. It is a lower
	// bound: heartbeats move the true deadline on without touching it.
	Due float64
	// Lease is how many seconds an attempt outlives the last sign of life of
	// itself and of its worker, 0 for ever. The store sets it with each attempt.
	Lease float64
	// Spans counts the spans stored for the rollout.
	Spans int64
	// Revision belongs to the backend.
	Revision int64
}

// Request asks for a new rollout. A nil or null Metadata becomes {}; a nil
// Config the default one; a nil ResourcesID the latest resources.
type Request struct {
	Input       rawjson.Value `json:"input"`
	Mode        Mode          `json:"mode,omitempty"`
	ResourcesID *string       `json:"resources_id,omitempty"`
	Config      *Config       `json:"config,omitempty"`
	Metadata    rawjson.Value `json:"metadata,omitempty"`
}

// NewRecord makes the record of a new rollout: at the queue's tail when queued,
// else waiting for its first attempt.
func NewRecord(id string, req Request, queued bool, now float64) *Record {
	r := &Record{Rollout: Rollout{
		RolloutID:   id,
		Input:       req.Input,
		StartTime:   now,
		Mode:        req.Mode,
		ResourcesID: req.ResourcesID,
		Status:      RolloutPreparing,
		Config:      DefaultConfig(),
		Metadata:    req.Metadata,
	}}
	if req.Config != nil {
		r.Rollout.Config = *req.Config
	}
	if r.Rollout.Input == nil {
		r.Rollout.Input = rawjson.Null
	}
	if r.Rollout.Metadata.IsNull() {
		r.Rollout.Metadata = rawjson.EmptyObject
	}
	if queued {
		r.Rollout.Status = RolloutQueuing
		r.Place = Tail
	}
	return r
}

// Clone copies the record so that it can be changed. Payloads are shared: they
// are immutable.
func (r *Record) Clone() *Record {
	c := *r
	c.Attempts = slices.Clone(r.Attempts)
	return &c
}

// Latest is the attempt with the highest sequence number, nil without attempts.
func (r *Record) Latest() *Attempt {
	if len(r.Attempts) == 0 {
		return nil
	}
	return &r.Attempts[len(r.Attempts)-1]
}

// Attempt finds an attempt by id, or the latest by "latest"; nil for none.
func (r *Record) Attempt(id string) *Attempt {
	if id == "latest" {
		return r.Latest()
	}
	for i := range r.Attempts {
		if r.Attempts[i].AttemptID == id {
			return &r.Attempts[i]
		}
	}
	return nil
}

// AttemptRefs names the attempts.
func (r *Record) AttemptRefs() []AttemptRef {
	out := make([]AttemptRef, len(r.Attempts))
	for i := range r.Attempts {
		out[i] = AttemptRef{RolloutID: r.Rollout.RolloutID, AttemptID: r.Attempts[i].AttemptID}
	}
	return out
}

// View is the rollout with a copy of its latest attempt.
func (r *Record) View() AttemptedRollout {
	v := AttemptedRollout{Rollout: r.Rollout}
	if a := r.Latest(); a != nil {
		latest := *a
		v.Attempt = &latest
	}
	return v
}

// Begin makes a new attempt, whatever the rollout's status: a claim from the
// queue (claimed) or a start by a caller. The rollout is preparing afterwards.
// Lease is that of the attempt, see [Record.Lease].
func (r *Record) Begin(attemptID string, workerID *string, claimed bool, lease, now float64) []WorkerEvent {
	r.Lease = lease
	r.Attempts = append(r.Attempts, Attempt{
		RolloutID:  r.Rollout.RolloutID,
		AttemptID:  attemptID,
		SequenceID: r.nextSequence(),
		StartTime:  now,
		Status:     AttemptPreparing,
		WorkerID:   workerID,
	})
	r.setStatus(RolloutPreparing, now)
	r.schedule(nil)
	return r.workerEvents(r.Latest(), claimed)
}

func (r *Record) nextSequence() int64 {
	if a := r.Latest(); a != nil {
		return a.SequenceID + 1
	}
	return 1
}

// Unclaim takes back a claim whose answer never reached the worker. It does
// nothing, and reports false, once the attempt has shown any sign of life. The
// rollout returns to place, its place before the claim; 0, for an attempt that
// was not claimed from the queue, is its tail.
func (r *Record) Unclaim(attemptID string, place int64) ([]WorkerEvent, bool) {
	a := r.Latest()
	if a == nil || a.AttemptID != attemptID || a.Status != AttemptPreparing ||
		a.LastHeartbeatTime != nil || r.Rollout.Status != RolloutPreparing {
		return nil, false
	}
	events := []WorkerEvent(nil)
	if a.WorkerID != nil && *a.WorkerID != "" {
		events = append(events, WorkerEvent{WorkerID: *a.WorkerID, Change: WorkerFreed, AttemptRef: a.ref()})
	}
	r.Attempts = r.Attempts[:len(r.Attempts)-1]
	r.Rollout.Status = RolloutQueuing
	if len(r.Attempts) > 0 {
		r.Rollout.Status = RolloutRequeuing
	}
	r.Place = place
	if place == 0 {
		r.Place = Tail
	}
	r.Due = 0
	return events, true
}

// SpansStored tells the record that n new spans of an attempt were stored,
// which is a heartbeat. A preparing or unresponsive attempt is running
// afterwards, and with it, if it is the latest, a preparing or requeuing
// rollout. It reports false for an unknown attempt.
func (r *Record) SpansStored(attemptID string, n int, now float64) bool {
	a := r.Attempt(attemptID)
	if a == nil {
		return false
	}
	r.Spans += int64(n)
	r.beat(a, now)
	if a.Status == AttemptPreparing || a.Status == AttemptUnresponsive {
		a.setStatus(AttemptRunning)
	}
	latest := a == r.Latest()
	status := r.Rollout.Status
	if latest && a.Status == AttemptRunning && (status == RolloutPreparing || status == RolloutRequeuing) {
		r.setStatus(RolloutRunning, now)
		if r.Due == 0 {
			r.schedule(nil)
		}
	}
	return true
}

// SpanMayWait reports whether what a span of the attempt changes can be written
// a little later without anybody acting on the old state meanwhile: it brings
// nothing back from the queue and nobody back from the dead.
func (r *Record) SpanMayWait(attemptID string) bool {
	a := r.Attempt(attemptID)
	return a != nil && a.Status != AttemptUnresponsive && (a != r.Latest() || !r.Rollout.Status.Queued())
}

// beat moves the attempt's heartbeat on; it never goes back.
func (r *Record) beat(a *Attempt, now float64) {
	before := a.LastHeartbeatTime
	if before != nil && *before >= now {
		return
	}
	a.LastHeartbeatTime = &now
	if before != nil && *before == 0 {
		// A heartbeat of 0 had switched the silence check off.
		r.schedule(nil)
	}
}

// Renew is a heartbeat of the worker that holds an attempt. It reports whether
// the worker still holds it: the attempt is the latest, has not ended, and
// neither has its rollout. Only then is the heartbeat moved.
func (r *Record) Renew(attemptID string, now float64) (held bool) {
	a := r.Latest()
	if a == nil || a.AttemptID != attemptID || !r.Rollout.Status.Active() ||
		(a.Status != AttemptPreparing && a.Status != AttemptRunning) {
		return false
	}
	r.beat(a, now)
	return true
}

// AttemptUpdate changes an attempt; what is not set stays.
type AttemptUpdate struct {
	Status            Optional[AttemptStatus]
	WorkerID          Optional[string]
	LastHeartbeatTime Optional[float64]
	Metadata          Optional[rawjson.Value]
}

// UpdateAttempt applies what was reported of an attempt ("latest" names the
// latest). A status reaches the rollout only from the latest attempt, only if
// that attempt had not ended before, and only while the rollout has not: a
// finished rollout ends once, and a cancelled one stays cancelled.
func (r *Record) UpdateAttempt(id string, u AttemptUpdate, now float64) (*Attempt, []WorkerEvent, error) {
	if len(r.Attempts) == 0 {
		return nil, nil, ErrNoAttempts(r.Rollout.RolloutID)
	}
	a := r.Attempt(id)
	if a == nil {
		return nil, nil, ErrNoAttempt(r.Rollout.RolloutID, id)
	}
	fenced := a != r.Latest() || a.Status.Terminal() || r.Rollout.Status.Finished()
	if u.WorkerID.Set {
		worker := u.WorkerID.Value
		a.WorkerID = &worker
	}
	if u.LastHeartbeatTime.Set {
		t := u.LastHeartbeatTime.Value
		a.LastHeartbeatTime = &t
	}
	if u.Metadata.Set {
		a.Metadata = u.Metadata.Value
	}
	if u.Status.Set {
		a.setStatus(u.Status.Value)
		if a.Status == AttemptSucceeded || a.Status == AttemptFailed {
			a.EndTime = &now
		}
		if !fenced {
			r.propagate(a, now)
		}
	}
	if u.Status.Set || u.WorkerID.Set || u.LastHeartbeatTime.Set {
		r.schedule(nil)
	}
	var events []WorkerEvent
	if u.Status.Set || (u.WorkerID.Set && u.WorkerID.Value != "") {
		events = r.workerEvents(a, false)
	}
	return a, events, nil
}

// propagate moves the rollout to what its latest attempt says.
func (r *Record) propagate(a *Attempt, now float64) {
	switch a.Status {
	case AttemptPreparing:
		r.setStatus(RolloutPreparing, now)
	case AttemptRunning:
		r.setStatus(RolloutRunning, now)
	case AttemptSucceeded:
		r.setStatus(RolloutSucceeded, now)
	default:
		if slices.Contains(r.Rollout.Config.RetryCondition, a.Status) && r.charged() < r.Rollout.Config.MaxAttempts {
			r.setStatus(RolloutRequeuing, now)
		} else {
			r.setStatus(RolloutFailed, now)
		}
	}
}

// charged counts the attempts that max_attempts is compared with: those whose
// worker died are free.
func (r *Record) charged() int64 {
	n := r.Latest().SequenceID
	for i := range r.Attempts {
		if r.Attempts[i].Lost {
			n--
		}
	}
	return n
}

// setStatus is the only writer of a rollout's status after its creation.
func (r *Record) setStatus(s RolloutStatus, now float64) {
	r.Rollout.Status = s
	switch {
	case s.Queued():
		if r.Place == 0 {
			r.Place = Tail
		}
	default:
		r.Place = 0
	}
	if s.Finished() {
		r.Rollout.EndTime = &now
	}
	if !s.Active() {
		r.Due = 0
	}
}

// RolloutUpdate changes a rollout; what is not set stays. A nil ResourcesID,
// the mode "" and a null input or metadata clear the field.
type RolloutUpdate struct {
	Input       Optional[rawjson.Value]
	Mode        Optional[Mode]
	ResourcesID Optional[*string]
	Status      Optional[RolloutStatus]
	Config      Optional[Config]
	Metadata    Optional[rawjson.Value]
	// Fence ends the latest attempt as failed where it has not ended, so that
	// nothing it still reports changes the rollout. It goes with a Status that is
	// not active.
	Fence bool
}

// Update applies a caller's change. Every status may follow every other. Unless
// there is a fence, attempts and workers are not touched.
func (r *Record) Update(u RolloutUpdate, now float64) (events []WorkerEvent) {
	if a := r.Latest(); u.Fence && a != nil && !a.Status.Terminal() {
		a.setStatus(AttemptFailed)
		a.EndTime = &now
		events = r.workerEvents(a, false)
	}
	if u.Input.Set {
		r.Rollout.Input = u.Input.Value
	}
	if u.Mode.Set {
		r.Rollout.Mode = u.Mode.Value
	}
	if u.ResourcesID.Set {
		r.Rollout.ResourcesID = u.ResourcesID.Value
	}
	if u.Config.Set {
		r.Rollout.Config = u.Config.Value
	}
	if u.Metadata.Set {
		r.Rollout.Metadata = u.Metadata.Value
	}
	if u.Status.Set {
		r.setStatus(u.Status.Value, now)
	}
	if u.Status.Set || u.Config.Set {
		r.schedule(nil)
	}
	return events
}

// setStatus is the only writer of an attempt's status after its beginning. Lost
// says more about unresponsive, so it goes with that.
func (a *Attempt) setStatus(s AttemptStatus) {
	a.Status = s
	if s != AttemptUnresponsive {
		a.Lost = false
	}
}

func (a *Attempt) ref() AttemptRef { return AttemptRef{RolloutID: a.RolloutID, AttemptID: a.AttemptID} }
