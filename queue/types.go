package queue

import (
	"slices"
	"strings"

	"github.com/aglq/aglq/queue/rawjson"
)

// RolloutStatus is where a rollout stands.
type RolloutStatus string

// The statuses of a rollout.
const (
	RolloutQueuing   RolloutStatus = "queuing"   // never claimed, in the queue
	RolloutPreparing RolloutStatus = "preparing" // claimed, no span yet
	RolloutRunning   RolloutStatus = "running"   // its latest attempt has sent a span
	RolloutFailed    RolloutStatus = "failed"    // ended without success
	RolloutSucceeded RolloutStatus = "succeeded" // ended with success
	RolloutCancelled RolloutStatus = "cancelled" // ended by a caller
	RolloutRequeuing RolloutStatus = "requeuing" // in the queue again after an attempt
)

// RolloutStatuses lists every status in the order of the wire contract.
var RolloutStatuses = []RolloutStatus{
	RolloutQueuing, RolloutPreparing, RolloutRunning, RolloutFailed,
	RolloutSucceeded, RolloutCancelled, RolloutRequeuing,
}

// Valid reports whether s is one of the seven statuses.
func (s RolloutStatus) Valid() bool { return slices.Contains(RolloutStatuses, s) }

// Finished reports whether s ends a rollout: failed, succeeded or cancelled.
func (s RolloutStatus) Finished() bool {
	return s == RolloutFailed || s == RolloutSucceeded || s == RolloutCancelled
}

// Queued reports whether a rollout with status s waits to be claimed.
func (s RolloutStatus) Queued() bool { return s == RolloutQueuing || s == RolloutRequeuing }

// Active reports whether a rollout with status s is held by an attempt.
func (s RolloutStatus) Active() bool { return s == RolloutPreparing || s == RolloutRunning }

// AttemptStatus is where one attempt stands.
type AttemptStatus string

// The statuses of an attempt.
const (
	AttemptPreparing    AttemptStatus = "preparing"    // claimed, no span yet
	AttemptRunning      AttemptStatus = "running"      // has sent a span
	AttemptFailed       AttemptStatus = "failed"       // reported failure
	AttemptSucceeded    AttemptStatus = "succeeded"    // reported success
	AttemptUnresponsive AttemptStatus = "unresponsive" // silent too long; a span revives it
	AttemptTimeout      AttemptStatus = "timeout"      // ran too long
)

// AttemptStatuses lists every status in the order of the wire contract.
var AttemptStatuses = []AttemptStatus{
	AttemptPreparing, AttemptRunning, AttemptFailed,
	AttemptSucceeded, AttemptUnresponsive, AttemptTimeout,
}

// Valid reports whether s is one of the six statuses.
func (s AttemptStatus) Valid() bool { return slices.Contains(AttemptStatuses, s) }

// Terminal reports whether an attempt with status s can no longer change its
// rollout. An unresponsive attempt is not terminal: a late span revives it.
func (s AttemptStatus) Terminal() bool {
	return s == AttemptFailed || s == AttemptSucceeded || s == AttemptTimeout
}

// WorkerStatus is what a worker was last seen doing.
type WorkerStatus string

// The statuses of a worker.
const (
	WorkerIdle    WorkerStatus = "idle"    // asked for work or finished some
	WorkerBusy    WorkerStatus = "busy"    // holds an attempt
	WorkerUnknown WorkerStatus = "unknown" // never held one, or its attempt went silent
)

// WorkerStatuses lists every status in the order of the wire contract.
var WorkerStatuses = []WorkerStatus{WorkerIdle, WorkerBusy, WorkerUnknown}

// Valid reports whether s is one of the three statuses.
func (s WorkerStatus) Valid() bool { return slices.Contains(WorkerStatuses, s) }

// Mode says which part of a training run a rollout belongs to; "" is null.
type Mode string

// The modes.
const (
	ModeTrain Mode = "train"
	ModeVal   Mode = "val"
	ModeTest  Mode = "test"
)

// Modes lists every mode in the order of the wire contract.
var Modes = []Mode{ModeTrain, ModeVal, ModeTest}

// Valid reports whether m is a mode; the null mode is not.
func (m Mode) Valid() bool { return slices.Contains(Modes, m) }

// Config says how the attempts of a rollout are watched and retried. The zero
// Config is not valid; start from [DefaultConfig].
type Config struct {
	// TimeoutSeconds ends an attempt that started longer ago; nil is no limit.
	TimeoutSeconds *float64 `json:"timeout_seconds"`
	// UnresponsiveSeconds ends an attempt silent for longer; nil is no limit.
	UnresponsiveSeconds *float64 `json:"unresponsive_seconds"`
	// MaxAttempts bounds automatic retries, 1 or more.
	MaxAttempts int64 `json:"max_attempts"`
	// RetryCondition lists the attempt statuses that are retried.
	RetryCondition []AttemptStatus `json:"retry_condition"`
}

// DefaultConfig is the config of a rollout enqueued without one: no limits,
// one attempt, no retry.
func DefaultConfig() Config { return Config{MaxAttempts: 1, RetryCondition: []AttemptStatus{}} }

