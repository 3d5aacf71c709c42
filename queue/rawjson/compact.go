package rawjson

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest. The reference parses 500
// levels and no longer answers at 3,000.
const MaxDepth = 512

// maxDigits bounds one number, as Python bounds int(): longer ones cost
// quadratic time to read.
const maxDigits = 4300

var (
	// ErrTooDeep means that the text nests deeper than MaxDepth.
	ErrTooDeep = fmt.Errorf("JSON nests deeper than %d levels", MaxDepth)
	// ErrEncoding means that the text is not UTF-8.
	ErrEncoding = errors.New("JSON text is not valid UTF-8")
)

// SyntaxError says where and why text is not JSON.
type SyntaxError struct {
	Offset int // bytes before the fault
	Reason string
}

// Error implements error.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("invalid JSON at byte %d: %s", e.Offset, e.Reason)
}

// Compact checks one JSON text, with what Python's json module adds to JSON,
// and appends its canonical form to dst. Of a key given twice the last value
// wins, in the first one's place; lone surrogates become U+FFFD; numbers keep
// their text, save that an exponent is resolved. nonFinite reports that the
// result still holds NaN, Infinity or -Infinity (a number too large for
// float64 is such a one). src is not kept.
//
// Errors are *SyntaxError, ErrTooDeep and ErrEncoding.
func Compact(dst, src []byte) (out Value, nonFinite bool, err error) {
	c := compactors.Get().(*compactor)
	defer c.release()
	c.src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	c.bom = len(src) - len(c.src)
	c.dst = dst
	c.space()
	if err := c.value(0); err != nil {
		return nil, false, err
	}
	c.space()
	if c.at < len(c.src) {
		return nil, false, c.fail("extra data")
	}
	return c.dst, c.nonFinite, nil
}

var compactors = sync.Pool{New: func() any { return new(compactor) }}

type compactor struct {
	src       []byte
	at        int
	bom       int
	dst       []byte
	members   []member // of all open objects, innermost last
	nonFinite bool
}

// member remembers where dst holds one member of an open object.
type member struct {
	key, value, end int
	hash            uint32
}

func (c *compactor) release() {
	members := c.members[:0]
	if cap(members) > 1<<12 {
		members = nil
	}
	*c = compactor{members: members}
	compactors.Put(c)
}

func (c *compactor) fail(reason string) error {
	if c.at < len(c.src) && c.src[c.at] >= utf8.RuneSelf && !utf8.Valid(c.src) {
		return ErrEncoding
	}
	return &SyntaxError{Offset: c.at + c.bom, Reason: reason}
}

func (c *compactor) space() {
	for c.at < len(c.src) {
		switch c.src[c.at] {
		case ' ', '\t', '\n', '\r':
			c.at++
		default:
			return
		}
	}
}

func (c *compactor) value(depth int) error {
	if c.at >= len(c.src) {
		return c.fail("expecting value")
	}
	switch b := c.src[c.at]; b {
	case '{':
		return c.object(depth + 1)
	case '[':
		return c.array(depth + 1)
	case '"':
		return c.str()
	case 't':
		return c.literal("true")
	case 'f':
		return c.literal("false")
	case 'n':
		return c.literal("null")
	case 'N':
		c.nonFinite = true
		return c.literal("NaN")
	case 'I':
		c.nonFinite = true
		return c.literal("Infinity")
	default:
		if b == '-' || (b >= '0' && b <= '9') {
			return c.number()
		}
		return c.fail("expecting value")
	}
}

func (c *compactor) literal(word string) error {
	if len(c.src)-c.at < len(word) || string(c.src[c.at:c.at+len(word)]) != word {
		return c.fail("expecting value")
	}
	c.at += len(word)
	c.dst = append(c.dst, word...)
	return nil
}

func (c *compactor) array(depth int) error {
	if depth > MaxDepth {
		return ErrTooDeep
	}
	c.at++
	c.dst = append(c.dst, '[')
	for first := true; ; first = false {
		c.space()
		if c.at >= len(c.src) {
			return c.fail("unterminated array")
		}
		if first && c.src[c.at] == ']' {
			break
		}
		if !first {
			if c.src[c.at] == ']' {
				break
			}
			if c.src[c.at] != ',' {
				return c.fail("expecting ',' delimiter")
			}
			c.at++
			c.dst = append(c.dst, ',')
			c.space()
		}
		if err := c.value(depth); err != nil {
			return err
		}
	}
	c.at++
	c.dst = append(c.dst, ']')
	return nil
}

