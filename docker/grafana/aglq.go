package grafana

// Shorthands of the expressions on the board. Stores of one queue all see the
// same, so depths and workers are maxima, while events add up. Each queue (a
// partition of a database, or a store in memory) is a job of Prometheus, whose
// name begins with aglq-store: what is compared is compared within a job.
const (
	window = "1m"

	waiting     = `sum by (job) (max by (job, status) (aglq_queue_depth{status=~"queuing|requeuing"}))`
	held        = `sum by (job) (max by (job, status) (aglq_queue_depth{status=~"preparing|running"}))`
	liveWorkers = `sum by (job) (max by (job, status) (aglq_workers{status=~"idle|busy|unknown"}))`
	idleWorkers = `max by (job) (aglq_workers{status="idle"})`
	busyWorkers = `max by (job) (aglq_workers{status="busy"})`
	deadWorkers = `max by (job) (aglq_workers{status="silent"})`
	claimRate   = `sum by (job) (rate(aglq_claimed_total[1m]))`
	enqueueRate = `sum by (job) (rate(aglq_enqueued_total[1m]))`
	endRate     = `sum by (job) (rate(aglq_attempt_duration_seconds_count[5m]))`
	storesUp    = `up{job=~"aglq-store.*"}`
)

// orZero is 0 where an expression has no series yet.
func orZero(expr string) string { return "(" + expr + " or vector(0))" }

// orNone is 0 for the jobs of which an expression has no series yet.
func orNone(expr string) string { return "(" + expr + " or 0 * sum by (job) (" + storesUp + "))" }

func aglq() Board {
	return Board{UID: "aglq", Title: "aglq", Refresh: "10s", Rows: []Row{
		whyNothingMoves(), queueRow(), workersRow(), latenciesRow(), outcomesRow(), rewardsRow(), spansRow(), llmRow(), mongoRow(), processRow(),
	}}
}

// answer is a question to each job, and what YES means.
func answer(expr, yes string) Query { return Query{expr, yes + " ({{job}})"} }

// whyNothingMoves asks one question after the other, from the database up to the
// algorithm. The first YES is the reason.
func whyNothingMoves() Row {
	return Row{"Why does nothing move?", []Panel{
		{
			Title: "The first YES is the reason", Kind: Answers, Width: 24,
			About: "Read from left to right. docs/metrics.md says what to do about each.",
			Queries: []Query{
				answer(`(min by (job) (`+storesUp+`) or 0 * absent(`+storesUp+`)) == bool 0`, "a store is down"),
				answer(`min by (job) (aglq_backend_up) == bool 0`, "the database does not answer"),
				answer(orNone(`sum by (job) (rate(agl_http_latency_count{status="503"}[1m]))`)+` > bool 0`, "calls are turned away"),
				answer(`(`+held+` > bool 0) * (`+deadWorkers+` == bool 0) * (`+orNone(endRate)+` == bool 0)`, "attempts run and none ends"),
				answer(`(`+waiting+` == bool 0) * (`+orNone(enqueueRate)+` == bool 0)`, "nothing is enqueued"),
				answer(`(`+waiting+` > bool 0) * (`+liveWorkers+` == bool 0)`, "no worker is alive"),
				answer(deadWorkers+` > bool 0`, "workers died at work"),
				answer(`(`+waiting+` > bool 0) * (`+idleWorkers+` == bool 0) * (`+busyWorkers+` > bool 0)`, "all workers are busy"),
				answer(`(`+waiting+` > bool 0) * (`+idleWorkers+` > bool 0) * (`+orNone(claimRate)+` == bool 0)`, "idle workers do not ask for work"),
				answer(orNone(`sum by (job) (rate(aglq_requeues_total[5m]))`)+` > bool `+orNone(`sum by (job) (rate(agl_rollouts_duration_count[5m]))`),
					"attempts go in circles"),
			},
		},
		{
			Title: "In and out", Unit: "ops", About: "Rollouts a second. Below in for long, the queue grows.", Queries: []Query{
				{enqueueRate, "enqueued {{job}}"},
				{claimRate, "claimed {{job}}"},
				{`sum by (job) (rate(aglq_requeues_total[1m]))`, "requeued {{job}}"},
				{`sum by (job) (rate(agl_rollouts_duration_count[1m]))`, "finished {{job}}"},
			},
		},
		{
			Title: "Work and hands", Unit: "short", Queries: []Query{
				{waiting, "rollouts waiting {{job}}"},
				{idleWorkers, "idle workers {{job}}"},
				{busyWorkers, "busy workers {{job}}"},
				{deadWorkers, "silent workers {{job}}"},
			},
		},
		{
			Title: "Backend answers", Unit: "short", Queries: []Query{
				{`min by (instance) (aglq_backend_up)`, "{{instance}}"},
			},
		},
	}}
}

