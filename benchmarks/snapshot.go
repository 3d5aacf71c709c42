package benchmarks

import (
	"fmt"
	"os"
	"runtime"
	"time"
)

// Snapshot is the JSON of a worker's heartbeat statistics, with the members and
// the size that a worker's own has. Only the host and the time are this
// machine's: measuring the rest would cost the driver and not the store.
func Snapshot() []byte {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Appendf(nil, `{"timestamp":%q,"host":%q,"os":%q,"cpu_name":"benchmark","cpu_cores":%d,"cpu_threads":%d,`+
		`"cpu_usage_pct":12.5,"mem_used_gb":3.21,"mem_total_gb":15.62,"mem_pct":20.6,"disk_used_gb":40.12,"disk_total_gb":120.5,"disk_pct":33.3,`+
		`"bytes_sent_mb":1234.56,"bytes_recv_mb":2345.67}`,
		time.Now().Format("2006-01-02T15:04:05"), host, runtime.GOOS, runtime.NumCPU(), runtime.NumCPU())
}