func (c *compactor) object(depth int) error {
	if depth > MaxDepth {
		return ErrTooDeep
	}
	c.at++
	open := len(c.dst)
	base := len(c.members)
	c.dst = append(c.dst, '{')
	doubled := false
	var seen map[string]struct{} // only for objects too wide to scan
	for first := true; ; first = false {
		c.space()
		if c.at >= len(c.src) {
			return c.fail("unterminated object")
		}
		if c.src[c.at] == '}' {
			break
		}
		if !first {
			if c.src[c.at] != ',' {
				return c.fail("expecting ',' delimiter")
			}
			c.at++
			c.dst = append(c.dst, ',')
			c.space()
		}
		if c.at >= len(c.src) || c.src[c.at] != '"' {
			return c.fail("expecting property name enclosed in double quotes")
		}
		m := member{key: len(c.dst)}
		if err := c.str(); err != nil {
			return err
		}
		m.value = len(c.dst)
		m.hash = hash(c.dst[m.key:m.value])
		if !doubled {
			doubled, seen = c.known(base, m, seen)
		}
		c.space()
		if c.at >= len(c.src) || c.src[c.at] != ':' {
			return c.fail("expecting ':' delimiter")
		}
		c.at++
		c.dst = append(c.dst, ':')
		c.space()
		if err := c.value(depth); err != nil {
			return err
		}
		m.end = len(c.dst)
		c.members = append(c.members, m)
	}
	c.at++
	if doubled {
		c.dropDoubles(open, c.members[base:])
	}
	c.members = c.members[:base]
	c.dst = append(c.dst, '}')
	return nil
}

// known reports whether an open object already has m's key.
func (c *compactor) known(base int, m member, seen map[string]struct{}) (bool, map[string]struct{}) {
	members := c.members[base:]
	if len(members) < 64 {
		for _, o := range members {
			if o.hash == m.hash && bytes.Equal(c.dst[o.key:o.value], c.dst[m.key:m.value]) {
				return true, nil
			}
		}
		return false, nil
	}
	if seen == nil {
		seen = make(map[string]struct{}, 2*len(members))
		for _, o := range members {
			seen[string(c.dst[o.key:o.value])] = struct{}{}
		}
	}
	_, ok := seen[string(c.dst[m.key:m.value])]
	seen[string(c.dst[m.key:m.value])] = struct{}{}
	return ok, seen
}

func hash(key []byte) uint32 {
	h := uint32(2166136261)
	for _, b := range key {
		h = (h ^ uint32(b)) * 16777619
	}
	return h
}

// dropDoubles rewrites the object that starts at open, keeping each key's
// first place and last value.
func (c *compactor) dropDoubles(open int, members []member) {
	text := slices.Clone(c.dst[open:])
	key := func(m member) string { return string(text[m.key-open : m.value-open]) }
	last := make(map[string]member, len(members))
	for _, m := range members {
		last[key(m)] = m
	}
	c.dst = append(c.dst[:open], '{')
	for _, m := range members {
		k := key(m)
		final, ok := last[k]
		if !ok {
			continue
		}
		delete(last, k)
		if len(c.dst) > open+1 {
			c.dst = append(c.dst, ',')
		}
		c.dst = append(c.dst, k...)
		c.dst = append(c.dst, text[final.value-open:final.end-open]...)
	}
}

func (c *compactor) str() error {
	c.at++
	c.dst = append(c.dst, '"')
	for {
		start := c.at
		ascii := true
		for c.at < len(c.src) {
			b := c.src[c.at]
			if b == '"' || b == '\\' || b < 0x20 {
				break
			}
			ascii = ascii && b < utf8.RuneSelf
			c.at++
		}
		part := c.src[start:c.at]
		if !ascii && !utf8.Valid(part) {
			return ErrEncoding
		}
		c.dst = append(c.dst, part...)
		if c.at >= len(c.src) {
			return c.fail("unterminated string")
		}
		switch c.src[c.at] {
		case '"':
			c.at++
			c.dst = append(c.dst, '"')
			return nil
		case '\\':
			if err := c.escape(); err != nil {
				return err
			}
		default:
			return c.fail("invalid control character")
		}
	}
}

