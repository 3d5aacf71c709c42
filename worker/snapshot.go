package worker

import (
	"math"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// snapshot takes the figures of a heartbeat, under the keys that the reference's
// dashboard shows.
type snapshot struct {
	version string
	host    string
	cpu     cpuInfo
	busy    cpuTime // as of the last call
}

// cpuInfo describes the processors; empty and 0 are unknown.
type cpuInfo struct {
	name  string
	cores int // physical
}

// cpuTime is what the processors have spent since the machine started.
type cpuTime struct{ used, total uint64 }

// usage is what part of some resource is taken, in bytes.
type usage struct{ used, total uint64 }

func newSnapshot(version string) *snapshot {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &snapshot{version: version, host: host, cpu: readCPU(), busy: readCPUTime()}
}

// take describes the machine and the process now, and whether the worker ends
// with it. What the system does not tell is 0.
func (s *snapshot) take(now time.Time, inflight int, stopped bool) rawjson.Value {
	busy := readCPUTime()
	percent := share(busy.used-s.busy.used, busy.total-s.busy.total)
	s.busy = busy
	memory, disk := readMemory(), readDisk("/")
	received, sent := readNetwork()

	buf := append(make([]byte, 0, 512), '{')
	text := func(key, val string) { buf = addMember(buf, key, rawjson.AppendString(nil, val)) }
	number := func(key string, f float64) { buf = addMember(buf, key, rawjson.AppendFloat(nil, f)) }
	count := func(key string, n int) { buf = addMember(buf, key, strconv.AppendInt(nil, int64(n), 10)) }
	text("timestamp", now.Format("2006-01-02T15:04:05"))
	text("host", s.host)
	text("os", systemName())
	text("cpu_name", s.cpu.name)
	count("cpu_cores", s.cpu.cores)
	count("cpu_threads", runtime.NumCPU())
	number("cpu_usage_pct", percent)
	number("mem_used_gb", binary(memory.used, 30))
	number("mem_total_gb", binary(memory.total, 30))
	number("mem_pct", share(memory.used, memory.total))
	number("disk_used_gb", binary(disk.used, 30))
	number("disk_total_gb", binary(disk.total, 30))
	number("disk_pct", share(disk.used, disk.total))
	number("bytes_sent_mb", binary(sent, 20))
	number("bytes_recv_mb", binary(received, 20))
	if s.version != "" {
		text("worker_version", s.version)
	}
	count("inflight", inflight)
	count("pid", os.Getpid())
	if stopped {
		buf = append(buf, `,"`+queue.StatStopped+`":true`...)
	}
	return append(buf, '}')
}

// binary is n in units of 2^shift with two decimals.
func binary(n uint64, shift int) float64 { return round2(float64(n) / float64(uint64(1)<<shift)) }

// share is part of whole in percent with two decimals.
func share(part, whole uint64) float64 {
	if whole == 0 || part > whole {
		return 0
	}
	return round2(100 * float64(part) / float64(whole))
}

func round2(f float64) float64 { return math.Round(f*100) / 100 }
