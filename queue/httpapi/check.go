package httpapi

import (
	"encoding/hex"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/aglq/aglq/queue/rawjson"
)

// checker turns JSON into Go values with the coercions of the wire contract and
// gathers every problem on the way. A caller reads all it needs, then asks err.
type checker struct {
	problems  []byte // the entries of the answer, separated by commas
	nonFinite bool   // the body holds NaN or an infinity
}

// loc is the place of a value: a chain from the value to the root.
type loc struct {
	up    *loc
	name  string
	index int // used when name is unset
	isIdx bool
}

var (
	inBody  = loc{name: "body"}
	inQuery = loc{name: "query"}
)

func (l *loc) at(name string) loc { return loc{up: l, name: name} }
func (l *loc) item(i int) loc     { return loc{up: l, index: i, isIdx: true} }

func (l *loc) append(dst []byte) []byte {
	if l.up != nil {
		dst = append(l.up.append(dst), ',')
	}
	if l.isIdx {
		return rawjson.AppendInt(dst, int64(l.index))
	}
	return rawjson.AppendString(dst, l.name)
}

// maxEcho is the size up to which a problem shows the offending value.
const maxEcho = 1 << 10

// fail notes a problem; ctx is an object's text or "".
func (v *checker) fail(at *loc, typ, msg string, input rawjson.Value, ctx string) {
	if len(v.problems) > 64<<10 {
		return // one more of too many
	}
	b := v.problems
	if len(b) > 0 {
		b = append(b, ',')
	}
	b = append(b, `{"type":"`...)
	b = append(b, typ...)
	b = append(b, `","loc":[`...)
	b = at.append(b)
	b = append(b, `],"msg":`...)
	b = rawjson.AppendString(b, msg)
	if len(input) <= maxEcho {
		if input == nil {
			input = rawjson.Null
		}
		b = append(b, `,"input":`...)
		b = rawjson.ReplaceNonFinite(b, input, false)
	}
	if ctx != "" {
		b = append(b, `,"ctx":`...)
		b = append(b, ctx...)
	}
	v.problems = append(b, '}')
}

// unprocessable is the body of a 422 answer.
type unprocessable []byte

// Error implements error.
func (u unprocessable) Error() string { return "request does not fit its schema" }

// err is nil when all was well.
func (v *checker) err() error {
	if len(v.problems) == 0 {
		return nil
	}
	return unprocessable(`{"detail":[` + string(v.problems) + `]}`)
}

func invalidJSON(e *rawjson.SyntaxError) error {
	var v checker
	at := inBody.item(e.Offset)
	reason := rawjson.AppendString(nil, upperFirst(e.Reason))
	v.fail(&at, "json_invalid", "JSON decode error", rawjson.EmptyObject, `{"error":`+string(reason)+`}`)
	return v.err()
}

func (v *checker) missing(at *loc, parent rawjson.Value) {
	if at.up == &inQuery {
		parent = nil
	}
	v.fail(at, "missing", "Field required", parent, "")
}

// object reports whether x is one.
func (v *checker) object(at *loc, x rawjson.Value) bool {
	if x.Kind() == rawjson.KindObject {
		return true
	}
	v.fail(at, "model_attributes_type", "Input should be a valid dictionary or object to extract fields from", x, "")
	return false
}

// body checks a body that must be an object.
func (v *checker) body(x rawjson.Value) bool {
	if x == nil {
		v.missing(&inBody, nil)
		return false
	}
	return v.object(&inBody, x)
}

// dict returns a free-form object, its non-finite numbers made null.
func (v *checker) dict(at *loc, x rawjson.Value) rawjson.Value {
	if x.Kind() != rawjson.KindObject {
		v.fail(at, "dict_type", "Input should be a valid dictionary", x, "")
		return nil
	}
	return v.payload(x)
}

// optDict is dict, or null.
func (v *checker) optDict(at *loc, x rawjson.Value) rawjson.Value {
	if x.IsNull() {
		return rawjson.Null
	}
	return v.dict(at, x)
}