func queueRow() Row {
	return Row{"Queue", []Panel{
		lines("Depth by status", "short", `max by (job, status) (aglq_queue_depth)`, "{{job}} {{status}}"),
		lines("Age of the oldest", "s", `max by (job, status) (aglq_queue_oldest_age_seconds)`, "{{job}} {{status}}"),
		{Title: "Wait from enqueue to claim", Unit: "s", Queries: quantiles("aglq_queue_wait_seconds", window)},
		lines("Requeues by reason", "ops", rate("aglq_requeues_total", window, "reason"), "{{reason}}"),
		lines("Claims by result", "ops", rate("aglq_claims_total", window, "result"), "{{result}}").
			about("Empty claims are those of workers that found nothing, or waited in vain."),
		{Title: "Wake-up", Unit: "s", About: "From the event to the answer of the call that waited for it.", Queries: []Query{
			{quantile(.5, "aglq_wakeup_seconds", window, "call"), "{{call}} P50"},
			{quantile(.99, "aglq_wakeup_seconds", window, "call"), "{{call}} P99"},
		}},
	}}
}

func workersRow() Row {
	return Row{"Workers", []Panel{
		lines("Workers by status", "short", `max by (job, status) (aglq_workers)`, "{{job}} {{status}}").
			about("Silent: holds an attempt and shows no sign of life. Gone: holds none and shows none either."),
		lines("Tasks ended", "ops", rate("aglq_worker_tasks_total", window, "status"), "{{status}}"),
		{Title: "Tasks that run, and slots", Unit: "short", Queries: []Query{
			{`sum(aglq_worker_inflight)`, "running"}, {`sum(aglq_worker_slots)`, "slots"},
		}},
		lines("Age of the last answered heartbeat", "s", `max by (instance) (aglq_worker_heartbeat_age_seconds)`, "{{instance}}"),
		{Title: "Task duration", Unit: "s", Queries: []Query{
			{quantile(.5, "aglq_worker_task_seconds", window, "status"), "{{status}} P50"},
			{quantile(.95, "aglq_worker_task_seconds", window, "status"), "{{status}} P95"},
		}},
		{Title: "Drops and failed calls", Unit: "ops", Queries: []Query{
			{rate("aglq_worker_spans_dropped_total", window, "reason"), "spans dropped: {{reason}}"},
			{rate("aglq_worker_store_errors_total", window, "call"), "failed: {{call}}"},
		}},
	}}
}

func latenciesRow() Row {
	return Row{"Latencies", []Panel{
		lines("HTTP P95 by route", "s", quantile(.95, "agl_http_latency", window, "method, path"), "{{method}} {{path}}"),
		lines("Store P95 by method", "s", quantile(.95, "agl_store_latency", window, "method"), "{{method}}"),
		lines("Backend P95 by operation", "s", quantile(.95, "agl_collections_latency", window, "operation, collection"), "{{operation}} {{collection}}"),
		lines("Group commit P95 by lane", "s", quantile(.95, "aglq_commit_seconds", window, "lane"), "{{lane}}").
			about("Where commits go to a database."),
		lines("Calls in a group commit, mean", "short",
			rate("aglq_commit_batch_size_sum", window, "lane")+" / "+rate("aglq_commit_batch_size_count", window, "lane"), "{{lane}}"),
		lines("Errors by route and status", "ops", rate(`agl_http_latency_count{status!~"2.."}`, window, "path, status"), "{{status}} {{path}}"),
	}}
}

func outcomesRow() Row {
	return Row{"Outcomes", []Panel{
		lines("Rollouts ended by status", "ops", rate("agl_rollouts_duration_count", window, "status"), "{{status}}"),
		lines("Attempts ended by status", "ops", rate("aglq_attempt_duration_seconds_count", window, "status"), "{{status}}"),
		lines("Share of rollouts that succeed", "percentunit",
			orZero(`sum(rate(agl_rollouts_duration_count{status="succeeded"}[5m]))`)+` / sum(rate(agl_rollouts_duration_count[5m]))`, "succeeded"),
		{Title: "Attempt duration", Unit: "s", Queries: []Query{
			{quantile(.5, "aglq_attempt_duration_seconds", window, "status"), "{{status}} P50"},
			{quantile(.95, "aglq_attempt_duration_seconds", window, "status"), "{{status}} P95"},
		}},
		{Title: "Rollout duration, queue included", Unit: "s", Queries: quantiles("agl_rollouts_duration", window)},
		lines("Rollouts ended by mode", "ops", rate("agl_rollouts_duration_count", window, "mode"), "{{mode}}"),
	}}
}

func rewardsRow() Row {
	return Row{"Algorithm and rewards", []Panel{
		{Title: "Reward", Unit: "none", Queries: []Query{
			{`sum(rate(aglq_algorithm_reward_sum[5m])) / sum(rate(aglq_algorithm_reward_count[5m]))`, "mean"},
			{quantile(.1, "aglq_algorithm_reward", "5m", ""), "P10"},
			{quantile(.5, "aglq_algorithm_reward", "5m", ""), "P50"},
			{quantile(.9, "aglq_algorithm_reward", "5m", ""), "P90"},
		}},
		{Title: "Distribution of rewards", Unit: "none", Kind: Heat, Queries: []Query{
			{`sum by (le) (increase(aglq_algorithm_reward_bucket[1m]))`, "{{le}}"},
		}},
		{Title: "Results handed out", Unit: "ops", Queries: []Query{
			{rate("aglq_algorithm_rollouts_total", window, "status"), "{{status}}"},
			{`sum(rate(aglq_algorithm_unrewarded_total[1m]))`, "succeeded without a reward"},
		}},
		lines("In flight", "short", `sum(aglq_algorithm_inflight)`, "rollouts"),
		{Title: "Batch latency", Unit: "s", Queries: quantiles("aglq_algorithm_batch_latency_seconds", "5m")},
		{Title: "Enqueue and harvest P95", Unit: "s", Queries: []Query{
			{quantile(.95, "aglq_algorithm_enqueue_latency_seconds", window, ""), "enqueue"},
			{quantile(.95, "aglq_algorithm_harvest_latency_seconds", window, ""), "harvest"},
		}},
	}}
}

