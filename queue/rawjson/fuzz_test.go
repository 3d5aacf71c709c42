package rawjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzCompact checks Compact against encoding/json, and that what it lets in
// can be walked.
func FuzzCompact(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,2.50,-0,1e5,"x\u00e9\ud83d\ude00"],"b":{"":null},"a":true}`, `[NaN,-Infinity,1e999]`, "\xef\xbb\xbf 1",
		`"\ud800\u0041\udc00"`, `{"a":1,"\u0061":{"b":1,"b":[{}]}}`, `[[[[]]],{"x":{"y":{}}}]`, "\"\x80\"", `-`, `{"a":1,}`, `"\\\""`,
		`{"1":1,"2":[],"3":"","1":"\\","2":{"2":2,"2":3}}`, `12345678901234567890.5E-10`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		before := bytes.Clone(src)
		out, nonFinite, err := Compact(nil, src)
		if !bytes.Equal(src, before) {
			t.Fatal("Compact wrote to its input")
		}
		if err != nil {
			if out != nil {
				t.Fatalf("%q came with the error %v", out, err)
			}
			if json.Valid(src) && bytes.Equal(bytes.ToValidUTF8(src, nil), src) && !beyondLimits(err) {
				t.Fatalf("%v, though encoding/json takes it", err)
			}
			return
		}
		again, nonFiniteAgain, err := Compact(nil, out)
		if err != nil || !bytes.Equal(again, out) || nonFiniteAgain != nonFinite {
			t.Fatalf("%q becomes %q, %t, %v", out, again, nonFiniteAgain, err)
		}
		walk(t, out, 0)
		finite := ReplaceNonFinite(nil, out, false)
		if nonFinite == bytes.Equal(finite, out) {
			t.Fatalf("non-finite is %t, but replacing gave %q of %q", nonFinite, finite, out)
		}
		if !json.Valid(finite) {
			t.Fatalf("%q is no JSON", finite)
		}
		if nonFinite {
			return
		}
		// Numbers as float64, for their text may be resolved.
		var got, want any
		if json.Unmarshal(bytes.TrimPrefix(src, []byte("\xef\xbb\xbf")), &want) != nil {
			return // an integer beyond float64
		}
		if err := json.Unmarshal(out, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q means %v, %q means %v; %v", out, got, src, want, err)
		}
	})
}

func beyondLimits(err error) bool {
	syntax, ok := err.(*SyntaxError)
	return err == ErrTooDeep || ok && syntax.Reason == "number has more than 4300 digits"
}

// walk visits all of v and builds it again from its parts.
func walk(t *testing.T, v Value, depth int) {
	var again []byte
	switch v.Kind() {
	case KindObject:
		again = append(again, '{')
		for key, val := range v.Members() {
			if len(again) > 1 {
				again = append(again, ',')
			}
			again = append(again, '"')
			again = append(again, key...)
			again = append(again, '"', ':')
			again = append(again, val...)
			if !bytes.Equal(v.Get(Unescape(key)), val) {
				t.Fatalf("Get(%q) of %q is %q", Unescape(key), v, v.Get(Unescape(key)))
			}
			walk(t, val, depth+1)
		}
		again = append(again, '}')
	case KindArray:
		again = append(again, '[')
		for e := range v.Elements() {
			if len(again) > 1 {
				again = append(again, ',')
			}
			again = append(again, e...)
			walk(t, e, depth+1)
		}
		again = append(again, ']')
	case KindString:
		again = AppendString(nil, v.Text())
	case Invalid:
		t.Fatalf("an invalid value at depth %d", depth)
	default:
		again = v
	}
	if !bytes.Equal(again, v) {
		t.Fatalf("%q is rebuilt as %q", v, again)
	}
	v.Float()
	v.Int()
	v.Text()
	v.Get("a")
}