// payload returns a value that the caller owns, its non-finite numbers made
// null.
func (v *checker) payload(x rawjson.Value) rawjson.Value {
	if v.nonFinite {
		return rawjson.ReplaceNonFinite(nil, x, false)
	}
	return x
}

func (v *checker) list(at *loc, x rawjson.Value) bool {
	if x.Kind() == rawjson.KindArray {
		return true
	}
	v.fail(at, "list_type", "Input should be a valid list", x, "")
	return false
}

func (v *checker) text(at *loc, x rawjson.Value) string {
	if x.Kind() != rawjson.KindString {
		v.fail(at, "string_type", "Input should be a valid string", x, "")
		return ""
	}
	return x.Text()
}

// optText is text, nil for null and for absent.
func (v *checker) optText(at *loc, x rawjson.Value) *string {
	if x.IsNull() {
		return nil
	}
	s := v.text(at, x)
	return &s
}

// needText is the text of a required member.
func (v *checker) needText(at *loc, object rawjson.Value, name string) string {
	here := at.at(name)
	x := object.Get(name)
	if x == nil {
		v.missing(&here, object)
		return ""
	}
	return v.text(&here, x)
}

func (v *checker) int(at *loc, x rawjson.Value) int64 {
	text := string(x)
	switch x.Kind() {
	case rawjson.KindInteger:
	case rawjson.KindBool:
		if x.Bool() {
			return 1
		}
		return 0
	case rawjson.KindFloat:
		f, _ := x.Float()
		if f != math.Trunc(f) {
			v.fail(at, "int_from_float", "Input should be a valid integer, got a number with a fractional part", x, "")
			return 0
		}
		if f < -1<<63 || f >= 1<<63 {
			v.fail(at, "int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size", x, "")
			return 0
		}
		return int64(f)
	case rawjson.KindNonFinite:
		v.fail(at, "finite_number", "Input should be a finite number", x, "")
		return 0
	case rawjson.KindString:
		var ok bool
		if text, ok = integerText(x.Text()); !ok {
			v.fail(at, "int_parsing", "Input should be a valid integer, unable to parse string as an integer", x, "")
			return 0
		}
	default:
		v.fail(at, "int_type", "Input should be a valid integer", x, "")
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		v.fail(at, "int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size", x, "")
	}
	return n
}

// integerText normalises an integer as people type it: " 2 ", "+2", "2.0",
// "1_0".
func integerText(s string) (string, bool) {
	s = strings.TrimSpace(s)
	if whole, fraction, ok := strings.Cut(s, "."); ok {
		if fraction == "" || strings.Trim(fraction, "0") != "" {
			return "", false
		}
		s = whole
	}
	digits := strings.TrimLeft(s, "+-")
	if len(s)-len(digits) > 1 || digits == "" || digits[0] == '_' || digits[len(digits)-1] == '_' ||
		strings.Contains(digits, "__") {
		return "", false
	}
	for _, d := range []byte(digits) {
		if d != '_' && (d < '0' || d > '9') {
			return "", false
		}
	}
	return strings.ReplaceAll(s, "_", ""), true
}

func (v *checker) float(at *loc, x rawjson.Value) float64 {
	if f, ok := x.Float(); ok {
		return f
	}
	switch x.Kind() {
	case rawjson.KindBool:
		if x.Bool() {
			return 1
		}
	case rawjson.KindString:
		f, ok := floatText(x.Text())
		if !ok {
			v.fail(at, "float_parsing", "Input should be a valid number, unable to parse string as a number", x, "")
		}
		return f
	default:
		v.fail(at, "float_type", "Input should be a valid number", x, "")
	}
	return 0
}

func floatText(s string) (float64, bool) {
	s = strings.TrimSpace(s)
	f, err := strconv.ParseFloat(s, 64)
	if strings.ContainsAny(s, "xX_") || (err != nil && !math.IsInf(f, 0)) {
		return 0, false
	}
	return f, true
}

