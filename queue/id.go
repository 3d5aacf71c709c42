package queue

import (
	"crypto/rand"
	"encoding/hex"
)

// IDFunc makes identifiers. It is passed in so that tests can foresee them; it
// must be safe for concurrent use.
type IDFunc func(prefix IDPrefix) string

// IDPrefix is the kind of an identifier.
type IDPrefix string

// The prefixes. Each is followed by lower-case hex digits: 8 for an attempt,
// which is unique within its rollout, 12 for the others.
const (
	RolloutID   IDPrefix = "ro-"
	AttemptID   IDPrefix = "at-"
	ResourcesID IDPrefix = "rs-"
)

// RandomID is the IDFunc of production.
func RandomID(prefix IDPrefix) string {
	var b [6]byte
	n := len(b)
	if prefix == AttemptID {
		n = 4
	}
	rand.Read(b[:n]) // never fails
	return string(prefix) + hex.EncodeToString(b[:n])
}
