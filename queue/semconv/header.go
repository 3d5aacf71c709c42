package semconv

// The header fields of a request that is made for an attempt, or by one.
const (
	HeaderRollout = "X-Rollout-Id"
	HeaderAttempt = "X-Attempt-Id"
)