// optFloat is float; null, and what no clock or stopwatch shows, is nil.
func (v *checker) optFloat(at *loc, x rawjson.Value) *float64 {
	if x.IsNull() {
		return nil
	}
	f := v.float(at, x)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}

func (v *checker) bool(at *loc, x rawjson.Value) bool {
	if x.Kind() == rawjson.KindBool {
		return x.Bool()
	}
	b, ok := looseBool(x)
	switch {
	case ok:
	case x.Kind() == rawjson.KindString || x.Kind() == rawjson.KindInteger || x.Kind() == rawjson.KindFloat:
		v.fail(at, "bool_parsing", "Input should be a valid boolean, unable to interpret input", x, "")
	default:
		v.fail(at, "bool_type", "Input should be a valid boolean", x, "")
	}
	return b
}

// looseBool reads 0, 1 and the words for them.
func looseBool(x rawjson.Value) (value, ok bool) {
	word := string(x)
	if x.Kind() == rawjson.KindString {
		word = strings.ToLower(x.Text())
	}
	switch word {
	case "1", "1.0", "true", "t", "yes", "y", "on":
		return true, true
	case "0", "0.0", "false", "f", "no", "n", "off":
		return false, true
	}
	return false, false
}

// literal returns x if it is one of the words allowed.
func literal[T ~string](v *checker, at *loc, x rawjson.Value, allowed []T) T {
	if x.Kind() == rawjson.KindString {
		text := x[1 : len(x)-1]
		for _, a := range allowed {
			if string(text) == string(a) {
				return a
			}
		}
	}
	var words strings.Builder
	for i, a := range allowed {
		switch {
		case i > 0 && i == len(allowed)-1:
			words.WriteString(" or ")
		case i > 0:
			words.WriteString(", ")
		}
		words.WriteString("'" + string(a) + "'")
	}
	v.fail(at, "literal_error", "Input should be "+words.String(), x, `{"expected":"`+words.String()+`"}`)
	return ""
}

// literals returns a list of words; nil for null and for absent.
func literals[T ~string](v *checker, at *loc, x rawjson.Value, allowed []T) []T {
	if x.IsNull() || !v.list(at, x) {
		return nil
	}
	out := []T{}
	for e := range x.Elements() {
		here := at.item(len(out))
		out = append(out, literal(v, &here, e, allowed))
	}
	return out
}

// texts returns a list of strings.
func (v *checker) texts(at *loc, x rawjson.Value) []string {
	if !v.list(at, x) {
		return nil
	}
	out := []string{}
	for e := range x.Elements() {
		here := at.item(len(out))
		out = append(out, v.text(&here, e))
	}
	return out
}

// queryObject turns a query string into the object that a body would be: of a
// parameter given twice the last wins, those named _in are lists.
func queryObject(raw string) rawjson.Value {
	out := []byte{'{'}
	for name, given := range queryValues(raw) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = rawjson.AppendString(out, name)
		out = append(out, ':')
		if !strings.HasSuffix(name, "_in") {
			out = rawjson.AppendString(out, given[len(given)-1])
			continue
		}
		out = append(out, '[')
		for i, s := range given {
			if i > 0 {
				out = append(out, ',')
			}
			out = rawjson.AppendString(out, s)
		}
		out = append(out, ']')
	}
	return append(out, '}')
}

// queryValues reads a query string as Python's servers do: only & separates, and a
// % that no two hexadecimal digits follow is one.
func queryValues(raw string) url.Values {
	values := url.Values{}
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name = unescape(name)
		values[name] = append(values[name], unescape(value))
	}
	return values
}

func unescape(s string) string {
	if text, err := url.QueryUnescape(s); err == nil {
		return text
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			out = append(out, ' ')
		case s[i] == '%' && i+2 < len(s):
			if b, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				out = append(out, b...)
				i += 2
				continue
			}
			out = append(out, '%')
		default:
			out = append(out, s[i])
		}
	}
	return string(out)
}
