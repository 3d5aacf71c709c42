package rawjson

import (
	"errors"
	"strings"
	"testing"
)

func TestCompact(t *testing.T) {
	tests := []struct {
		name, in, want string
		nonFinite      bool
	}{
		{"space", " \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\" : { } } ", `{"a":[1,2],"b":{}}`, false},
		{"key order", `{"z":1,"a":2}`, `{"z":1,"a":2}`, false},
		{"byte order mark", "\xef\xbb\xbf[1]", `[1]`, false},
		{"empty key", `{"":1}`, `{"":1}`, false},

		{"integers", `[0,-1,12345678901234567890123]`, `[0,-1,12345678901234567890123]`, false},
		{"minus zero", `[-0,-0.0,-0e1]`, `[0,-0.0,-0.0]`, false},
		{"floats keep their text", `[1.0,1.00,0.1,3.14159265358979]`, `[1.0,1.00,0.1,3.14159265358979]`, false},
		{"exponents are resolved", `[1e2,1E+2,15e-1,1e16,1e-7,0e5]`, `[100.0,100.0,1.5,1e+16,1e-07,0.0]`, false},
		{"underflow", `1e-400`, `0.0`, false},
		{"overflow", `[1e400,-1e400]`, `[Infinity,-Infinity]`, true},
		{"a long float too large", strings.Repeat("9", 400) + ".5", `Infinity`, true},
		{"a long float that fits", "0." + strings.Repeat("0", 310) + "1", `1e-311`, false},
		{"a large integer stays", strings.Repeat("9", 400), strings.Repeat("9", 400), false},
		{"Python's tokens", `[NaN,Infinity,-Infinity]`, `[NaN,Infinity,-Infinity]`, true},

		{"escapes", `"\"\\\/\b\f\n\r\t"`, `"\"\\/\b\f\n\r\t"`, false},
		{"needless escapes", `"\u0041\u00e9\u65e5"`, `"Aé日"`, false},
		{"control characters", `"\u0000\u0001\u001F\u000a"`, `"\u0000\u0001\u001f\n"`, false},
		{"escaped quotes", `"\u0022\u005c\u002f"`, `"\"\\/"`, false},
		{"surrogate pair", `"\ud83d\ude00"`, `"😀"`, false},
		{"lone surrogates", `"\ud83d.\ude00\ud83d\u0041"`, "\"\uFFFD.\uFFFD\uFFFDA\"", false},
		{"high before a pair", `"\ud83d\ud83d\ude00"`, "\"\uFFFD😀\"", false},
		{"raw text", "\"é日😀\u2028\x7f\"", "\"é日😀\u2028\x7f\"", false},

		{"key twice", `{"a":1,"b":2,"a":3}`, `{"a":3,"b":2}`, false},
		{"key twice by escape", `{"a":1,"\u0061":{"x":[1, 2]},"c":0}`, `{"a":{"x":[1,2]},"c":0}`, false},
		{"key three times", `{"a":1,"a":2,"a":3}`, `{"a":3}`, false},
		{"key twice inside", `{"o":{"a":1,"a":2},"p":[{"b":1,"b":2}],"o":{"c":1,"c":2}}`, `{"o":{"c":2},"p":[{"b":2}]}`, false},
		{"same key at two depths", `{"a":{"a":{"a":1}}}`, `{"a":{"a":{"a":1}}}`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, nonFinite, err := Compact([]byte("prefix"), []byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if string(out) != "prefix"+tt.want || nonFinite != tt.nonFinite {
				t.Errorf("Compact(%q) = %q, %t; want %q, %t", tt.in, out, nonFinite, tt.want, tt.nonFinite)
			}
			again, _, err := Compact(nil, []byte(tt.want))
			if err != nil || string(again) != tt.want {
				t.Errorf("again it gives %q, %v", again, err)
			}
		})
	}
}