func (c *compactor) escape() error {
	if c.at+1 >= len(c.src) {
		return c.fail("unterminated string")
	}
	var b byte
	switch c.src[c.at+1] {
	case '"', '\\', '/':
		b = c.src[c.at+1]
	case 'b':
		b = '\b'
	case 'f':
		b = '\f'
	case 'n':
		b = '\n'
	case 'r':
		b = '\r'
	case 't':
		b = '\t'
	case 'u':
		return c.unicode()
	default:
		return c.fail("invalid \\escape")
	}
	c.at += 2
	if b == '/' {
		c.dst = append(c.dst, b)
	} else {
		c.dst = appendEscape(c.dst, b)
	}
	return nil
}

func (c *compactor) unicode() error {
	r, ok := c.hex4(c.at)
	if !ok {
		return c.fail("invalid \\uXXXX escape")
	}
	c.at += 6
	if utf16.IsSurrogate(r) {
		low, ok := c.hex4(c.at)
		r = utf16.DecodeRune(r, low)
		if ok && r != utf8.RuneError {
			c.at += 6
		} else {
			r = utf8.RuneError
		}
	}
	if r < 0x20 || r == '"' || r == '\\' {
		c.dst = appendEscape(c.dst, byte(r))
	} else {
		c.dst = utf8.AppendRune(c.dst, r)
	}
	return nil
}

// hex4 reads the \uXXXX at src[at:].
func (c *compactor) hex4(at int) (rune, bool) {
	if len(c.src)-at < 6 || c.src[at] != '\\' || c.src[at+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, b := range c.src[at+2 : at+6] {
		switch {
		case b >= '0' && b <= '9':
			r = r<<4 | rune(b-'0')
		case b >= 'a' && b <= 'f':
			r = r<<4 | rune(b-'a'+10)
		case b >= 'A' && b <= 'F':
			r = r<<4 | rune(b-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

func (c *compactor) digits() int {
	n := 0
	for c.at < len(c.src) && c.src[c.at] >= '0' && c.src[c.at] <= '9' {
		c.at++
		n++
	}
	return n
}

func (c *compactor) number() error {
	start := c.at
	if c.src[c.at] == '-' {
		c.at++
		if c.at < len(c.src) && c.src[c.at] == 'I' {
			c.nonFinite = true
			c.dst = append(c.dst, '-')
			return c.literal("Infinity")
		}
	}
	lead := c.at
	n := c.digits()
	if n == 0 || (n > 1 && c.src[lead] == '0') {
		c.at = start
		return c.fail("expecting value")
	}
	exponent := false
	if c.at < len(c.src) && c.src[c.at] == '.' {
		c.at++
		if c.digits() == 0 {
			return c.fail("expecting a digit after the decimal point")
		}
	}
	if c.at < len(c.src) && (c.src[c.at] == 'e' || c.src[c.at] == 'E') {
		exponent = true
		c.at++
		if c.at < len(c.src) && (c.src[c.at] == '+' || c.src[c.at] == '-') {
			c.at++
		}
		if c.digits() == 0 {
			return c.fail("expecting a digit in the exponent")
		}
	}
	text := c.src[start:c.at]
	switch {
	case len(text) > maxDigits:
		c.at = start
		return c.fail(fmt.Sprintf("number has more than %d digits", maxDigits))
	case string(text) == "-0":
		c.dst = append(c.dst, '0')
	case exponent || (len(text) > 300 && bytes.IndexByte(text, '.') >= 0):
		return c.float(text)
	default:
		c.dst = append(c.dst, text...)
	}
	return nil
}

// float resolves the exponent, so that every reader agrees on the value.
func (c *compactor) float(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err == nil {
		c.dst = AppendFloat(c.dst, f)
		return nil
	}
	c.nonFinite = true
	if math.Signbit(f) {
		c.dst = append(c.dst, '-')
	}
	c.dst = append(c.dst, "Infinity"...)
	return nil
}
