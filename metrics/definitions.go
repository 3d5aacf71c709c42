package metrics

import "slices"

// Kind is how a metric behaves.
type Kind string

// The kinds.
const (
	Counter   Kind = "counter"   // only grows, from 0 at the start of the process
	Gauge     Kind = "gauge"     // goes up and down
	Histogram Kind = "histogram" // counts and sums, with buckets, classic and native
)

// Side is the process that exposes a metric.
type Side string

// The sides.
const (
	StoreSide     Side = "store"
	WorkerSide    Side = "worker"
	AlgorithmSide Side = "algorithm"
	LLMSide       Side = "llm-proxy"
)

// Definition is one metric.
type Definition struct {
	Name    string // as Prometheus has it; histograms get _bucket, _sum and _count behind it
	Kind    Kind
	Side    Side
	Labels  []string
	Help    string // what the registry says of it
	Meaning string // what docs/metrics.md says of it
	Buckets []float64
}

// Definitions lists every metric, in the order of this file.
func Definitions() []Definition {
	out := make([]Definition, len(definitions))
	for i, d := range definitions {
		out[i] = *d
	}
	return out
}

var definitions []*Definition

func define(d Definition) *Definition {
	if d.Help == "" {
		d.Help = d.Meaning
	}
	definitions = append(definitions, &d)
	return &d
}

func counter(side Side, name, meaning string, labels ...string) *Definition {
	return define(Definition{Name: name, Kind: Counter, Side: side, Meaning: meaning, Labels: labels})
}

func gauge(side Side, name, meaning string, labels ...string) *Definition {
	return define(Definition{Name: name, Kind: Gauge, Side: side, Meaning: meaning, Labels: labels})
}

func histogram(side Side, name string, buckets []float64, meaning string, labels ...string) *Definition {
	return define(Definition{Name: name, Kind: Histogram, Side: side, Meaning: meaning, Labels: labels, Buckets: buckets})
}

// Buckets are the classic bounds of all histograms of time, in seconds: those of
// the reference.
var Buckets = []float64{
	1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4,
	.001, .002, .003, .005, .007, .01, .015, .02, .03, .05, .07, .1, .2, .3, .5, .7,
	1, 2, 3, 5, 7, 10, 12, 15, 20, 25, 30, 40, 50, 60, 90, 120, 180, 240, 300,
}

var (
	// sizeBuckets are those of numbers of things that go together.
	sizeBuckets = []float64{1, 2, 3, 5, 8, 12, 20, 32, 50, 80, 128, 200, 320, 512, 1000}
	// longBuckets are Buckets from a millisecond on, and for what may take hours.
	longBuckets = append(slices.Clone(Buckets[slices.Index(Buckets, .001):]), 600, 1200, 1800, 3600, 7200, 14400)
	// rewardBuckets are fine where rewards mostly are, and reach out to both sides.
	rewardBuckets = []float64{
		-100, -10, -5, -2, -1, -.75, -.5, -.25, -.1, 0,
		.1, .2, .3, .4, .5, .6, .7, .8, .9, 1, 2, 5, 10, 100,
	}
)

// eventDefinition is a kind of event as the reference has them: a counter of it and a
// histogram of how long it took, by dotted names.
type eventDefinition struct {
	counter, histogram string // dotted
	labels             []string
	// group is how many leading labels the console keeps apart.
	group          int
	total, seconds *Definition
}

func reference(name, duration string, group int, labels []string, total, seconds string) *eventDefinition {
	dotted := [2]string{name + ".total", name + "." + duration}
	return &eventDefinition{
		counter: dotted[0], histogram: dotted[1], labels: labels, group: group,
		total: define(Definition{
			Name: promName(dotted[0]), Kind: Counter, Side: StoreSide, Labels: labels,
			Help: "Counter " + dotted[0], Meaning: total,
		}),
		seconds: define(Definition{
			Name: promName(dotted[1]), Kind: Histogram, Side: StoreSide, Labels: labels, Buckets: Buckets,
			Help: "Histogram " + dotted[1], Meaning: seconds,
		}),
	}
}

