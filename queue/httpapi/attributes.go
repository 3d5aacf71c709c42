package httpapi

import (
	"strings"

	"github.com/aglq/aglq/queue/rawjson"
)

// attributes appends an object of attribute values.
func (v *checker) attributes(at *loc, x rawjson.Value, out []byte) []byte {
	if x.Kind() != rawjson.KindObject {
		v.fail(at, "dict_type", "Input should be a valid dictionary", x, "")
		return out
	}
	out = append(out, '{')
	first := true
	for key, val := range x.Members() {
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(out, '"')
		out = append(out, key...)
		out = append(out, '"', ':')
		switch val.Kind() {
		case rawjson.KindString, rawjson.KindBool, rawjson.KindInteger, rawjson.KindFloat:
			out = append(out, val...)
		case rawjson.KindNonFinite:
			out = rawjson.ReplaceNonFinite(out, val, true)
		default:
			start := len(out)
			var ok bool
			if out, ok = appendUniform(out, val); !ok {
				out = out[:start]
				here := at.at(rawjson.Unescape(key))
				v.badAttribute(&here, val)
			}
		}
	}
	return append(out, '}')
}

// appendUniform appends an array brought to one scalar type: the first of
// string, boolean, integer and float that all elements are, else the first of
// boolean, integer and float that all can be read as. Other values are not ok.
func appendUniform(out []byte, x rawjson.Value) (_ []byte, ok bool) {
	if x.Kind() != rawjson.KindArray {
		return out, false
	}
	var has [rawjson.KindObject + 1]bool
	kinds := 0
	for e := range x.Elements() {
		if k := e.Kind(); !has[k] {
			has[k] = true
			kinds++
		}
	}
	switch {
	case has[rawjson.KindNull] || has[rawjson.KindArray] || has[rawjson.KindObject]:
		return out, false
	case kinds <= 1 && !has[rawjson.KindNonFinite]:
		return append(out, x...), true
	}
	for _, read := range [...]func([]byte, rawjson.Value) ([]byte, bool){appendAsNumber, appendAsBool, appendAsInt, appendAsFloat} {
		start := len(out)
		out = append(out, '[')
		ok = true
		for e := range x.Elements() {
			if len(out) > start+1 {
				out = append(out, ',')
			}
			if out, ok = read(out, e); !ok {
				break
			}
		}
		if ok {
			return append(out, ']'), true
		}
		out = out[:start]
	}
	return out, false
}

// appendAsNumber writes numbers as floats, and words for those that are none.
func appendAsNumber(out []byte, x rawjson.Value) ([]byte, bool) {
	f, ok := x.Float()
	if x.Kind() == rawjson.KindNonFinite {
		return rawjson.ReplaceNonFinite(out, x, true), true
	}
	return rawjson.AppendFloat(out, f), ok
}

func appendAsBool(out []byte, x rawjson.Value) ([]byte, bool) {
	b, ok := looseBool(x)
	if b {
		return append(out, "true"...), ok
	}
	return append(out, "false"...), ok
}

func appendAsInt(out []byte, x rawjson.Value) ([]byte, bool) {
	var v checker
	n := v.int(&inBody, x)
	return rawjson.AppendInt(out, n), len(v.problems) == 0
}

func appendAsFloat(out []byte, x rawjson.Value) ([]byte, bool) {
	if x.Kind() == rawjson.KindNonFinite {
		return appendAsNumber(out, x)
	}
	var v checker
	f := v.float(&inBody, x)
	return rawjson.AppendFloat(out, f), len(v.problems) == 0
}

// badAttribute notes, as the reference does, why each of the eight types that an
// attribute may have does not fit.
func (v *checker) badAttribute(at *loc, x rawjson.Value) {
	as := at.at("str")
	v.fail(&as, "string_type", "Input should be a valid string", x, "")
	as = at.at("bool")
	v.fail(&as, "bool_type", "Input should be a valid boolean", x, "")
	as = at.at("int")
	v.fail(&as, "int_type", "Input should be a valid integer", x, "")
	as = at.at("float")
	v.fail(&as, "float_type", "Input should be a valid number", x, "")
	for _, typ := range [...]string{"str", "bool", "int", "float"} {
		as = at.at(strings.Replace(sequenceOf, "T", typ, 1))
		if x.Kind() != rawjson.KindArray {
			v.fail(&as, "is_instance_of", "Input should be an instance of Sequence", x, `{"class":"Sequence"}`)
			continue
		}
		i := 0
		for e := range x.Elements() {
			here := as.item(i)
			i++
			switch typ {
			case "str":
				v.text(&here, e)
			case "bool":
				v.bool(&here, e)
			case "int":
				v.int(&here, e)
			default:
				v.float(&here, e)
			}
		}
	}
}

// sequenceOf is the reference's name for an array of T in a problem's place.
const sequenceOf = "json-or-python[json=list[T],python=chain[is-instance[Sequence],function-wrap[sequence_validator()]]]"
