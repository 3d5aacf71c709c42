package cem

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Type is the type of a parameter.
type Type string

// The types.
const (
	Float       Type = "float"
	Int         Type = "int"
	Categorical Type = "categorical"
)

// Scale says how a numeric parameter spreads between its bounds.
type Scale string

// The scales; "" is Linear. On the log scale 0.001 to 0.01 is as wide as 0.1 to 1.
const (
	Linear Scale = "linear"
	Log    Scale = "log"
)

// Parameter is one dimension of the search. Low and High bound a number, both
// included; Choices lists the values of a categorical one, any JSON.
type Parameter struct {
	Name    string          `json:"name"`
	Type    Type            `json:"type"`
	Low     float64         `json:"low"`
	High    float64         `json:"high"`
	Scale   Scale           `json:"scale,omitempty"`
	Choices []rawjson.Value `json:"choices,omitempty"`
}

// MarshalJSON leaves the members of other types out.
func (p Parameter) MarshalJSON() ([]byte, error) {
	if p.Type == Categorical {
		return json.Marshal(struct {
			Name    string          `json:"name"`
			Type    Type            `json:"type"`
			Choices []rawjson.Value `json:"choices"`
		}{p.Name, p.Type, p.Choices})
	}
	type plain Parameter
	return json.Marshal(plain(p))
}

// Space is what a search may vary.
type Space struct {
	Parameters []Parameter `json:"parameters"`
}

// LoadSpace reads and checks the space in a JSON file:
//
//	{"parameters": [
//	  {"name": "learning_rate", "type": "float", "low": 0.00001, "high": 1, "scale": "log"},
//	  {"name": "hidden", "type": "int", "low": 4, "high": 256},
//	  {"name": "activation", "type": "categorical", "choices": ["relu", "tanh"]}
//	]}
func LoadSpace(path string) (Space, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Space{}, fmt.Errorf("reading the search space: %w", err)
	}
	space, err := ParseSpace(text)
	if err != nil {
		return Space{}, fmt.Errorf("search space %s: %w", path, err)
	}
	return space, nil
}

// ParseSpace reads and checks a space. Unknown members are an error, so that a
// misspelt one does not go unnoticed.
func ParseSpace(text []byte) (Space, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var space Space
	if err := decoder.Decode(&space); err != nil {
		return Space{}, queue.Wrap(queue.Invalid, err, "decoding JSON")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Space{}, queue.Errorf(queue.Invalid, "there is more than one JSON value")
	}
	return space, space.Validate()
}

// Validate reports what is wrong with the space, as an Invalid error.
func (s Space) Validate() error {
	if len(s.Parameters) == 0 {
		return queue.Errorf(queue.Invalid, "the search space has no parameters")
	}
	seen := map[string]bool{}
	for i, p := range s.Parameters {
		if p.Name == "" || seen[p.Name] {
			return queue.Errorf(queue.Invalid, "parameter %d has the name %q; each needs one of its own", i+1, p.Name)
		}
		seen[p.Name] = true
		if err := p.validate(); err != nil {
			return queue.Wrap(queue.Invalid, err, "parameter "+p.Name)
		}
	}
	return nil
}

func (p Parameter) validate() error {
	switch p.Type {
	case Categorical:
		if len(p.Choices) == 0 {
			return fmt.Errorf("a categorical parameter needs choices")
		}
		return nil
	case Float, Int:
	default:
		return fmt.Errorf("type is %q; it must be float, int or categorical", p.Type)
	}
	switch {
	case len(p.Choices) > 0:
		return fmt.Errorf("choices are for categorical parameters")
	case p.Scale != "" && p.Scale != Linear && p.Scale != Log:
		return fmt.Errorf("scale is %q; it must be linear or log", p.Scale)
	case !(p.Low < p.High) || math.IsInf(p.High-p.Low, 0):
		return fmt.Errorf("low is %g and high is %g; low must be the smaller one", p.Low, p.High)
	case p.Scale == Log && p.Low <= 0:
		return fmt.Errorf("low is %g; the log scale needs it above 0", p.Low)
	case p.Type == Int && (p.Low != math.Trunc(p.Low) || p.High != math.Trunc(p.High) || math.Abs(p.Low) > maxInt || math.Abs(p.High) > maxInt):
		return fmt.Errorf("low is %g and high is %g; an int needs whole numbers below 2^53", p.Low, p.High)
	}
	return nil
}

// maxInt is the largest integer up to which float64 holds every one.
const maxInt = 1 << 53

// value maps a place u between 0 and 1 to the parameter's value.
func (p Parameter) value(u float64) float64 {
	low, high := p.Low, p.High
	if p.Type == Int {
		// Half a unit more on either side gives the bounds their full share.
		low, high = low-0.5, high+0.5
		if p.Scale == Log {
			low = max(low, p.Low/2)
		}
	}
	var v float64
	if p.Scale == Log {
		v = math.Exp(math.Log(low) + u*(math.Log(high)-math.Log(low)))
	} else {
		v = low + u*(high-low)
	}
	if p.Type == Int {
		v = math.Round(v)
	}
	return min(max(v, p.Low), p.High)
}

// appendValue appends the value at u as JSON.
func (p Parameter) appendValue(dst []byte, u float64) []byte {
	v := p.value(u)
	if p.Type == Int {
		return rawjson.AppendInt(dst, int64(v))
	}
	return rawjson.AppendFloat(dst, v)
}
