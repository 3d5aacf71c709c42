package grafana

// agentLightning has the panels of Agent-Lightning's own board, on the series
// that both have.
func agentLightning() Board {
	const window = "15s" // three scrapes
	perSecond := func(title, series, by, legend string) Panel {
		return lines(title, "ops", rate(series, window, by), legend)
	}
	latency := func(title, histogram string) Panel {
		return Panel{Title: title, Unit: "s", Queries: quantiles(histogram, window)}
	}
	return Board{UID: "agentlightning", Title: "Agent Lightning Metrics", Rows: []Row{
		{"HTTP API", []Panel{
			perSecond("Requests/sec by path", "agl_http_latency_count", "method, path", "{{method}} {{path}}"),
			latency("Latency P50/P95/P99", "agl_http_latency"),
			perSecond("Errors/sec (non-2xx)", `agl_http_latency_count{status!~"2.."}`, "method, path, status", "{{method}} {{path}} {{status}}"),
		}},
		{"RPC", []Panel{
			perSecond("Store calls/sec", "agl_store_latency_count", "method", "{{method}}"),
			latency("Store latency P50/P95/P99", "agl_store_latency"),
			perSecond("Store errors/sec", `agl_store_latency_count{status!="OK"}`, "method, status", "{{method}} {{status}}"),
		}},
		{"Collections", []Panel{
			perSecond("Operations/sec", "agl_collections_latency_count", "store_pubmeth, operation", "{{store_pubmeth}} {{operation}}").wide(12),
			perSecond("Errors/sec", `agl_collections_latency_count{status!="OK"}`, "store_pubmeth, collection, status",
				"{{store_pubmeth}} {{collection}} {{status}}").wide(12),
			latency("Latency P50/P95/P99", "agl_collections_latency").wide(12),
			lines("P95 by store method", "s", quantile(.95, "agl_collections_latency", window, "store_pubmeth"), "{{store_pubmeth}}").wide(12),
		}},
		{"Outcomes", []Panel{
			perSecond("Completion rate by status", "agl_rollouts_duration_count", "status", "{{status}}").wide(12),
			perSecond("Completion rate by mode", "agl_rollouts_duration_count", "mode", "{{mode}}").wide(12),
			latency("Duration P50/P95/P99", "agl_rollouts_duration").wide(12),
			lines("Duration P95 by status", "s", quantile(.95, "agl_rollouts_duration", window, "status"), "{{status}}").wide(12),
		}},
	}}
}
