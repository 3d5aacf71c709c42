package worker

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// lines reads a file of /proc; one that cannot be read has none.
func lines(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Split(string(text), "\n")
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64) // 0 for what is none
	return n
}

func readCPU() cpuInfo {
	var info cpuInfo
	cores := map[string]bool{}
	socket := ""
	for _, line := range lines("/proc/cpuinfo") {
		key, val, _ := strings.Cut(line, ":")
		val = strings.TrimSpace(val)
		switch strings.TrimSpace(key) {
		case "model name":
			info.name = val
		case "physical id":
			socket = val
		case "core id":
			cores[socket+"/"+val] = true
		}
	}
	info.cores = len(cores)
	if info.cores == 0 { // as on ARM
		info.cores = runtime.NumCPU()
	}
	return info
}

func readCPUTime() cpuTime {
	var t cpuTime
	for _, line := range lines("/proc/stat") {
		f := strings.Fields(line)
		if len(f) < 6 || f[0] != "cpu" {
			continue
		}
		// user nice system idle iowait irq softirq steal; guest time is in user.
		for i, s := range f[1:min(len(f), 9)] {
			n := number(s)
			t.total += n
			if i != 3 && i != 4 {
				t.used += n
			}
		}
	}
	return t
}

func readMemory() usage {
	var total, available uint64
	for _, line := range lines("/proc/meminfo") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = number(f[1]) << 10
		case "MemAvailable:":
			available = number(f[1]) << 10
		}
	}
	return usage{used: total - min(available, total), total: total}
}

func readDisk(path string) usage {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return usage{}
	}
	unit := uint64(fs.Bsize)
	return usage{used: (fs.Blocks - fs.Bfree) * unit, total: fs.Blocks * unit}
}

func readNetwork() (received, sent uint64) {
	for _, line := range lines("/proc/net/dev") {
		_, figures, ok := strings.Cut(line, ":")
		if f := strings.Fields(figures); ok && len(f) >= 9 {
			received += number(f[0])
			sent += number(f[8])
		}
	}
	return received, sent
}

func systemName() string {
	if v := lines("/proc/sys/kernel/osrelease"); len(v) > 0 {
		return "Linux " + v[0]
	}
	return "Linux"
}