// Validate reports what is wrong with c, as an [Invalid] error.
func (c Config) Validate() error {
	if c.MaxAttempts < 1 {
		return Errorf(Invalid, "max_attempts is %d; it must be 1 or more", c.MaxAttempts)
	}
	for _, s := range c.RetryCondition {
		if !s.Valid() {
			return Errorf(Invalid, "retry_condition has %q, which is no attempt status", s)
		}
	}
	return nil
}

// Rollout is one task and its state. Times are Unix seconds.
type Rollout struct {
	RolloutID   string        `json:"rollout_id"`
	Input       rawjson.Value `json:"input"` // any JSON, null included
	StartTime   float64       `json:"start_time"`
	EndTime     *float64      `json:"end_time"` // set on each change to a finished status, never cleared
	Mode        Mode          `json:"mode"`
	ResourcesID *string       `json:"resources_id"` // "" differs from null; existence is not checked
	Status      RolloutStatus `json:"status"`
	Config      Config        `json:"config"`
	Metadata    rawjson.Value `json:"metadata"` // an object or null
}

// AttemptedRollout is a rollout with its latest attempt; Attempt is nil where
// none was made.
type AttemptedRollout struct {
	Rollout
	Attempt *Attempt `json:"attempt,omitempty"`
}

// Attempt is one try at a rollout. Its id is unique within the rollout.
type Attempt struct {
	RolloutID         string        `json:"rollout_id"`
	AttemptID         string        `json:"attempt_id"`
	SequenceID        int64         `json:"sequence_id"` // 1, 2, 3 … within the rollout
	StartTime         float64       `json:"start_time"`
	EndTime           *float64      `json:"end_time"` // set by failed and succeeded only
	Status            AttemptStatus `json:"status"`
	WorkerID          *string       `json:"worker_id"`
	LastHeartbeatTime *float64      `json:"last_heartbeat_time"`
	Metadata          rawjson.Value `json:"metadata"` // an object or null

	// Lost marks an attempt whose worker died: it is not charged to
	// max_attempts. It stays inside the store.
	Lost bool `json:"-"`
}

// Worker is what the store knows of one worker process.
type Worker struct {
	WorkerID          string        `json:"worker_id"`
	Status            WorkerStatus  `json:"status"`
	HeartbeatStats    rawjson.Value `json:"heartbeat_stats"` // an object or null
	LastHeartbeatTime *float64      `json:"last_heartbeat_time"`
	LastDequeueTime   *float64      `json:"last_dequeue_time"`
	LastBusyTime      *float64      `json:"last_busy_time"`
	LastIdleTime      *float64      `json:"last_idle_time"`
	CurrentRolloutID  *string       `json:"current_rollout_id"`
	CurrentAttemptID  *string       `json:"current_attempt_id"`
}

// ResourcesUpdate is one stored set of named resources.
type ResourcesUpdate struct {
	ResourcesID string        `json:"resources_id"`
	CreateTime  float64       `json:"create_time"`
	UpdateTime  float64       `json:"update_time"`
	Version     int64         `json:"version"` // 1, and one more with each update
	Resources   rawjson.Value `json:"resources"`
}

// Hidden reports whether a set of resources of this id is never the latest, however
// new it is: the id begins with a dot. Algorithms keep their own state and what is
// being tried in hidden sets, which nobody gets who does not ask for them.
func Hidden(resourcesID string) bool { return strings.HasPrefix(resourcesID, ".") }

// LLM is a language-model endpoint among the resources: types "llm" and
// "proxy_llm" (an endpoint that takes the rollout and attempt in its path).
type LLM struct {
	ResourceType       string        `json:"resource_type"`
	Endpoint           string        `json:"endpoint"`
	Model              string        `json:"model"`
	APIKey             *string       `json:"api_key"`
	SamplingParameters rawjson.Value `json:"sampling_parameters"`
}

// PromptType is the resource_type of a PromptTemplate.
const PromptType = "prompt_template"

// The engines of a PromptTemplate.
const (
	Jinja   = "jinja"
	FString = "f-string"
	POML    = "poml"
)

// PromptTemplate is a prompt among the resources: type PromptType.
type PromptTemplate struct {
	ResourceType string `json:"resource_type"`
	Template     string `json:"template"`
	Engine       string `json:"engine"`
}

// AttemptRef names one attempt.
type AttemptRef struct {
	RolloutID string `json:"rollout_id"`
	AttemptID string `json:"attempt_id"`
}

// Page is one page of a list; Total counts all matches before paging.
type Page[T any] struct {
	Items  []T `json:"items"`
	Limit  int `json:"limit"`
	Offset int `json:"offset"`
	Total  int `json:"total"`
}

// Optional is a field of an update: absent (the zero value) leaves the record
// as it is.
type Optional[T any] struct {
	Value T
	Set   bool
}

// Set returns a present Optional.
func Set[T any](v T) Optional[T] { return Optional[T]{Value: v, Set: true} }
