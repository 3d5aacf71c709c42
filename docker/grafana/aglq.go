package grafana

// Shorthands of the expressions on the board. Stores of one database all see the
// same queue, so depths and workers are maxima, while events add up.
const (
	window = "1m"

	waiting     = `sum(max by (status) (aglq_queue_depth{status=~"queuing|requeuing"}))`
	liveWorkers = `sum(max by (status) (aglq_workers{status=~"idle|busy|unknown"}))`
	idleWorkers = `max(aglq_workers{status="idle"})`
	busyWorkers = `max(aglq_workers{status="busy"})`
	claimRate   = `sum(rate(aglq_claimed_total[1m]))`
	enqueueRate = `sum(rate(aglq_enqueued_total[1m]))`
)

// orZero is 0 where an expression has no series yet.
func orZero(expr string) string { return "(" + expr + " or vector(0))" }

func aglq() Board {
	return Board{UID: "aglq", Title: "aglq", Refresh: "10s", Rows: []Row{
		whyNothingMoves(), queueRow(), workersRow(), latenciesRow(), outcomesRow(), rewardsRow(), spansRow(), mongoRow(), processRow(),
	}}
}

// whyNothingMoves asks one question after the other, from the database up to the
// algorithm. The first YES is the reason.
func whyNothingMoves() Row {
	return Row{"Why does nothing move?", []Panel{
		{
			Title: "The first YES is the reason", Kind: Answers, Width: 24,
			About: "Read from left to right. docs/metrics.md says what to do about each.",
			Queries: []Query{
				{`(min(up{job="aglq-store"}) or vector(0)) == bool 0`, "a store is down"},
				{`min(aglq_backend_up) == bool 0`, "the database does not answer"},
				{orZero(`sum(rate(agl_http_latency_count{status="503"}[1m]))`) + ` > bool 0`, "calls are turned away"},
				{`(` + waiting + ` == bool 0) * (` + orZero(enqueueRate) + ` == bool 0)`, "nothing is enqueued"},
				{`(` + waiting + ` > bool 0) * (` + liveWorkers + ` == bool 0)`, "no worker is alive"},
				{`(max(aglq_workers{status="silent"})) > bool 0`, "workers died at work"},
				{`(` + waiting + ` > bool 0) * (` + idleWorkers + ` == bool 0) * (` + busyWorkers + ` > bool 0)`, "all workers are busy"},
				{
					`(` + waiting + ` > bool 0) * (` + idleWorkers + ` > bool 0) * (` + orZero(claimRate) + ` == bool 0)`,
					"work is held back: paused, or not due yet",
				},
				{
					orZero(`sum(rate(aglq_requeues_total[5m]))`) + ` > bool ` + orZero(`sum(rate(agl_rollouts_duration_count[5m]))`),
					"attempts go in circles",
				},
			},
		},
		{
			Title: "In and out", Unit: "ops", About: "Rollouts a second. Below in for long, the queue grows.", Queries: []Query{
				{enqueueRate, "enqueued"},
				{claimRate, "claimed"},
				{`sum(rate(aglq_requeues_total[1m]))`, "requeued"},
				{`sum(rate(agl_rollouts_duration_count[1m]))`, "finished"},
			},
		},
		{
			Title: "Work and hands", Unit: "short", Queries: []Query{
				{waiting, "rollouts waiting"},
				{idleWorkers, "idle workers"},
				{busyWorkers, "busy workers"},
				{`max(aglq_workers{status="silent"})`, "silent workers"},
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
		lines("Depth by status", "short", `max by (status) (aglq_queue_depth)`, "{{status}}"),
		lines("Age of the oldest", "s", `max by (status) (aglq_queue_oldest_age_seconds)`, "{{status}}"),
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
		lines("Workers by status", "short", `max by (status) (aglq_workers)`, "{{status}}").
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

func spansRow() Row {
	return Row{"Spans", []Panel{
		lines("Spans received", "ops", rate("aglq_spans_ingested_total", window, "result"), "{{result}}"),
		{Title: "Spans in one call", Unit: "short", Queries: []Query{
			{quantile(.5, "aglq_span_batch_size", window, ""), "P50"}, {quantile(.99, "aglq_span_batch_size", window, ""), "P99"},
		}},
		{Title: "Memory of spans and evictions", Unit: "bytes", About: "The memory backend only.", Queries: []Query{
			{`sum(aglq_span_memory_bytes)`, "held"}, {`sum(aglq_span_memory_limit_bytes)`, "limit"},
			{`sum(rate(aglq_spans_evicted_total[1m]))`, "spans evicted a second"},
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