func TestCompactErrors(t *testing.T) {
	tests := []struct {
		in     string
		offset int
		reason string
	}{
		{"", 0, "expecting value"},
		{"  ", 2, "expecting value"},
		{"[1] 2", 4, "extra data"},
		{"[1,]", 3, "expecting value"},
		{"[1 2]", 3, "expecting ',' delimiter"},
		{"[1", 2, "unterminated array"},
		{"{", 1, "unterminated object"},
		{`{"a":1,}`, 7, "expecting property name enclosed in double quotes"},
		{`{"a":1 "b":2}`, 7, "expecting ',' delimiter"},
		{`{"a" 1}`, 5, "expecting ':' delimiter"},
		{`{a:1}`, 1, "expecting property name enclosed in double quotes"},
		{`{"a":}`, 5, "expecting value"},
		{"01", 0, "expecting value"},
		{"-", 0, "expecting value"},
		{"+1", 0, "expecting value"},
		{".5", 0, "expecting value"},
		{"1.", 2, "expecting a digit after the decimal point"},
		{"1e", 2, "expecting a digit in the exponent"},
		{"1e+", 3, "expecting a digit in the exponent"},
		{"tru", 0, "expecting value"},
		{"nul", 0, "expecting value"},
		{"-Inf", 1, "expecting value"},
		{"'a'", 0, "expecting value"},
		{`"a`, 2, "unterminated string"},
		{`"a\`, 2, "unterminated string"},
		{`"\x"`, 1, "invalid \\escape"},
		{`"\u12g4"`, 1, "invalid \\uXXXX escape"},
		{`"\u12`, 1, "invalid \\uXXXX escape"},
		{"\"a\nb\"", 2, "invalid control character"},
		{"\xef\xbb\xbf[", 4, "unterminated array"},
		{strings.Repeat("1", maxDigits+1), 0, "number has more than 4300 digits"},
	}
	for _, tt := range tests {
		out, _, err := Compact(nil, []byte(tt.in))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || syntax.Offset != tt.offset || syntax.Reason != tt.reason || out != nil {
			t.Errorf("Compact(%.40q) = %q, %v; want %q at %d", tt.in, out, err, tt.reason, tt.offset)
		}
	}
	for _, in := range []string{"\"\xff\"", "\"a\xc3\"", "\xff", "[1,\xff]", "{\"\xed\xa0\x80\":1}"} {
		if _, _, err := Compact(nil, []byte(in)); !errors.Is(err, ErrEncoding) {
			t.Errorf("Compact(%q): %v, want ErrEncoding", in, err)
		}
	}
}

func TestCompactDepth(t *testing.T) {
	for _, pair := range []string{"[]", "{}"} {
		open := pair[:1]
		if open == "{" {
			open = `{"a":`
		}
		deep := func(n int) []byte {
			return []byte(strings.Repeat(open, n-1) + pair + strings.Repeat(pair[1:], n-1))
		}
		if _, _, err := Compact(nil, deep(MaxDepth)); err != nil {
			t.Errorf("depth %d of %s: %v", MaxDepth, pair, err)
		}
		if _, _, err := Compact(nil, deep(MaxDepth+1)); !errors.Is(err, ErrTooDeep) {
			t.Errorf("depth %d of %s: %v", MaxDepth+1, pair, err)
		}
	}
	if _, _, err := Compact(nil, []byte(strings.Repeat("[", 1<<20))); !errors.Is(err, ErrTooDeep) {
		t.Errorf("a million brackets: %v", err)
	}
}

// TestCompactWideObjects takes the way of objects that are too wide to scan.
func TestCompactWideObjects(t *testing.T) {
	var in, want strings.Builder
	in.WriteByte('{')
	want.WriteByte('{')
	for i := range 500 {
		key := string(AppendInt(nil, int64(i)))
		in.WriteString(`"` + key + `":0, `)
		if i > 0 {
			want.WriteByte(',')
		}
		value := "0"
		if i == 3 || i == 100 || i == 499 {
			value = `{"late":` + key + `}`
		}
		want.WriteString(`"` + key + `":` + value)
	}
	in.WriteString(`"100":{"late":1},"3":{"late":3},"499":{"late":499},"100":{"late":100}}`)
	want.WriteByte('}')
	out, _, err := Compact(nil, []byte(in.String()))
	if err != nil || string(out) != want.String() {
		t.Errorf("%v\n got %s\nwant %s", err, out, want.String())
	}
}

func TestCompactDoesNotKeepItsInput(t *testing.T) {
	src := []byte(`{"key":"value"}`)
	out, _, err := Compact(nil, src)
	if err != nil {
		t.Fatal(err)
	}
	clear(src)
	if out.String() != `{"key":"value"}` {
		t.Errorf("it became %q", out)
	}
}