// Lines that have another unit than the rest of their panel.
const (
	evictedLine = "spans evicted a second"
	lostLine    = "spans dropped a second"
)

func spansRow() Row {
	return Row{"Spans", []Panel{
		lines("Spans received", "ops", rate("aglq_spans_ingested_total", window, "result"), "{{result}}"),
		{Title: "Spans in one call", Unit: "short", Queries: []Query{
			{quantile(.5, "aglq_span_batch_size", window, ""), "P50"}, {quantile(.99, "aglq_span_batch_size", window, ""), "P99"},
		}},
		{Title: "Memory of spans and evictions", Unit: "bytes", Units: map[string]string{evictedLine: "ops"}, About: "The memory backend only.", Queries: []Query{
			{`sum(aglq_span_memory_bytes)`, "held"}, {`sum(aglq_span_memory_limit_bytes)`, "limit"},
			{`sum(rate(aglq_spans_evicted_total[1m]))`, evictedLine},
		}},
		lines("Deleted by retention", "ops", rate("aglq_purged_total", window, "collection"), "{{collection}}").
			about("What --retain-finished and --retain-spans delete."),
	}}
}

func llmRow() Row {
	return Row{"LLM proxy", []Panel{
		lines("Calls by status", "ops", rate("aglq_llm_requests_total", window, "model, status"), "{{model}} {{status}}"),
		lines("Calls by outcome", "ops", rate("aglq_llm_outcomes_total", window, "model, outcome"), "{{model}} {{outcome}}"),
		lines("Call P95", "s", quantile(.95, "aglq_llm_latency_seconds", window, "model"), "{{model}}"),
		lines("First byte P95", "s", quantile(.95, "aglq_llm_ttft_seconds", window, "model"), "{{model}}"),
		lines("Tokens", "ops", rate("aglq_llm_tokens_total", window, "model, kind"), "{{model}} {{kind}}"),
		{Title: "Cost and lost spans", Unit: "currencyUSD", Units: map[string]string{lostLine: "ops"}, Queries: []Query{
			{`sum by (model) (rate(aglq_llm_cost_dollars_total[5m])) * 3600`, "{{model}} an hour"},
			{`sum(rate(aglq_llm_spans_dropped_total[1m]))`, lostLine},
		}},
	}}
}

func mongoRow() Row {
	return Row{"MongoDB, as the stores see it", []Panel{
		lines("Commands", "ops", rate("aglq_mongo_command_seconds_count", window, "command"), "{{command}}"),
		lines("Command P95", "s", quantile(.95, `aglq_mongo_command_seconds{command!="getMore"}`, window, "command"), "{{command}}").
			about("Without getMore, which waits for events."),
		{Title: "Failed commands and sections that ran again", Unit: "ops", Queries: []Query{
			{orZero(`sum(rate(aglq_mongo_command_seconds_count{status="failed"}[1m]))`), "failed commands"},
			{rate("aglq_txn_retries_total", window, "operation"), "ran again: {{operation}}"},
		}},
		{Title: "Connections", Unit: "short", Queries: []Query{
			{`sum by (instance, state) (aglq_mongo_pool_connections)`, "{{instance}} {{state}}"},
			{`max by (instance) (aglq_mongo_pool_limit)`, "{{instance}} limit"},
		}},
		lines("Wait for a connection, P99", "s", quantile(.99, "aglq_mongo_pool_wait_seconds", window, ""), "P99"),
		lines("No connection", "ops", rate("aglq_mongo_pool_failures_total", window, "reason"), "{{reason}}"),
	}}
}

func processRow() Row {
	return Row{"Processes", []Panel{
		lines("CPU", "percentunit", `sum by (job, instance) (rate(process_cpu_seconds_total{job=~"aglq-.+"}[1m]))`, "{{job}} {{instance}}").
			about("1 is a core."),
		lines("Resident memory", "bytes", `max by (job, instance) (process_resident_memory_bytes{job=~"aglq-.+"})`, "{{job}} {{instance}}"),
		{Title: "Goroutines and open files", Unit: "short", Queries: []Query{
			{`max by (job, instance) (go_goroutines{job=~"aglq-.+"})`, "goroutines {{job}} {{instance}}"},
			{`max by (job, instance) (process_open_fds{job=~"aglq-.+"})`, "files {{job}} {{instance}}"},
		}},
	}}
}