// The reference's series: names, labels, help and buckets are its own.
var (
	httpRequests = reference("agl.http", "latency", 2, []string{"path", "method", "status"},
		"Requests answered, by the route's template, or other.",
		"Seconds from the head of a request to the end of its answer.")
	storeCalls = reference("agl.store", "latency", 1, []string{"method", "store_pubmeth", "status"},
		"Calls of the store, by the reference's name of the method, with OK or the class of the error.",
		"Seconds that a call of the store took; time spent waiting for work or for results counts.")
	collectionOps = reference("agl.collections", "latency", 2,
		[]string{"store_pubmeth", "operation", "collection", "store_privmeth", "status", "database"},
		"Operations of the backend, by the store's method they were done for: of a group commit, the method of its first call. "+
			"What a section does on MongoDB is written by its atomic operation. database is that of MongoDB.",
		"Seconds that an operation of the backend took.")
	rolloutEnds = reference("agl.rollouts", "duration", 1, []string{"status", "mode"},
		"Rollouts that have ended.",
		"Seconds from enqueueing a rollout to its end. Exemplar: rollout_id.")
)

// The store's own series.
var (
	queueDepth = gauge(StoreSide, "aglq_queue_depth",
		"Rollouts that have not ended, by status: queuing and requeuing wait in the queue, preparing and running are held by a worker. Several stores of one partition all say the same: take the maximum.", "status")
	queueOldest = gauge(StoreSide, "aglq_queue_oldest_age_seconds",
		"Seconds since the oldest rollout of a status was enqueued, 0 where there is none.", "status")
	queueWait = histogram(StoreSide, "aglq_queue_wait_seconds", longBuckets,
		"Seconds from enqueueing a rollout to its first claim. Exemplar: rollout_id.")
	enqueued = counter(StoreSide, "aglq_enqueued_total",
		"Rollouts enqueued. A call that is repeated under its idempotency key counts again.")
	claimed = counter(StoreSide, "aglq_claimed_total",
		"Rollouts handed out to workers. A call that is repeated under its idempotency key counts again.")
	claims = counter(StoreSide, "aglq_claims_total",
		"Claims answered: with work, empty, or with an error.", "result")
	attemptDuration = histogram(StoreSide, "aglq_attempt_duration_seconds", longBuckets,
		"Seconds that an attempt took, by how it ended: succeeded, failed, timeout or unresponsive. Exemplar: rollout_id.", "status", "mode")
	requeues = counter(StoreSide, "aglq_requeues_total",
		"Rollouts that went back to the queue: a failed, timeout or unresponsive attempt is repeated, worker_lost with its worker, unclaimed when the claim's answer was lost, by request of a caller.", "reason")
	wakeups = histogram(StoreSide, "aglq_wakeup_seconds", Buckets,
		"Seconds from the event that a call waited for to its answer: claim, from enqueueing a rollout to handing it out; wait, from the end of the last rollout.", "call")
	workers = gauge(StoreSide, "aglq_workers",
		"Workers: idle, busy or unknown while they are taken for alive; silent when one that holds an attempt is not; gone when one that holds none is not.", "status")
	spansIngested = counter(StoreSide, "aglq_spans_ingested_total",
		"Spans received: stored, duplicate, or rejected because their attempt is unknown.", "result")
	spanBatch = histogram(StoreSide, "aglq_span_batch_size", sizeBuckets,
		"Spans in one call.")
	spansEvicted = counter(StoreSide, "aglq_spans_evicted_total",
		"Spans of finished rollouts that the memory backend dropped to stay below --max-memory.")
	purged = counter(StoreSide, "aglq_purged_total",
		"What --retain-finished and --retain-spans had deleted: rollouts, and spans with them or by themselves.", "collection")
	spanBytes = gauge(StoreSide, "aglq_span_memory_bytes",
		"Bytes that spans take in the memory backend, by estimate; 0 elsewhere.")
	spanLimit = gauge(StoreSide, "aglq_span_memory_limit_bytes",
		"Bytes of spans above which the memory backend evicts; 0 elsewhere.")
	commitCalls = histogram(StoreSide, "aglq_commit_batch_size", sizeBuckets,
		"Calls that were written together by one group commit: changes of rollouts record by record, sections written as a whole, spans, or counters of spans. Where calls go to a database only.", "lane")
	commitSeconds = histogram(StoreSide, "aglq_commit_seconds", Buckets,
		"Seconds that a group commit took.", "lane")
	txnRetries = counter(StoreSide, "aglq_txn_retries_total",
		"Sections that ran again because somebody else had changed what they had read, by the store's method of their first call.", "operation")
	backendUp = gauge(StoreSide, "aglq_backend_up",
		"1 when the backend answered the questions of this scrape, 0 when it did not; the gauges of queue and workers are missing then.")

	mongoCommands = histogram(StoreSide, "aglq_mongo_command_seconds", Buckets,
		"Seconds that a command took on the way to MongoDB and back; status is ok or failed. The time of getMore includes waiting for events.", "command", "status")
	mongoConnections = gauge(StoreSide, "aglq_mongo_pool_connections",
		"Connections to MongoDB: open ones, and those of them in use.", "state")
	mongoPoolLimit = gauge(StoreSide, "aglq_mongo_pool_limit",
		"Connections that the pool to one server may hold; 0 is no limit.")
	mongoPoolWait = histogram(StoreSide, "aglq_mongo_pool_wait_seconds", Buckets,
		"Seconds that a call waited for a connection to MongoDB.")
	mongoPoolFailures = counter(StoreSide, "aglq_mongo_pool_failures_total",
		"Calls that got no connection to MongoDB, by reason.", "reason")
)

