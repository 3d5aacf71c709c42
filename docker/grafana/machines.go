package grafana

// mongoDB shows the server by the series of Percona's mongodb_exporter.
func mongoDB() Board {
	return Board{UID: "mongodb", Title: "MongoDB server", Refresh: "10s", Rows: []Row{
		{"Work", []Panel{
			lines("Operations", "ops", rate("mongodb_ss_opcounters", window, "legacy_op_type"), "{{legacy_op_type}}"),
			lines("Documents", "ops", rate("mongodb_ss_metrics_document", window, "doc_op_type"), "{{doc_op_type}}"),
			lines("Mean latency", "s",
				rate("mongodb_ss_opLatencies_latency", window, "op_type")+" / "+rate("mongodb_ss_opLatencies_ops", window, "op_type")+" / 1e6",
				"{{op_type}}"),
			{Title: "Keys and documents looked at", Unit: "ops", Queries: []Query{
				{`sum(rate(mongodb_ss_metrics_queryExecutor_scanned[1m]))`, "keys"},
				{`sum(rate(mongodb_ss_metrics_queryExecutor_scannedObjects[1m]))`, "documents"},
			}},
			{Title: "Transactions", Unit: "ops", Queries: []Query{
				{`sum(rate(mongodb_ss_transactions_totalCommitted[1m]))`, "committed"},
				{`sum(rate(mongodb_ss_transactions_totalAborted[1m]))`, "aborted"},
			}},
			lines("Write conflicts", "ops", `sum(rate(mongodb_ss_metrics_operation_writeConflicts[1m]))`, "conflicts"),
		}},
		{"Load", []Panel{
			lines("Connections", "short", `sum by (conn_type) (mongodb_ss_connections{conn_type=~"current|active|available"})`, "{{conn_type}}"),
			lines("Waiting for a lock", "short", `sum by (count_type) (mongodb_ss_globalLock_currentQueue)`, "{{count_type}}"),
			lines("Open cursors", "short", `sum by (csr_type) (mongodb_ss_metrics_cursor_open)`, "{{csr_type}}"),
		}},
		{"Machine", []Panel{
			{Title: "Memory", Unit: "bytes", Queries: []Query{
				{`sum(mongodb_ss_mem_resident) * 1048576`, "resident"},
				{`sum(mongodb_ss_wt_cache_bytes_currently_in_the_cache)`, "cache"},
				{`sum(mongodb_ss_wt_cache_tracked_dirty_bytes_in_the_cache)`, "dirty"},
			}},
			{Title: "Network", Unit: "Bps", Queries: []Query{
				{`sum(rate(mongodb_ss_network_bytesIn[1m]))`, "in"}, {`sum(rate(mongodb_ss_network_bytesOut[1m]))`, "out"},
			}},
			{Title: "Page faults and asserts", Unit: "ops", Queries: []Query{
				{`sum(rate(mongodb_ss_extra_info_page_faults[1m]))`, "page faults"},
				{rate("mongodb_ss_asserts", window, "assert_type"), "assert: {{assert_type}}"},
			}},
		}},
	}}
}

// node shows the machine by the series of node_exporter.
func node() Board {
	return Board{UID: "node", Title: "Machine", Refresh: "10s", Rows: []Row{
		{"Processor and memory", []Panel{
			lines("CPU", "percentunit",
				`sum by (instance, mode) (rate(node_cpu_seconds_total{mode!="idle"}[1m])) / on (instance) group_left () count by (instance) (node_cpu_seconds_total{mode="idle"})`,
				"{{instance}} {{mode}}").about("Share of all cores."),
			{Title: "Load", Unit: "short", Queries: []Query{
				{`node_load1`, "{{instance}} 1 min"}, {`node_load5`, "{{instance}} 5 min"},
				{`count by (instance) (node_cpu_seconds_total{mode="idle"})`, "{{instance}} cores"},
			}},
			{Title: "Memory", Unit: "bytes", Queries: []Query{
				{`node_memory_MemTotal_bytes`, "{{instance}} total"},
				{`node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes`, "{{instance}} used"},
				{`node_memory_Cached_bytes`, "{{instance}} cached"},
			}},
		}},
		{"Disk and network", []Panel{
			{Title: "Disk bytes", Unit: "Bps", Queries: []Query{
				{`sum by (instance) (rate(node_disk_read_bytes_total[1m]))`, "{{instance}} read"},
				{`sum by (instance) (rate(node_disk_written_bytes_total[1m]))`, "{{instance}} written"},
			}},
			lines("Disk busy", "percentunit", `max by (instance, device) (rate(node_disk_io_time_seconds_total[1m]))`, "{{instance}} {{device}}"),
			lines("Space left", "percentunit",
				`min by (instance, mountpoint) (node_filesystem_avail_bytes{fstype!~"tmpfs|ramfs"} / node_filesystem_size_bytes{fstype!~"tmpfs|ramfs"})`, "{{instance}} {{mountpoint}}"),
			{Title: "Network", Unit: "Bps", Queries: []Query{
				{`sum by (instance) (rate(node_network_receive_bytes_total{device!="lo"}[1m]))`, "{{instance}} in"},
				{`sum by (instance) (rate(node_network_transmit_bytes_total{device!="lo"}[1m]))`, "{{instance}} out"},
			}},
			lines("TCP connections", "short", `node_netstat_Tcp_CurrEstab`, "{{instance}}"),
			{Title: "Open files", Unit: "short", Queries: []Query{
				{`node_filefd_allocated`, "{{instance}} open"}, {`node_filefd_maximum`, "{{instance}} limit"},
			}},
		}},
	}}
}
