package worker

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/emit"
)

const (
	tailBytes = 8 << 10
	// longestLine bounds a line that may be the result; longer ones are output.
	longestLine = 8 << 20
)

// tail keeps the last bytes of a stream. It is an io.Writer.
type tail struct {
	buf   [tailBytes]byte
	total int64
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > tailBytes {
		t.total += int64(n - tailBytes)
		p = p[n-tailBytes:]
	}
	for len(p) > 0 {
		done := copy(t.buf[t.total%tailBytes:], p)
		t.total += int64(done)
		p = p[done:]
	}
	return n, nil
}

// String is the tail as valid text, cut at the start of a character.
func (t *tail) String() string {
	at := int(t.total % tailBytes)
	if t.total <= tailBytes {
		return strings.ToValidUTF8(string(t.buf[:t.total]), "\uFFFD")
	}
	text := append(bytes.Clone(t.buf[at:]), t.buf[:at]...)
	for i := 0; i < 3 && len(text) > 0 && text[0]&0xC0 == 0x80; i++ {
		text = text[1:]
	}
	return strings.ToValidUTF8(string(text), "\uFFFD")
}

// verdict reads a program's standard output for its result: the last line that
// is a number, or a JSON object with "reward", "rewards" or "spans". It is an
// io.Writer, and keeps one line at most.
type verdict struct {
	line   []byte
	skip   bool // the line cannot be a result
	found  bool
	result Result
	broken error // why the last object that looked like a result is none
}

func (v *verdict) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part, p = p[:end], p[end+1:]
		} else {
			p = nil
		}
		v.add(part)
		if end >= 0 {
			v.endLine()
		}
	}
	return n, nil
}

// add takes a piece of a line, unless its beginning shows that it is no result.
func (v *verdict) add(part []byte) {
	if v.skip {
		return
	}
	if len(v.line) == 0 {
		part = bytes.TrimLeft(part, " \t\r\xef\xbb\xbf")
		if len(part) == 0 {
			return
		}
		if bytes.IndexByte([]byte("{+-.0123456789nNiI"), part[0]) < 0 {
			v.skip = true
			return
		}
	}
	if len(v.line)+len(part) > longestLine {
		v.skip, v.line = true, nil
		return
	}
	v.line = append(v.line, part...)
}

func (v *verdict) endLine() {
	line := bytes.TrimSpace(v.line)
	if !v.skip && len(line) > 0 {
		v.judge(line)
	}
	v.skip = false
	if v.line = v.line[:0]; cap(v.line) > 1<<16 {
		v.line = nil
	}
}

func (v *verdict) judge(line []byte) {
	if line[0] != '{' {
		if f, ok := plainNumber(string(line)); ok {
			v.found, v.result, v.broken = true, Reward(f), nil
		}
		return
	}
	object, _, err := rawjson.Compact(nil, line)
	if err != nil {
		return // some line with a brace
	}
	result, ok, err := objectResult(object)
	switch {
	case err != nil:
		v.broken = err
	case ok:
		v.found, v.result, v.broken = true, result, nil
	}
}

// plainNumber reads a decimal number, or what programs print for one that is
// none.
func plainNumber(s string) (float64, bool) {
	switch strings.ToLower(strings.TrimLeft(s, "+-")) {
	case "nan", "inf", "infinity":
	default:
		if strings.Trim(s, "0123456789+-.eE") != "" {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil || errors.Is(err, strconv.ErrRange)
}

// objectResult reads {"reward": x}, {"rewards": {…}, "primary": name} and
// {"spans": […]}, or several of them in one. Ok is false for other objects.
func objectResult(object rawjson.Value) (r Result, ok bool, err error) {
	reward, rewards, spans := object.Get("reward"), object.Get("rewards"), object.Get("spans")
	if rewards != nil {
		if r.Rewards, err = namedRewards(rewards, object.Get("primary")); err != nil {
			return r, false, err
		}
	}
	if !reward.IsNull() && rewards == nil {
		f, isNumber := rewardNumber(reward)
		if !isNumber {
			return r, false, fmt.Errorf("its reward is no number: %.100s", reward)
		}
		r.Rewards = Reward(f).Rewards
	}
	if spans != nil {
		if r.Spans, err = ownSpans(spans); err != nil {
			return r, false, err
		}
	}
	return r, reward != nil || rewards != nil || spans != nil, nil
}

// rewardNumber takes booleans for 1 and 0.
func rewardNumber(v rawjson.Value) (float64, bool) {
	if v.Kind() == rawjson.KindBool {
		if v.Bool() {
			return 1, true
		}
		return 0, true
	}
	return v.Float()
}

func namedRewards(v, primary rawjson.Value) ([]RewardDimension, error) {
	values := map[string]float64{}
	only := ""
	for key, val := range v.Members() {
		f, ok := rewardNumber(val)
		if !ok {
			return nil, fmt.Errorf("its reward %s is no number: %.100s", key, val)
		}
		only = rawjson.Unescape(key)
		values[only] = f
	}
	name := primary.Text()
	if primary == nil && len(values) == 1 {
		name = only
	}
	if _, ok := values[name]; !ok {
		return nil, fmt.Errorf("its primary reward %q is not among its rewards", name)
	}
	return emit.Dimensions(name, values)
}

// ownSpans reads spans as the protocol writes them; ids and numbers are given
// by the worker, where a span leaves them out.
func ownSpans(v rawjson.Value) ([]queue.Span, error) {
	if v.Kind() != rawjson.KindArray {
		return nil, fmt.Errorf("its spans are no list: %.100s", v)
	}
	var spans []queue.Span
	for item := range v.Elements() {
		s := queue.DecodeSpan(rawjson.ReplaceNonFinite(nil, item, true))
		if s.Name == "" {
			return nil, fmt.Errorf("its span %d has no name", len(spans))
		}
		for _, part := range []struct {
			v    rawjson.Value
			kind rawjson.Kind
		}{{s.Attributes, rawjson.KindObject}, {s.Status, rawjson.KindObject}, {s.Events, rawjson.KindArray}, {s.Links, rawjson.KindArray}} {
			if !part.v.IsNull() && part.v.Kind() != part.kind {
				return nil, fmt.Errorf("its span %q is malformed: %.100s", s.Name, part.v)
			}
		}
		spans = append(spans, s)
	}
	return spans, nil
}

// end judges an unfinished last line.
func (v *verdict) end() { v.endLine() }