// The worker's series: of all workers of a process together.
var (
	workerTasks = counter(WorkerSide, "aglq_worker_tasks_total",
		"Tasks ended: succeeded, failed or timeout as reported to the store; not_held when the store had taken the attempt away; unreported when the store took no report.", "status")
	workerSeconds = histogram(WorkerSide, "aglq_worker_task_seconds", longBuckets,
		"Seconds from starting a task to having reported it. Exemplar: rollout_id.", "status")
	workerInflight = gauge(WorkerSide, "aglq_worker_inflight", "Tasks that run.")
	workerSlots    = gauge(WorkerSide, "aglq_worker_slots", "Tasks that may run at a time.")
	workerBeatAge  = gauge(WorkerSide, "aglq_worker_heartbeat_age_seconds",
		"Seconds since the store last answered a heartbeat, of the worker for whom it is longest ago; 0 without a worker.")
	workerDrops = counter(WorkerSide, "aglq_worker_spans_dropped_total",
		"Spans that were not stored, by reason: refused by the store; not_held when the attempt was no longer the worker's; stopped when the task or the process had no time left for the store to take them.", "reason")
	workerErrors = counter(WorkerSide, "aglq_worker_store_errors_total",
		"Calls of the store that failed and are tried again: claim, heartbeat, spans, report.", "call")
)

// The algorithm's series.
var (
	algorithmEnqueue = histogram(AlgorithmSide, "aglq_algorithm_enqueue_latency_seconds", Buckets,
		"Seconds that one enqueue call took.")
	algorithmHarvest = histogram(AlgorithmSide, "aglq_algorithm_harvest_latency_seconds", Buckets,
		"Seconds that fetching the attempts and spans of some finished rollouts took.")
	algorithmBatch = histogram(AlgorithmSide, "aglq_algorithm_batch_latency_seconds", longBuckets,
		"Seconds from the first rollout of a batch to its last result.")
	algorithmInflight = gauge(AlgorithmSide, "aglq_algorithm_inflight",
		"Rollouts enqueued or resumed whose results have not been handed out.")
	algorithmRollouts = counter(AlgorithmSide, "aglq_algorithm_rollouts_total",
		"Results handed out, by the status of their rollouts.", "status")
	algorithmReward = histogram(AlgorithmSide, "aglq_algorithm_reward", rewardBuckets,
		"Rewards of the results that have a finite one. Exemplar: rollout_id.")
	algorithmUnrewarded = counter(AlgorithmSide, "aglq_algorithm_unrewarded_total",
		"Results of rollouts that succeeded without a finite reward.")
)

// The LLM proxy's series.
var (
	llmRequests = counter(LLMSide, "aglq_llm_requests_total",
		"Calls ended, by the status of the answer; 499 when the client went away.", "model", "status")
	llmOutcomes = counter(LLMSide, "aglq_llm_outcomes_total", "Calls ended, by how.", "model", "outcome")
	llmTokens   = counter(LLMSide, "aglq_llm_tokens_total",
		"Tokens of calls, as upstreams count them: prompt, completion.", "model", "kind")
	llmCost    = counter(LLMSide, "aglq_llm_cost_dollars_total", "What calls cost by the prices in the model table.", "model")
	llmLatency = histogram(LLMSide, "aglq_llm_latency_seconds", Buckets,
		"Seconds from a request to the end of its answer.", "model")
	llmFirstByte = histogram(LLMSide, "aglq_llm_ttft_seconds", Buckets,
		"Seconds from a request to the first byte of its answer.", "model")
	llmDropped = counter(LLMSide, "aglq_llm_spans_dropped_total", "Spans of calls that were not stored.")
)

func promName(dotted string) string {
	name := []byte(dotted)
	for i, c := range name {
		if c == '.' {
			name[i] = '_'
		}
	}
	return string(name)
}
