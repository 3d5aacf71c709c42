package metrics

// method is one of the store's, as the reference has them: where it has two for
// one and for many, there are two.
type method uint8

const (
	enqueueOne method = iota
	enqueueMany
	claimOne
	claimMany
	unclaim
	startRollout
	startAttempt
	getRollout
	queryRollouts
	explainRollout
	updateRollout
	waitForRollouts
	queryAttempts
	latestAttempt
	updateAttempt
	queryWorkers
	getWorker
	heartbeat
	addResources
	updateResources
	getResources
	latestResources
	queryResources
	nextSequence
	nextSequences
	addSpan
	addSpans
	querySpans
	statistics

	numMethods
)

// methodNames are the reference's, which the dashboards show. Three methods are
// aglq's own.
var methodNames = [numMethods]string{
	enqueueOne:      "enqueue_rollout",
	enqueueMany:     "enqueue_many_rollouts",
	claimOne:        "dequeue_rollout",
	claimMany:       "dequeue_many_rollouts",
	unclaim:         "unclaim_rollouts",
	startRollout:    "start_rollout",
	startAttempt:    "start_attempt",
	getRollout:      "get_rollout_by_id",
	queryRollouts:   "query_rollouts",
	explainRollout:  "explain_rollout",
	updateRollout:   "update_rollout",
	waitForRollouts: "wait_for_rollouts",
	queryAttempts:   "query_attempts",
	latestAttempt:   "get_latest_attempt",
	updateAttempt:   "update_attempt",
	queryWorkers:    "query_workers",
	getWorker:       "get_worker_by_id",
	heartbeat:       "update_worker",
	addResources:    "add_resources",
	updateResources: "update_resources",
	getResources:    "get_resources_by_id",
	latestResources: "get_latest_resources",
	queryResources:  "query_resources",
	nextSequence:    "get_next_span_sequence_id",
	nextSequences:   "get_many_span_sequence_ids",
	addSpan:         "add_span",
	addSpans:        "add_many_spans",
	querySpans:      "query_spans",
	statistics:      "statistics",
}
