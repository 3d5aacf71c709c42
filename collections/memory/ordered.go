package memory

import (
	"cmp"
	"slices"
)

// ordered is a set of rows in order of a key, equal keys in order of
// insertion of the rows. It is a list of short sorted blocks: taking the first
// entry moves nothing, any other change moves at most a block.
type ordered[K cmp.Ordered] struct {
	blocks [][]entry[K] // none of them empty
	size   int
}

type entry[K cmp.Ordered] struct {
	key K
	row *row
}

// position is a place in an ordered, valid until its next change. The zero
// position is the first entry.
type position struct{ block, at int }

// blockSize bounds the memory that one change moves: 256 entries are 4 KiB.
const blockSize = 256

func (e entry[K]) compare(o entry[K]) int {
	return cmp.Or(cmp.Compare(e.key, o.key), cmp.Compare(e.row.serial, o.row.serial))
}

// locate finds where e is or belongs.
func (o *ordered[K]) locate(e entry[K]) (position, bool) {
	block, _ := slices.BinarySearchFunc(o.blocks, e, func(b []entry[K], e entry[K]) int {
		return b[len(b)-1].compare(e)
	})
	if block == len(o.blocks) {
		return position{block, 0}, false
	}
	at, found := slices.BinarySearchFunc(o.blocks[block], e, entry[K].compare)
	return position{block, at}, found
}

// add puts a row in; one that is in already stays.
func (o *ordered[K]) add(key K, r *row) {
	e := entry[K]{key, r}
	p, found := o.locate(e)
	if found {
		return
	}
	o.size++
	if p.block == len(o.blocks) {
		// Behind all others, the common case: blocks fill up one by one.
		if n := len(o.blocks); n > 0 && len(o.blocks[n-1]) < blockSize {
			o.blocks[n-1] = append(o.blocks[n-1], e)
			return
		}
		o.blocks = append(o.blocks, append(make([]entry[K], 0, 8), e))
		return
	}
	block := slices.Insert(o.blocks[p.block], p.at, e)
	o.blocks[p.block] = block
	if len(block) > blockSize {
		half := len(block) / 2
		o.blocks[p.block] = block[:half:half]
		o.blocks = slices.Insert(o.blocks, p.block+1, slices.Clone(block[half:]))
	}
}

// remove takes a row out, if it is in under that key.
func (o *ordered[K]) remove(key K, r *row) {
	p, found := o.locate(entry[K]{key, r})
	if !found {
		return
	}
	o.size--
	block := o.blocks[p.block]
	if p.at == 0 {
		block[0] = entry[K]{}
		block = block[1:]
	} else {
		block = slices.Delete(block, p.at, p.at+1)
	}
	o.blocks[p.block] = block
	switch {
	case len(block) > 0:
	case p.block == 0:
		o.blocks[0] = nil
		o.blocks = o.blocks[1:]
	default:
		o.blocks = slices.Delete(o.blocks, p.block, p.block+1)
	}
}

// at reads the entry at p; false past the end.
func (o *ordered[K]) at(p position) (e entry[K], ok bool) {
	if p.block >= len(o.blocks) {
		return e, false
	}
	return o.blocks[p.block][p.at], true
}

// next is the position after p.
func (o *ordered[K]) next(p position) position {
	if p.block < len(o.blocks) && p.at+1 < len(o.blocks[p.block]) {
		return position{p.block, p.at + 1}
	}
	return position{p.block + 1, 0}
}
