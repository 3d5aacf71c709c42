package memory

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// unknownMemory is taken where the machine does not tell its memory.
const unknownMemory = 8 << 30

// physicalMemory is the machine's memory in bytes.
func physicalMemory() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return unknownMemory
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if n, ok := memTotal(lines.Text()); ok {
			return n
		}
	}
	return unknownMemory
}

// memTotal reads a line such as "MemTotal:  16384 kB".
func memTotal(line string) (bytes int64, ok bool) {
	rest, ok := strings.CutPrefix(line, "MemTotal:")
	if !ok {
		return 0, false
	}
	number, ok := strings.CutSuffix(strings.TrimSpace(rest), " kB")
	if !ok {
		return 0, false
	}
	kib, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	return kib << 10, err == nil && kib > 0
}
