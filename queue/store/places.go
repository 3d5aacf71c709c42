package store

// places numbers keys in order of first sight, fast where equal keys follow each
// other: the spans of one call are nearly always of one attempt.
type places[K comparable] struct {
	n         int
	last      K
	lastPlace int
	at        map[K]int // once there are several keys
}

// find gives the place of a key, and whether the key is new.
func (p *places[K]) find(key K) (at int, added bool) {
	if p.n > 0 && key == p.last {
		return p.lastPlace, false
	}
	at, ok := p.at[key]
	if !ok {
		at = p.n
		if p.n == 1 {
			p.at = map[K]int{p.last: 0}
		}
		if p.n > 0 {
			p.at[key] = at
		}
		p.n++
	}
	p.last, p.lastPlace = key, at
	return at, !ok
}
