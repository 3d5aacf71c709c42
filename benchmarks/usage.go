package benchmarks

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what processes have cost so far.
type Usage struct {
	CPU     time.Duration // user and system, of children that ended too
	PeakRSS int64         // bytes, the sum of each living process's own peak
}

// UsageOf adds up the cost of the processes and of all below them, from /proc.
// A process of pids that is gone is an error.
func UsageOf(pids []int) (Usage, error) {
	var sum Usage
	if len(pids) == 0 {
		return sum, nil
	}
	below, err := children()
	if err != nil {
		return sum, err
	}
	for _, pid := range pids {
		if err := sum.add(pid); err != nil {
			return Usage{}, err
		}
		for queue := below[pid]; len(queue) > 0; queue = queue[1:] {
			if err := sum.add(queue[0]); err != nil && !gone(queue[0]) {
				return Usage{}, err
			}
			queue = append(queue, below[queue[0]]...)
		}
	}
	return sum, nil
}

// Cost is what a run cost: CPU seconds during the run, and the most memory that
// was resident since the processes' start. 0 is not known.
type Cost struct {
	CPUSeconds         float64 `json:"server_cpu_seconds,omitempty"`
	PeakRSS            int64   `json:"server_peak_rss_bytes,omitempty"`
	DatabaseCPUSeconds float64 `json:"database_cpu_seconds,omitempty"`
	DatabasePeakRSS    int64   `json:"database_peak_rss_bytes,omitempty"`
}

// Meter measures what a run costs. Use StartMeter.
type Meter struct {
	server, database             []int
	serverBefore, databaseBefore Usage
}

// StartMeter measures the processes of a server and of its database from now on.
func StartMeter(server, database []int) (m *Meter, err error) {
	m = &Meter{server: server, database: database}
	if m.serverBefore, err = UsageOf(server); err != nil {
		return nil, err
	}
	m.databaseBefore, err = UsageOf(database)
	return m, err
}

// Cost is the cost so far.
func (m *Meter) Cost() (Cost, error) {
	server, err := UsageOf(m.server)
	if err != nil {
		return Cost{}, err
	}
	database, err := UsageOf(m.database)
	return Cost{
		CPUSeconds: (server.CPU - m.serverBefore.CPU).Seconds(), PeakRSS: server.PeakRSS,
		DatabaseCPUSeconds: (database.CPU - m.databaseBefore.CPU).Seconds(), DatabasePeakRSS: database.PeakRSS,
	}, err
}

// add adds the cost of one process.
func (u *Usage) add(pid int) error {
	s, err := readStat(pid)
	if err != nil {
		return err
	}
	rss, err := peakRSS(pid)
	if err != nil {
		return err
	}
	u.CPU += s.cpu
	u.PeakRSS += rss
	return nil
}

func gone(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return errors.Is(err, os.ErrNotExist)
}

// children maps each process to those that it started.
func children() (map[int][]int, error) {
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(paths) == 0 {
		return nil, errors.New("cannot measure processes: this system has no /proc")
	}
	below := map[int][]int{}
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil { // else it has just ended
			below[s.parent] = append(below[s.parent], pid)
		}
	}
	return below, nil
}

// stat is a process in /proc.
type stat struct {
	parent int
	cpu    time.Duration
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, fmt.Errorf("cannot measure process %d: %w", pid, err)
	}
	// The name, in brackets, may hold spaces. After it come the state, the
	// parent (field 4), and the times: its own in 14 and 15, in 16 and 17 those
	// of children that it has waited for.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("cannot read the times of process %d", pid)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, fmt.Errorf("cannot read the parent of process %d: %w", pid, err)
	}
	ticks := int64(0)
	for _, field := range fields[11:15] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("cannot read the times of process %d: %w", pid, err)
		}
		ticks += n
	}
	// The kernel counts in ticks of 1/100 s on every Linux that Go runs on.
	return stat{parent: parent, cpu: time.Duration(ticks) * 10 * time.Millisecond}, nil
}

// peakRSS is the most memory a process has had resident, in bytes.
func peakRSS(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("cannot measure process %d: %w", pid, err)
	}
	_, rest, ok := strings.Cut(string(text), "VmHWM:")
	if !ok {
		return 0, fmt.Errorf("process %d has no peak of memory", pid)
	}
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kib, err := strconv.ParseInt(number, 10, 64)
	return kib << 10, err
}
