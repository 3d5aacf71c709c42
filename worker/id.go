package worker

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"sync/atomic"
)

// workers counts the workers of the process, for their ids.
var workers atomic.Int64

func newWorkerID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("Worker-%s-%d-%s-%d", host, os.Getpid(), randomHex(2), workers.Add(1)-1)
}

// randomHex is n random bytes as lower-case hex digits.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
