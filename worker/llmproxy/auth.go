package llmproxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
)

// keyring holds the keys that open something; an empty one is open to all.
type keyring [][sha256.Size]byte

func newKeyring(keys []string) keyring {
	var ring keyring
	for _, key := range keys {
		ring = append(ring, sha256.Sum256([]byte(key)))
	}
	return ring
}

// opens compares in a time that does not depend on the key.
func (ring keyring) opens(key string) bool {
	if len(ring) == 0 {
		return true
	}
	sum := sha256.Sum256([]byte(key))
	found := 0
	for i := range ring {
		found |= subtle.ConstantTimeCompare(ring[i][:], sum[:])
	}
	return found == 1
}

// allowed reports whether a call brings a key that it needs.
func (p *Proxy) allowed(r *http.Request) bool {
	key := presentedKey(r)
	if p.keys.opens(key) {
		return true
	}
	_, secret := refOfKey(key)
	return p.keys.opens(secret)
}

// ofForeignPage reports whether a browser makes the call for a page that does
// not come from this machine: such pages reach what listens here only.
func ofForeignPage(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	if err != nil {
		return true
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback())
}

// mayAdminister reports whether a call may see and change the model table:
// with the admin key, without one with any key, and without keys at all from
// this machine.
func (p *Proxy) mayAdminister(r *http.Request) bool {
	switch {
	case len(p.adminKeys) > 0:
		return p.adminKeys.opens(presentedKey(r))
	case len(p.keys) > 0:
		return p.allowed(r)
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
