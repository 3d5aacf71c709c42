package adapter

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aglq/aglq/queue/rawjson"
)

// parseLiteral reads the text of a JSON value, or of a Python literal as repr
// writes it: texts in either quotes, numbers, None, True, False, and lists,
// tuples and dictionaries of them. Keys of dictionaries must be texts.
func parseLiteral(text string) (rawjson.Value, error) {
	if v, err := rawjson.Parse([]byte(text)); err == nil {
		return v, nil
	}
	p := literal{text: text, dst: make([]byte, 0, len(text))}
	p.space()
	if err := p.value(0); err != nil {
		return nil, err
	}
	p.space()
	if p.text != "" {
		return nil, errLiteral
	}
	return rawjson.Parse(p.dst)
}

var errLiteral = errors.New("neither JSON nor a Python literal")

// literal rewrites a Python literal as JSON.
type literal struct {
	text string // what is left
	dst  []byte
}

func (p *literal) space() { p.text = strings.TrimLeft(p.text, " \t\r\n\f") }

func (p *literal) value(depth int) error {
	if depth > rawjson.MaxDepth || p.text == "" {
		return errLiteral
	}
	switch c := p.text[0]; {
	case c == '[':
		return p.list(']', depth)
	case c == '(':
		return p.list(')', depth)
	case c == '{':
		return p.dict(depth)
	case c == '"', c == '\'':
		return p.quoted()
	case c == 'N', c == 'T', c == 'F', c == 't', c == 'f', c == 'n':
		return p.word()
	}
	return p.number()
}

// list reads a list, or a tuple: a single value in parentheses without a comma is
// that value.
func (p *literal) list(end byte, depth int) error {
	p.text = p.text[1:]
	start := len(p.dst)
	p.dst = append(p.dst, '[')
	n, commas := 0, 0
	for {
		p.space()
		if p.text != "" && p.text[0] == end {
			p.text = p.text[1:]
			break
		}
		if n > commas {
			return errLiteral
		}
		if n > 0 {
			p.dst = append(p.dst, ',')
		}
		if err := p.value(depth + 1); err != nil {
			return err
		}
		n++
		if p.comma() {
			commas++
		}
	}
	if end == ')' && n == 1 && commas == 0 {
		p.dst = append(p.dst[:start], p.dst[start+1:]...)
		return nil
	}
	p.dst = append(p.dst, ']')
	return nil
}

func (p *literal) comma() bool {
	p.space()
	rest, ok := strings.CutPrefix(p.text, ",")
	p.text = rest
	return ok
}

func (p *literal) dict(depth int) error {
	p.text = p.text[1:]
	p.dst = append(p.dst, '{')
	for n, more := 0, true; ; n++ {
		p.space()
		if p.text != "" && p.text[0] == '}' {
			p.text = p.text[1:]
			p.dst = append(p.dst, '}')
			return nil
		}
		if !more || p.text == "" || p.text[0] != '"' && p.text[0] != '\'' {
			return errLiteral
		}
		if n > 0 {
			p.dst = append(p.dst, ',')
		}
		if err := p.quoted(); err != nil {
			return err
		}
		p.space()
		rest, ok := strings.CutPrefix(p.text, ":")
		if !ok {
			return errLiteral
		}
		p.text = rest
		p.dst = append(p.dst, ':')
		p.space()
		if err := p.value(depth + 1); err != nil {
			return err
		}
		more = p.comma()
	}
}

var literalWords = []struct{ word, json string }{
	{"None", "null"}, {"True", "true"}, {"False", "false"},
	{"null", "null"}, {"true", "true"}, {"false", "false"},
}

func (p *literal) word() error {
	for _, w := range literalWords {
		if rest, ok := strings.CutPrefix(p.text, w.word); ok {
			p.text = rest
			p.dst = append(p.dst, w.json...)
			return nil
		}
	}
	return errLiteral
}

func (p *literal) number() error {
	end := strings.IndexFunc(p.text, func(r rune) bool { return !strings.ContainsRune("+-0123456789.eE", r) })
	if end < 0 {
		end = len(p.text)
	}
	digits := p.text[:end]
	p.text = p.text[end:]
	if !strings.ContainsAny(digits, ".eE") {
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return errLiteral
		}
		p.dst = rawjson.AppendInt(p.dst, n)
		return nil
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsInf(f, 0) {
		return errLiteral
	}
	p.dst = rawjson.AppendFloat(p.dst, f)
	return nil
}

// quoted reads a text, and those that follow it: Python joins them.
func (p *literal) quoted() error {
	var out []byte
	for p.text != "" && (p.text[0] == '"' || p.text[0] == '\'') {
		quote := p.text[0]
		p.text = p.text[1:]
		for {
			if p.text == "" || p.text[0] == '\n' {
				return errLiteral
			}
			c := p.text[0]
			if c == quote {
				p.text = p.text[1:]
				break
			}
			if c != '\\' {
				out = append(out, c)
				p.text = p.text[1:]
				continue
			}
			var err error
			if out, err = p.escape(out); err != nil {
				return err
			}
		}
		p.space()
	}
	p.dst = rawjson.AppendText(p.dst, out)
	return nil
}

// simpleEscapes are the escapes of one letter.
const simpleEscapes, simpleMeanings = "\\'\"abfnrtv\n", "\\'\"\a\b\f\n\r\t\v\x00"

func (p *literal) escape(out []byte) ([]byte, error) {
	if len(p.text) < 2 {
		return nil, errLiteral
	}
	c := p.text[1]
	p.text = p.text[2:]
	if c == '\n' {
		return out, nil
	}
	if i := strings.IndexByte(simpleEscapes, c); i >= 0 {
		return append(out, simpleMeanings[i]), nil
	}
	width := 0
	switch c {
	case 'x':
		width = 2
	case 'u':
		width = 4
	case 'U':
		width = 8
	case '0', '1', '2', '3', '4', '5', '6', '7':
		return p.octal(out, c), nil
	default: // Python keeps what it does not know
		return append(out, '\\', c), nil
	}
	if len(p.text) < width {
		return nil, errLiteral
	}
	r, err := strconv.ParseUint(p.text[:width], 16, 32)
	if err != nil || r > utf8.MaxRune {
		return nil, errLiteral
	}
	p.text = p.text[width:]
	return utf8.AppendRune(out, rune(r)), nil
}

func (p *literal) octal(out []byte, first byte) []byte {
	r := rune(first - '0')
	for i := 0; i < 2 && p.text != "" && p.text[0] >= '0' && p.text[0] <= '7'; i++ {
		r = 8*r + rune(p.text[0]-'0')
		p.text = p.text[1:]
	}
	return utf8.AppendRune(out, r)
}
